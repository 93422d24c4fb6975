//! Settings: parsed ([`ServeArgs`]) → validated ([`Settings`]).
//!
//! Every setting is a flag and a variable; settings of Nixery have Nixery's names. The comment of a
//! setting is its help and its text in the reference page ([`reference`]).

mod access;
mod bounds;
mod login;
mod nix;
mod nixery;
#[cfg(test)]
mod reference;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, Args, ValueEnum};
use nixgate_core::package_set::System;

use crate::image;
use crate::layering::Layering;
use crate::login::LoginSettings;
use crate::nix::NixSettings;
use crate::source::{AllowedRefs, FlakeUrl, Source};
use crate::telemetry::logging::LogFormat;
use crate::telemetry::redact::keep_url;

use bounds::Bounds;

pub(crate) use access::{Access, Signed, Tokens};
pub(crate) use login::LoginArgs;
pub(crate) use nix::NixArgs;

const MAX_LAYERS: Bounds = Bounds::new(
    "NIXGATE_MAX_LAYERS",
    *image::MAX_LAYERS.start() as u64..=*image::MAX_LAYERS.end() as u64,
);
/// With 0, nothing could be cached.
const PIN_SECONDS: Bounds = Bounds::new("NIXGATE_PIN_SECONDS", 1..=86_400);
const MAX_BUILDS: Bounds = Bounds::at_least("NIXGATE_MAX_BUILDS", 1);
const MAX_QUEUE: Bounds = Bounds::at_least("NIXGATE_MAX_QUEUE", 1);
const MAX_REFS: Bounds = Bounds::at_least("NIXGATE_MAX_REFS", 1);
const MAX_CONNECTIONS: Bounds = Bounds::at_least("NIXGATE_MAX_CONNECTIONS", 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// A folder; the builder serves the blobs
    Filesystem,
    /// An S3 bucket; clients are redirected to presigned URLs
    S3,
    /// A bucket of Google Cloud Storage: Nixery's, and not there yet
    #[value(hide = true)]
    Gcs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayeringKind {
    /// By dominators, as Nixery does
    Dominators,
    /// By the bytes that sharing a layer costs
    Sharing,
}

/// The arguments of `nixgate serve`.
#[derive(Args, Clone)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(
        long,
        env = "NIXGATE_HOST",
        value_name = "ADDRESS",
        default_value = "127.0.0.1"
    )]
    pub(crate) host: IpAddr,
    /// Port to listen on
    #[arg(long, env = "PORT", default_value_t = 8081)]
    pub(crate) port: u16,
    /// Secret that Envoy's filter sends with every request; requests without it are refused. An old and
    /// a new one, separated by a space, during a [rotation](rotation.md)
    #[arg(
        long,
        env = "NIXGATE_TOKEN",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// File with these secrets, one on each line, instead of `NIXGATE_TOKEN`; reloaded when it changes
    #[arg(long, env = "NIXGATE_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Answer requests without a token, even if one is set: nothing checks a policy then
    #[arg(long, env = "NIXGATE_ALLOW_DIRECT")]
    pub(crate) allow_direct: bool,
    /// Maximum number of connections at once, as far as the limit of open files allows; on further
    /// connections the builder reports its health, and answers everything else with `429`. Over HTTP/2,
    /// each request beside the first on its connection counts as one. Envoy's default is 1,024 for a
    /// cluster
    #[arg(
        long,
        env = MAX_CONNECTIONS.variable,
        value_name = "COUNT",
        default_value_t = 2048
    )]
    pub(crate) max_connections: usize,
    /// Format of the log: one JSON object on each line, or text for people. By default, a terminal gets
    /// text, and everything else JSON
    #[arg(long, env = "NIXGATE_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// Folder of a website that is served beside the registry, at `/`: see [Coming from
    /// Nixery](from-nixery.md#the-website)
    #[arg(long, env = "WEB_DIR", value_name = "FOLDER")]
    pub(crate) web_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) login: LoginArgs,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// The arguments of every command that builds images.
