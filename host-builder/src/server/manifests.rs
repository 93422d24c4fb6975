//! `GET /v2/<name>/manifests/<reference>`

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use nixgate_core::distribution::{Digest, Error, ErrorKind, MediaType, Reference, Repository, Tag};
use nixgate_core::wire::{self, Preferences};
use serde::Deserialize;

use super::App;
use super::answer::{self, Body};
use super::facts;
use super::images::Image;
use crate::builder::{Progress, suggestions};
use crate::memo::Known;
use crate::records::image_of;
use crate::storage::{Key, StorageError};

/// How long a caller is kept that doesn't say how long it wants to wait.
const DEFAULT_WAIT: u64 = 20;
/// Nobody is kept for longer, whatever they say.
const MAX_WAIT: u64 = 60;

/// For how long the edge may answer by a digest under an opaque name, in seconds.
const RECIPE_MAX_AGE: u64 = 300;

const PREFER: HeaderName = HeaderName::from_static(wire::PREFER);
const ORIGINAL_PATH: HeaderName = HeaderName::from_static(wire::ORIGINAL_PATH);
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

impl App {
    pub(super) async fn manifest(
        &self,
        request: &Request<Incoming>,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Response<Body>, Error> {
        match reference {
            Reference::Digest(digest) => self.by_digest(request, repository, digest).await,
            Reference::Tag(tag) => self.by_tag(request, repository, tag).await,
        }
    }

    async fn by_digest(
        &self,
        request: &Request<Incoming>,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Response<Body>, Error> {
        /// Both formats say in a field what they are.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: String,
        }
        let rules = facts::rules_of(request)?;
        let unknown = || {
            let message =
                format!("no image of this name has the manifest {digest}; pull it by tag");
            Error::new(ErrorKind::ManifestUnknown, message)
        };
        let wanted = self.wanted_or(repository, unknown)?;
        let name = self.link_folder(&wanted);
        let manifest = self.engine.storage.get(&Key::link(&name, digest)).await;
        let manifest = manifest.map_err(unready)?.ok_or_else(unknown)?;
        let image = image_of(&manifest);
        let image = self.images.image(&self.engine.storage, &name, &image).await;
        let image = image.map_err(unready)?.ok_or_else(unknown)?;
        let Typed { media_type } = serde_json::from_slice(&manifest).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!("the stored manifest {digest} is damaged: {error}"),
            )
        })?;
        let cache = match wanted.recipe {
            None => answer::immutable(),
            // What it leads to never changes; whether it may be had ends with the recipe.
            Some(_) => answer::max_age(RECIPE_MAX_AGE),
        };
        let mut response = found(&media_type, manifest, cache);
        facts::add_facts(&mut response, vec![image], &rules);
        Ok(response)
    }

    async fn by_tag(
        &self,
        request: &Request<Incoming>,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Response<Body>, Error> {
        let rules = facts::rules_of(request)?;
        let wanted = self.engine.wanted(repository)?;
        let (wait, started) = (wait_of(request), Instant::now());
        let (pin, holds) = match self.engine.sources.pin(tag, wait).await? {
            Known::Value(pin, holds) => (pin, holds),
            Known::Pending(elapsed) => return Ok(still_building(request, elapsed)),
        };
        let wait = wait.saturating_sub(started.elapsed());
        let source = format!("{} {}", self.engine.sources.source().kind(), pin.revision);
        let image = self.engine.image(pin, &wanted);
        let rule = self.access.rule_of(request.headers());
        let name = image.link_folder();
        let media_type = MediaType::negotiate(texts(request.headers(), ACCEPT));
        let key = image.manifest_key(media_type);
        let (manifest, image) = match self.stored_image(&key, &name, tag).await? {
            Some(stored) => stored,
            None => match self.engine.builds.build(image, rule, wait).await {
                Progress::Running(elapsed) => return Ok(still_building(request, elapsed)),
                Progress::Failed(error, holds) => {
                    let error = suggestions::told(error, preferences(request).similar);
                    return Ok(failed(request, &error, holds));
                }
                Progress::Done => self.published(&key, &name, tag).await?,
            },
        };
        let max_age = answer::max_age(holds.as_secs());
        let mut response = found(media_type.as_str(), manifest, max_age);
        if let Ok(source) = HeaderValue::try_from(source) {
            response.headers_mut().insert(wire::SOURCE, source);
        }
        facts::add_facts(&mut response, vec![image], &rules);
        Ok(response)
    }

    /// An image's manifest and what is known of it, when both are there: who may have it can't be
    /// told by the manifest alone.
    async fn stored_image(
        &self,
        key: &Key,
        name: &str,
        tag: &Tag,
    ) -> Result<Option<(Bytes, Image)>, Error> {
        let Some(manifest) = self.engine.storage.get(key).await.map_err(unready)? else {
            return Ok(None);
        };
        let image = image_of(&manifest);
        let image = self
            .images
            .tagged(&self.engine.storage, name, &image, tag)
            .await;
        Ok(image.map_err(unready)?.map(|image| (manifest, image)))
    }

    async fn published(&self, key: &Key, name: &str, tag: &Tag) -> Result<(Bytes, Image), Error> {
        self.stored_image(key, name, tag).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "the image was built and published, and is not in storage: is something else \
                 deleting there?",
            )
        })
    }
}

