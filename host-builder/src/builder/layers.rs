//! An image's layers: those of earlier images, and those to pack.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use nixgate_core::distribution::Error;
use tokio::sync::Semaphore;

use super::errors::{self, Failure};
use crate::closure::{Closure, StorePath};
use crate::files::disk::Disks;
use crate::fingerprint::Fingerprint;
use crate::image::LayerSpec;
use crate::layer::{self, ENCODER_ID, Environment, Merged, PackError, Packed, Reach, Start, Tree};
use crate::layering::{Layering, Popularity};
use crate::storage::{Key, Storage, StorageError};
use crate::telemetry::build_log::{BuildLog, Contents};
use crate::telemetry::metrics::{Metrics, OutcomeLabels};

/// Layers of one image that are looked up in storage, or queued for packing, at once.
const LAYERS_AT_ONCE: usize = 16;
/// Folders of an image, and packages of a folder or a variable, that operators are told of.
const MAX_TOLD: usize = 32;

pub(crate) struct Layers {
    storage: Storage,
    metrics: Metrics,
    popularity: Arc<Popularity>,
    /// The folder of unfinished layers.
    staging: PathBuf,
    disks: Disks,
    /// Bounds the layers that are packed at once, of all images, to the number of processors.
    packers: Semaphore,
    packers_at_once: usize,
}

/// A group of store paths.
struct PlannedLayer {
    /// With the hashes that Nix recorded.
    paths: BTreeMap<StorePath, String>,
    /// Uncompressed bytes.
    size: u64,
    key: Key,
    /// Set if storage has the layer.
    packed: Option<Packed>,
}

/// An image's layers of store paths.
pub(super) struct LayerPlan(Vec<PlannedLayer>);

impl LayerPlan {
    /// Whether storage has every layer.
    pub(super) fn is_complete(&self) -> bool {
        self.0.iter().all(|layer| layer.packed.is_some())
    }
}

