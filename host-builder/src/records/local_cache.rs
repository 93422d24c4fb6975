//! Copies of records on this machine. Its failures cost only time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use crate::files::expiry::remove_older;
use crate::storage::{Key, Storage, StorageError};
use crate::telemetry::logging::chain;

pub(crate) struct LocalCache {
    storage: Storage,
    folder: PathBuf,
    /// Older copies are removed; those that are still used are copied again.
    max_age: Duration,
}

impl LocalCache {
    /// # Errors
    /// When the folder can't be used.
    pub(crate) fn open(folder: &Path, max_age: Duration) -> anyhow::Result<Self> {
        let cache = Self {
            storage: Storage::filesystem(folder)?,
            folder: folder.to_owned(),
            max_age,
        };
        cache.sweep();
        Ok(cache)
    }

    pub(super) async fn get(&self, key: &Key) -> Option<Bytes> {
        let copy = self.storage.get(key).await;
        copy.unwrap_or_else(|error| {
            warn(&error);
            None
        })
    }

    pub(super) async fn put(&self, key: &Key, content: Bytes) {
        if let Err(error) = self.storage.put(key, content).await {
            warn(&error);
        }
    }

    pub(super) fn sweep(&self) {
        remove_older(&self.folder.join("packages"), |_| true, self.max_age);
    }
}

fn warn(error: &StorageError) {
    tracing::warn!(
        error = chain(error),
        "cannot use the copies of records in the state folder: reading from storage"
    );
}
