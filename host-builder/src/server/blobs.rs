//! `GET /v2/<name>/blobs/<digest>`
//!
//! A digest opens nothing by itself: a blob is there under a name only when an image of that name
//! has it (`images`). What an image has and storage has not was lost there, and is made again
//! (`lost_blobs`).

use futures::stream::TryStreamExt;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RANGE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use nixgate_core::distribution::{Digest, Error, ErrorKind, Repository};
use nixgate_core::wire::Preferences;

use super::App;
use super::answer::{self, Body};
use super::facts;
use super::lost_blobs;
use super::manifests::{preferences, unready};
use super::range::{self, Range};
use crate::builder::Builder;
use crate::storage::{Key, Location};

impl<B: Builder> App<B> {
    pub(super) async fn blob(
        &self,
        request: &Request<Incoming>,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Response<Body>, Error> {
        let rules = facts::rules_of(request)?;
        let unknown = || {
            let message = format!("no image of this name has the blob {digest}");
            Error::new(ErrorKind::BlobUnknown, message)
        };
        let wanted = self.wanted_or(repository, unknown)?;
        let folder = self.link_folder(&wanted);
        let images = self.images.with_blob(&self.storage, &folder, digest).await;
        let images = images.map_err(unready)?;
        let size = images.first().and_then(|image| image.record.size(digest));
        let size = size.ok_or_else(unknown)?;
        let key = Key::blob(digest);
        if !self.stored(&key, size).await? {
            let again = self.make_again(request, &wanted, digest).await?;
            if let Some(instead) = again {
                return Ok(instead);
            }
            if !self.stored(&key, size).await? {
                return Err(lost_blobs::lost(digest));
            }
        }
        let mut response = self.located(request, digest, &key, size).await?;
        // Who prefers anything is the edge, which strips clients of it. A client whose request it let through is told
        // nothing of other images, nor of the policy's rules.
        let is_edge = preferences(request) != Preferences::default();
        if is_edge && !response.status().is_client_error() {
            facts::add_facts(&mut response, images, &rules);
        }
        Ok(response)
    }

    /// Where a blob is that is there, or its bytes.
    async fn located(
        &self,
        request: &Request<Incoming>,
        digest: &Digest,
        key: &Key,
        size: u64,
    ) -> Result<Response<Body>, Error> {
        let located = self.storage.locate(key, request.method().clone()).await;
        match located.map_err(unready)? {
            Location::Redirect { url, max_age } => {
                let headers = [(LOCATION, url), answer::max_age(max_age.as_secs())];
                let status = StatusCode::TEMPORARY_REDIRECT;
                Ok(answer::with_headers(status, headers, answer::whole("")))
            }
            Location::Here if preferences(request).minimal => {
                let applied = HeaderName::from_static("preference-applied");
                let headers = [(applied, "return=minimal".to_owned()), answer::immutable()];
                Ok(answer::with_headers(
                    StatusCode::NO_CONTENT,
                    headers,
                    answer::whole(""),
                ))
            }
            Location::Here => self.bytes(request, digest, key, size).await,
        }
    }

    async fn bytes(
        &self,
        request: &Request<Incoming>,
        digest: &Digest,
        key: &Key,
        size: u64,
    ) -> Result<Response<Body>, Error> {
        let range = request
            .headers()
            .get(RANGE)
            .and_then(|value| value.to_str().ok());
        let (status, start, end) = match range::parse(range, size) {
            Range::Whole => (StatusCode::OK, 0, size),
            Range::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
            Range::NotSatisfiable => {
                let headers = [(CONTENT_RANGE, format!("bytes */{size}"))];
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                return Ok(answer::with_headers(status, headers, answer::whole("")));
            }
        };
        let body = if *request.method() == Method::HEAD || start == end {
            answer::whole("")
        } else {
            let stream = self.storage.read(key, start, end).await.map_err(unready)?;
            StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
        };
        let headers = [
            // What a blob is, its manifest says; here it is bytes.
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_LENGTH, (end - start).to_string()),
            (ACCEPT_RANGES, "bytes".to_owned()),
            (
                HeaderName::from_static("docker-content-digest"),
                digest.to_string(),
            ),
            (ETAG, format!("\"{digest}\"")),
            answer::immutable(),
        ];
        let mut response = answer::with_headers(status, headers, body);
        if status == StatusCode::PARTIAL_CONTENT {
            let part = format!("bytes {start}-{}/{size}", end - 1);
            if let Ok(part) = part.try_into() {
                response.headers_mut().insert(CONTENT_RANGE, part);
            }
        }
        Ok(response)
    }
}