#[derive(Args, Clone)]
pub(crate) struct BuildArgs {
    /// Folder for the builder's own files; each builder needs its own. Everything in it can be made again
    #[arg(
        long,
        env = "NIXGATE_STATE_DIR",
        value_name = "FOLDER",
        default_value = ".nixgate/builder"
    )]
    pub(crate) state_dir: PathBuf,
    /// Packages from a nixpkgs channel, branch or commit
    #[arg(long, env = "NIXERY_CHANNEL", value_name = "NAME", group = "source")]
    pub(crate) channel: Option<String>,
    /// Base URL of channels: `<base>/<channel>.tar.gz`
    #[arg(
        long,
        env = "NIXGATE_CHANNEL_BASE",
        value_name = "URL",
        default_value = "https://github.com/NixOS/nixpkgs/archive"
    )]
    pub(crate) channel_base: String,
    /// Packages from a git repository with a Nix package set
    #[arg(long, env = "NIXERY_PKGS_REPO", value_name = "URL", group = "source")]
    pub(crate) pkgs_repo: Option<String>,
    /// Packages from a folder with a Nix package set
    #[arg(
        long,
        env = "NIXERY_PKGS_PATH",
        value_name = "FOLDER",
        group = "source"
    )]
    pub(crate) pkgs_path: Option<PathBuf>,
    /// Packages from a flake with its lock file: `path:/folder`, `git+https://…`, `github:…`
    #[arg(
        long,
        env = "NIXGATE_FLAKE",
        value_name = "URL",
        group = "source",
        hide_env_values = true
    )]
    pub(crate) flake: Option<String>,
    /// Refs of a git repository from which images may be built, separated by spaces; one `*` matches
    /// anything
    #[arg(
        long,
        env = "NIXGATE_GIT_REFS",
        value_name = "REFS",
        value_delimiter = ' ',
        default_value = "refs/heads/* refs/tags/*"
    )]
    pub(crate) git_refs: Vec<String>,
    /// Answer every tag as `latest`, as Nixery does
    #[arg(long, env = "NIXGATE_ANY_TAG")]
    pub(crate) any_tag: bool,
    /// Seconds for which a tag means the same package set before it is looked up again; manifests are
    /// cached as long
    #[arg(
        long,
        env = PIN_SECONDS.variable,
        value_name = "SECONDS",
        default_value_t = 300
    )]
    pub(crate) pin_seconds: u64,
    /// Branches and tags of a git repository that are pinned at once, besides the default branch and
    /// commits. The least used ones make room for others; at most twice as many new ones are fetched in
    /// an hour
    #[arg(
        long,
        env = MAX_REFS.variable,
        value_name = "COUNT",
        default_value_t = 20
    )]
    pub(crate) max_refs: usize,
    /// Kind of storage
    #[arg(
        long,
        env = "NIXERY_STORAGE_BACKEND",
        value_name = "KIND",
        value_enum,
        default_value = "filesystem"
    )]
    pub(crate) storage_backend: Backend,
    /// Folder of the filesystem storage; by default `storage` in the state folder
    #[arg(long, env = "STORAGE_PATH", value_name = "FOLDER")]
    pub(crate) storage_path: Option<PathBuf>,
    /// Bucket of the S3 storage; credentials and endpoint come from the usual `AWS_` variables
    #[arg(long, env = "S3_BUCKET", value_name = "NAME")]
    pub(crate) s3_bucket: Option<String>,
    /// Seconds for which packages that no new image needed are protected from Nix's garbage collector;
    /// meanwhile their layers are packed without Nix
    #[arg(
        long,
        env = "NIXGATE_KEEP_SECONDS",
        value_name = "SECONDS",
        default_value_t = 604_800
    )]
    pub(crate) keep_seconds: u64,
    /// Bytes that must stay free on the disks of the state folder, the storage folder and the Nix
    /// store: with fewer, new images are answered with `429` and `Retry-After`; stored images are
    /// served
    #[arg(
        long,
        env = "NIXGATE_MIN_FREE_BYTES",
        value_name = "BYTES",
        default_value_t = 1 << 30
    )]
    pub(crate) min_free_bytes: u64,
    #[command(flatten)]
    pub(crate) nix: NixArgs,
    /// Images that Nix builds at once; by default the number of processors. As many others may be evaluated
    /// meanwhile, so that wrong names are reported at once
    #[arg(long, env = MAX_BUILDS.variable, value_name = "COUNT")]
    pub(crate) max_builds: Option<usize>,
    /// Maximum number of images that are built or wait; one more is answered with `429` and
    /// `Retry-After`, unless its policy rule has less than its share
    #[arg(
        long,
        env = MAX_QUEUE.variable,
        value_name = "COUNT",
        default_value_t = 64
    )]
    pub(crate) max_queue: usize,
    /// Maximum number of layers of an image
    #[arg(
        long,
        env = MAX_LAYERS.variable,
        value_name = "COUNT",
        default_value_t = 94
    )]
    pub(crate) max_layers: usize,
    /// Which store paths share a [layer](layers.md)
    #[arg(
        long,
        env = "NIXGATE_LAYERING",
        value_name = "GROUPING",
        value_enum,
        default_value = "dominators"
    )]
    pub(crate) layering: LayeringKind,
    /// File of [recipes](recipes.md); reloaded when it changes
    #[arg(long, env = "NIXGATE_RECIPES", value_name = "FILE")]
    pub(crate) recipes: Option<PathBuf>,
    /// Make no index of the package set, which takes a GiB of memory while it is made, and for nixpkgs most
    /// of an hour of one processor at low priority. Without it, each new name is evaluated, and the policy
    /// knows fewer names of a package
    #[arg(long, env = "NIXGATE_NO_INDEX")]
    pub(crate) no_index: bool,
    /// Platform of images whose name has none, as Nix calls it; by default this machine's
    #[arg(long, env = "NIXGATE_SYSTEM", value_name = "SYSTEM")]
    pub(crate) system: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorageSettings {
    /// A folder.
    Filesystem(PathBuf),
    /// The name of a bucket.
    S3(String),
}

