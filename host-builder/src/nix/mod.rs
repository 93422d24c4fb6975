//! Nix, as the rest of the builder sees it: a few questions, each one process.
//!
//! ```text
//!   trait Nix ◄── NixCli ──┬── arguments   the command lines                                   pure
//!       ▲                  ├── output      parsers for old and new versions of Nix             pure
//!       │                  ├── log         progress and lines of a running build
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
mod cli;
mod enclosure;
mod error;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod gc_roots;
mod hash;
mod log;
mod output;
mod sandbox;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::closure::{Closure, StorePath};
use crate::telemetry::build_log::BuildLog;
use nixgate_core::package_set::System;

pub(crate) use advisories::Release;
pub(crate) use arguments::{EvalPermissions, NixOptions};
pub(crate) use cli::{NixCli, NixSettings};
pub(crate) use enclosure::Proxy;
pub(crate) use error::NixError;
pub(crate) use output::{Attribute, Derivation, Resolution, Version, reason};
pub(crate) use sandbox::{ProbeSandboxArgs, Sandbox, probe_sandbox};

/// An archive, a repository or a folder in the Nix store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) path: PathBuf,
    /// A hash or a commit that identifies the content.
    pub(crate) revision: String,
}

pub(crate) type NixFuture<'a, T> = BoxFuture<'a, Result<T, NixError>>;

impl From<StorePath> for Fetched {
    fn from(path: StorePath) -> Self {
        Self {
            revision: path.hash_part().to_owned(),
            path: path.to_string().into(),
        }
    }
}

pub(crate) trait Nix: Send + Sync + 'static {
    fn version(&self) -> NixFuture<'_, Release>;

    /// Checks that the store answers.
    fn ask_store(&self) -> NixFuture<'_, ()>;

    /// Checks that this Nix can be trusted with builds: that it is not vulnerable, or only a warning was
    /// asked for, and that it builds in a sandbox if it has to. Success is remembered.
    fn check_sandbox(&self) -> NixFuture<'_, ()>;

    /// Resolves names in one evaluation; one answer for each, in order. Fails with
    /// [`ProcessError::Failed`](crate::process::ProcessError::Failed) when one of them, or the package
    /// set itself, can't be evaluated.
    fn resolve<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        names: &'a [String],
    ) -> NixFuture<'a, Vec<Resolution>>;

    /// Nix's own reason why a name is [`Resolution::Refused`], if it has one.
    fn explain<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        name: &'a str,
    ) -> NixFuture<'a, Option<String>>;

    /// Looks up attribute paths, spelled as in the package set; the empty path is the set itself. One
    /// answer for each, in order. Fails with
    /// [`ProcessError::Failed`](crate::process::ProcessError::Failed) when one of them has an error that
    /// Nix code can't catch.
    fn look<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        paths: &'a [Vec<String>],
    ) -> NixFuture<'a, Vec<Attribute>>;

    /// Builds or substitutes derivations. Links in the folder `roots` protect their outputs from the
    /// garbage collector; `log` gets the progress. Fails with [`NixError::Killed`] when something outside
    /// ended a build.
    fn realise<'a>(
        &'a self,
        derivations: &'a [Derivation],
        roots: &'a Path,
        log: &'a BuildLog,
    ) -> NixFuture<'a, ()>;

    /// Fetches or builds store paths again that were altered; `log` gets the progress.
    fn repair<'a>(&'a self, paths: &'a [StorePath], log: &'a BuildLog) -> NixFuture<'a, ()>;

    /// The closure of valid store paths.
    fn closure<'a>(&'a self, roots: &'a [StorePath]) -> NixFuture<'a, Closure>;

    /// Copies a folder, without `.git`, into the store; the revision is the hash in the store path, which
    /// follows from the content.
    fn add_folder<'a>(&'a self, folder: &'a Path) -> NixFuture<'a, Fetched>;

    /// Protects a store path from the garbage collector by a link to it.
    fn keep<'a>(&'a self, path: &'a Path, link: &'a Path) -> NixFuture<'a, ()>;

    /// Unpacks a tarball from a URL into the store.
    fn fetch_tarball<'a>(&'a self, url: &'a str) -> NixFuture<'a, Fetched>;

    /// Fetches a flake and its locked inputs into the store, and makes a package set of them; `dir` is
    /// the flake's folder in its source. The revision is the hash in the package set's store path, which
    /// follows from all content.
    fn fetch_flake<'a>(&'a self, url: &'a str, dir: &'a str) -> NixFuture<'a, Fetched>;

    /// Runs git for at most `limit`; returns its stdout.
    fn git(&self, arguments: Vec<OsString>, limit: Duration) -> NixFuture<'_, Vec<u8>>;

    /// Fetches a commit of a git repository into the store; `reference` is the full name of a ref that
    /// contains it (`refs/heads/main`).
    fn fetch_git<'a>(
        &'a self,
        url: &'a str,
        reference: &'a str,
        commit: &'a str,
    ) -> NixFuture<'a, Fetched>;
}
