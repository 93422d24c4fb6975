//! Blobs that an image has and storage has not, or not whole: somebody deleted a file, or a disk was
//! restored from a backup. An image depends on nothing but its packages and its recipe, so building it
//! again restores the missing blobs byte for byte. Other blobs stay as they are.
//!
//! ```text
//!   linked, not stored ──► does a current image have the blob? ──no──► 404, pull by the tag
//!                                 │ yes
//!                                 ▼
//!                         build, shared by all requests: restored, 202, or an error
//! ```

use std::time::Instant;

use axum::response::Response;
use http::request::Parts;
use nixgate_core::distribution::{Digest, Error, ErrorKind, MediaType};

use super::App;
use super::error::HttpError;
use super::headers::{deadline, remaining};
use crate::records::blobs_of;
use crate::request::{ImageRequest, NamedImage};
use crate::storage::Key;

impl App {
    /// Restores a blob by building its image again. Returns the response for the client if that takes
    /// too long.
    ///
    /// # Errors
    /// When the build fails, or no current image has the blob.
    pub(super) async fn restore_blob(
        &self,
        request: &Parts,
        named: &NamedImage,
        digest: &Digest,
    ) -> Result<Option<Response>, HttpError> {
        let deadline = deadline(&request.headers);
        let image = self.current_image_with(named, digest, deadline).await?;
        let image = image.ok_or_else(|| lost(digest))?;
        tracing::warn!(%digest, "storage has lost a blob; building its image again");
        self.build(request, image, deadline, false).await
    }

    /// An image of this name, out of one of the package sets that tags mean now, that has the blob. An
    /// image that was never built may have it.
    async fn current_image_with(
        &self,
        named: &NamedImage,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Option<ImageRequest>, HttpError> {
        for pin in self.engine.sources.current(remaining(deadline)).await? {
            let image = self.engine.image(pin, named);
            // Manifests of either format name the same blobs.
            let manifest = image.manifest_key(MediaType::Oci);
            let manifest = self.engine.storage.get(&manifest).await?;
            if manifest.is_none_or(|bytes| blobs_of(&bytes).contains_key(digest)) {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Whether storage has the whole blob, which is `size` bytes long.
    pub(super) async fn is_stored(&self, key: &Key, size: u64) -> Result<bool, HttpError> {
        Ok(self.engine.storage.size(key).await? == Some(size))
    }
}

/// The error for a blob that can't be restored.
pub(super) fn lost(digest: &Digest) -> Error {
    let message = format!(
        "storage has lost the blob {digest}, and it can't be built again because the package set or \
         the recipe has changed since: pull the image again by its tag"
    );
    Error::new(ErrorKind::BlobUnknown, message)
}
