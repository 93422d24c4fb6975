//! LocalCache of records on this machine: what fails with them costs time alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use crate::files::expiry::remove_older;
use crate::storage::{Key, Storage, StorageError};
use crate::telemetry::logging::chain;

/// See the module.
pub(crate) struct LocalCache {
    storage: Storage,
    folder: PathBuf,
    /// A copy that is older is removed; a package that is still asked for is copied again.
    max_age: Duration,
}

impl LocalCache {
    /// LocalCache in a folder, for `max_age` each.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub(crate) fn open(folder: &Path, max_age: Duration) -> anyhow::Result<Self> {
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
        remove_older(&self.folder.join("packages"), |_| true, self.max_age);
    }
}

fn complain(error: &StorageError) {
    tracing::warn!(
        error = chain(error),
        "copies of records in the state folder"
    );
}
