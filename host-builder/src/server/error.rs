//! Errors of the registry API, as HTTP responses.
//!
//! A handler returns an [`HttpError`], and axum makes a response of it. [`log_errors`], which knows the
//! request, logs the error, says how long the response may be cached, and notes the status that the edge
//! gets in place of the client's. [`for_the_edge`] exchanges the two.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::wire;

use super::headers::{JSON, max_age, no_store};
use crate::negative_ttl;
use crate::telemetry::logging::chain;
use crate::telemetry::redact::{redact, redact_value};

/// An error that ends a request.
#[derive(Clone, Debug)]
pub(super) struct HttpError {
    pub(super) error: Error,
    /// How long it may be cached. When not given, the path decides ([`negative_ttl`]).
    pub(super) max_age: Option<Duration>,
}

impl HttpError {
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message).into()
    }
}

impl<E: Into<Error>> From<E> for HttpError {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            max_age: None,
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = render(&self.error);
        response.extensions_mut().insert(self);
        response
    }
}

/// Middleware: logs the error of a response, and sets its `Cache-Control`.
pub(super) async fn log_errors(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let reads_status = request.headers().contains_key(wire::STATUS);
    let mut response = next.run(request).await;
    if let Some(HttpError { error, max_age }) = response.extensions_mut().remove() {
        log(uri.path(), &error);
        response = ([cache_control(&error, max_age, uri.path())], response).into_response();
        if reads_status && !error.kind.is_fault_of_the_builder() {
            response.extensions_mut().insert(NoFault);
        }
    }
    response
}

/// Marks the response to the edge for an error that is no fault of the builder.
#[derive(Clone, Copy)]
struct NoFault;

/// The status that Envoy gets for an error that is no fault of the builder, and the client's beside it, if
/// that is a 5xx ([`wire::NO_FAULT`]).
pub(super) fn for_the_edge(mut response: Response) -> Response {
    let is_no_fault = response.extensions_mut().remove::<NoFault>().is_some();
    let status = response.status();
    if is_no_fault && status.is_server_error() {
        *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        let status = HeaderValue::from(status.as_u16());
        response.headers_mut().insert(wire::STATUS, status);
    }
    response
}

/// Logs a fault of this machine as an error, and a task for the administrator as a warning. A failed
/// build is neither, because the build has logged it already.
fn log(path: &str, error: &Error) {
    const MESSAGE: &str = "a request was refused";
    let (kind, text) = (error.kind, chain(error));
    match (error.status(), kind) {
        (503, _) | (_, ErrorKind::Internal) => {
            tracing::error!(path, ?kind, error = text, "{MESSAGE}");
        }
        (_, ErrorKind::Denied) => tracing::warn!(path, ?kind, error = text, "{MESSAGE}"),
        _ => tracing::info!(path, ?kind, error = text, "{MESSAGE}"),
    }
}

fn cache_control(error: &Error, lifetime: Option<Duration>, path: &str) -> (HeaderName, String) {
    match error.kind.lasts() {
        true => max_age(lifetime.unwrap_or_else(|| negative_ttl::hold_for(path))),
        false => no_store(),
    }
}

/// The response for an error, without `Cache-Control`.
pub(super) fn render(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, JSON, public(error).body()).into_response();
    let headers = response.headers_mut();
    if error.kind.is_transient() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("10"));
    }
    if error.kind == ErrorKind::MethodUnsupported {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    let refused = match error.kind {
        ErrorKind::TokenRefused => Some(wire::REFUSES_TOKEN),
        ErrorKind::SignatureOutdated => Some(wire::REFUSES_TIME),
        _ => None,
    };
    if let Some(refused) = refused {
        headers.insert(wire::REFUSES, HeaderValue::from_static(refused));
    }
    response
}

