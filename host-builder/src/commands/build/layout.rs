//! Writes images into a folder with the OCI image layout (`image-layout.md`), which skopeo, podman,
//! buildah, crane and others read.
//!
//! ```text
//!   oci-layout               the layout's version              written first
//!   blobs/sha256/<hex>       layers, configs and manifests, each under its digest
//!   index.json               the images, by their tags          written last
//! ```
//!
//! A file is written under a temporary name, and renamed once its digest is verified. So an image in
//! the index is always complete, even after an interrupted run.
//!
//! Several processes on one machine, such as CI jobs, may write to one folder at once. Blobs don't
//! conflict. The index is rewritten under a lock, which is on the folder itself and ends with its
//! process. On a network folder (NFS, SMB) the lock may not work between machines: their jobs need
//! separate folders.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use futures::stream::TryStreamExt;
use nixgate_core::distribution::{Digest, INDEX_MEDIA_TYPE, MediaType, Tag};
use nixgate_core::package_set::System;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::records::blobs_of;
use crate::storage::{Key, Storage};

/// The file that marks a folder as a layout.
const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
/// The spec's only version.
const VERSION: &str = "1.0.0";
/// The annotation of a manifest's tag in the index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A folder with a layout, or an empty one.
#[derive(Debug)]
pub(super) struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Opens a folder, which is created if it is missing.
    ///
    /// # Errors
    /// When it can't be made, or has other contents.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let layout = Self {
            folder: folder.to_owned(),
        };
        layout.check().with_context(|| {
            let folder = folder.display();
            format!("cannot write an image to {folder}. Name another folder")
        })?;
        Ok(layout)
    }

    fn check(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        // Another process may be about to write the marker.
        let _lock = self.lock()?;
        match self.read(MARKER)? {
            Some(marker) => ensure!(
                marker.get("imageLayoutVersion") == Some(&json!(VERSION)),
                "its {MARKER} does not have version {VERSION}"
            ),
            None => ensure!(
                fs::read_dir(&self.folder)?.next().is_none(),
                "it is not empty, and no image layout"
            ),
        }
        self.images().map(drop)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Copies an image from storage. Replaces an image with the same tag.
    ///
    /// # Errors
    /// When storage can't be read or has a damaged blob, or the folder can't be written.
    pub(super) async fn add(
        &self,
        storage: &Storage,
        manifest: &[u8],
        tag: &Tag,
        system: System,
    ) -> Result<()> {
        let begin = || -> Result<()> {
            fs::create_dir_all(&self.folder)?;
            let _lock = self.lock()?;
            let marker = json!({ "imageLayoutVersion": VERSION });
            self.write(MARKER, &serde_json::to_vec(&marker)?)?;
            Ok(fs::create_dir_all(self.folder.join("blobs/sha256"))?)
        };
        begin().with_context(|| self.unwritable())?;
        for (digest, size) in blobs_of(manifest) {
            self.copy(storage, &digest, size).await?;
        }
        let write = || -> Result<()> {
            let digest = Digest::of(manifest);
            self.write(&blob(&digest), manifest)?;
            let _lock = self.lock()?;
            let mut images = self.images()?;
            images.retain(|image| image["annotations"][REF_NAME] != tag.as_str());
            images.push(json!({
                "mediaType": MediaType::Oci.as_str(),
                "digest": digest.to_string(),
                "size": manifest.len(),
                "platform": { "architecture": system.architecture(), "os": "linux" },
                "annotations": { REF_NAME: tag.as_str() },
            }));
            let index = json!({
                "schemaVersion": 2,
                "mediaType": INDEX_MEDIA_TYPE,
                "manifests": images,
            });
            self.write(INDEX, &serde_json::to_vec(&index)?)
        };
        write().with_context(|| self.unwritable())
    }

    async fn copy(&self, storage: &Storage, digest: &Digest, size: u64) -> Result<()> {
        let mut content = storage.read(&Key::blob(digest), 0, size).await?;
        let (mut file, mut hash) = (self.begin()?, Sha256::new());
        while let Some(piece) = content.try_next().await? {
            hash.update(&piece);
            file.write_all(&piece).with_context(|| self.unwritable())?;
        }
        if Digest::from_bytes(hash.finalize().into()) != *digest {
            bail!("the blob {digest} in storage is damaged. Delete it there, and run this again");
        }
        self.end(file, &blob(digest))
    }

    /// Waits for other processes of this machine, which hold the lock while they write a small file.
    /// Dropping the result unlocks.
    fn lock(&self) -> Result<File> {
        let folder = File::open(&self.folder)?;
        folder.lock()?;
        Ok(folder)
    }

    /// The images in the index.
    fn images(&self) -> Result<Vec<Value>> {
        let Some(mut index) = self.read(INDEX)? else {
            return Ok(Vec::new());
        };
        match index.get_mut("manifests").map(Value::take) {
            Some(Value::Array(images)) => Ok(images),
            _ => bail!("its {INDEX} lists no manifests"),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Value>> {
        match fs::read(self.folder.join(name)) {
            Ok(json) => {
                let value = serde_json::from_slice(&json);
                Ok(Some(
                    value.with_context(|| format!("its {name} is damaged"))?,
                ))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(format!("cannot read its {name}")),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = self.begin()?;
        file.write_all(content)?;
        self.end(file, name)
    }

    fn begin(&self) -> Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".nixgate-")
            // Reduced by the umask.
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(&self.folder)
            .with_context(|| self.unwritable())
    }

    fn end(&self, file: NamedTempFile, name: &str) -> Result<()> {
        file.persist(self.folder.join(name))
            .with_context(|| self.unwritable())?;
        Ok(())
    }

    fn unwritable(&self) -> String {
        let folder = self.folder.display();
        format!("cannot write to {folder}. Check its disk and permissions")
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tempfile::TempDir;

    use super::*;

    struct Fixture {
        folder: TempDir,
        storage: Storage,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let storage = Storage::filesystem(&folder.path().join("storage")).unwrap();
            Self { folder, storage }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Stores an image whose config is this text; returns its manifest.
        async fn image(&self, config: &'static str) -> String {
            let digest = Digest::of(config.as_bytes());
            let content = Bytes::from_static(config.as_bytes());
            self.storage
                .put(&Key::blob(&digest), content)
                .await
                .unwrap();
            let size = config.len();
            format!(r#"{{"config":{{"digest":"{digest}","size":{size}}},"layers":[]}}"#)
        }

        async fn add(&self, manifest: &str, tag: &str) -> Result<()> {
            let tag = Tag::parse(tag).unwrap();
            let layout = Layout::open(&self.path("layout"))?;
            let manifest = manifest.as_bytes();
            let system = System::Aarch64Linux;
            layout.add(&self.storage, manifest, &tag, system).await
        }

        fn json(&self, name: &str) -> Value {
            let json = fs::read(self.path("layout").join(name)).unwrap();
            serde_json::from_slice(&json).unwrap()
        }

        /// Tags and digests of the index.
        fn index(&self) -> Vec<(Value, Value)> {
            let index = self.json(INDEX);
            let images = index["manifests"].as_array().unwrap().iter();
            images
                .map(|image| {
                    (
                        image["annotations"][REF_NAME].clone(),
                        image["digest"].clone(),
                    )
                })
                .collect()
        }
    }

    fn digest(manifest: &str) -> Value {
        json!(Digest::of(manifest.as_bytes()).to_string())
    }

    #[tokio::test]
    async fn a_layout_is_as_the_spec_says() {
        let fixture = Fixture::new();
        let manifest = fixture.image("config").await;
        fixture.add(&manifest, "latest").await.unwrap();
        assert_eq!(
            fixture.json(MARKER),
            json!({ "imageLayoutVersion": "1.0.0" })
        );
        assert_eq!(
            fixture.json(INDEX),
            json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [{
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": digest(&manifest),
                    "size": manifest.len(),
                    "platform": { "architecture": "arm64", "os": "linux" },
                    "annotations": { "org.opencontainers.image.ref.name": "latest" },
                }],
            })
        );
        for content in ["config", &manifest] {
            let file = blob(&Digest::of(content.as_bytes()));
            let file = fixture.path("layout").join(file);
            assert_eq!(fs::read_to_string(file).unwrap(), content);
        }
    }

    #[tokio::test]
    async fn an_image_replaces_only_that_of_its_tag() {
        let fixture = Fixture::new();
        let (one, two) = (fixture.image("one").await, fixture.image("two").await);
        for (manifest, tag) in [(&one, "latest"), (&one, "kept"), (&two, "latest")] {
            fixture.add(manifest, tag).await.unwrap();
        }
        assert_eq!(
            fixture.index(),
            [
                (json!("kept"), digest(&one)),
                (json!("latest"), digest(&two))
            ]
        );
    }

    #[test]
    fn concurrent_writers_to_one_folder_lose_no_image() {
        const WRITERS: usize = 8;
        const IMAGES: usize = 20;
        let fixture = Fixture::new();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let manifest = runtime.block_on(fixture.image("config"));
        let start = std::sync::Barrier::new(WRITERS);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (fixture, manifest, start) = (&fixture, &manifest, &start);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Runtime::new().unwrap();
                    start.wait();
                    for image in 0..IMAGES {
                        let tag = format!("{writer}-{image}");
                        runtime.block_on(fixture.add(manifest, &tag)).unwrap();
                    }
                });
            }
        });
        assert_eq!(fixture.index().len(), WRITERS * IMAGES);
    }

    #[tokio::test]
    async fn a_damaged_or_missing_blob_is_not_written() {
        let fixture = Fixture::new();
        let manifest = fixture.image("config").await;
        let stored = Key::blob(&Digest::of(b"config"));
        let damaged = Bytes::from_static(b"c0nfig");
        fixture.storage.put(&stored, damaged).await.unwrap();
        let error = fixture.add(&manifest, "latest").await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        let missing = manifest.replace(&Digest::of(b"config").hex(), &Digest::of(b"").hex());
        fixture.add(&missing, "latest").await.unwrap_err();
        assert!(!fixture.path("layout").join(INDEX).exists());
        let left = fs::read_dir(fixture.path("layout/blobs/sha256")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn other_folders_are_left_alone() {
        let fixture = Fixture::new();
        for (name, content) in [
            ("notes.txt", "mine"),
            (MARKER, r#"{"imageLayoutVersion":"2.0.0"}"#),
            (MARKER, "{"),
        ] {
            let folder = tempfile::tempdir_in(&fixture.folder).unwrap();
            fs::write(folder.path().join(name), content).unwrap();
            let error = Layout::open(folder.path()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("Name another folder"), "{text}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        let file = fixture.path("file");
        fs::write(&file, "").unwrap();
        Layout::open(&file).unwrap_err();
    }
}
