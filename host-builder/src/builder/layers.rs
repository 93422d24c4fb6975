//! An image's layers: those that an earlier image had, and those that are packed now.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use nixgate_core::distribution::{Digest, Error};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::errors::{self, Failure};
use crate::closure::{Closure, StorePath};
use crate::files::disk::Disks;
use crate::fingerprint::Fingerprint;
use crate::image::LayerSpec;
use crate::layer::{self, ENCODER_ID, PackError, Packed, Tree};
use crate::layering::{self, Popularity};
use crate::storage::{Key, Storage, StorageError};
use crate::telemetry::build_log::BuildLog;
use crate::telemetry::metrics::{LayerLabels, Metrics};

/// Layers of one image that are looked up in storage, or wait to be packed, at once.
const LAYERS_AT_ONCE: usize = 16;

/// Packs layers and remembers which were.
pub(crate) struct Layers {
    storage: Storage,
    metrics: Metrics,
    popularity: Popularity,
    /// Where layers are in the making.
    staging: PathBuf,
    disks: Disks,
    /// One for each layer that is packed at the same time, of whichever image: as many as there
    /// are processors.
    packers: Semaphore,
    packers_at_once: usize,
}

/// What `builds/<key>` says of a set of store paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LayerRecord {
    diff_id: Digest,
    digest: Digest,
    size: u64,
}

/// A group of store paths and what is known of its layer.
struct Layer {
    /// With the hashes that Nix recorded.
    paths: BTreeMap<StorePath, String>,
    /// Bytes of what is in it.
    size: u64,
    key: Key,
    record: Option<LayerRecord>,
}

/// An image's layers of store paths, before those that nobody has packed yet are.
pub(super) struct Plan(Vec<Layer>);

impl Plan {
    /// Whether every layer is in storage.
    pub(super) fn is_complete(&self) -> bool {
        self.0.iter().all(|layer| layer.record.is_some())
    }
}

