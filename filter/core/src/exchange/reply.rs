//! Answers that the edge sends itself.

use std::rc::Rc;

use super::record::{Outcome, Record};
use crate::Seconds;
use crate::cache::Content;
use crate::distribution::{Error, INDEX_MEDIA_TYPE, no_referrers};
use crate::wire;

/// When a client may repeat a request that failed temporarily, in seconds.
const RETRY_AFTER: &str = "10";
/// RFC 7234, 5.5.1. RFC 9111 has retired the header, but people still read it.
const STALE: &str = "110 - \"Response is Stale\"";
pub(super) const JSON: &str = "application/json";

/// A whole response. The host adds `Content-Length`, and drops the body for `HEAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header names are lowercase.
    pub headers: Vec<(&'static str, String)>,
    /// The body, also for `HEAD`.
    pub body: Rc<[u8]>,
    /// For counters and the access log.
    pub record: Record,
}

impl Reply {
    pub(super) fn new(
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: impl Into<Rc<[u8]>>,
    ) -> Self {
        Self {
            status,
            headers,
            body: body.into(),
            record: Record::other(Outcome::of_status(status)),
        }
    }

    /// Approximate size in bytes, without the body, which replies share.
    pub fn bytes_of_its_own(&self) -> usize {
        /// Pointer, length, capacity and the allocator's overhead.
        const EACH: usize = 32;
        let headers = self.headers.iter();
        let headers = headers.map(|(_, value)| value.len().saturating_add(EACH));
        headers
            .sum::<usize>()
            .saturating_add(size_of::<Self>())
            .saturating_add(self.record.image.len())
    }

    pub(super) const fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.record.outcome = outcome;
        self
    }

    /// The answer to `/v2/`.
    pub(super) fn base() -> Self {
        let version = ("docker-distribution-api-version", "registry/2.0".to_owned());
        Self::new(
            200,
            vec![version, ("content-type", JSON.to_owned())],
            *b"{}",
        )
        .with_outcome(Outcome::Answered)
    }

    /// An empty list of referrers.
    pub(super) fn no_referrers() -> Self {
        let headers = vec![("content-type", INDEX_MEDIA_TYPE.to_owned())];
        Self::new(200, headers, no_referrers()).with_outcome(Outcome::Answered)
    }

    /// For a client that has the manifest already.
    pub(super) fn not_modified(digest: &str) -> Self {
        Self::new(304, identity(digest).to_vec(), [])
    }

    /// Marks the reply as stale.
    pub(super) fn stale(mut self) -> Self {
        self.headers.push(("warning", STALE.to_owned()));
        self.with_outcome(Outcome::Stale)
    }

    /// An error, as JSON.
    pub fn error(error: &Error) -> Self {
        let mut headers = vec![("content-type", JSON.to_owned())];
        if error.kind.is_transient() {
            headers.push(("retry-after", RETRY_AFTER.to_owned()));
        }
        if error.status() == 405 {
            headers.push(("allow", "GET, HEAD".to_owned()));
        }
        Self::new(error.status(), headers, error.body())
    }

    /// An answer of the builder. A blob that the builder streams has no body here: its request is
    /// forwarded.
    pub(super) fn content(content: &Content) -> Self {
        match content {
            Content::Document {
                media_type,
                digest,
                source,
                body,
            } => {
                let mut headers = vec![("content-type", media_type.clone())];
                if let Some(digest) = digest {
                    headers.extend(identity(digest));
                }
                // The manifest's annotations have it as well.
                headers.extend(source.clone().map(|source| (wire::SOURCE, source)));
                Self::new(200, headers, Rc::clone(body))
            }
            Content::Redirect { location } => {
                Self::new(307, vec![("location", location.clone())], [])
            }
            Content::Refusal { status, body } => Self::new(
                *status,
                vec![("content-type", JSON.to_owned())],
                Rc::clone(body),
            ),
            Content::Stream => Self::new(204, Vec::new(), []),
        }
    }

    /// Redirects a client to the same path, which resets its timeout for the headers.
    pub(super) fn redirect_to_self(location: &str) -> Self {
        let headers = vec![
            ("location", location.to_owned()),
            ("cache-control", "no-store".to_owned()),
        ];
        Self::new(307, headers, []).with_outcome(Outcome::Redirected)
    }

    /// The builder's temporary refusal, unchanged.
    pub(super) fn later(status: u16, after: Seconds, body: &[u8]) -> Self {
        let headers = vec![
            ("content-type", JSON.to_owned()),
            ("retry-after", after.to_string()),
        ];
        Self::new(status, headers, body)
    }
}

/// The headers that identify a manifest.
fn identity(digest: &str) -> [(&'static str, String); 2] {
    [
        ("docker-content-digest", digest.to_owned()),
        ("etag", format!("\"{digest}\"")),
    ]
}
