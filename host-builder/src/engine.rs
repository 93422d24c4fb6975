//! All that builds images, opened from the settings once: for the server, `nixgate build`, `nixgate
//! warm` and whatever else asks for an image.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nixgate_core::distribution::{Error, Repository};

use crate::builder::{Layers, NixBuilder, Packages, SingleFlight};
use crate::config::{BuildSettings, StorageSettings};
use crate::files::disk::Disks;
use crate::files::state_dir::StateDir;
use crate::nix::gc_roots::GcRoots;
use crate::nix::{Nix, NixCli, NixError};
use crate::records::{LocalCache, Records};
use crate::request::recipes::RecipeFile;
use crate::request::{ImageRequest, NamedImage};
use crate::source::{self, Pin, PinError, Source, Sources};
use crate::storage::Storage;
use crate::telemetry::build_log::BuildLogs;
use crate::telemetry::logging::chain;
use crate::telemetry::metrics::Metrics;

/// All that builds images. It has its state folder alone, for as long as it is there.
pub(crate) struct Engine {
    pub(crate) settings: BuildSettings,
    pub(crate) state: StateDir,
    pub(crate) nix: Arc<dyn Nix>,
    pub(crate) sources: Sources,
    pub(crate) recipes: RecipeFile,
    pub(crate) storage: Storage,
    pub(crate) builds: SingleFlight<NixBuilder>,
    pub(crate) logs: BuildLogs,
    pub(crate) disks: Disks,
    pub(crate) metrics: Metrics,
}

impl Engine {
    /// Prepares to build images.
    ///
    /// # Errors
    /// When that can't be done; the error says what to do.
    pub(crate) async fn open(settings: BuildSettings) -> Result<Self> {
        let metrics = Metrics::new();
        let recipes = RecipeFile::open(settings.recipes.as_deref())?;
        let state = StateDir::open(&settings.state_dir)?;
        let (storage, folder) = match &settings.storage {
            StorageSettings::Filesystem(folder) => (Storage::filesystem(folder)?, Some(folder)),
            StorageSettings::S3(bucket) => (Storage::s3(bucket)?, None),
        };
        // What is far away is copied.
        let cache = match folder {
            Some(_) => None,
            None => Some(LocalCache::open(&state.records(), settings.keep)?),
        };
        let folder = folder.map(PathBuf::as_path);
        let disks = Disks::new(&settings.state_dir, folder, settings.min_free);
        let nix: Arc<dyn Nix> = Arc::new(NixCli::new(
            settings.nix.clone(),
            state.expressions(),
            metrics.clone(),
        ));
        let sources = Sources::new(
            settings.source.clone(),
            Arc::clone(&nix),
            settings.any_tag,
            settings.pin,
            settings.max_refs,
            &settings.state_dir,
        )?;
        check_nix(&*nix, sources.source()).await?;
        check_sandbox(&*nix).await?;
        let roots = GcRoots::open(&state.kept(), settings.keep)
            .context("the packages that are kept can't be read: check NIXGATE_STATE_DIR")?;
        let logs = BuildLogs::default();
        let packages = Packages::new(
            Arc::clone(&nix),
            Records::new(storage.clone(), cache),
            roots,
            metrics.clone(),
            settings.max_builds,
        );
        let layers = Layers::new(
            storage.clone(),
            metrics.clone(),
            state.staging(),
            disks.clone(),
        );
        let builder = NixBuilder {
            storage: storage.clone(),
            packages,
            layers,
            logs: logs.clone(),
            disks: disks.clone(),
        };
        Ok(Self {
            builds: SingleFlight::new(builder, settings.max_queue),
            settings,
            state,
            nix,
            sources,
            recipes,
            storage,
            logs,
            disks,
            metrics,
        })
    }

    /// What a name asks for.
    ///
    /// # Errors
    /// As [`NamedImage::of`].
    pub(crate) fn wanted(&self, repository: &Repository) -> Result<NamedImage, Error> {
        NamedImage::of(repository, &self.recipes.current(), self.settings.system)
    }

    /// The image of a name out of that package set.
    pub(crate) fn image(&self, pin: Pin, wanted: &NamedImage) -> ImageRequest {
        let max_layers = self.settings.max_layers;
        ImageRequest::new(self.sources.source(), pin, wanted, max_layers)
    }
}

/// Refuses a Nix that is too old for the package set, where that is in a folder. Other package sets
/// would have to be fetched first; they are looked at when they are pinned. Published images are
/// served without Nix.
async fn check_nix(nix: &dyn Nix, source: &Source) -> Result<()> {
    let found = match nix.version().await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(
                error = chain(&error),
                "only images that are stored already can be served"
            );
            return Ok(());
        }
    };
    if let Source::Path { path } = source
        && let Some(needed) = source::required_nix(path)
    {
        let found = found.version;
        ensure!(found >= needed, PinError::NixTooOld { needed, found });
    }
    tracing::info!(nix = %found, "Nix is there");
    Ok(())
}

/// Refuses a machine on which builds would see it. Where Nix can't be asked that is left to the first
/// build: published images are served without Nix.
async fn check_sandbox(nix: &dyn Nix) -> Result<()> {
    match nix.check_sandbox().await {
        Err(
            error @ (NixError::NotSandboxed { .. }
            | NixError::ProbeNotRun { .. }
            | NixError::SharedBuildUser { .. }
            | NixError::NoEnclosure { .. }
            | NixError::TooWeak { .. }),
        ) => Err(error.into()),
        Err(error) => {
            tracing::error!(
                error = chain(&error),
                "whether builds are sandboxed is found out later"
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