impl Layers {
    pub(crate) fn new(storage: Storage, metrics: Metrics, staging: PathBuf, disks: Disks) -> Self {
        let packers_at_once = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            storage,
            metrics,
            popularity: Popularity::default(),
            staging,
            disks,
            packers: Semaphore::new(packers_at_once),
            packers_at_once,
        }
    }

    /// Groups a closure into at most `max_layers` layers, that of the symlinks included, and finds
    /// out which of them there are. The highest rating comes first.
    pub(super) async fn plan(&self, closure: &Closure, max_layers: usize) -> Result<Plan, Error> {
        let budget = NonZeroUsize::new(max_layers.saturating_sub(1)).unwrap_or(NonZeroUsize::MIN);
        let plan = layering::plan(closure, &self.popularity, budget);
        let layers = plan.layers.into_iter().map(|group| async move {
            let known = closure.paths();
            let infos = group
                .paths
                .iter()
                .filter_map(|path| known.get_key_value(path));
            let size = infos.clone().map(|(_, info)| info.nar_size).sum();
            let paths = infos.map(|(path, info)| (path.clone(), info.nar_hash.clone()));
            let paths = paths.collect();
            let key = Key::build(&layer_fingerprint(&paths));
            let record = self.known(&key).await?;
            Ok::<_, StorageError>(Layer {
                paths,
                size,
                key,
                record,
            })
        });
        let layers = futures::stream::iter(layers).buffered(LAYERS_AT_ONCE);
        let layers = layers.try_collect().await.map_err(errors::storage)?;
        Ok(Plan(layers))
    }

    /// Packs what is missing. The store paths of the plan are to be in the store meanwhile. When some of
    /// them are not what Nix made, the others are packed all the same: all that are not are told.
    pub(super) async fn pack(&self, plan: Plan, log: &BuildLog) -> Result<Vec<LayerSpec>, Failure> {
        let missing = plan.0.iter().filter(|layer| layer.record.is_none());
        let missing: Vec<u64> = missing.map(|layer| layer.size).collect();
        if !missing.is_empty() {
            self.disks.check_for(&missing, self.packers_at_once)?;
        }
        let count = plan.0.len();
        let layers = plan.0.into_iter().map(|layer| self.layer(layer));
        let mut layers = futures::stream::iter(layers)
            .buffered(LAYERS_AT_ONCE)
            .enumerate();
        let (mut packed, mut altered) = (Vec::with_capacity(count), Vec::new());
        while let Some((index, layer)) = layers.next().await {
            // One more is that of the symlinks.
            log.part((index + 1) as f64 / (count + 1) as f64);
            match layer {
                Ok(layer) => packed.push(layer),
                Err(Failure::Altered(more)) => altered.extend(more),
                Err(error) => return Err(error),
            }
        }
        match altered.is_empty() {
            true => Ok(packed),
            false => Err(Failure::Altered(altered)),
        }
    }

    /// The layer of a group of store paths.
    async fn layer(&self, layer: Layer) -> Result<LayerSpec, Failure> {
        let Layer {
            paths, key, record, ..
        } = layer;
        let names = paths.keys().map(|path| path.name().to_owned());
        let contents: BTreeSet<_> = names.collect();
        let record = match record {
            Some(record) => {
                self.count("reused");
                record
            }
            None => {
                let packed = self
                    .write(move |file| layer::pack_store_paths(Path::new("/"), &paths, file))
                    .await?;
                let record = LayerRecord::from(packed);
                let json = serde_json::to_vec(&record).map_err(errors::internal)?;
                self.keep(&key, &record, json.into())
                    .await
                    .map_err(errors::storage)?;
                record
            }
        };
        Ok(record.spec(contents.into_iter().collect()))
    }

    /// A layer's record, if its blob is really there.
    async fn known(&self, key: &Key) -> Result<Option<LayerRecord>, StorageError> {
        let Some(json) = self.storage.get(key).await? else {
            return Ok(None);
        };
        let Ok(record) = serde_json::from_slice::<LayerRecord>(&json) else {
            return Ok(None);
        };
        let size = self.storage.size(&Key::blob(&record.digest)).await?;
        Ok((size == Some(record.size)).then_some(record))
    }

    /// Keeps a layer's record. Packing is deterministic, so another record of the same paths is a
    /// defect worth a report; one that can't be read is replaced.
    async fn keep(&self, key: &Key, packed: &LayerRecord, json: Bytes) -> Result<(), StorageError> {
        if self.storage.put_if_absent(key, json.clone()).await? {
            return Ok(());
        }
        let earlier = self.storage.get(key).await?;
        let earlier = earlier.and_then(|json| serde_json::from_slice::<LayerRecord>(&json).ok());
        match earlier {
            Some(earlier) if earlier == *packed => {}
            Some(_) => tracing::error!(
                ?key,
                digest = %packed.digest,
                "the same store paths were packed differently before: report this"
            ),
            None => self.storage.put(key, json).await?,
        }
        Ok(())
    }

    /// The layer of symlinks on top: what is in each of the image's store paths, laid over each
    /// other in their order.
    pub(super) async fn symlinks(
        &self,
        trees: Vec<(StorePath, Tree)>,
    ) -> Result<LayerSpec, Failure> {
        let merged = tokio::task::spawn_blocking(move || {
            layer::merge(trees.iter().map(|(path, tree)| (path, tree)))
        });
        let merged = merged.await.map_err(errors::internal)?;
        for collision in &merged.collisions {
            tracing::debug!("{collision}");
        }
        if !merged.collisions.is_empty() {
            let count = merged.collisions.len();
            tracing::info!(
                count,
                "files of the same name: the first package has its way"
            );
        }
        for path in &merged.without_directory {
            tracing::warn!(%path, "a package that is a single file: it is in the store alone");
        }
        let packed = self
            .write(move |file| layer::pack_root(&merged.root, file))
            .await?;
        Ok(LayerRecord::from(packed).spec(vec!["symlinks".to_owned()]))
    }

    /// Packs into a file, then uploads it. The turn is for both, which bounds the files and the
    /// memory of uploads as well.
    async fn write(
        &self,
        pack: impl FnOnce(&mut std::io::BufWriter<std::fs::File>) -> Result<Packed, PackError>
        + Send
        + 'static,
    ) -> Result<Packed, Failure> {
        let _turn = self.packers.acquire().await.map_err(errors::internal)?;
        let staging = self.staging.clone();
        let (file, packed) = tokio::task::spawn_blocking(move || {
            let file = tempfile::NamedTempFile::new_in(staging).map_err(PackError::Write)?;
            let mut writer = std::io::BufWriter::new(file.reopen().map_err(PackError::Write)?);
            let packed = pack(&mut writer)?;
            writer
                .into_inner()
                .map_err(|error| PackError::Write(error.into_error()))?;
            Ok::<_, PackError>((file, packed))
        })
        .await
        .map_err(errors::internal)??;
        self.storage
            .upload(&packed.digest, file.path())
            .await
            .map_err(errors::storage)?;
        self.count("packed");
        Ok(packed)
    }

    fn count(&self, outcome: &'static str) {
        self.metrics
            .layers
            .get_or_create(&LayerLabels { outcome })
            .inc();
    }
}

