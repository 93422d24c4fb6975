//! The build itself: Nix makes the store paths, everything after is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use nixgate_core::distribution::{Digest, Error};
use nixgate_core::package_set::System;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::resolve::resolve;
use super::{Builder, ImageRequest, failures};
use crate::build_log::{BuildLog, BuildLogs, Phase};
use crate::closure::{Closure, StorePath};
use crate::facts::Record;
use crate::fingerprint::Fingerprint;
use crate::image::{Architecture, Image, ImageSpec, LayerSpec};
use crate::layer::{self, ENCODER_ID, PackError, Packed};
use crate::layering::{self, Group, Popularity};
use crate::nix::{Derivation, Nix, NixError};
use crate::publish::publish;
use crate::state_dir::StateDir;
use crate::storage::{Key, Storage, StorageError};
use crate::telemetry::{LayerLabels, Metrics};

/// Layers of one image that are looked up in storage, or wait to be packed, at once.
const LAYERS_AT_ONCE: usize = 16;

/// Builds images with Nix.
pub struct NixBuilder {
    nix: Arc<dyn Nix>,
    storage: Storage,
    metrics: Metrics,
    popularity: Popularity,
    state: StateDir,
    logs: BuildLogs,
    /// One for each image that is evaluated at the same time. Not the turns of builds, which may
    /// take hours: that a name is wrong is found out by evaluating, and told at once.
    evaluations: Semaphore,
    /// One for each image that Nix builds at the same time.
    builds: Semaphore,
    /// One for each layer that is packed at the same time, of whichever image: as many as there
    /// are processors.
    packers: Semaphore,
}

/// What `builds/<key>` says of a set of store paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LayerRecord {
    diff_id: Digest,
    digest: Digest,
    size: u64,
}

impl NixBuilder {
    /// Prepares to build at most `max_builds` images at once; what is in the making lies in
    /// `state`, and how far it is, in `logs`.
    pub fn new(
        nix: Arc<dyn Nix>,
        storage: Storage,
        metrics: Metrics,
        state: StateDir,
        logs: BuildLogs,
        max_builds: usize,
    ) -> Self {
        Self {
            logs,
            nix,
            storage,
            metrics,
            popularity: Popularity::default(),
            state,
            evaluations: Semaphore::new(max_builds),
            builds: Semaphore::new(max_builds),
            packers: Semaphore::new(
                std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            ),
        }
    }

    async fn build(&self, image: &ImageRequest, log: &BuildLog) -> Result<(), Error> {
        tracing::info!(
            packages = image.packages.join(" "),
            system = image.system.nix(),
            "building"
        );
        let roots = tempfile::tempdir_in(self.state.roots()).map_err(failures::internal)?;
        let derivations = self.realise(image, roots.path(), log).await?;
        log.enter(Phase::Packing);
        let outputs = outputs(&derivations);
        let closure = self.nix.closure(&outputs).await;
        let closure = closure.map_err(failures::question)?;
        let layers = self.layers(image, &closure, &outputs, log).await?;
        let documents = Image::new(&ImageSpec {
            architecture: match image.system {
                System::X86_64Linux => Architecture::Amd64,
                System::Aarch64Linux => Architecture::Arm64,
            },
            layers,
            cmd: command(image, &derivations),
            labels: labels(image),
            annotations: labels(image),
        });
        let manifest = &documents.oci_manifest.bytes;
        let record = Record::new(image, &derivations, &closure, manifest);
        publish(&self.storage, image, &documents, &record)
            .await
            .map_err(failures::storage)?;
        drop(roots);
        tracing::info!(
            packages = image.packages.join(" "),
            digest = %documents.oci_manifest.digest,
            "built"
        );
        Ok(())
    }

    /// Has Nix make the packages, and returns their derivations. What lies between two processes of
    /// Nix the garbage collector may take, so that is done twice.
    async fn realise(
        &self,
        image: &ImageRequest,
        roots: &Path,
        log: &BuildLog,
    ) -> Result<Vec<Derivation>, Error> {
        let derivations = self.evaluate(image, log).await?;
        let realised = self.realise_once(&derivations, roots, log).await?;
        let gone = |one: &Derivation| !one.path.on_disk(Path::new("/")).exists();
        let (derivations, realised) = match realised {
            Err(_) if derivations.iter().any(gone) => {
                tracing::info!("the garbage collector took a derivation: evaluating again");
                let derivations = self.evaluate(image, log).await?;
                let realised = self.realise_once(&derivations, roots, log).await?;
                (derivations, realised)
            }
            other => (derivations, other),
        };
        realised.map_err(failures::realisation)?;
        Ok(derivations)
    }

    async fn evaluate(
        &self,
        image: &ImageRequest,
        log: &BuildLog,
    ) -> Result<Vec<Derivation>, Error> {
        let turn = self.evaluations.acquire().await;
        let _turn = turn.map_err(failures::internal)?;
        log.enter(Phase::Evaluating);
        resolve(&*self.nix, image).await
    }

    async fn realise_once(
        &self,
        derivations: &[Derivation],
        roots: &Path,
        log: &BuildLog,
    ) -> Result<Result<(), NixError>, Error> {
        let _turn = self.builds.acquire().await.map_err(failures::internal)?;
        log.enter(Phase::Building);
        Ok(self.nix.realise(derivations, roots, log).await)
    }