impl Layers {
    pub(crate) fn new(storage: Storage, metrics: Metrics, staging: PathBuf, disks: Disks) -> Self {
        let packers_at_once = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            storage,
            metrics,
            popularity: Arc::default(),
            staging,
            disks,
            packers: Semaphore::new(packers_at_once),
            packers_at_once,
        }
    }

    /// Groups a closure into at most `max_layers` layers, including that of the symlinks, and looks them
    /// up in storage. The highest rating comes first.
    pub(super) async fn plan(
        &self,
        closure: &Closure,
        layering: Layering,
        max_layers: usize,
    ) -> Result<LayerPlan, Error> {
        let budget = NonZeroUsize::new(max_layers.saturating_sub(1)).unwrap_or(NonZeroUsize::MIN);
        let (graph, popularity) = (closure.clone(), Arc::clone(&self.popularity));
        // Hundreds of paths take tens of milliseconds.
        let plan = tokio::task::spawn_blocking(move || layering.plan(&graph, &popularity, budget));
        let plan = plan.await.map_err(errors::internal)?;
        let layers = plan.into_iter().map(|group| async move {
            let known = closure.paths();
            let infos = group
                .paths
                .iter()
                .filter_map(|path| known.get_key_value(path));
            let size = infos.clone().map(|(_, info)| info.nar_size).sum();
            let paths = infos.map(|(path, info)| (path.clone(), info.nar_hash.clone()));
            let paths = paths.collect();
            let key = Key::build(&layer_fingerprint(&paths));
            let packed = self.find(&key).await?;
            Ok::<_, StorageError>(PlannedLayer {
                paths,
                size,
                key,
                packed,
            })
        });
        let layers = futures::stream::iter(layers).buffered(LAYERS_AT_ONCE);
        Ok(LayerPlan(layers.try_collect().await?))
    }

    /// Packs the layers that storage lacks, whose store paths must stay in the Nix store meanwhile. Goes on
    /// after an altered store path, so that the failure lists all of them.
    pub(super) async fn pack(
        &self,
        plan: LayerPlan,
        log: &BuildLog,
    ) -> Result<Vec<LayerSpec>, Failure> {
        let missing = plan.0.iter().filter(|layer| layer.packed.is_none());
        let missing: Vec<u64> = missing.map(|layer| layer.size).collect();
        if !missing.is_empty() {
            self.disks.check_for(&missing, self.packers_at_once)?;
        }
        let count = plan.0.len();
        let layers = plan.0.into_iter().map(|layer| self.pack_layer(layer));
        let mut layers = futures::stream::iter(layers)
            .buffered(LAYERS_AT_ONCE)
            .enumerate();
        let (mut packed, mut altered) = (Vec::with_capacity(count), Vec::new());
        while let Some((index, layer)) = layers.next().await {
            // One more for the symlinks.
            log.set_progress((index + 1) as f64 / (count + 1) as f64);
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

    async fn pack_layer(&self, layer: PlannedLayer) -> Result<LayerSpec, Failure> {
        let paths = layer.paths;
        let contents: BTreeSet<_> = paths.keys().map(|path| path.name().to_owned()).collect();
        let packed = match layer.packed {
            Some(packed) => {
                self.count("reused");
                packed
            }
            None => {
                let packed = self
                    .write(move |file| layer::pack_store_paths(Path::new("/"), &paths, file))
                    .await?;
                let json = serde_json::to_vec(&packed).map_err(errors::internal)?;
                self.store_record(&layer.key, &packed, json.into()).await?;
                packed
            }
        };
        let contents = contents.into_iter().collect();
        Ok(LayerSpec { packed, contents })
    }

    /// A layer's record, if storage has the blob too.
    async fn find(&self, key: &Key) -> Result<Option<Packed>, StorageError> {
        let Some(json) = self.storage.get(key).await? else {
            return Ok(None);
        };
        let Ok(packed) = serde_json::from_slice::<Packed>(&json) else {
            return Ok(None);
        };
        let size = self.storage.size(&Key::blob(&packed.digest)).await?;
        Ok((size == Some(packed.size)).then_some(packed))
    }

    /// Stores a layer's record. Replaces one that can't be read, but no other: since packing is
    /// deterministic, that is a bug.
    async fn store_record(
        &self,
        key: &Key,
        packed: &Packed,
        json: Bytes,
    ) -> Result<(), StorageError> {
        if self.storage.put_if_absent(key, json.clone()).await? {
            return Ok(());
        }
        let earlier = self.storage.get(key).await?;
        let earlier = earlier.and_then(|json| serde_json::from_slice::<Packed>(&json).ok());
        match earlier {
            Some(earlier) if earlier == *packed => {}
            Some(_) => tracing::error!(
                ?key,
                digest = %packed.digest,
                "a layer differs from an earlier one of the same store paths. Report this"
            ),
            None => self.storage.put(key, json).await?,
        }
        Ok(())
    }

    /// Packs the layer of symlinks: the trees of the image's packages, merged in their order. Tells what
    /// the image lacks of them, and returns the variables for what it has.
    pub(super) async fn pack_symlinks(
        &self,
        trees: Vec<(StorePath, Tree)>,
        reach: Vec<Reach>,
        start: Start,
        log: &BuildLog,
    ) -> Result<(LayerSpec, Environment), Failure> {
        let merged = tokio::task::spawn_blocking(move || {
            let trees = trees.iter().map(|(path, tree)| (path, tree));
            let mut merged = layer::merge(trees, &reach);
            let remarks = start.prepare(&mut merged.root);
            (merged, remarks)
        });
        let (merged, remarks) = merged.await.map_err(errors::internal)?;
        for path in &merged.without_directory {
            let name = path.name();
            log.left_out(|| format!("{name} is a single file: it is only in the store, not in /"));
        }
        for dropped in &merged.dropped {
            log.left_out(|| dropped.to_string());
        }
        for python in &merged.absent_pythons {
            log.line(&format!(
                "modules for {python} are in /lib/{python}, where only that finds them: it is not the \
                 image's Python"
            ));
        }
        for remark in &remarks {
            log.line(remark);
            tracing::warn!(remark, "a recipe's workdir is not as it says");
        }
        log.set_contents(contents(&merged));
        let environment = merged.environment;
        let count = merged.dropped.len() + merged.without_directory.len();
        if count > 0 {
            let first = log.snapshot().left_out.texts;
            tracing::info!(count, ?first, "the image lacks files of its packages");
        }
        let packed = self
            .write(move |file| layer::pack_root(&merged.root, file))
            .await?;
        let contents = vec!["symlinks".to_owned()];
        Ok((LayerSpec { packed, contents }, environment))
    }

    /// Packs into a file and uploads it. The permit covers both, which bounds the files and the memory of
    /// uploads too.
    async fn write(
        &self,
        pack: impl FnOnce(&mut std::io::BufWriter<std::fs::File>) -> Result<Packed, PackError>
        + Send
        + 'static,
    ) -> Result<Packed, Failure> {
        let _permit = self.packers.acquire().await.map_err(errors::internal)?;
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
        self.storage.upload(&packed.digest, file.path()).await?;
        self.count("packed");
        Ok(packed)
    }

    fn count(&self, outcome: &'static str) {
        self.metrics
            .layers
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }
}

/// What operators are told of an image, bounded: its packages may have any number of folders.
fn contents(merged: &Merged) -> Contents {
    let some = |packages: &[StorePath]| {
        let names: BTreeSet<&str> = packages.iter().map(StorePath::name).collect();
        let names = names.into_iter().take(MAX_TOLD);
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let variables = merged.reasons.iter().map(|(name, reasons)| {
        let reasons = reasons.iter().map(|reason| {
            let packages = some(&reason.packages).join(", ");
            match packages.is_empty() {
                true => reason.what.clone(),
                false => format!("{} of {packages}", reason.what),
            }
        });
        (name.clone(), reasons.collect::<Vec<_>>().join("; "))
    });
    let top = merged.entries.iter();
    let top = top.filter(|one| one.is_directory && one.path.components().count() == 1);
    let folders = top.map(|one| (format!("/{}", one.path.display()), some(&one.packages)));
    Contents {
        variables: variables.collect(),
        folders: folders.take(MAX_TOLD).collect(),
    }
}

/// The key of a layer: its paths, and the hashes that Nix recorded. Packing checks these hashes, so a
/// layer with this key has what Nix made.
fn layer_fingerprint(paths: &BTreeMap<StorePath, String>) -> String {
    Fingerprint::new("layer-1")
        .part(ENCODER_ID)
        .list(paths.keys().map(StorePath::base_name))
        .list(paths.values())
        .hex()
}

#[cfg(test)]
mod tests {
    use nixgate_core::distribution::Digest;

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
    async fn a_damaged_record_is_replaced_and_that_of_another_layer_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::filesystem(&folder.path().join("storage")).unwrap();
        let disks = Disks::new(folder.path(), None, 0);
        let layers = Layers::new(storage, Metrics::new(), folder.path().to_owned(), disks);
        let record = |content: &[u8]| Packed {
            diff_id: Digest::of(content),
            digest: Digest::of(content),
            size: 1,
        };
        let (key, first) = (Key::build("k"), record(b"first"));
        let json = |record: &Packed| Bytes::from(serde_json::to_vec(record).unwrap());
        layers.storage.put(&key, "{\"dige".into()).await.unwrap();
        for packed in [&first, &record(b"second")] {
            layers
                .store_record(&key, packed, json(packed))
                .await
                .unwrap();
            let kept = layers.storage.get(&key).await.unwrap();
            assert_eq!(kept, Some(json(&first)));
        }
    }
}
