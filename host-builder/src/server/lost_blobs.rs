//! Blobs that an image has and storage has not, or not whole: somebody deleted a file, a disk was
//! restored to yesterday. Images are functions of their packages and recipes, so the image is built again,
//! which puts back what is missing, byte for byte, and leaves alone what is there.
//!
//! ```text
//!   linked, not stored ──► an image of now that has the blob? ──no──► 404, pull by the tag
//!                                 │ yes
//!                                 ▼
//!                         build, shared with all who ask: there again, 202, or an error
//! ```

use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use nixgate_core::distribution::{Digest, Error, ErrorKind, MediaType};

use super::App;
use super::answer::Body;
use super::manifests::{failed, still_building, unready, wait_of};
use crate::builder::{Progress, suggestions};
use crate::records::blobs_of;
use crate::request::ImageRequest;
use crate::request::NamedImage;
use crate::storage::Key;

impl App {
    /// Builds the image again whose blob was lost. `None` when that is done, else what to answer: it
    /// takes longer, or the build has failed.
    ///
    /// # Errors
    /// When no image that could be built now has the blob.
    pub(super) async fn make_again(
        &self,
        request: &Request<Incoming>,
        wanted: &NamedImage,
        digest: &Digest,
    ) -> Result<Option<Response<Body>>, Error> {
        let (wait, started) = (wait_of(request), Instant::now());
        let Some(image) = self.image_with(wanted, digest, wait).await? else {
            return Err(lost(digest));
        };
        tracing::warn!(%digest, "a blob is missing in storage: its image is built again");
        let wait = wait.saturating_sub(started.elapsed());
        let rule = self.access.rule_of(request.headers());
        match self.engine.builds.build(image, rule, wait).await {
            Progress::Running(elapsed) => Ok(Some(still_building(request, elapsed))),
            Progress::Failed(error, holds) => {
                let error = suggestions::for_caller(error, false);
                Ok(Some(failed(request, &error, holds)))
            }
            Progress::Done => Ok(None),
        }
    }

    /// The image of a name, out of one of the package sets that tags mean now, that has the blob, or
    /// may have it: what was never built can't be known to lack it.
    async fn image_with(
        &self,
        wanted: &NamedImage,
        digest: &Digest,
        wait: Duration,
    ) -> Result<Option<ImageRequest>, Error> {
        for pin in self.engine.sources.current(wait).await? {
            let image = self.engine.image(pin, wanted);
            // The formats of a manifest name the same blobs.
            let manifest = image.manifest_key(MediaType::Oci);
            let manifest = self.engine.storage.get(&manifest).await.map_err(unready)?;
            if manifest.is_none_or(|bytes| blobs_of(&bytes).contains_key(digest)) {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Whether a blob of `size` bytes is in storage, whole.
    pub(super) async fn stored(&self, key: &Key, size: u64) -> Result<bool, Error> {
        Ok(self.engine.storage.size(key).await.map_err(unready)? == Some(size))
    }
}

/// What is told of a blob that can't be made again.
pub(super) fn lost(digest: &Digest) -> Error {
    let message = format!(
        "storage has lost the blob {digest}, and the package set, or the image's recipe, has \
         moved on since it was made: pull the image again by its tag"
    );
    Error::new(ErrorKind::BlobUnknown, message)
}
