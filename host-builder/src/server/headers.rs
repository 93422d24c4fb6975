//! Headers that several endpoints read or send.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use nixgate_core::distribution::Digest;
use nixgate_core::wire::{self, Preferences};

const PREFER: HeaderName = HeaderName::from_static(wire::PREFER);
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// `axum::Json` is not used: its feature turns on `raw_value` of serde_json for the whole program, with which
/// a crafted object is read as the JSON in a string of it.
pub(super) const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];
/// How long a request waits for its image, in seconds, when it doesn't say.
const DEFAULT_WAIT: u64 = 20;
/// The longest wait, in seconds, whatever a request says.
const MAX_WAIT: u64 = 60;

/// The values of a header that are text.
pub(super) fn texts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok())
}

pub(super) fn preferences(headers: &HeaderMap) -> Preferences {
    Preferences::parse(texts(headers, PREFER))
}

/// When a request has to be answered, finished image or not.
pub(super) fn deadline(headers: &HeaderMap) -> Instant {
    let wait = preferences(headers).wait.unwrap_or(DEFAULT_WAIT);
    Instant::now() + Duration::from_secs(wait.min(MAX_WAIT))
}

pub(super) fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// `ETag` of a manifest or a blob.
pub(super) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// `Cache-Control` of a response that edge and clients may repeat for some time.
pub(super) fn max_age(lifetime: Duration) -> (HeaderName, String) {
    (CACHE_CONTROL, format!("max-age={}", lifetime.as_secs()))
}

/// `Cache-Control` of content that is named by its digest.
pub(super) fn immutable() -> (HeaderName, String) {
    (CACHE_CONTROL, "max-age=31536000, immutable".to_owned())
}

pub(super) fn no_store() -> (HeaderName, String) {
    (CACHE_CONTROL, "no-store".to_owned())
}
