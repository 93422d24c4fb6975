//! Opens each kind of storage.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;

use super::key::FLAT_FOLDERS;
use super::{Storage, StorageError};
use crate::files::expiry::remove_older;

/// An unfinished file that is older was left by a builder that was killed. A newer one may belong to
/// another builder on the same folder.
const ABANDONED: Duration = Duration::from_secs(3600);

impl Storage {
    /// Opens a folder, which is created if it is missing. Removes unfinished files of killed builders.
    ///
    /// # Errors
    /// When it can't be used.
    pub(crate) fn filesystem(folder: &Path) -> Result<Self, StorageError> {
        let unusable = |error: io::Error| StorageError(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(unusable)?;
        remove_abandoned(folder);
        // Without syncing, a power cut could leave a manifest and lose its layers.
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            signer: None,
        })
    }

    /// Opens an S3 bucket. Credentials, region and endpoint come from the usual variables
    /// (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`) or the
    /// machine's role. Clients are redirected to presigned URLs.
    ///
    /// # Errors
    /// When the settings are incomplete or invalid.
    pub(crate) fn s3(bucket: &str) -> Result<Self, StorageError> {
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .build()?;
        Ok(Self::of_s3(store))
    }

    pub(super) fn of_s3(store: AmazonS3) -> Self {
        let store = Arc::new(store);
        Self {
            store: Arc::clone(&store) as _,
            signer: Some(store),
        }
    }
}

/// Removes old unfinished files, which the store calls `<name>#<number>`. Skips links and records of
/// images, whose files are small and in many folders. Another builder may be doing the same.
fn remove_abandoned(storage: &Path) {
    for folder in FLAT_FOLDERS {
        let folder = storage.join(folder);
        let removed = remove_older(&folder, |name| name.contains(&b'#'), ABANDONED);
        if removed > 0 {
            let folder = folder.display();
            tracing::info!("removed {removed} unfinished uploads from {folder}");
        }
    }
}
