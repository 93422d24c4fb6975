//! Which blobs the images of a name have.
//!
//! What is linked under a name only grows, and each link is a manifest under its digest. So what
//! was read once is remembered; a blob that isn't among it makes the links be listed again, since
//! another builder may have published meanwhile, and those be read that are new.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::stream::{StreamExt, TryStreamExt};
use nixgate_core::distribution::Digest;
use serde::Deserialize;

use crate::storage::{Key, Storage, StorageError};

/// Names whose blobs are remembered; a hundred digests for each of their images.
const REMEMBERED: usize = 1000;
/// Links that are read at once.
const READS_AT_ONCE: usize = 8;

/// The images of a name that were read, and their blobs with their sizes in bytes.
#[derive(Clone, Default)]
struct Images {
    links: Vec<Key>,
    blobs: BTreeMap<Digest, u64>,
}

/// See the module.
#[derive(Default)]
pub struct Links(Mutex<BTreeMap<String, (Instant, Arc<Images>)>>);

impl Links {
    /// The size in bytes of a blob that an image has, when one in the folder of links has it.
    pub(super) async fn size(
        &self,
        storage: &Storage,
        folder: &str,
        blob: &Digest,
    ) -> Result<Option<u64>, StorageError> {
        let known = self.recall(folder);
        if let Some(size) = known.blobs.get(blob) {
            return Ok(Some(*size));
        }
        let linked = storage.links(folder).await?;
        let mut new = linked.clone();
        new.retain(|link| !known.links.contains(link));
        if new.is_empty() {
            return Ok(None);
        }
        let reads = new.into_iter().map(|link| {
            let storage = storage.clone();
            async move { storage.get(&link).await }
        });
        let manifests: Vec<_> = futures::stream::iter(reads)
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let mut blobs = known.blobs.clone();
        blobs.extend(
            manifests
                .iter()
                .flatten()
                .flat_map(|manifest| blobs_of(manifest)),
        );
        let size = blobs.get(blob).copied();
        let images = Images {
            links: linked,
            blobs,
        };
        self.remember(folder, Arc::new(images));
        Ok(size)
    }

    fn recall(&self, folder: &str) -> Arc<Images> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match remembered.get_mut(folder) {
            Some((used, images)) => {
                *used = Instant::now();
                Arc::clone(images)
            }
            None => Arc::default(),
        }
    }

    /// Keeps what was read, in the place of what was used longest ago.
    fn remember(&self, folder: &str, images: Arc<Images>) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED && !remembered.contains_key(folder) {
            let oldest = remembered.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(folder, _)| folder.clone()) {
                remembered.remove(&oldest);
            }
        }
        remembered.insert(folder.to_owned(), (Instant::now(), images));
    }
}

/// The blobs that a manifest names, with their sizes: its config and its layers, in both formats.
/// A manifest that can't be read names none.
pub(super) fn blobs_of(manifest: &[u8]) -> impl Iterator<Item = (Digest, u64)> + use<> {
    #[derive(Deserialize)]
    struct Descriptor {
        digest: Digest,
        size: u64,
    }
    #[derive(Deserialize)]
    struct Manifest {
        config: Descriptor,
        layers: Vec<Descriptor>,
    }
    let manifest: Option<Manifest> = serde_json::from_slice(manifest).ok();
    manifest
        .into_iter()
        .flat_map(|Manifest { config, layers }| [config].into_iter().chain(layers))
        .map(|Descriptor { digest, size }| (digest, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn link(storage: &Storage, folder: &str, blob: &Digest) -> Key {
        let manifest = format!(r#"{{"config":{{"digest":"{blob}","size":7}},"layers":[]}}"#);
        let key = Key::link(folder, &Digest::of(manifest.as_bytes()));
        storage.put(&key, manifest.into()).await.unwrap();
        key
    }

    #[tokio::test]
    async fn each_link_is_read_once_and_a_new_one_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::filesystem(folder.path()).unwrap();
        let links = Links::default();
        let [first, second, other] = [b"1", b"2", b"3"].map(|content| Digest::of(content));
        let key = link(&storage, "image", &first).await;
        assert_eq!(
            links.size(&storage, "image", &first).await.unwrap(),
            Some(7)
        );

        // Were it read again, the first blob would be gone.
        storage.put(&key, "damaged".into()).await.unwrap();
        link(&storage, "image", &second).await;
        link(&storage, "image2", &other).await;
        for (blob, size) in [(&second, Some(7)), (&first, Some(7)), (&other, None)] {
            assert_eq!(links.size(&storage, "image", blob).await.unwrap(), size);
        }
    }

    #[test]
    fn what_was_used_longest_ago_is_forgotten() {
        let links = Links::default();
        let images = || {
            Arc::new(Images {
                links: vec![Key::build("k")],
                ..Images::default()
            })
        };
        let known = |name: &str| !links.recall(name).links.is_empty();
        for number in 0..REMEMBERED {
            links.remember(&format!("{number}"), images());
        }
        assert!(known("0"));
        links.remember("new", images());
        assert_eq!(links.0.lock().unwrap().len(), REMEMBERED);
        assert!(known("0") && known("new") && !known("1"));
    }
}
