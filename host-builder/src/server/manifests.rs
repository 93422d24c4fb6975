//! `GET /v2/<name>/manifests/<reference>`

use std::time::{Duration, Instant};

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::uri::PathAndQuery;
use nixgate_core::distribution::{Digest, Error, ErrorKind, MediaType, Repository, Tag};
use nixgate_core::wire;
use serde_json::Value;

use super::App;
use super::error::HttpError;
use super::facts::{Facts, Inquiry, Rules, StillLooking};
use super::headers::{
    CONTENT_DIGEST, deadline, entity_tag, immutable, max_age, no_store, preferences, remaining,
    texts,
};
use super::images::Image;
use super::response::{response, set_header};
use crate::builder::{Progress, suggestions};
use crate::memo::Known;
use crate::records::image_of;
use crate::request::ImageRequest;
use crate::storage::Key;

/// How long the edge may cache a manifest by digest under an opaque name.
const RECIPE_MAX_AGE: Duration = Duration::from_secs(300);

const ORIGINAL_PATH: HeaderName = HeaderName::from_static(wire::ORIGINAL_PATH);
const BUILDING_FOR: HeaderName = HeaderName::from_static(wire::BUILDING_FOR);
const SOURCE: HeaderName = HeaderName::from_static(wire::SOURCE);

