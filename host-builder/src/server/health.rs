//! `/healthz`, `/readyz` and `/metrics`: for operators and orchestrators, without a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use nixgate_core::distribution::{Error, ErrorKind};
use serde_json::json;
use tokio::sync::Mutex;

use super::App;
use super::error::HttpError;
use super::headers::JSON;
use crate::telemetry::metrics::DiskLabels;

const READY: &str = "/readyz";
/// How long a result is reused: everyone may ask, and each check runs a process and writes to storage.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long the check waits for storage.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// When readiness was checked last, and the result.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Result<(), Error>)>>);

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", any(live))
        .route(READY, any(ready))
        .route("/metrics", any(metrics))
}

async fn live() -> impl IntoResponse {
    (JSON, r#"{"status":"live"}"#)
}

/// The builder can build new images: the disks have room, storage is writable, Nix's store answers,
/// and the package set is not known to be unusable.
async fn ready(State(app): State<Arc<App>>) -> Result<Response, HttpError> {
    // Locked during the check, so that concurrent requests share its result.
    let mut last = app.readiness.0.lock().await;
    let result = match &*last {
        Some((checked, result)) if checked.elapsed() < CHECK_EVERY => result.clone(),
        _ => {
            let result = app.check().await;
            *last = Some((Instant::now(), result.clone()));
            result
        }
    };
    match result {
        Ok(()) => Ok((JSON, app.ready_text()).into_response()),
        // 503, and not the 429 for a client that asks for an image.
        Err(error) if error.kind == ErrorKind::TooBusy => {
            tracing::warn!(path = READY, "{error}");
            Ok((StatusCode::SERVICE_UNAVAILABLE, JSON, error.body()).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, HttpError> {
    let metrics = &app.engine.metrics;
    for (place, bytes) in app.engine.disks.free() {
        let labels = DiskLabels {
            place: place.label(),
        };
        let free = metrics.free_bytes.get_or_create(&labels);
        free.set(bytes.try_into().unwrap_or(i64::MAX));
    }
    let text = metrics.text();
    let text = text.map_err(|error| HttpError::internal(error.to_string()))?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, content_type)], text))
}

impl App {
    /// That it is ready, and what was wrong with binary caches lately: without them it builds, or refuses.
    fn ready_text(&self) -> String {
        let troubles = self.engine.nix.cache_troubles().into_iter();
        let troubles = troubles.map(|(age, trouble)| {
            json!({
                "cache": trouble.cache,
                "failed": trouble.kind.label(),
                "path": trouble.path,
                "reason": trouble.reason,
                "seconds_ago": age.as_secs(),
            })
        });
        let troubles: Vec<_> = troubles.collect();
        match troubles.is_empty() {
            true => json!({ "status": "ready" }),
            false => json!({ "status": "ready", "caches": troubles }),
        }
        .to_string()
    }

    async fn check(&self) -> Result<(), Error> {
        let unready = |reason: String| Error::new(ErrorKind::BuilderUnready, reason);
        self.engine.disks.check()?;
        // Requests to a store that is down are retried for longer than anyone waits for readiness.
        let probe = tokio::time::timeout(STORAGE_TIMEOUT, self.engine.storage.probe());
        let seconds = STORAGE_TIMEOUT.as_secs();
        probe
            .await
            .map_err(|_| unready(format!("storage did not answer in {seconds} s")))??;
        let nix = self.engine.nix.ask_store().await;
        nix.map_err(|error| unready(error.to_string()))?;
        self.engine
            .sources
            .fault()
            .map_or(Ok(()), |fault| Err(fault.into()))
    }
}
