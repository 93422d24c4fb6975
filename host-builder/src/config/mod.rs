//! Settings: what was written ([`ServeArgs`]) → what is meant ([`Settings`]).
//!
//! Those of the login are in [`login`], those of Nix in [`nix`]. Every setting is a flag and a variable;
//! Nixery's names work where the setting is Nixery's. What is said of one here is its help and what the
//! reference page says ([`reference`]).

mod access;
mod bounds;
mod login;
mod nix;
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
use crate::login::LoginSettings;
use crate::nix::NixSettings;
use crate::source::{AllowedRefs, FlakeUrl, Source};
use crate::telemetry::logging::LogFormat;
use crate::telemetry::redact::keep_url;

use bounds::Bounds;

pub(crate) use access::{Access, Tokens};
pub(crate) use login::LoginArgs;
pub(crate) use nix::NixArgs;

/// As an image may have ([`image::MAX_LAYERS`]).
const MAX_LAYERS: Bounds = Bounds::new(
    "NIXGATE_MAX_LAYERS",
    *image::MAX_LAYERS.start() as u64,
    *image::MAX_LAYERS.end() as u64,
);
/// A pin that never holds would let nothing be cached.
const PIN_SECONDS: Bounds = Bounds::new("NIXGATE_PIN_SECONDS", 1, 86_400);
/// With none, no image could ever be built.
const MAX_BUILDS: Bounds = Bounds::at_least("NIXGATE_MAX_BUILDS", 1);
/// The same.
const MAX_QUEUE: Bounds = Bounds::at_least("NIXGATE_MAX_QUEUE", 1);
/// With none, no tag could be pinned.
const MAX_REFS: Bounds = Bounds::at_least("NIXGATE_MAX_REFS", 1);
/// With none, nobody could ask.
const MAX_CONNECTIONS: Bounds = Bounds::at_least("NIXGATE_MAX_CONNECTIONS", 1);

/// Kinds of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// A folder; the builder serves the blobs.
    Filesystem,
    /// An S3 bucket; clients are redirected to presigned URLs.
    S3,
}

/// `nixgate serve`, as it was written.
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
    /// Secret that the filter sends with every request, so Envoy needs the same; whoever lacks it is
    /// refused. An old and a new one, with a space between, while it is
    /// [exchanged](rotation.md)
    #[arg(
        long,
        env = "NIXGATE_TOKEN",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// The same in a file, one on each line, instead of `NIXGATE_TOKEN`; it is read again when it changes
    #[arg(long, env = "NIXGATE_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Answer everybody, without a token, even if one is set: nobody checks who may have what
    #[arg(long, env = "NIXGATE_ALLOW_DIRECT")]
    pub(crate) allow_direct: bool,
    /// Connections at once, at most, as far as the limit of open files allows them; on more, the builder
    /// tells its health alone and answers all else `429`. An Envoy opens 1,024 unless its cluster says
    /// otherwise
    #[arg(
        long,
        env = MAX_CONNECTIONS.variable,
        value_name = "COUNT",
        default_value_t = 2048
    )]
    pub(crate) max_connections: usize,
    /// How the log is written: for programs, a JSON object on each line, or as text for people. When
    /// not given, a terminal gets text, and everything else JSON
    #[arg(long, env = "NIXGATE_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// How clients log in
    #[command(flatten)]
    pub(crate) login: LoginArgs,
    /// What it takes to build images
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// What every command that builds images is told, as it was written.
#[derive(Args, Clone)]
pub(crate) struct BuildArgs {
    /// Folder for the builder's own files; each builder needs one of its own, and what is lost with
    /// it can be made again
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
    /// Where channels are: `<base>/<channel>.tar.gz`
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
    /// Packages from a flake, by its own lock: `path:/folder`, `git+https://…`, `github:…`
    #[arg(
        long,
        env = "NIXGATE_FLAKE",
        value_name = "URL",
        group = "source",
        hide_env_values = true
    )]
    pub(crate) flake: Option<String>,
    /// Refs of a git repository that images may be made of, separated by spaces; one `*` stands for
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
    /// For how many seconds a tag means the same package set before it is looked up again; manifests
    /// are cached as long
    #[arg(
        long,
        env = PIN_SECONDS.variable,
        value_name = "SECONDS",
        default_value_t = 300
    )]
    pub(crate) pin_seconds: u64,
    /// Branches and tags of a git repository that are pinned at once, beside the default branch and commits;
    /// those that are used the least are let go of, and twice as many new ones are fetched in an hour
    #[arg(
        long,
        env = MAX_REFS.variable,
        value_name = "COUNT",
        default_value_t = 20
    )]
    pub(crate) max_refs: usize,
    /// Where images are stored
    #[arg(
        long,
        env = "NIXERY_STORAGE_BACKEND",
        value_name = "KIND",
        value_enum,
        default_value = "filesystem"
    )]
    pub(crate) storage_backend: Backend,
    /// Folder of the filesystem storage; `storage` in the state folder when not given
    #[arg(long, env = "STORAGE_PATH", value_name = "FOLDER")]
    pub(crate) storage_path: Option<PathBuf>,
    /// Bucket of the S3 storage; credentials and endpoint come from the usual `AWS_` variables
    #[arg(long, env = "S3_BUCKET", value_name = "NAME")]
    pub(crate) s3_bucket: Option<String>,
    /// For how many seconds packages that no new image needed stay in the Nix store, whatever the
    /// garbage collector does; layers of them are packed without Nix meanwhile
    #[arg(
        long,
        env = "NIXGATE_KEEP_SECONDS",
        value_name = "SECONDS",
        default_value_t = 604_800
    )]
    pub(crate) keep_seconds: u64,
    /// Bytes that are to stay free on the disks of the state folder, the storage folder and the Nix
    /// store: with fewer, new images are answered `429` and `Retry-After`, and those that are stored are
    /// served
    #[arg(
        long,
        env = "NIXGATE_MIN_FREE_BYTES",
        value_name = "BYTES",
        default_value_t = 1 << 30
    )]
    pub(crate) min_free_bytes: u64,
    /// How Nix is run
    #[command(flatten)]
    pub(crate) nix: NixArgs,
    /// Images that Nix builds at once, as many as there are processors when not given; as many others
    /// may be evaluated meanwhile, so that wrong names are told at once
    #[arg(long, env = MAX_BUILDS.variable, value_name = "COUNT")]
    pub(crate) max_builds: Option<usize>,
    /// Images that are being built or wait for it, at most; one more is answered `429` and
    /// `Retry-After`, unless it is for a policy rule that has less than its share of them
    #[arg(
        long,
        env = MAX_QUEUE.variable,
        value_name = "COUNT",
        default_value_t = 64
    )]
    pub(crate) max_queue: usize,
    /// Layers that an image has at most
    #[arg(
        long,
        env = MAX_LAYERS.variable,
        value_name = "COUNT",
        default_value_t = 94
    )]
    pub(crate) max_layers: usize,
    /// File of images that have names of their own, read again when it changes: see
    /// [Recipes](recipes.md)
    #[arg(long, env = "NIXGATE_RECIPES", value_name = "FILE")]
    pub(crate) recipes: Option<PathBuf>,
    /// Platform of images whose name says none, as Nix calls it; this machine's when not given
    #[arg(long, env = "NIXGATE_SYSTEM", value_name = "SYSTEM")]
    pub(crate) system: Option<String>,
}

