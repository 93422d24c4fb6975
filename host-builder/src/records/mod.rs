//! Records of packages and images, so that Nix works once for each package and not for each image.
//!
//! ```text
//!   packages/<key>   for a source, its revision, a platform and an attribute path:
//!     derivation       the result of Nix's evaluation
//!     paths            the closure: every store path that it needs at run time, with hash, size, references
//!     trees            for each output: its folders, files and links, for the last layer
//!     reach            the same of other store paths, as far as the last layer needs it
//! ```
//!
//! All of it follows from the key, since the source is pinned: a record never changes, and is valid for
//! every builder that shares the storage. With records and packed layers, an image of a new combination
//! of packages needs no Nix, and not even the packages.
//!
//! Where storage is remote, each builder has copies in its own folder, which can be deleted at any time.

mod image;
mod local_cache;
mod tree;

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

pub(crate) use image::{ImageId, ImageRecord, Origin, blobs_of, image_of};
pub(crate) use local_cache::LocalCache;

use crate::closure::{Closure, PathInfo, StorePath};
use crate::layer::{Reach, Tree};
use crate::nix::Derivation;
use crate::storage::{Key, Storage, StorageError};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackageRecord {
    pub(crate) derivation: Derivation,
    /// The closure of its outputs.
    pub(crate) paths: BTreeMap<StorePath, PathInfo>,
    /// One for each output, in order.
    #[serde(with = "tree")]
    pub(crate) trees: Vec<Tree>,
    #[serde(with = "tree::reach")]
    pub(crate) reach: Reach,
}

impl PackageRecord {
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &StorePath> {
        self.derivation.outputs.iter().map(|output| &output.path)
    }

    fn encode(&self) -> std::io::Result<Bytes> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&serde_json::to_vec(self)?)?;
        Ok(gzip.finish()?.into())
    }

    /// None if the record is damaged or incomplete.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut json = Vec::new();
        GzDecoder::new(bytes).read_to_end(&mut json).ok()?;
        let record: Self = serde_json::from_slice(&json).ok()?;
        let is_complete = record.trees.len() == record.derivation.outputs.len()
            && Closure::new(record.outputs().cloned(), record.paths.clone()).is_ok();
        is_complete.then_some(record)
    }
}

/// The records of packages.
pub(crate) struct Records {
    shared: Storage,
    /// For remote storage.
    copies: Option<LocalCache>,
}

impl Records {
    pub(crate) const fn new(shared: Storage, copies: Option<LocalCache>) -> Self {
        Self { shared, copies }
    }

    /// Removes old copies.
    pub(crate) fn sweep(&self) {
        if let Some(copies) = &self.copies {
            copies.sweep();
        }
    }

    /// The record of a package; none if it is damaged.
    ///
    /// # Errors
    /// When storage can't be read.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<PackageRecord>, StorageError> {
        if let Some(copies) = &self.copies
            && let Some(bytes) = copies.get(key).await
            && let Some(record) = decode(key, bytes).await
        {
            return Ok(Some(record));
        }
        let Some(bytes) = self.shared.get(key).await? else {
            return Ok(None);
        };
        let record = decode(key, bytes.clone()).await;
        if let (Some(copies), Some(_)) = (&self.copies, &record) {
            copies.put(key, bytes).await;
        }
        Ok(record)
    }

    /// Stores a record, unless an undamaged one is there, and returns the stored one. If that is
    /// another, the package is not reproducible.
    ///
    /// # Errors
    /// When storage can't be read or written.
    pub(crate) async fn keep(
        &self,
        key: &Key,
        record: &PackageRecord,
    ) -> Result<PackageRecord, StorageError> {
        let bytes = record.encode()?;
        if self.shared.put_if_absent(key, bytes.clone()).await? {
            return Ok(record.clone());
        }
        if let Some(earlier) = self.get(key).await? {
            return Ok(earlier);
        }
        self.shared.put(key, bytes).await?;
        Ok(record.clone())
    }
}

/// Decodes on a blocking thread: some packages have a hundred thousand files.
async fn decode(key: &Key, bytes: Bytes) -> Option<PackageRecord> {
    let decoded = tokio::task::spawn_blocking(move || PackageRecord::decode(&bytes)).await;
    let record = decoded.ok().flatten();
    if record.is_none() {
        tracing::warn!(?key, "a package's record is damaged: asking Nix again");
    }
    record
}

#[cfg(test)]
mod tests;