impl App {
    pub(super) async fn manifest_by_digest(
        &self,
        request: &Parts,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Response, HttpError> {
        let rules = Rules::of(&request.headers)?;
        let unknown = || {
            let message =
                format!("no image of this name has the manifest {digest}: pull it by tag");
            Error::new(ErrorKind::ManifestUnknown, message)
        };
        let named = self.named_image(repository, unknown)?;
        let folder = self.link_folder(&named);
        let storage = &self.engine.storage;
        let manifest = storage.get(&Key::link(&folder, digest)).await?;
        let manifest = manifest.ok_or_else(unknown)?;
        let image = image_of(&manifest);
        let image = self.images.image(storage, &folder, &image).await?;
        let image = image.ok_or_else(unknown)?;
        let facts = self.facts(request, vec![image], &rules).await;
        let facts = match facts {
            Ok(facts) => facts,
            Err(StillLooking(elapsed)) => return still_building(request, elapsed),
        };
        // Both formats of a manifest have this field.
        let json: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        let media_type = json["mediaType"].as_str().ok_or_else(|| {
            HttpError::internal(format!(
                "the stored manifest {digest} is damaged: it has no mediaType"
            ))
        })?;
        let cache_control = match named.recipe {
            None => immutable(),
            // The content of a digest never changes, but a recipe may be removed.
            Some(_) => max_age(RECIPE_MAX_AGE),
        };
        let mut response = manifest_response(media_type, manifest, cache_control)?;
        facts.add_to(response.headers_mut())?;
        Ok(response)
    }

    pub(super) async fn manifest_by_tag(
        &self,
        request: &Parts,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Response, HttpError> {
        let rules = Rules::of(&request.headers)?;
        let named = self.engine.named_image(repository)?;
        let deadline = deadline(&request.headers);
        let (pin, lifetime) = match self.engine.sources.pin(tag, remaining(deadline)).await? {
            Known::Value(pin, lifetime) => (pin, lifetime),
            Known::Pending(elapsed) => return still_building(request, elapsed),
        };
        let source = format!("{} {}", self.engine.sources.source().kind(), pin.revision);
        let image = self.engine.image(pin, &named);
        let folder = image.link_folder();
        let media_type = MediaType::negotiate(texts(&request.headers, ACCEPT));
        let key = image.manifest_key(media_type);
        let stored = match self.stored_image(&key, &folder, tag, &rules).await? {
            None => {
                let suggest = preferences(&request.headers).similar;
                if let Some(response) = self.build(request, image, deadline, suggest).await? {
                    return Ok(response);
                }
                self.stored_image(&key, &folder, tag, &rules).await?
            }
            stored => stored,
        };
        let (manifest, image) = stored.ok_or_else(|| {
            HttpError::internal(
                "the image was built and published, but is not in storage. Check whether another \
                 program deletes files there",
            )
        })?;
        let facts = match self.facts(request, vec![image], &rules).await {
            Ok(facts) => facts,
            Err(StillLooking(elapsed)) => return still_building(request, elapsed),
        };
        let mut response = manifest_response(media_type.as_str(), manifest, max_age(lifetime))?;
        set_header(response.headers_mut(), SOURCE, source)?;
        facts.add_to(response.headers_mut())?;
        Ok(response)
    }

    /// The manifest of an image and the record of it, when storage has both. The edge needs the record to
    /// judge who may have the image: a record of an older version, by which no other names can be found, does
    /// not count where rules deny packages.
    async fn stored_image(
        &self,
        key: &Key,
        folder: &str,
        tag: &Tag,
        rules: &Rules,
    ) -> Result<Option<(Bytes, Image)>, HttpError> {
        let storage = &self.engine.storage;
        let Some(manifest) = storage.get(key).await? else {
            return Ok(None);
        };
        let image = image_of(&manifest);
        let origin = !rules.denied.is_empty();
        let image = self.images.tagged(storage, folder, &image, tag, origin);
        let image = image.await?;
        Ok(image.map(|image| (manifest, image)))
    }

    /// The facts of images, by the deadline of the request.
    pub(super) async fn facts(
        &self,
        request: &Parts,
        images: Vec<Image>,
        rules: &Rules,
    ) -> Result<Facts, StillLooking> {
        let deadline = deadline(&request.headers);
        let inquiry = Inquiry::new(&self.engine.other_names, rules, deadline);
        inquiry.facts(images).await
    }

    /// Builds an image. Returns the response for the client if the deadline passes first.
    ///
    /// # Errors
    /// When the build fails. With `suggest`, the error names packages similar to unknown ones.
    pub(super) async fn build(
        &self,
        request: &Parts,
        image: ImageRequest,
        deadline: Instant,
        suggest: bool,
    ) -> Result<Option<Response>, HttpError> {
        let rule = self.access.rule_of(&request.headers);
        let wait = remaining(deadline);
        match self.engine.builds.build(image, rule, wait).await {
            Progress::Done => Ok(None),
            Progress::Running(elapsed) => still_building(request, elapsed).map(Some),
            Progress::Failed(error, lifetime) => Err(HttpError {
                error: suggestions::for_caller(error, suggest),
                max_age: Some(lifetime),
            }),
        }
    }
}

fn manifest_response(
    media_type: &str,
    manifest: Bytes,
    cache_control: (HeaderName, String),
) -> Result<Response, HttpError> {
    let digest = Digest::of(&manifest);
    let headers = [
        (CONTENT_TYPE, media_type.to_owned()),
        (ETAG, entity_tag(&digest)),
        (CONTENT_DIGEST, digest.to_string()),
        cache_control,
    ];
    response(StatusCode::OK, headers, manifest)
}

/// The response when a request's deadline passes before its image is there. The edge, which says how long
/// it waits, understands 202. A client whose request the edge let through is redirected to the path that
/// it asked for.
pub(super) fn still_building(request: &Parts, elapsed: Duration) -> Result<Response, HttpError> {
    if preferences(&request.headers).wait.is_none() {
        let path = texts(&request.headers, ORIGINAL_PATH).next();
        let path = path.filter(|path| path.starts_with("/v2/"));
        // Over HTTP/2, the URI has the scheme and the builder's authority as well.
        let own = || {
            request
                .uri
                .path_and_query()
                .map_or("/v2/", PathAndQuery::as_str)
        };
        let path = path.unwrap_or_else(own).to_owned();
        let headers = [(LOCATION, path), no_store()];
        return response(StatusCode::TEMPORARY_REDIRECT, headers, "");
    }
    let headers = [
        (BUILDING_FOR, elapsed.as_secs().to_string()),
        (RETRY_AFTER, "1".to_owned()),
        no_store(),
    ];
    response(StatusCode::ACCEPTED, headers, "")
}