/// Where images are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorageSettings {
    /// In a folder.
    Filesystem(PathBuf),
    /// In an S3 bucket.
    S3(String),
}

/// `nixgate serve`, as it is meant.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Who may ask.
    pub(crate) access: Access,
    /// Connections at once, at most.
    pub(crate) max_connections: usize,
    /// How clients log in.
    pub(crate) login: LoginSettings,
    /// How images are built.
    pub(crate) build: BuildSettings,
}

/// What every command that builds images is told, as it is meant.
#[derive(Clone)]
pub(crate) struct BuildSettings {
    /// The builder's own files.
    pub(crate) state_dir: PathBuf,
    /// Where packages come from.
    pub(crate) source: Source,
    /// Every tag means `latest`.
    pub(crate) any_tag: bool,
    /// For how long a tag means the same package set.
    pub(crate) pin: Duration,
    /// Branches and tags that are pinned at once.
    pub(crate) max_refs: usize,
    /// Where images are stored.
    pub(crate) storage: StorageSettings,
    /// For how long packages that are of no use are kept in the Nix store.
    pub(crate) keep: Duration,
    /// Bytes that are to stay free on disks.
    pub(crate) min_free: u64,
    /// How Nix is run.
    pub(crate) nix: NixSettings,
    /// Images that are built at once.
    pub(crate) max_builds: usize,
    /// Images that are being built or wait for it, at most.
    pub(crate) max_queue: usize,
    /// Layers of an image, that of the symlinks included.
    pub(crate) max_layers: usize,
    /// Images that have names of their own.
    pub(crate) recipes: Option<PathBuf>,
    /// The platform of images whose name says none.
    pub(crate) system: System,
}

/// An argument that doesn't look at its variable when that is empty: in compose files and scripts,
/// an empty variable is one that was not given.
pub(crate) fn without_empty_variable(argument: Arg) -> Arg {
    let empty = argument
        .get_env()
        .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    if empty { argument.env(None) } else { argument }
}

impl ServeArgs {
    /// Checks what was written.
    ///
    /// # Errors
    /// A sentence that names the setting and the remedy.
    pub(crate) fn validate(self) -> Result<Settings> {
        let has_token = self.token.is_some() || self.token_file.is_some();
        if self.allow_direct && has_token {
            tracing::warn!(
                "NIXGATE_ALLOW_DIRECT is set, so the builder answers everybody and NIXGATE_TOKEN \
                 is of no use: leave one of them out"
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
                bail!("NIXGATE_TOKEN and NIXGATE_TOKEN_FILE are both set: leave one of them out")
            }
            (None, None) => bail!(
                "no token: set NIXGATE_TOKEN to the value that Envoy has, or pass --allow-direct \
                 to answer everybody"
            ),
        };
        MAX_CONNECTIONS.check(self.max_connections)?;
        Ok(Settings {
            listen: SocketAddr::new(self.host, self.port),
            access,
            max_connections: self.max_connections,
            login: self.login.validate()?,
            build: self.build.validate()?,
        })
    }
}

impl BuildArgs {
    /// Checks what was written.
    ///
    /// # Errors
    /// A sentence that names the setting and the remedy.
    pub(crate) fn validate(self) -> Result<BuildSettings> {
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
                path: path.canonicalize().with_context(|| {
                    format!(
                        "NIXERY_PKGS_PATH is {}, which can't be found",
                        path.display()
                    )
                })?,
            },
            (None, None, None, Some(url)) => Source::Flake {
                url: FlakeUrl::parse(&url)?,
                refs,
            },
            _ => bail!(
                "no package source, or more than one: set one of NIXERY_CHANNEL, \
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
                    .context("S3 storage needs a bucket: set S3_BUCKET")?,
            ),
        };
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
                "no images can be built for \"{system}\": set NIXGATE_SYSTEM to x86_64-linux or \
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
            recipes: self.recipes,
            system,
        })
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests;