pub(super) fn texts(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
}

fn found(media_type: &str, manifest: Bytes, cache: (HeaderName, String)) -> Response<Body> {
    let digest = Digest::of(&manifest).to_string();
    let headers = [
        (CONTENT_TYPE, media_type.to_owned()),
        (ETAG, format!("\"{digest}\"")),
        (DOCKER_CONTENT_DIGEST, digest),
        cache,
    ];
    answer::with_headers(StatusCode::OK, headers, answer::whole(manifest))
}

/// What the edge prefers, by its `Prefer` headers.
pub(super) fn preferences(request: &Request<Incoming>) -> Preferences {
    Preferences::parse(texts(request.headers(), PREFER))
}

/// For how long a caller is kept whose image is not there yet.
pub(super) fn wait_of(request: &Request<Incoming>) -> Duration {
    let wait = preferences(request).wait.unwrap_or(DEFAULT_WAIT);
    Duration::from_secs(wait.min(MAX_WAIT))
}

/// The answer when that time is over. Whoever says how long to wait is the edge and knows what 202
/// means. Anybody else is a client, whose request the edge let through, and is sent round again, by
/// the path that it used.
pub(super) fn still_building(request: &Request<Incoming>, elapsed: Duration) -> Response<Body> {
    if preferences(request).wait.is_none() {
        let path = texts(request.headers(), ORIGINAL_PATH).next();
        let path = path.filter(|path| path.starts_with("/v2/"));
        let path = path.map_or_else(|| request.uri().to_string(), str::to_owned);
        let headers = [(LOCATION, path), (CACHE_CONTROL, "no-store".to_owned())];
        return answer::with_headers(StatusCode::TEMPORARY_REDIRECT, headers, answer::whole(""));
    }
    let headers = [
        (
            HeaderName::from_static(wire::BUILDING_FOR),
            elapsed.as_secs().to_string(),
        ),
        (RETRY_AFTER, "1".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    answer::with_headers(StatusCode::ACCEPTED, headers, answer::whole(""))
}

/// The answer when a build failed: it may be repeated for as long as the builder remembers it.
pub(super) fn failed(
    request: &Request<Incoming>,
    error: &Error,
    holds: Duration,
) -> Response<Body> {
    super::log(request.uri().path(), error);
    answer::error_for(error, holds)
}

pub(super) fn unready(error: StorageError) -> Error {
    Error::new(ErrorKind::BuilderUnready, error.to_string())
}
