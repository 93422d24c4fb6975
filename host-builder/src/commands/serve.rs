//! `nixgate serve`: runs the server until a signal stops it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nixgate_core::distribution::Tag;
use tokio::net::TcpListener;

use crate::config::Settings;
use crate::engine::Engine;
use crate::login::Login;
use crate::process::file_limit;
use crate::server::{App, ConnectionLimit, Images, Readiness, Website};
use crate::source::Sources;

/// How long the first fetch of a package set may take. After it, requests fetch.
const FIRST_FETCH_TIMEOUT: Duration = Duration::from_secs(3600);

/// Serves until `stop` is done.
///
/// # Errors
/// When the builder can't start; the error says what to do.
pub(crate) async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<()> {
    let limit = ConnectionLimit::new(settings.max_connections, file_limit::raise());
    tokio::pin!(stop);
    // The start takes minutes when a package set has to be fetched.
    let (app, listener) = tokio::select! {
        started = start(settings) => started?,
        () = &mut stop => return Ok(()),
    };
    app.serve(listener, limit, stop).await;
    Ok(())
}

async fn start(settings: Settings) -> Result<(Arc<App>, TcpListener)> {
    let engine = Engine::open(settings.build).await?;
    let website = settings.web_dir.as_deref().map(Website::open);
    let website = website.transpose()?.map(Arc::new);
    let login = Login::open(settings.login, &engine.state.token_key())?;
    fetch_package_set(&engine.sources);
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "can't listen on {}. Stop the other program that listens there, or choose another PORT",
            settings.listen
        )
    })?;
    let making = engine.indexes.clone().keep_making(engine.settings.system);
    let making = tokio::spawn(making);
    tokio::spawn(async move {
        if let Err(error) = making.await {
            tracing::error!(%error, "no index of the package set is made any more. Report this");
        }
    });
    tracing::info!(address = %listener.local_addr()?, "the builder is ready");
    let app = Arc::new(App {
        engine,
        access: settings.access,
        login,
        images: Images::default(),
        readiness: Readiness::default(),
        website,
    });
    Ok((app, listener))
}

/// Starts to fetch the package set, so that the first client waits less, errors are in the log early, and
/// its index is begun.
fn fetch_package_set(sources: &Sources) {
    let sources = sources.clone();
    // `Sources` logs errors.
    tokio::spawn(async move {
        sources
            .pin(&Tag::latest(), FIRST_FETCH_TIMEOUT)
            .await
            .map(drop)
    });
}
