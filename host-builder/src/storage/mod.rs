//! Storage of images: an object store with a few kinds of keys.
//!
//! ```text
//!   layers/<sha256>             a blob: a layer or an image config
//!   builds/<key>                the record of a layer, by its store paths, their hashes and the encoder
//!   packages/<key>              the record of a package
//!   manifests/<key>             a manifest, by everything that changes the image, and its media type
//!   indexes/<key>               what a package set has, by its revision and system
//!   links/<name>/<sha256>       a manifest in the folder of its image's name: its digest is not valid
//!                               under another name
//!   facts/<name>/<image>/       the record of an image, and a copy for each tag by which it was pulled:
//!                               with separate objects, builders that add tags at once lose none
//!   staging/probe               tests whether storage is writable
//! ```
//!
//! Blobs are written before the manifests that refer to them (`publish`), so a manifest implies its blobs.
//! Writes are atomic and durable: on a filesystem by syncing and renaming, on S3 by design.

#[cfg(test)]
mod contract;
mod key;
mod open;
mod pieces;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::ready;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use http::Method;
use object_store::aws::AmazonS3;
use object_store::buffered::BufWriter;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutMode};
use tokio::io::AsyncReadExt;

use nixgate_core::distribution::{Digest, Error, ErrorKind};

use crate::telemetry::logging::chain;

pub(crate) use key::{Fact, Key};

/// Validity of a presigned URL.
const SIGNED_FOR: Duration = Duration::from_secs(3600);
/// The last part of that, in which a URL is no longer given out: a pull may pause between two layers.
const SIGNED_MARGIN: Duration = Duration::from_secs(900);
/// How long a URL is given out that was signed with temporary credentials. It expires with them, possibly
/// within five minutes, since the S3 client renews them no earlier.
const SIGNED_FOR_SESSION: Duration = Duration::from_secs(120);
/// Parts of one upload that are sent at once, of 10 MiB each.
const PARTS_AT_ONCE: usize = 2;

#[derive(Debug, thiserror::Error)]
#[error("cannot use storage: {0}. Check that the builder can reach and write it")]
pub(crate) struct StorageError(String);

impl From<object_store::Error> for StorageError {
    fn from(error: object_store::Error) -> Self {
        Self(chain(&error))
    }
}

impl From<std::io::Error> for StorageError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::new(ErrorKind::BuilderUnready, error.to_string())
    }
}

/// Where a client gets a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// From storage itself.
    Redirect {
        /// A presigned URL, for one method.
        url: String,
        /// How long it may be given out.
        max_age: Duration,
    },
    /// From the builder.
    Here,
}

#[derive(Clone)]
pub(crate) struct Storage {
    store: Arc<dyn ObjectStore>,
    /// The same store, if clients can be redirected there.
    signer: Option<Arc<AmazonS3>>,
}

