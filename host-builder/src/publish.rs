//! Publishing an image: its documents, in the order in which they may be found.
//!
//! ```text
//!   layers (uploaded while packing) → config → links → manifests
//! ```
//!
//! Whoever finds a manifest finds everything that it names.

use nixgate_core::distribution::MediaType;

use crate::builder::{ImageRequest, link_folder};
use crate::image::Image;
use crate::storage::{Key, Storage, StorageError};

/// Writes an image's documents.
///
/// # Errors
/// When storage can't be written; then the image isn't published.
pub async fn publish(
    storage: &Storage,
    image: &ImageRequest,
    documents: &Image,
) -> Result<(), StorageError> {
    let Image {
        config,
        docker_manifest,
        oci_manifest,
    } = documents;
    storage
        .put(&Key::blob(&config.digest), config.bytes.clone().into())
        .await?;
    let folder = link_folder(&image.source, image.system, &image.packages);
    let manifests = [
        (MediaType::Docker, docker_manifest),
        (MediaType::Oci, oci_manifest),
    ];
    for (_, manifest) in manifests {
        let link = Key::link(&folder, &manifest.digest);
        storage.put(&link, manifest.bytes.clone().into()).await?;
    }
    for (media_type, manifest) in manifests {
        let key = image.manifest_key(media_type);
        storage.put(&key, manifest.bytes.clone().into()).await?;
    }
    Ok(())
}
