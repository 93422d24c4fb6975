//! What is known of packages, so that Nix is asked once for each and not once for each image.
//!
//! ```text
//!   packages/<key>   of a source, its revision, a platform and an attribute path:
//!     derivation       what Nix evaluated it to (resolution)
//!     paths            every store path that it needs at run time: hash, size, references (closure)
//!     trees            of each output: its folders, files and links, which the last layer is made of
//! ```
//!
//! All of it follows from the key, since the source is pinned: a record never changes, and is good
//! for every builder that shares the storage. With records and packed layers an image of packages
//! that were never together before is put together without Nix, and without the packages
//! themselves.
//!
//! Where storage is far away, each builder has copies in a folder of its own. They can be deleted at
//! any time.

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

pub(crate) use image::{ImageId, ImageRecord, blobs_of, image_of};
pub(crate) use local_cache::LocalCache;

use crate::closure::{Closure, PathInfo, StorePath};
use crate::layer::Tree;
use crate::nix::Derivation;
use crate::storage::{Key, Storage, StorageError};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackageRecord {
    /// What its name means.
    pub(crate) derivation: Derivation,
    /// The closure of its outputs.
    pub(crate) paths: BTreeMap<StorePath, PathInfo>,
    /// What is in each of its outputs, in their order.
    pub(crate) trees: Vec<Tree>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    derivation: Derivation,
    paths: BTreeMap<StorePath, PathInfo>,
    trees: Vec<tree::Stored>,
}

impl PackageRecord {
    /// Its store paths that an image has for its own sake.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &StorePath> {
        self.derivation.outputs.iter().map(|output| &output.path)
    }

    fn encode(&self) -> std::io::Result<Bytes> {
        let stored = Stored {
            derivation: self.derivation.clone(),
            paths: self.paths.clone(),
            trees: self.trees.iter().map(tree::Stored::from).collect(),
        };
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&serde_json::to_vec(&stored)?)?;
        Ok(gzip.finish()?.into())
    }

    /// Reads a record; none when it is not whole.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut json = Vec::new();
        GzDecoder::new(bytes).read_to_end(&mut json).ok()?;
        let stored: Stored = serde_json::from_slice(&json).ok()?;
        let trees = stored.trees.into_iter().map(Tree::try_from);
        let record = Self {
            derivation: stored.derivation,
            paths: stored.paths,
            trees: trees.collect::<Result<_, _>>().ok()?,
        };
        let is_whole = record.trees.len() == record.derivation.outputs.len()
            && Closure::new(record.outputs().cloned(), record.paths.clone()).is_ok();
        is_whole.then_some(record)
    }
}

/// The records in storage.
pub(crate) struct Records {
    shared: Storage,
    /// LocalCache, where storage is not on this machine.
    copies: Option<LocalCache>,
}

impl Records {
    /// Records in storage, with copies in a folder of this builder's own if there is any.
    pub(crate) const fn new(shared: Storage, copies: Option<LocalCache>) -> Self {
        Self { shared, copies }
    }

    /// Removes copies that are too old.
    pub(crate) fn sweep(&self) {
        if let Some(copies) = &self.copies {
            copies.sweep();
        }
    }

    /// What is known of a package. A record that can't be read is none.
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

    /// Keeps what was learnt of a package, and returns what is stored: the first record, or this one
    /// in place of one that can't be read. Another one means that the package is not built alike
    /// everywhere.
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

/// Decodes by a thread that may take its time: some packages have a hundred thousand files.
async fn decode(key: &Key, bytes: Bytes) -> Option<PackageRecord> {
    let decoded = tokio::task::spawn_blocking(move || PackageRecord::decode(&bytes)).await;
    let record = decoded.ok().flatten();
    if record.is_none() {
        tracing::warn!(?key, "a damaged record of a package: Nix is asked again");
    }
    record
}

#[cfg(test)]
mod tests;
