//! `/healthz`, `/readyz` and `/metrics`: for operators and orchestrators, without a token.

use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use nixgate_core::distribution::{Error, ErrorKind};
use tokio::sync::Mutex;

use super::App;
use super::answer::{self, Body};
use crate::telemetry::metrics::DiskLabels;

/// The process answers.
pub(super) const LIVE: &str = "/healthz";
/// New images can be built.
pub(super) const READY: &str = "/readyz";
/// The counters.
pub(super) const METRICS: &str = "/metrics";

/// For how long an answer holds: anybody may ask, and each time takes a process and a write.
const HOLDS: Duration = Duration::from_secs(5);
/// For how long storage is waited for.
const PROBE: Duration = Duration::from_secs(10);

/// Whether the builder was ready when that was last asked, and when.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Result<(), Error>)>>);

/// Whether a path is for who looks after the builder, and for no client.
pub(super) fn is_about(path: &str) -> bool {
    matches!(path, LIVE | READY | METRICS)
}

/// The process answers.
pub(super) fn live() -> Response<Body> {
    answer::json(200, br#"{"status":"live"}"#.to_vec())
}

impl App {
    /// New images can be built: the disks have room, storage is writable and Nix's store answers.
    pub(super) async fn ready(&self) -> Result<Response<Body>, Error> {
        // Held while asking: whoever comes meanwhile gets the same answer.
        let mut last = self.readiness.0.lock().await;
        let result = match &*last {
            Some((asked, result)) if asked.elapsed() < HOLDS => result.clone(),
            _ => {
                let result = self.ask_all().await;
                *last = Some((Instant::now(), result.clone()));
                result
            }
        };
        match result {
            Ok(()) => Ok(answer::json(200, br#"{"status":"ready"}"#.to_vec())),
            // For now, and not as for one who asks for an image.
            Err(error) if error.kind == ErrorKind::TooBusy => {
                tracing::warn!(path = "/readyz", "{error}");
                Ok(answer::json(503, error.body()))
            }
            Err(error) => Err(error),
        }
    }

    async fn ask_all(&self) -> Result<(), Error> {
        self.engine.disks.check()?;
        let unready = |reason: String| Error::new(ErrorKind::BuilderUnready, reason);
        // A store that is away is tried again and again; nobody who asks for readiness waits so
        // long.
        tokio::time::timeout(PROBE, self.engine.storage.probe())
            .await
            .map_err(|_| unready(format!("storage did not answer in {} s", PROBE.as_secs())))?
            .map_err(|error| unready(error.to_string()))?;
        let nix = self.engine.nix.ask_store().await;
        nix.map_err(|error| unready(error.to_string()))
    }

    pub(super) fn metrics_page(&self) -> Result<Response<Body>, Error> {
        for (place, bytes) in self.engine.disks.free() {
            let place = place.label();
            let free = self
                .engine
                .metrics
                .free_bytes
                .get_or_create(&DiskLabels { place });
            free.set(bytes.try_into().unwrap_or(i64::MAX));
        }
        let text = self
            .engine
            .metrics
            .text()
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let headers = [(CONTENT_TYPE, media_type.to_owned())];
        Ok(answer::with_headers(
            StatusCode::OK,
            headers,
            answer::whole(text),
        ))
    }
}