/// The error as clients may read it. Messages about this machine contain paths, addresses and output of
/// programs, so they stay in the log; secrets are redacted in all others.
pub(super) fn public(error: &Error) -> Error {
    let message = match error.kind {
        ErrorKind::BuilderUnready | ErrorKind::BuildBroken => {
            "something that the builder needs does not work (Nix, memory, disks, storage or the \
             package source). Try again later; the registry's administrator finds the reason in the \
             builder's log"
        }
        ErrorKind::Internal => {
            "the builder has a defect. The registry's administrator finds the reason in the \
             builder's log"
        }
        _ => {
            let detail = redact_value(error.detail.clone());
            return Error::new(error.kind, redact(&error.message)).with_detail(detail);
        }
    };
    Error::new(error.kind, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;

    async fn body(error: &Error) -> Vec<u8> {
        let body = HttpError::from(error.clone()).into_response().into_body();
        to_bytes(body, usize::MAX).await.unwrap().to_vec()
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_machine_is_not_told_to_clients() {
        for kind in [
            ErrorKind::BuilderUnready,
            ErrorKind::BuildBroken,
            ErrorKind::Internal,
        ] {
            let cause = Error::new(kind, "can't read /srv/secret at http://user:pw@host")
                .with_detail("/srv/secret".into());
            let text = String::from_utf8(body(&cause).await).unwrap();
            assert!(!text.contains("secret") && !text.contains("pw"), "{text}");
            assert!(text.contains("log"), "{text}");
        }
        let failed = Error::new(ErrorKind::BuildFailed, "the last lines of the build");
        assert_eq!(body(&failed).await, failed.body());
    }

    #[tokio::test]
    async fn only_the_edge_gets_another_status_and_only_for_what_is_no_fault_of_the_builder() {
        for (kind, reads_status, seen) in [
            (ErrorKind::BuildFailed, true, (403, None)),
            (ErrorKind::BuildTimedOut, true, (403, None)),
            (ErrorKind::BuildBroken, true, (422, Some("503"))),
            (ErrorKind::PackageAltered, true, (422, Some("503"))),
            (ErrorKind::BuilderUnready, true, (503, None)),
            (ErrorKind::Internal, true, (500, None)),
            (ErrorKind::TooBusy, true, (429, None)),
            (ErrorKind::BuildFailed, false, (403, None)),
        ] {
            let fails = async move || HttpError::from(Error::new(kind, "failed"));
            let router = Router::new().fallback(fails).layer(from_fn(log_errors));
            let mut request = Request::new(Body::empty());
            if reads_status {
                let accepted = HeaderValue::from_static(wire::STATUS_ACCEPTED);
                request.headers_mut().insert(wire::STATUS, accepted);
            }
            let response = for_the_edge(router.oneshot(request).await.unwrap());
            let status = response.headers().get(wire::STATUS);
            let status = status.map(|status| status.to_str().unwrap());
            assert_eq!((response.status().as_u16(), status), seen, "{kind:?}");
            assert_eq!(wire::NO_FAULT, StatusCode::UNPROCESSABLE_ENTITY.as_u16());
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body, public(&Error::new(kind, "failed")).body());
        }
    }

    #[test]
    fn no_secret_is_told_to_clients() {
        let url = "https://host/x?private_token=abcdef";
        let error = Error::new(ErrorKind::BuildFailed, url).with_detail(json!({ "at": [url] }));
        let public = public(&error);
        for text in [public.message, public.detail.to_string()] {
            assert!(
                text.contains("[redacted]") && !text.contains("abcdef"),
                "{text}"
            );
        }
    }

    #[test]
    fn refusals_of_different_images_end_at_different_times() {
        let unknown = Error::new(ErrorKind::ManifestUnknown, "unknown");
        let ages: BTreeSet<_> = (0..100)
            .map(|number| {
                let path = format!("/v2/a-{number}/manifests/latest");
                cache_control(&unknown, None, &path).1
            })
            .collect();
        let all = (30..45).map(|seconds| max_age(Duration::from_secs(seconds)).1);
        assert_eq!(ages, all.collect());
    }

    #[test]
    fn a_refusal_that_is_remembered_is_repeated_for_what_is_left_and_a_hiccup_is_not() {
        let left = Duration::from_millis(7800);
        for (kind, expected) in [
            (ErrorKind::BuildFailed, "max-age=7"),
            (ErrorKind::BuilderUnready, "no-store"),
            // Only the builder remembers it: an edge that has the image still serves it.
            (ErrorKind::BuildBroken, "no-store"),
        ] {
            let error = Error::new(kind, "failed");
            assert_eq!(cache_control(&error, Some(left), "/").1, expected);
        }
    }
}
