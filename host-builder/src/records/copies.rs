//! Copies of records on this machine: what fails with them costs time alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::storage::{Key, Storage, StorageError};

/// See the module.
pub struct Copies {
    storage: Storage,
    folder: PathBuf,
    /// A copy that is older is removed; a package that is still asked for is copied again.
    max_age: Duration,
}

impl Copies {
    /// Copies in a folder, for `max_age` each.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub fn open(folder: &Path, max_age: Duration) -> anyhow::Result<Self> {
        let copies = Self {
            storage: Storage::filesystem(folder)?,
            folder: folder.to_owned(),
            max_age,
        };
        copies.sweep();
        Ok(copies)
    }

    pub(super) async fn get(&self, key: &Key) -> Option<Bytes> {
        let copy = self.storage.get(key).await;
        copy.unwrap_or_else(|error| {
            complain(&error);
            None
        })
    }

    pub(super) async fn put(&self, key: &Key, content: Bytes) {
        if let Err(error) = self.storage.put(key, content).await {
            complain(&error);
        }
    }

    pub(super) fn sweep(&self) {
        let copies = fs::read_dir(self.folder.join("packages"));
        for copy in copies.into_iter().flatten().flatten() {
            let made = copy.metadata().and_then(|metadata| metadata.modified());
            let age = made.map(|made| SystemTime::now().duration_since(made));
            if age.is_ok_and(|age| age.is_ok_and(|age| age > self.max_age)) {
                _ = fs::remove_file(copy.path());
            }
        }
    }
}

fn complain(error: &StorageError) {
    tracing::warn!("copies of records in the state folder: {error}");
}