impl Storage {
    /// The content of a key, if there is any.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Bytes>, StorageError> {
        match self.store.get(&key.0).await {
            Ok(result) => Ok(Some(result.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The size of a key's content in bytes, if there is any.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) async fn size(&self, key: &Key) -> Result<Option<u64>, StorageError> {
        match self.store.head(&key.0).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a key, replacing what was there.
    ///
    /// # Errors
    /// When the store can't be written.
    pub(crate) async fn put(&self, key: &Key, content: Bytes) -> Result<(), StorageError> {
        self.store.put(&key.0, content.into()).await?;
        Ok(())
    }

    /// Writes a key unless it is there. Returns whether it was written.
    ///
    /// # Errors
    /// When the store can't be written.
    pub(crate) async fn put_if_absent(
        &self,
        key: &Key,
        content: Bytes,
    ) -> Result<bool, StorageError> {
        match self
            .store
            .put_opts(&key.0, content.into(), PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Uploads a blob in pieces. A bucket's object of the same size stays: S3 wrote it atomically, and
    /// checked its checksum. On a filesystem the blob is replaced: the disk may have damaged it, and
    /// checking takes as long as writing.
    ///
    /// # Errors
    /// When the file can't be read or the store can't be written.
    pub(crate) async fn upload(&self, blob: &Digest, file: &Path) -> Result<(), StorageError> {
        let key = Key::blob(blob);
        let mut file = tokio::fs::File::open(file).await?;
        let size = file.metadata().await?.len();
        if self.signer.is_some() && self.size(&key).await? == Some(size) {
            return Ok(());
        }
        let mut writer =
            BufWriter::new(Arc::clone(&self.store), key.0).with_max_concurrency(PARTS_AT_ONCE);
        if let Err(error) = copy(&mut file, &mut writer).await {
            // This only costs space; the first error is what matters.
            if let Err(abort) = writer.abort().await {
                tracing::warn!(
                    error = chain(&abort),
                    "cannot remove an unfinished upload from storage"
                );
            }
            return Err(error);
        }
        tokio::io::AsyncWriteExt::shutdown(&mut writer).await?;
        Ok(())
    }

    /// Lists the records of a name's images, or of one `image`, with the copies for tags.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) async fn facts(
        &self,
        name: &str,
        image: Option<&str>,
    ) -> Result<Vec<Fact>, StorageError> {
        let prefix = key::facts(name, image);
        let listed = self.store.list(Some(&prefix));
        let facts = listed.map_ok(|meta| Fact::of(meta.location, meta.last_modified.into()));
        Ok(facts
            .try_filter_map(|fact| ready(Ok(fact)))
            .try_collect()
            .await?)
    }

    /// Lists the records of all images, by the folders of their names.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) async fn all_facts(&self) -> Result<BTreeMap<String, Vec<Fact>>, StorageError> {
        let mut names: BTreeMap<String, Vec<Fact>> = BTreeMap::new();
        let mut listed = self.store.list(Some(&key::all_facts()));
        while let Some(meta) = listed.try_next().await? {
            let name = Fact::name_of(&meta.location);
            let fact = Fact::of(meta.location, meta.last_modified.into());
            if let (Some(name), Some(fact)) = (name, fact) {
                names.entry(name).or_default().push(fact);
            }
        }
        Ok(names)
    }

    /// Where clients get a key's content by this method.
    ///
    /// # Errors
    /// When no URL can be signed.
    pub(crate) async fn locate(&self, key: &Key, method: Method) -> Result<Location, StorageError> {
        let Some(signer) = &self.signer else {
            return Ok(Location::Here);
        };
        let url = signer.signed_url(method, &key.0, SIGNED_FOR).await?;
        let temporary = signer.credentials().get_credential().await?.token.is_some();
        Ok(Location::Redirect {
            url: url.into(),
            max_age: match temporary {
                true => SIGNED_FOR_SESSION,
                false => SIGNED_FOR - SIGNED_MARGIN,
            },
        })
    }

    /// Reads a part of a key's content, from byte `start` up to but not including `end`.
    ///
    /// # Errors
    /// When the store can't be read; also in the midst of the stream.
    pub(crate) async fn read(
        &self,
        key: &Key,
        start: u64,
        end: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, StorageError>>, StorageError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..end)),
            ..GetOptions::default()
        };
        let result = self.store.get_opts(&key.0, options).await?;
        Ok(match result.payload {
            GetResultPayload::File(file, _) => pieces::of(file, start, end).boxed(),
            GetResultPayload::Stream(stream) => stream.map_err(StorageError::from).boxed(),
        })
    }

    /// Tests writing and reading.
    ///
    /// # Errors
    /// When it can't.
    pub(crate) async fn probe(&self) -> Result<(), StorageError> {
        let key = Key::probe();
        self.put(&key, Bytes::from_static(b"nixgate")).await?;
        match self.size(&key).await? {
            Some(_) => Ok(()),
            None => Err(StorageError(
                "an object that was just written is missing".to_owned(),
            )),
        }
    }
}

async fn copy(file: &mut tokio::fs::File, to: &mut BufWriter) -> Result<(), StorageError> {
    const PIECE: u64 = 1 << 20;
    loop {
        let mut piece = Vec::new();
        if file.take(PIECE).read_to_end(&mut piece).await? == 0 {
            return Ok(());
        }
        to.put(piece.into()).await?;
    }
}
