//! `GET /v2/<name>/blobs/<digest>`
//!
//! A digest alone opens nothing: a client gets a blob only under the name of an image that has it
//! (`images.rs`). A blob that an image has and storage has lost is built again (`lost_blobs.rs`).
//!
//! `conditions.rs` and `range.rs` decide whether, and which part of, a blob is sent.

use std::future::ready;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use nixgate_core::distribution::{Digest, Error, ErrorKind, Repository};
use nixgate_core::wire::{self, Preferences};

use super::App;
use super::conditions::evaluate;
use super::error::HttpError;
use super::facts::{Rules, StillLooking};
use super::headers::{CONTENT_DIGEST, entity_tag, immutable, max_age, preferences, texts};
use super::lost_blobs::lost;
use super::manifests::still_building;
use super::multipart::{BYTES, Multipart, content_range};
use super::range::Outcome;
use super::response::{response, set_header};
use crate::storage::{Key, Location, Storage, StorageError};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

impl App {
    pub(super) async fn blob(
        &self,
        request: &Parts,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Response, HttpError> {
        let rules = Rules::of(&request.headers)?;
        let unknown = || {
            let message = format!("no image of this name has the blob {digest}");
            Error::new(ErrorKind::BlobUnknown, message)
        };
        let named = self.named_image(repository, unknown)?;
        let folder = self.link_folder(&named);
        let storage = &self.engine.storage;
        let images = self.images.with_blob(storage, &folder, digest).await?;
        let size = images.first().and_then(|image| image.record.size(digest));
        let size = size.ok_or_else(unknown)?;
        let key = Key::blob(digest);
        if !self.is_stored(&key, size).await? {
            if let Some(response) = self.restore_blob(request, &named, digest).await? {
                return Ok(response);
            }
            if !self.is_stored(&key, size).await? {
                return Err(lost(digest).into());
            }
        }
        // Only the edge sends preferences, and strips them from clients. A client whose request the edge
        // let through learns nothing of other images and of the policy's rules.
        let is_edge = preferences(&request.headers) != Preferences::default();
        if !is_edge {
            return self.redirect_or_send(request, digest, &key, size).await;
        }
        let facts = match self.facts(request, images, &rules).await {
            Ok(facts) => facts,
            Err(StillLooking(elapsed)) => return still_building(request, elapsed),
        };
        let mut response = self.redirect_or_send(request, digest, &key, size).await?;
        if !response.status().is_client_error() {
            facts.add_to(response.headers_mut())?;
        }
        Ok(response)
    }

    /// The response for a blob that is in storage: its location, or its bytes.
    async fn redirect_or_send(
        &self,
        request: &Parts,
        digest: &Digest,
        key: &Key,
        size: u64,
    ) -> Result<Response, HttpError> {
        let (method, headers) = (&request.method, &request.headers);
        let is_minimal = preferences(headers).minimal;
        let outcome = evaluate(method, headers, digest, size);
        let location = match !is_minimal && is_for_the_builder(headers, &outcome, size) {
            true => Location::Here,
            false => self.engine.storage.locate(key, method.clone()).await?,
        };
        // A redirect ignores conditions: only the server that sends the bytes evaluates them
        // (RFC 9110, 13.2.1).
        if let Location::Redirect { url, max_age: age } = location {
            let headers = [(LOCATION, url), max_age(age)];
            return response(StatusCode::TEMPORARY_REDIRECT, headers, "");
        }
        if is_minimal {
            let applied = (PREFERENCE_APPLIED, "return=minimal".to_owned());
            return response(StatusCode::NO_CONTENT, [applied, immutable()], "");
        }
        self.send(method, outcome, digest, key, size).await
    }

    async fn send(
        &self,
        method: &Method,
        outcome: Outcome,
        digest: &Digest,
        key: &Key,
        size: u64,
    ) -> Result<Response, HttpError> {
        let storage = &self.engine.storage;
        let bytes = BYTES.to_owned();
        let (status, content_type, length, range) = match &outcome {
            Outcome::Whole => (StatusCode::OK, bytes, size, None),
            Outcome::Part(part) => {
                let range = content_range(part, size);
                let length = part.end - part.start;
                (StatusCode::PARTIAL_CONTENT, bytes, length, Some(range))
            }
            Outcome::Parts(parts) => {
                let (content_type, length) = (parts.content_type(), parts.length());
                (StatusCode::PARTIAL_CONTENT, content_type, length, None)
            }
            Outcome::NotSatisfiable => return range_not_satisfiable(size),
            Outcome::NotModified => {
                let headers = [(ETAG, entity_tag(digest)), immutable()];
                return response(StatusCode::NOT_MODIFIED, headers, "");
            }
            Outcome::PreconditionFailed => return Err(precondition_failed(digest).into()),
        };
        let body = match outcome {
            _ if *method == Method::HEAD || length == 0 => Body::empty(),
            Outcome::Parts(parts) => multipart(storage.clone(), key.clone(), parts),
            Outcome::Part(part) => {
                Body::from_stream(storage.read(key, part.start, part.end).await?)
            }
            _ => Body::from_stream(storage.read(key, 0, size).await?),
        };
        let headers = [
            (CONTENT_TYPE, content_type),
            (CONTENT_LENGTH, length.to_string()),
            (ACCEPT_RANGES, "bytes".to_owned()),
            (CONTENT_DIGEST, digest.to_string()),
            (ETAG, entity_tag(digest)),
            immutable(),
        ];
        let range = range.map(|range| (CONTENT_RANGE, range));
        response(status, headers.into_iter().chain(range), body)
    }
}

/// Whether the builder sends the bytes, wherever the blob is: an object store answers a request for several
/// parts with the whole blob. So a request whose parts are the whole blob is redirected.
fn is_for_the_builder(headers: &HeaderMap, outcome: &Outcome, size: u64) -> bool {
    let is_part = match outcome {
        Outcome::Parts(_) => true,
        Outcome::Part(part) => *part != (0..size),
        _ => false,
    };
    is_part && texts(headers, RANGE).any(wire::is_of_several_ranges)
}

/// The parts, one after the other: a response never has more than one open file, or one request to an
/// object store.
fn multipart(storage: Storage, key: Key, parts: Multipart) -> Body {
    let text = |text: String| stream::once(ready(Ok(Bytes::from(text))));
    let end = text(parts.end());
    let parts = stream::iter(parts.parts()).then(move |(head, part)| {
        let (storage, key) = (storage.clone(), key.clone());
        async move {
            let content = storage.read(&key, part.start, part.end).await?;
            Ok::<_, StorageError>(text(head).chain(content))
        }
    });
    Body::from_stream(parts.try_flatten().chain(end))
}

fn range_not_satisfiable(size: u64) -> Result<Response, HttpError> {
    let message = format!(
        "the blob has {size} bytes, and none of them is in the requested ranges: request bytes from 0 \
         on, or leave out Range"
    );
    let error = HttpError::from(Error::new(ErrorKind::RangeNotSatisfiable, message));
    let mut response = error.into_response();
    set_header(
        response.headers_mut(),
        CONTENT_RANGE,
        format!("bytes */{size}"),
    )?;
    Ok(response)
}

fn precondition_failed(digest: &Digest) -> Error {
    let message = format!(
        "If-Match does not name this blob, whose entity tag is {}: leave out If-Match, or request the \
         blob that it names",
        entity_tag(digest)
    );
    Error::new(ErrorKind::PreconditionFailed, message)
}
