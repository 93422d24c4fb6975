//! Publishes an image: writes its documents so that none refers to one that is missing.
//!
//! ```text
//!   layers (uploaded while packing) → config → record → links → manifests
//! ```
//!
//! A client that finds a manifest finds all of its blobs and its record.

use bytes::Bytes;
use nixgate_core::distribution::MediaType;

use crate::image::Image;
use crate::records::ImageRecord;
use crate::request::ImageRequest;
use crate::storage::{Key, Storage, StorageError};

/// Writes an image's documents and its record.
///
/// # Errors
/// When storage can't be written; then the image is not published.
pub(crate) async fn publish(
    storage: &Storage,
    image: &ImageRequest,
    documents: &Image,
    record: &ImageRecord,
) -> Result<(), StorageError> {
    let config = &documents.config;
    storage
        .put(&Key::blob(&config.digest), config.bytes.clone().into())
        .await?;
    let folder = image.link_folder();
    let key = Key::record(&folder, &record.image_id());
    record.write(storage, &key).await?;
    let manifests = [
        (MediaType::Docker, &documents.docker_manifest),
        (MediaType::Oci, &documents.oci_manifest),
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

/// The OCI manifest of a published image. Manifests are written last, so the image was complete then.
///
/// # Errors
/// When storage can't be read.
pub(crate) async fn published(
    storage: &Storage,
    image: &ImageRequest,
) -> Result<Option<Bytes>, StorageError> {
    let docker = image.manifest_key(MediaType::Docker);
    match storage.size(&docker).await? {
        Some(_) => storage.get(&image.manifest_key(MediaType::Oci)).await,
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nixgate_core::package_set::System;

    use super::*;
    use crate::closure::Closure;
    use crate::image::{Execution, ImageSpec};

    #[tokio::test]
    async fn there_is_no_manifest_without_the_record() {
        let image = ImageRequest::example(&[]);
        let documents = Image::new(&ImageSpec {
            system: System::X86_64Linux,
            layers: Vec::new(),
            execution: Execution::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        });
        let closure = Closure::new([], BTreeMap::new()).unwrap();
        let manifest = &documents.oci_manifest;
        let record = ImageRecord::new(&image, &[], &closure, &manifest.bytes);
        let name = image.link_folder();
        let keys = [
            image.manifest_key(MediaType::Oci),
            Key::link(&name, &manifest.digest),
            Key::record(&name, &record.image_id()),
        ];

        // Nothing can be written below a file.
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::filesystem(folder.path()).unwrap();
        let in_the_way = folder.path().join("facts");
        std::fs::write(&in_the_way, "").unwrap();
        let published = publish(&storage, &image, &documents, &record).await;
        published.unwrap_err();
        assert_eq!(super::published(&storage, &image).await.unwrap(), None);
        for key in &keys[..2] {
            assert_eq!(storage.get(key).await.unwrap(), None, "{key:?}");
        }
        std::fs::remove_file(in_the_way).unwrap();
        let published = publish(&storage, &image, &documents, &record).await;
        published.unwrap();
        let found = super::published(&storage, &image).await.unwrap();
        assert_eq!(found, Some(documents.oci_manifest.bytes.clone().into()));
        for key in &keys {
            assert!(storage.get(key).await.unwrap().is_some(), "{key:?}");
        }
    }
}