/// Validated [`ServeArgs`].
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) access: Access,
    pub(crate) max_connections: usize,
    /// The folder of the website.
    pub(crate) web_dir: Option<PathBuf>,
    pub(crate) login: LoginSettings,
    pub(crate) build: BuildSettings,
}

/// Validated [`BuildArgs`].
#[derive(Clone)]
pub(crate) struct BuildSettings {
    pub(crate) state_dir: PathBuf,
    pub(crate) source: Source,
    /// Whether every tag means `latest`.
    pub(crate) any_tag: bool,
    /// How long a tag means the same package set.
    pub(crate) pin: Duration,
    pub(crate) max_refs: usize,
    pub(crate) storage: StorageSettings,
    /// How long unused packages stay in the Nix store.
    pub(crate) keep: Duration,
    /// Bytes to keep free on each disk.
    pub(crate) min_free: u64,
    pub(crate) nix: NixSettings,
    pub(crate) max_builds: usize,
    pub(crate) max_queue: usize,
    /// Including the layer of symlinks.
    pub(crate) max_layers: usize,
    pub(crate) layering: Layering,
    /// The file of recipes.
    pub(crate) recipes: Option<PathBuf>,
    /// The default platform.
    pub(crate) system: System,
    /// Whether to make an index of the package set.
    pub(crate) index: bool,
}

/// Ignores an empty variable: in compose files and scripts it means that the setting is not given.
pub(crate) fn without_empty_variable(argument: Arg) -> Arg {
    let empty = argument
        .get_env()
        .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    if empty { argument.env(None) } else { argument }
}

impl ServeArgs {
    /// # Errors
    /// When a setting is invalid; the error names it and says what to do.
    pub(crate) fn validate(self) -> Result<Settings> {
        let has_token = self.token.is_some() || self.token_file.is_some();
        if self.allow_direct && has_token {
            tracing::warn!(
                "NIXGATE_ALLOW_DIRECT makes the builder answer everybody, so NIXGATE_TOKEN has no effect. \
                 Remove one of them"
            );
        }
        ensure!(
            !(self.build.nix.strict && self.allow_direct),
            "{}",
            nix::not_strict("NIXGATE_ALLOW_DIRECT")
        );
        let access = match (self.token, self.token_file) {
            _ if self.allow_direct => Access::Direct,
            (Some(token), None) => Access::Tokens(Tokens::parse(&token).context("NIXGATE_TOKEN")?),
            (None, Some(file)) => {
                Access::Tokens(Tokens::open(&file).context("NIXGATE_TOKEN_FILE")?)
            }
            (Some(_), Some(_)) => {
                bail!("NIXGATE_TOKEN and NIXGATE_TOKEN_FILE are both set. Remove one of them")
            }
            (None, None) => bail!(
                "no token is set. Set NIXGATE_TOKEN to the value that Envoy has, or pass --allow-direct to \
                 answer everybody"
            ),
        };
        MAX_CONNECTIONS.check(self.max_connections)?;
        Ok(Settings {
            listen: SocketAddr::new(self.host, self.port),
            access,
            max_connections: self.max_connections,
            web_dir: self.web_dir,
            login: self.login.validate()?,
            build: self.build.validate()?,
        })
    }
}

