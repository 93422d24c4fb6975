//! `nixgate serve`: answers the edge until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nixgate_core::distribution::Tag;
use tokio::net::TcpListener;

use crate::config::Settings;
use crate::engine::Engine;
use crate::login::Login;
use crate::process::file_limit;
use crate::server::{App, Bound, Images, Readiness};
use crate::source::{Source, Sources};

/// How long what is done at the start may take before it is left to the requests.
const AT_START: Duration = Duration::from_secs(3600);

/// Serves until `stop` is done.
///
/// # Errors
/// When the builder can't start; the error says what to do.
pub(crate) async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<()> {
    let bound = Bound::new(settings.max_connections, file_limit::raise());
    tokio::pin!(stop);
    // To start may take minutes, when the package set has to be fetched.
    let (app, listener) = tokio::select! {
        started = start(settings) => started?,
        () = &mut stop => return Ok(()),
    };
    app.serve(listener, bound, stop).await;
    Ok(())
}

async fn start(settings: Settings) -> Result<(Arc<App>, TcpListener)> {
    let engine = Engine::open(settings.build).await?;
    let login = Login::open(settings.login, &engine.state.token_key())?;
    fetch_early(&engine.sources);
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "can't listen on {}: is another builder running? Choose another PORT",
            settings.listen
        )
    })?;
    tracing::info!(address = %listener.local_addr()?, "the builder is ready");
    let app = Arc::new(App {
        engine,
        access: settings.access,
        login,
        images: Images::default(),
        readiness: Readiness::default(),
    });
    Ok((app, listener))
}

/// Fetches a package set that is elsewhere before the first client asks for it; what goes wrong is
/// in the log early, too.
fn fetch_early(sources: &Sources) {
    if matches!(sources.source(), Source::Path { .. }) {
        return;
    }
    let sources = sources.clone();
    // What goes wrong is logged where it happens.
    tokio::spawn(async move { sources.pin(&Tag::latest(), AT_START).await.map(drop) });
}
