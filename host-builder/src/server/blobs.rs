//! `GET /v2/<name>/blobs/<digest>`
//!
//! A digest opens nothing by itself: a blob is there under a name only when an image of that name
//! has it (`images`). What an image has and storage has not was lost there, and is made again
//! (`lost_blobs`).
//!
//! What of it is sent, and whether, is decided by its conditions and ranges (`conditions`, `range`).

use std::future::ready;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RANGE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use nixgate_core::distribution::{Digest, Error, ErrorKind, Repository};
use nixgate_core::wire::{self, Preferences};

use super::App;
use super::answer::{self, Body};
use super::conditions::{self, Outcome, entity_tag};
use super::facts;
use super::lost_blobs;
use super::manifests::{preferences, texts, unready};
use super::multipart::{BYTES, Multipart, content_range};
use super::range::Selection;
use crate::storage::{Key, Location, Storage, StorageError};

impl App {
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
        let images = self
            .images
            .with_blob(&self.engine.storage, &folder, digest)
            .await;
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
        let is_minimal = preferences(request).minimal;
        let (method, headers) = (request.method(), request.headers());
        let outcome = conditions::evaluate(method, headers, digest, size);
        let location = if !is_minimal && is_for_the_builder(headers, &outcome, size) {
            Location::Here
        } else {
            let located = self.engine.storage.locate(key, method.clone()).await;
            located.map_err(unready)?
        };
        match location {
            // Conditions are for who sends the bytes: a redirect is no success (RFC 9110, 13.2.1).
            Location::Redirect { url, max_age } => {
                let headers = [(LOCATION, url), answer::max_age(max_age.as_secs())];
                let status = StatusCode::TEMPORARY_REDIRECT;
                Ok(answer::with_headers(status, headers, answer::whole("")))
            }
            Location::Here if is_minimal => {
                let applied = HeaderName::from_static("preference-applied");
                let headers = [(applied, "return=minimal".to_owned()), answer::immutable()];
                Ok(answer::with_headers(
                    StatusCode::NO_CONTENT,
                    headers,
                    answer::whole(""),
                ))
            }
            Location::Here => self.send(method, outcome, digest, key, size).await,
        }
    }

    async fn send(
        &self,
        method: &Method,
        outcome: Outcome,
        digest: &Digest,
        key: &Key,
        size: u64,
    ) -> Result<Response<Body>, Error> {
        let selection = match outcome {
            Outcome::Failed => return Err(another(digest)),
            Outcome::NotModified => {
                let headers = [(ETAG, entity_tag(digest)), answer::immutable()];
                let status = StatusCode::NOT_MODIFIED;
                return Ok(answer::with_headers(status, headers, answer::whole("")));
            }
            Outcome::Selected(selection) => selection,
        };
        let (status, content_type, length, range) = match &selection {
            Selection::Whole => (StatusCode::OK, BYTES.to_owned(), size, None),
            Selection::Part(part) => {
                let (length, range) = (part.end - part.start, content_range(part, size));
                let status = StatusCode::PARTIAL_CONTENT;
                (status, BYTES.to_owned(), length, Some(range))
            }
            Selection::Parts(several) => {
                let (content_type, length) = (several.content_type(), several.length());
                (StatusCode::PARTIAL_CONTENT, content_type, length, None)
            }
            Selection::NotSatisfiable => return Ok(not_satisfiable(size)),
        };
        let body = match selection {
            _ if *method == Method::HEAD || length == 0 => answer::whole(""),
            Selection::Parts(several) => parts(self.engine.storage.clone(), key.clone(), several),
            Selection::Part(part) => self.stream(key, part).await?,
            Selection::Whole | Selection::NotSatisfiable => self.stream(key, 0..size).await?,
        };
        let headers = [
            (CONTENT_TYPE, content_type),
            (CONTENT_LENGTH, length.to_string()),
            (ACCEPT_RANGES, "bytes".to_owned()),
            (
                HeaderName::from_static("docker-content-digest"),
                digest.to_string(),
            ),
            (ETAG, entity_tag(digest)),
            answer::immutable(),
        ];
        let response = answer::with_headers(status, headers, body);
        Ok(match range {
            Some(range) => with_range(response, range),
            None => response,
        })
    }

    async fn stream(&self, key: &Key, part: Range<u64>) -> Result<Body, Error> {
        let stream = self.engine.storage.read(key, part.start, part.end).await;
        let stream = stream.map_err(unready)?;
        Ok(StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync())
    }
}

/// Whether the builder sends a blob itself, wherever it is: a store of objects answers a request for
/// several parts with the whole. Who asks for the whole in such words is sent there all the same.
fn is_for_the_builder(headers: &HeaderMap, outcome: &Outcome, size: u64) -> bool {
    let mut ranges = texts(headers, RANGE);
    let is_part = match outcome {
        Outcome::Selected(Selection::Parts(_)) => true,
        Outcome::Selected(Selection::Part(part)) => *part != (0..size),
        _ => false,
    };
    is_part && ranges.any(wire::is_of_several_ranges)
}

/// The parts, one after the other: a connection reads one file, or holds one connection to a store, at
/// a time.
fn parts(storage: Storage, key: Key, several: Multipart) -> Body {
    let text = |text: String| stream::once(ready(Ok(Bytes::from(text))));
    let end = text(several.end());
    let parts = stream::iter(several.parts()).then(move |(head, part)| {
        let (storage, key) = (storage.clone(), key.clone());
        async move {
            let content = storage.read(&key, part.start, part.end).await?;
            Ok::<_, StorageError>(text(head).chain(content))
        }
    });
    let body = parts.try_flatten().chain(end);
    StreamBody::new(body.map_ok(Frame::data)).boxed_unsync()
}

fn not_satisfiable(size: u64) -> Response<Body> {
    let message = format!(
        "the blob has {size} bytes and none of the ranges that were asked for: ask for bytes from 0 \
         on, or leave out Range"
    );
    let error = Error::new(ErrorKind::RangeNotSatisfiable, message);
    with_range(
        answer::error_for(&error, Duration::ZERO),
        format!("bytes */{size}"),
    )
}

/// What is told of a blob that is not the one that the request is for.
fn another(digest: &Digest) -> Error {
    let message = format!(
        "If-Match does not name this blob: its entity tag is {}. Leave If-Match out, or ask for the \
         blob that it names",
        entity_tag(digest)
    );
    Error::new(ErrorKind::PreconditionFailed, message)
}

fn with_range(mut response: Response<Body>, range: String) -> Response<Body> {
    if let Ok(range) = range.try_into() {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}