impl BuildArgs {
    /// # Errors
    /// When a setting is invalid; the error names it and says what to do.
    pub(crate) fn validate(self) -> Result<BuildSettings> {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        for warning in nixery::without_effect(is_set) {
            tracing::warn!("{warning}");
        }
        let urls = [self.pkgs_repo.as_deref(), self.flake.as_deref()];
        for url in urls.into_iter().flatten().chain([&*self.channel_base]) {
            keep_url(url);
        }
        let refs = AllowedRefs::parse(&self.git_refs)?;
        let source = match (self.channel, self.pkgs_repo, self.pkgs_path, self.flake) {
            (Some(name), None, None, None) => Source::Channel {
                name,
                base: self.channel_base.trim_end_matches('/').to_owned(),
            },
            (None, Some(url), None, None) => Source::Git { url, refs },
            (None, None, Some(path), None) => Source::Path {
                path: path
                    .canonicalize()
                    .with_context(|| format!("cannot open NIXERY_PKGS_PATH {}", path.display()))?,
            },
            (None, None, None, Some(url)) => Source::Flake {
                url: FlakeUrl::parse(&url)?,
                refs,
            },
            _ => bail!(
                "no package source, or more than one. Set exactly one of NIXERY_CHANNEL, \
                 NIXERY_PKGS_REPO, NIXERY_PKGS_PATH and NIXGATE_FLAKE"
            ),
        };
        let storage = match self.storage_backend {
            Backend::Filesystem => StorageSettings::Filesystem(
                self.storage_path
                    .unwrap_or_else(|| self.state_dir.join("storage")),
            ),
            Backend::S3 => StorageSettings::S3(
                self.s3_bucket
                    .context("S3 storage has no bucket. Set S3_BUCKET")?,
            ),
            Backend::Gcs => bail!(nixery::NO_GCS),
        };
        ensure!(
            self.nix.nixpkgs_config.is_none() || !matches!(source, Source::Flake { .. }),
            "NIXGATE_NIXPKGS_CONFIG has no effect on NIXGATE_FLAKE, which configures its nixpkgs itself. \
             Remove one of them"
        );
        let max_builds = self.max_builds.unwrap_or_else(processors);
        MAX_LAYERS.check(self.max_layers)?;
        PIN_SECONDS.check(self.pin_seconds)?;
        MAX_REFS.check(self.max_refs)?;
        MAX_BUILDS.check(max_builds)?;
        MAX_QUEUE.check(self.max_queue)?;
        let system = self
            .system
            .unwrap_or_else(|| format!("{}-linux", std::env::consts::ARCH));
        let system = System::from_nix(&system).with_context(|| {
            format!(
                "nixgate builds no images for \"{system}\". Set NIXGATE_SYSTEM to x86_64-linux or \
                 aarch64-linux"
            )
        })?;
        Ok(BuildSettings {
            state_dir: self.state_dir,
            source,
            any_tag: self.any_tag,
            pin: Duration::from_secs(self.pin_seconds),
            max_refs: self.max_refs,
            storage,
            keep: Duration::from_secs(self.keep_seconds),
            min_free: self.min_free_bytes,
            nix: self.nix.validate(max_builds)?,
            max_builds,
            max_queue: self.max_queue,
            max_layers: self.max_layers,
            layering: match self.layering {
                LayeringKind::Sharing => Layering::Sharing,
                LayeringKind::Dominators => Layering::Dominators,
            },
            recipes: self.recipes,
            system,
            index: !self.no_index,
        })
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests;
