//! Nix, as the rest of the builder sees it: a few questions, each one process.
//!
//! ```text
//!   trait Nix ◄── NixCli ──┬── arguments   the command lines                                   pure
//!       ▲                  ├── output      parsers for old and new versions of Nix             pure
//!       │                  ├── reason      why an evaluation failed, in words for clients           pure
//!       │                  ├── log         progress and lines of a running build
//!       │                  ├── told        answers of an evaluation that may not get to its end       pure
//!       │                  ├── nixpkgs_config  unfree and insecure packages that are allowed, and overlays
//!       │                  ├── overlays    fetches them, and keeps them in the store
//!       │                  ├── caches      troubles of binary caches, by what Nix prints
//!       │                  ├── sandbox     proves that builds can't harm this machine
//!       │                  ├── enclosure   a network that reaches only the proxy
//!       │                  ├── advisories  which versions of Nix are vulnerable                pure
//!       │                  └── crate::process   runs the command within its limits
//!   fake, in unit tests
//! ```
//!
//! Supports Nix 2.8 and newer. Text of a client is never an option or Nix code: names travel as one
//! JSON string. A package set is Nix code that others wrote: it reads only itself and its references,
//! fetches nothing, sees no variable, and has bounds for time and memory.

mod advisories;
mod arguments;
mod caches;
mod cli;
mod enclosure;
mod error;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod gc_roots;
mod hash;
mod log;
mod nixpkgs_config;
mod output;
mod overlays;
mod reason;
mod sandbox;
mod told;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::closure::{Closure, StorePath};
use crate::telemetry::build_log::BuildLog;
use nixgate_core::package_set::System;

pub(crate) use advisories::Release;
pub(crate) use arguments::{EvalPermissions, NixOptions};
pub(crate) use caches::CacheTrouble;
pub(crate) use cli::{NixCli, NixSettings};
pub(crate) use enclosure::Proxy;
pub(crate) use error::NixError;
pub(crate) use nixpkgs_config::NixpkgsConfig;
pub(crate) use output::{Attribute, Derivation, Described, Resolution, Version};
pub(crate) use reason::reason;
pub(crate) use sandbox::{ProbeSandboxArgs, Sandbox, probe_sandbox};

/// An archive, a repository or a folder in the Nix store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) path: PathBuf,
    /// A hash or a commit that identifies the content.
    pub(crate) revision: String,
}

impl From<StorePath> for Fetched {
    fn from(path: StorePath) -> Self {
        Self {
            revision: path.hash_part().to_owned(),
            path: path.to_string().into(),
        }
    }
}

/// What resolving names writes to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// The derivations, so that they can be built.
    Derivations,
    /// Nothing. A package that reads what its evaluation wrote can't be evaluated then.
    Nothing,
}

#[async_trait]
pub(crate) trait Nix: Send + Sync + 'static {
    async fn version(&self) -> Result<Release, NixError>;

    /// Checks that the store answers.
    async fn ask_store(&self) -> Result<(), NixError>;

    /// The last trouble of each binary cache, if it is recent, with its age.
    fn cache_troubles(&self) -> Vec<(Duration, CacheTrouble)> {
        Vec::new()
    }

    /// Checks that this Nix can be trusted with builds: that it is not vulnerable, or only a warning was
    /// asked for, and that it builds in a sandbox if it has to. Success is remembered.
    async fn check_sandbox(&self) -> Result<(), NixError>;

    /// Resolves names in one evaluation that may write to the store; one answer for each, in order. Fails with
    /// [`ProcessError::Failed`](crate::process::ProcessError::Failed) when one of them, or the package
    /// set itself, can't be evaluated.
    async fn resolve(
        &self,
        source: &Path,
        system: System,
        names: &[String],
        writes: Writes,
    ) -> Result<Vec<Resolution>, NixError>;

    /// Nix's own reason why a name is [`Resolution::Refused`], if it has one.
    async fn explain(
        &self,
        source: &Path,
        system: System,
        name: &str,
    ) -> Result<Option<String>, NixError>;

    /// Looks up attribute paths, spelled as in the package set; the empty path is the set itself. One
    /// answer for each, in order. Fails with
    /// [`ProcessError::Failed`](crate::process::ProcessError::Failed) when one of them has an error that
    /// Nix code can't catch.
    async fn look(
        &self,
        source: &Path,
        system: System,
        paths: &[Vec<String>],
    ) -> Result<Vec<Attribute>, NixError>;

    /// Describes attribute paths, spelled as in the package set, in the background: after evaluations and
    /// builds that clients wait for, with little memory, and without writing to the store. The answers, in
    /// order, until the evaluation ended, and why it ended before the last one.
    async fn describe(
        &self,
        source: &Path,
        system: System,
        paths: &[Vec<String>],
    ) -> (Vec<Described>, Result<(), NixError>);

    /// Takes the outputs of derivations, which need not exist, from the store or from binary caches, and
    /// builds nothing. Otherwise as [`Nix::realise`]; fails with [`NixError::NotInCaches`] when no cache is
    /// to blame and one of them is not there.
    async fn substitute(
        &self,
        derivations: &[Derivation],
        roots: &Path,
        log: &BuildLog,
    ) -> Result<(), NixError>;

    /// Builds or substitutes derivations; only the latter, if the settings say so. Links in the folder `roots` protect their outputs from the
    /// garbage collector; `log` gets the progress. Fails with [`NixError::Killed`] when something outside
    /// ended a build, and with [`NixError::Cache`] when a binary cache is to blame.
    async fn realise(
        &self,
        derivations: &[Derivation],
        roots: &Path,
        log: &BuildLog,
    ) -> Result<(), NixError>;

    /// Fetches or builds store paths again that were altered; `log` gets the progress.
    async fn repair(&self, paths: &[StorePath], log: &BuildLog) -> Result<(), NixError>;

    /// The closure of valid store paths.
    async fn closure(&self, roots: &[StorePath]) -> Result<Closure, NixError>;

    /// Copies a folder, without `.git`, into the store; the revision is the hash in the store path, which
    /// follows from the content.
    async fn add_folder(&self, folder: &Path) -> Result<Fetched, NixError>;

    /// Protects a store path from the garbage collector by a link to it.
    async fn keep(&self, path: &Path, link: &Path) -> Result<(), NixError>;

    /// Unpacks a tarball from a URL into the store; `log` gets the progress.
    async fn fetch_tarball(&self, url: &str, log: &BuildLog) -> Result<Fetched, NixError>;

    /// Unpacks a tarball from a URL into the store. Fails if its content has not this SHA-256, in
    /// hexadecimal digits; the revision is that hash.
    async fn fetch_archive(&self, url: &str, sha256: &str) -> Result<Fetched, NixError>;

    /// Fetches a flake and its locked inputs into the store, and makes a package set of them; `dir` is
    /// the flake's folder in its source. The revision is the hash in the package set's store path, which
    /// follows from all content.
    async fn fetch_flake(&self, url: &str, dir: &str) -> Result<Fetched, NixError>;

    /// Runs git for at most `limit`; returns its stdout.
    async fn git(&self, arguments: Vec<OsString>, limit: Duration) -> Result<Vec<u8>, NixError>;

    /// Fetches a commit of a git repository into the store; `reference` is the full name of a ref that
    /// contains it (`refs/heads/main`).
    async fn fetch_git(
        &self,
        url: &str,
        reference: &str,
        commit: &str,
    ) -> Result<Fetched, NixError>;
}
