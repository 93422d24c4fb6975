//! All that builds images, opened from the settings once: for the server, `nixgate build`, `nixgate
//! warm` and whatever else asks for an image.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nixgate_core::distribution::{Error, Repository};

use crate::builder::NixBuilder;
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

/// What builds images: for the server, and for whoever builds ahead of it.
pub(crate) struct Engine {
    /// The settings.
    pub(crate) settings: BuildSettings,
    /// Nix.
    pub(crate) nix: Arc<dyn Nix>,
    /// Where packages come from.
    pub(crate) sources: Sources,
    /// Which images have names of their own.
    pub(crate) recipes: RecipeFile,
    /// Where images are.
    pub(crate) storage: Storage,
    /// How they are made.
    pub(crate) builder: NixBuilder,
    /// How far builds are.
    pub(crate) logs: BuildLogs,
    /// How much room there is.
    pub(crate) disks: Disks,
    /// The counters.
    pub(crate) metrics: Metrics,
    /// Where the private key of the tokens is, or is to be made.
    pub(crate) token_key: PathBuf,
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
        let storage = match &settings.storage {
            StorageSettings::Filesystem(folder) => Storage::filesystem(folder)?,
            StorageSettings::S3(bucket) => Storage::s3(bucket)?,
        };
        let folder = match &settings.storage {
            StorageSettings::Filesystem(folder) => Some(folder.as_path()),
            StorageSettings::S3(_) => None,
        };
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
        let token_key = state.token_key();
        let copies = match &settings.storage {
            StorageSettings::Filesystem(_) => None,
            StorageSettings::S3(_) => Some(LocalCache::open(&state.records(), settings.keep)?),
        };
        let kept = GcRoots::open(&state.kept(), settings.keep);
        let logs = BuildLogs::default();
        let builder = NixBuilder::new(
            Arc::clone(&nix),
            storage.clone(),
            Records::new(storage.clone(), copies),
            kept.context("the packages that are kept can't be read: check NIXGATE_STATE_DIR")?,
            metrics.clone(),
            state,
            logs.clone(),
            disks.clone(),
            settings.max_builds,
        );
        Ok(Self {
            settings,
            nix,
            sources,
            recipes,
            storage,
            builder,
            logs,
            disks,
            metrics,
            token_key,
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