impl LayerRecord {
    fn spec(self, contents: Vec<String>) -> LayerSpec {
        let Self {
            diff_id,
            digest,
            size,
        } = self;
        LayerSpec {
            diff_id,
            digest,
            size,
            contents,
        }
    }
}

impl From<Packed> for LayerRecord {
    fn from(packed: Packed) -> Self {
        let Packed {
            diff_id,
            digest,
            size,
            ..
        } = packed;
        Self {
            diff_id,
            digest,
            size,
        }
    }
}

/// What names a layer: which paths are in it, and what Nix recorded of them. A layer that was packed has
/// been compared with these hashes, so whoever finds one by its key finds what Nix made.
fn layer_fingerprint(paths: &BTreeMap<StorePath, String>) -> String {
    Fingerprint::new("layer-1")
        .part(ENCODER_ID)
        .list(paths.keys().map(StorePath::base_name))
        .list(paths.values())
        .hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_named_by_its_paths_and_each_one_s_contents() {
        let path = |name: &str| -> StorePath {
            format!("/nix/store/{}-{name}", "0".repeat(32))
                .parse()
                .unwrap()
        };
        let key = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let paths = pairs.map(|(name, hash)| (path(name), (*hash).to_owned()));
            layer_fingerprint(&paths.collect())
        };
        let first = key(&[("a", "00"), ("b", "11")]);
        assert_eq!(first, key(&[("b", "11"), ("a", "00")]));
        for other in [
            &[("a", "11"), ("b", "00")][..],
            &[("a", "00"), ("b", "12")],
            &[("a", "00"), ("c", "11")],
            &[("a", "00")],
            &[("a", "0011"), ("b", "")],
        ] {
            assert_ne!(first, key(other), "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_damaged_record_is_replaced_and_another_layer_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::filesystem(&folder.path().join("storage")).unwrap();
        let disks = Disks::new(folder.path(), None, 0);
        let layers = Layers::new(storage, Metrics::new(), folder.path().to_owned(), disks);
        let record = |content: &[u8]| LayerRecord {
            diff_id: Digest::of(content),
            digest: Digest::of(content),
            size: 1,
        };
        let (key, first) = (Key::build("k"), record(b"first"));
        let json = |record: &LayerRecord| Bytes::from(serde_json::to_vec(record).unwrap());
        layers.storage.put(&key, "{\"dige".into()).await.unwrap();
        for packed in [&first, &record(b"second")] {
            layers.keep(&key, packed, json(packed)).await.unwrap();
            let kept = layers.storage.get(&key).await.unwrap();
            assert_eq!(kept, Some(json(&first)));
        }
    }
}
