//! Everything that builds images, opened from the settings once: for the server, and for `nixgate
//! build`, `explain` and `warm`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nixgate_core::distribution::{Error, Repository};

use crate::builder::{Layers, NixBuilder, OtherNames, Packages, SingleFlight};
use crate::config::{BuildSettings, StorageSettings};
use crate::files::disk::Disks;
use crate::files::state_dir::StateDir;
use crate::index::Indexes;
use crate::nix::gc_roots::GcRoots;
use crate::nix::{Nix, NixCli, NixError};
use crate::records::{LocalCache, Records};
use crate::request::recipes::RecipeFile;
use crate::request::{ImageRequest, NamedImage};
use crate::source::{self, Pin, PinError, Source, SourceSettings, Sources};
use crate::storage::Storage;
use crate::telemetry::build_log::BuildLogs;
use crate::telemetry::logging::chain;
use crate::telemetry::metrics::Metrics;

/// Locks its state folder while it exists.
pub(crate) struct Engine {
    pub(crate) settings: BuildSettings,
    pub(crate) state: StateDir,
    pub(crate) nix: Arc<dyn Nix>,
    pub(crate) sources: Sources,
    pub(crate) recipes: RecipeFile,
    pub(crate) storage: Storage,
    pub(crate) indexes: Indexes,
    pub(crate) other_names: OtherNames,
    pub(crate) builds: SingleFlight<NixBuilder>,
    pub(crate) logs: BuildLogs,
    pub(crate) disks: Disks,
    pub(crate) metrics: Metrics,
}

impl Engine {
    /// # Errors
    /// When no images can be built; the error says what to do.
    pub(crate) async fn open(settings: BuildSettings) -> Result<Self> {
        let metrics = Metrics::new();
        let recipes = RecipeFile::open(settings.recipes.as_deref())?;
        let state = StateDir::open(&settings.state_dir)?;
        let storage = open_storage(&settings.storage)?;
        let folder = match &settings.storage {
            StorageSettings::Filesystem(folder) => Some(folder),
            StorageSettings::S3(_) => None,
        };
        // Remote storage gets a local cache.
        let cache = match folder {
            Some(_) => None,
            None => Some(LocalCache::open(&state.records(), settings.keep)?),
        };
        let folder = folder.map(PathBuf::as_path);
        let disks = Disks::new(&settings.state_dir, folder, settings.min_free);
        let logs = BuildLogs::default();
        let (nix, sources) = open_sources(&settings, &state, metrics.clone(), logs.clone())?;
        check_nix(&*nix, sources.source()).await?;
        check_sandbox(&*nix).await?;
        let roots = GcRoots::open(&state.gc_roots(), settings.keep).context(
            "cannot open the roots for Nix's garbage collector. Check NIXGATE_STATE_DIR",
        )?;
        let indexes = Indexes::new(
            Arc::clone(&nix),
            storage.clone(),
            sources.clone(),
            state.indexes(),
            metrics.clone(),
            settings.index,
        );
        let other_names = OtherNames::new(
            Arc::clone(&nix),
            indexes.clone(),
            settings.index,
            sources.identity(),
        );
        let packages = Packages::new(
            Arc::clone(&nix),
            indexes.clone(),
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
            indexes,
            other_names,
            logs,
            disks,
            metrics,
        })
    }

    /// # Errors
    /// As [`NamedImage::of`].
    pub(crate) fn named_image(&self, repository: &Repository) -> Result<NamedImage, Error> {
        NamedImage::of(repository, &self.recipes.current(), self.settings.system)
    }

    /// The request for a named image, from a pinned package set.
    pub(crate) fn image(&self, pin: Pin, named: &NamedImage) -> ImageRequest {
        let (layering, max_layers) = (self.settings.layering, self.settings.max_layers);
        ImageRequest::new(self.sources.identity(), pin, named, layering, max_layers)
    }
}

/// # Errors
/// When there is no such storage; the error says what to do.
pub(crate) fn open_storage(settings: &StorageSettings) -> Result<Storage> {
    Ok(match settings {
        StorageSettings::Filesystem(folder) => Storage::filesystem(folder)?,
        StorageSettings::S3(bucket) => Storage::s3(bucket)?,
    })
}

/// Nix, and the package source of the settings, with their files in a state folder.
///
/// # Errors
/// When the folder can't be written.
pub(crate) fn open_sources(
    settings: &BuildSettings,
    state: &StateDir,
    metrics: Metrics,
    logs: BuildLogs,
) -> io::Result<(Arc<dyn Nix>, Sources)> {
    let nix = NixCli::new(
        settings.nix.clone(),
        state.path(),
        state.overlays(),
        metrics,
    );
    let nix: Arc<dyn Nix> = Arc::new(nix);
    let of_source = SourceSettings {
        source: settings.source.clone(),
        system: settings.system,
        any_tag: settings.any_tag,
        hold: settings.pin,
        max_refs: settings.max_refs,
        network: settings.nix.network.clone(),
    };
    let sources = Sources::new(of_source, Arc::clone(&nix), logs, state.path())?;
    let sources = sources.configured(settings.nix.nixpkgs_config.fingerprint());
    Ok((nix, sources))
}

/// Refuses a Nix that is too old for a package set in a folder. Others are checked when they are
/// fetched. A missing Nix is no error: published images are served without it.
async fn check_nix(nix: &dyn Nix, source: &Source) -> Result<()> {
    let found = match nix.version().await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(
                error = chain(&error),
                "cannot run Nix: only stored images can be served"
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
    tracing::info!(nix = %found, "found Nix");
    Ok(())
}

/// Refuses a machine that builds could see. If Nix can't be asked, the first build checks again:
/// published images are served without Nix.
async fn check_sandbox(nix: &dyn Nix) -> Result<()> {
    match nix.check_sandbox().await {
        Err(
            error @ (NixError::CannotBuild { .. }
            | NixError::NotSandboxed { .. }
            | NixError::ProbeNotRun { .. }
            | NixError::SharedBuildUser { .. }
            | NixError::NoEnclosure { .. }
            | NixError::TooWeak { .. }),
        ) => Err(error.into()),
        Err(error) => {
            tracing::error!(
                error = chain(&error),
                "cannot check the sandbox now: the next build checks it"
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
