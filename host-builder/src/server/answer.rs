//! Making responses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use nixgate_core::distribution::{Error, ErrorKind};

use crate::negative_ttl;
use crate::storage::StorageError;
use crate::telemetry::redact::{redact, redact_value};

/// A response's body. Not `Sync`: a stream from storage isn't.
pub(super) type Body = UnsyncBoxBody<Bytes, StorageError>;

/// A body that is there as a whole.
pub(super) fn whole(content: impl Into<Bytes>) -> Body {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A response with headers whose values are known to be fit for it; one that isn't is a defect,
/// and leaves the header out.
pub(super) fn with_headers<const N: usize>(
    status: StatusCode,
    headers: [(HeaderName, String); N],
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// JSON.
pub(super) fn json(status: u16, body: Vec<u8>) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_headers(
        status,
        [(CONTENT_TYPE, "application/json".to_owned())],
        whole(body),
    )
}

/// `Cache-Control` for an answer that holds for some time.
pub(super) fn max_age(seconds: u64) -> (HeaderName, String) {
    (CACHE_CONTROL, format!("max-age={seconds}"))
}

/// `Cache-Control` for what is named by its own digest.
pub(super) fn immutable() -> (HeaderName, String) {
    (CACHE_CONTROL, "max-age=31536000, immutable".to_owned())
}

/// An error in answer to a request for this path, which the builder would find out again.
pub(super) fn error(error: &Error, path: &str) -> Response<Body> {
    error_for(error, negative_ttl::hold_for(path))
}

/// An error, which may be repeated for so long if it is one that lasts.
pub(super) fn error_for(error: &Error, holds: Duration) -> Response<Body> {
    let mut response = json(error.status(), for_clients(error).body());
    let cache = match error.kind.lasts() {
        true => format!("max-age={}", holds.as_secs()),
        false => "no-store".to_owned(),
    };
    if let Ok(cache) = HeaderValue::try_from(cache) {
        response.headers_mut().insert(CACHE_CONTROL, cache);
    }
    if error.kind.is_transient() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("10"));
    }
    if error.status() == 405 {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// What a client is told: no secret, and nothing of this machine. Messages about that hold paths,
/// addresses, and what programs printed: they are for the log.
pub(super) fn for_clients(error: &Error) -> Error {
    let message = match error.kind {
        ErrorKind::BuilderUnready | ErrorKind::BuildBroken => {
            "the builder is up, and something that it needs (Nix, memory, disks, storage or the \
             package source) does not work: try again in a while; the registry's administrator \
             finds the reason in the builder's log"
        }
        ErrorKind::Internal => {
            "the builder failed in a way that it should not: the registry's administrator finds \
             the reason in the builder's log"
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

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_wrong_with_the_machine_is_not_told_to_clients() {
        for kind in [
            ErrorKind::BuilderUnready,
            ErrorKind::BuildBroken,
            ErrorKind::Internal,
        ] {
            let cause = Error::new(kind, "can't read /srv/secret at http://user:pw@host")
                .with_detail("/srv/secret".into());
            let body = error(&cause, "/").into_body().collect().await.unwrap();
            let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            assert!(!text.contains("secret") && !text.contains("pw"), "{text}");
            assert!(text.contains("log"), "{text}");
        }
        let failed = Error::new(ErrorKind::BuildFailed, "the last lines of the build");
        let body = error(&failed, "/").into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), failed.body());
    }

    #[test]
    fn no_secret_is_told_to_clients() {
        let url = "https://host/x?private_token=abcdef";
        let error = Error::new(ErrorKind::BuildFailed, url).with_detail(json!({ "at": [url] }));
        let told = for_clients(&error);
        for text in [told.message, told.detail.to_string()] {
            assert!(
                text.contains("[redacted]") && !text.contains("abcdef"),
                "{text}"
            );
        }
    }

    #[test]
    fn refusals_of_different_images_end_at_different_times() {
        let unknown = Error::new(ErrorKind::ManifestUnknown, "unknown");
        let ages: BTreeSet<String> = (0..100)
            .map(|number| {
                let response = error(&unknown, &format!("/v2/a-{number}/manifests/latest"));
                let age = response.headers()[CACHE_CONTROL].to_str().unwrap();
                age.to_owned()
            })
            .collect();
        let all = (30..45).map(|seconds| format!("max-age={seconds}"));
        assert_eq!(ages, all.collect());
    }

    #[test]
    fn a_refusal_that_is_remembered_is_repeated_for_what_is_left_and_a_hiccup_is_not() {
        let left = Duration::from_millis(7800);
        for (kind, cache) in [
            (ErrorKind::BuildFailed, "max-age=7"),
            (ErrorKind::BuilderUnready, "no-store"),
            // The builder alone remembers it: an edge that has the image serves it on.
            (ErrorKind::BuildBroken, "no-store"),
        ] {
            let response = error_for(&Error::new(kind, "failed"), left);
            assert_eq!(response.headers()[CACHE_CONTROL], cache);
        }
    }
}