    /// The layers of the closure, highest rating first, and the layer of symlinks on top.
    async fn layers(
        &self,
        image: &ImageRequest,
        closure: &Closure,
        outputs: &[StorePath],
        log: &BuildLog,
    ) -> Result<Vec<LayerSpec>, Error> {
        let budget =
            NonZeroUsize::new(image.max_layers.saturating_sub(1)).unwrap_or(NonZeroUsize::MIN);
        let plan = layering::plan(closure, &self.popularity, budget);
        let count = plan.layers.len();
        let packed = plan
            .layers
            .into_iter()
            .map(|group| self.layer(closure, group));
        let mut layers: Vec<LayerSpec> = futures::stream::iter(packed)
            .buffered(LAYERS_AT_ONCE)
            .enumerate()
            .map(|(index, layer)| {
                // One more is that of the symlinks.
                log.part((index + 1) as f64 / (count + 1) as f64);
                layer
            })
            .try_collect()
            .await?;
        layers.push(self.symlinks(outputs.to_vec()).await?);
        Ok(layers)
    }

    /// The layer of a group of store paths: what an earlier image had, or packed now.
    async fn layer(&self, closure: &Closure, group: Group) -> Result<LayerSpec, Error> {
        let contents = group
            .paths
            .iter()
            .map(|path| path.name().to_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let key = Key::build(&layer_fingerprint(closure, &group));
        let record = match self.known_layer(&key).await.map_err(failures::storage)? {
            Some(record) => {
                self.count_layer("reused");
                record
            }
            None => {
                let paths = group.paths;
                let packed = self
                    .pack(move |file| layer::pack_store_paths(Path::new("/"), &paths, file))
                    .await?;
                let record = LayerRecord::from(packed);
                let json = serde_json::to_vec(&record).map_err(failures::internal)?;
                self.keep(&key, &record, json.into())
                    .await
                    .map_err(failures::storage)?;
                record
            }
        };
        Ok(record.spec(contents))
    }

    /// A layer's record, if its blob is really there.
    async fn known_layer(&self, key: &Key) -> Result<Option<LayerRecord>, StorageError> {
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

    async fn symlinks(&self, outputs: Vec<StorePath>) -> Result<LayerSpec, Error> {
        let merged = tokio::task::spawn_blocking(move || {
            let trees = outputs
                .into_iter()
                .map(|path| Ok((layer::read_tree(&path.on_disk(Path::new("/")))?, path)))
                .collect::<Result<Vec<_>, PackError>>()?;
            Ok::<_, PackError>(layer::merge(trees.iter().map(|(tree, path)| (path, tree))))
        });
        let merged = merged
            .await
            .map_err(failures::internal)?
            .map_err(failures::internal)?;
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
            .pack(move |file| layer::pack_root(&merged.root, file))
            .await?;
        Ok(LayerRecord::from(packed).spec(vec!["symlinks".to_owned()]))
    }

    /// Packs into a file, then uploads it. The turn is for both, which bounds the files and the
    /// memory of uploads as well.
    async fn pack(
        &self,
        pack: impl FnOnce(&mut std::io::BufWriter<std::fs::File>) -> Result<Packed, PackError>
        + Send
        + 'static,
    ) -> Result<Packed, Error> {
        let _turn = self.packers.acquire().await.map_err(failures::internal)?;
        let staging = self.state.staging();
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
        .map_err(failures::internal)?
        .map_err(failures::internal)?;
        self.storage
            .upload(&packed.digest, file.path())
            .await
            .map_err(failures::storage)?;
        self.count_layer("packed");
        Ok(packed)
    }

    fn count_layer(&self, outcome: &'static str) {
        self.metrics
            .layers
            .get_or_create(&LayerLabels { outcome })
            .inc();
    }
}

impl Builder for NixBuilder {
    fn build<'a>(&'a self, image: &'a ImageRequest) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let id = image.fingerprint();
            let log = self.logs.begin(&id, &image.packages, image.system.nix());
            let result = NixBuilder::build(self, image, &log).await;
            log.end(result.as_ref().err().cloned());
            if let Err(error) = &result {
                let packages = image.packages.join(" ");
                tracing::warn!(packages, kind = ?error.kind, "not built: {error}");
            }
            result
        })
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

fn layer_fingerprint(closure: &Closure, group: &Group) -> String {
    let hashes = group.paths.iter().map(|path| {
        closure
            .paths()
            .get(path)
            .map_or("", |info| info.nar_hash.as_str())
    });
    Fingerprint::new("layer-1")
        .part(ENCODER_ID)
        .list(group.paths.iter().map(StorePath::base_name))
        .list(hashes)
        .hex()
}

/// The store paths of the image's packages, in the order of the attribute paths, which decides
/// between files of the same name. Two names may mean one package.
fn outputs(derivations: &[Derivation]) -> Vec<StorePath> {
    let mut seen = BTreeSet::new();
    derivations
        .iter()
        .flat_map(|derivation| &derivation.outputs)
        .filter(|output| seen.insert(&output.path))
        .map(|output| output.path.clone())
        .collect()
}

/// What a container runs: the shell, or the program of the one package that was asked for.
fn command(image: &ImageRequest, derivations: &[Derivation]) -> Vec<String> {
    if image.shell {
        return vec!["bash".to_owned()];
    }
    let mut programs = derivations
        .iter()
        .filter_map(|one| one.main_program.as_ref());
    match (programs.next(), programs.next()) {
        (Some(program), None) => vec![program.clone()],
        _ => Vec::new(),
    }
}

fn labels(image: &ImageRequest) -> BTreeMap<String, String> {
    [
        (
            "org.opencontainers.image.revision",
            image.pin.revision.clone(),
        ),
        ("org.nixgate.packages", image.packages.join(" ")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests;
