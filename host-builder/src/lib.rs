//! nixgate's builder: makes images of package lists with Nix, and serves them to the edge.
//!
//! ```text
//!   main ── config ── run
//!                      │
//!   server ────────────┤ HTTP: the registry API, for the filter alone
//!   login ─────────────┤ who a client is, for a token that Envoy checks
//!   wanted, recipes ───┤ what a name asks for
//!   builder ───────────┤ one build per image: resolve, realise, group, pack, publish
//!     ├─ source        │ where packages come from, pinned
//!     ├─ nix           │ Nix as a few questions
//!     ├─ closure       │ store paths and their graph            pure
//!     ├─ layering      │ which paths share a layer              pure
//!     ├─ layer         │ tar, gzip, the tree of symlinks        reads the Nix store
//!     └─ image         │ config and manifests                   pure
//!   publish, storage ──┤ what is kept, and in which order
//!   facts ─────────────┤ what is known of an image beyond its documents
//!   state_dir, disk ───┘ what is in the making, and whether there is room for it
//!
//!   logging, redact ───── what is told of all this, and no secret with it
//!
//!   policy ────────────── check, explain and test policies      pure, but for `--package-set`
//!   build ─────────────── builds one image, without a server
//!   warm ──────────────── builds ahead what a policy allows, by the parts above
//!   catalogue ─────────── the names of a package set, for both
//! ```

pub mod age;
pub mod build;
pub mod build_log;
pub mod builder;
pub mod catalogue;
pub mod closure;
pub mod config;
pub mod disk;
pub mod facts;
pub mod file_limit;
pub mod fingerprint;
pub mod image;
pub mod kept;
pub mod layer;
pub mod layering;
pub mod logging;
pub mod login;
pub mod nix;
pub mod policy;
pub mod publish;
pub mod recipes;
pub mod records;
pub mod redact;
pub mod refusals;
pub mod server;
pub mod source;
pub mod state_dir;
pub mod storage;
pub mod telemetry;
pub mod wanted;
pub mod warm;
pub mod watched;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixgate_core::distribution::{Error, Repository, Tag};
use tokio::net::TcpListener;

use build_log::BuildLogs;
use builder::{Coalesce, ImageRequest, NixBuilder};
use config::{BuildSettings, Settings, StorageSettings};
use disk::Disks;
use kept::Kept;
use logging::chain;
use login::Login;
use nix::{Nix, NixError, Processes};
use recipes::RecipeFile;
use records::{Copies, Records};
use server::{App, Bound, Images, Readiness};
use source::{Pin, PinError, Source, Sources};
use state_dir::StateDir;
use storage::Storage;
use telemetry::Metrics;
use wanted::Wanted;

/// How long what is done at the start may take before it is left to the requests.
const AT_START: Duration = Duration::from_secs(3600);

/// Serves until `stop` is done.
///
/// # Errors
/// When the builder can't start; the error says what to do.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<()> {
    let bound = Bound::new(settings.max_connections, file_limit::raise());
    tokio::pin!(stop);
    // To start may take minutes, when the package set has to be fetched.
    let (app, listener) = tokio::select! {
        started = start(settings) => started?,
        () = &mut stop => return Ok(()),
    };
    app.serve(listener, bound, stop).await;
    Ok(())
}

/// What builds images: for the server, and for whoever builds ahead of it.
pub struct Workshop {
    /// The settings.
    pub settings: BuildSettings,
    /// Nix.
    pub nix: Arc<dyn Nix>,
    /// Where packages come from.
    pub sources: Sources,
    /// Which images have names of their own.
    pub recipes: RecipeFile,
    /// Where images are.
    pub storage: Storage,
    /// How they are made.
    pub builder: NixBuilder,
    /// How far builds are.
    pub logs: BuildLogs,
    /// How much room there is.
    pub disks: Disks,
    /// The counters.
    pub metrics: Metrics,
    /// Where the private key of the tokens is, or is to be made.
    pub token_key: PathBuf,
}

impl Workshop {
    /// Prepares to build images.
    ///
    /// # Errors
    /// When that can't be done; the error says what to do.
    pub async fn open(settings: BuildSettings) -> Result<Self> {
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
        let nix: Arc<dyn Nix> = Arc::new(Processes::new(
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
            StorageSettings::S3(_) => Some(Copies::open(&state.records(), settings.keep)?),
        };
        let kept = Kept::open(&state.kept(), settings.keep);
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
    /// As [`Wanted::of`].
    pub fn wanted(&self, repository: &Repository) -> Result<Wanted, Error> {
        Wanted::of(repository, &self.recipes.current(), self.settings.system)
    }

    /// The image of a name out of that package set.
    pub fn image(&self, pin: Pin, wanted: &Wanted) -> ImageRequest {
        let max_layers = self.settings.max_layers;
        ImageRequest::new(self.sources.source(), pin, wanted, max_layers)
    }
}

async fn start(settings: Settings) -> Result<(Arc<App<NixBuilder>>, TcpListener)> {
    let Workshop {
        settings: build,
        nix,
        sources,
        recipes,
        storage,
        builder,
        logs,
        disks,
        metrics,
        token_key,
    } = Workshop::open(settings.build).await?;
    let login = Login::open(settings.login, &token_key)?;
    fetch_early(&sources);
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "can't listen on {}: is another builder running? Choose another PORT",
            settings.listen
        )
    })?;
    tracing::info!(address = %listener.local_addr()?, "the builder is ready");
    let app = Arc::new(App {
        access: settings.access,
        login,
        system: build.system,
        max_layers: build.max_layers,
        sources,
        recipes,
        storage,
        builds: Coalesce::new(builder, build.max_queue),
        logs,
        metrics,
        nix,
        images: Images::default(),
        disks,
        readiness: Readiness::default(),
    });
    Ok((app, listener))
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

/// Fetches a package set that is elsewhere before the first client asks for it; what goes wrong is
/// in the log early, too.
fn fetch_early(sources: &Sources) {
    if matches!(sources.source(), Source::Path { .. }) {
        return;
    }
    let sources = sources.clone();
    // What goes wrong is logged where it happens.
    tokio::spawn(async move { sources.pin(&Tag::latest(), AT_START).await.map(drop) });
}
