//! Nix, as the rest of the builder sees it: a few questions, each one process.
//!
//! ```text
//!   trait Nix ◄── NixCli ──┬── command   what to run: pure
//!       ▲                     ├── process   running it: both pipes drained, time, memory and output
//!       │                     │     │       bounded, its whole group ended with whoever waits for it
//!       │                     │     └── environment   what of the builder's it may see: pure
//!       │                     │           └── netrc   credentials for git: pure
//!       │                     ├── enclosure  a network that has a proxy and nothing else
//!       │                     ├── sandbox   what builds can do to this machine and to each other
//!       │                     ├── advisories  which Nix has known holes: pure
//!       │                     ├── activity  what Nix says while it builds
//!       │                     └── output    what it said: pure, old and new versions of Nix
//!   a fake in unit tests
//! ```
//!
//! Versions from 2.8 to the newest are understood. Nothing that a client wrote is ever an option
//! or a piece of Nix code: names travel as one JSON string. The Nix code of a package set is somebody
//! else's: it reads the set itself and what that refers to, fetches nothing, sees no variable, and
//! takes no more time and memory than the settings say.

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

/// An archive, a repository or a folder that Nix has copied into its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What names its content: a hash or a commit.
    pub(crate) revision: String,
}

/// What the builder needs of Nix.
pub(crate) trait Nix: Send + Sync + 'static {
    /// Which Nix there is.
    fn version(&self) -> BoxFuture<'_, Result<Release, NixError>>;

    /// Whether the store can be asked.
    fn ask_store(&self) -> BoxFuture<'_, Result<(), NixError>>;

    /// Whether builds can be trusted to this Nix: that it has no known holes, or that is told, and that
    /// it builds in a sandbox, where it has to. Once that is proven it isn't asked again.
    fn check_sandbox(&self) -> BoxFuture<'_, Result<(), NixError>>;

    /// Finds the derivations behind names, all in one evaluation; one answer a name, in order.
    /// [`ProcessError::Failed`](crate::process::ProcessError::Failed) when any of them, or the package set itself, can't be evaluated.
    fn resolve<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Resolution>, NixError>>;

    /// Why Nix refuses a name that resolves to [`Resolution::Refused`], in its own words; none when
    /// it doesn't say.
    fn explain<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, NixError>>;

    /// Looks at what a package set has at attribute paths, as it spells them; the empty path is the
    /// set itself. One answer a path, in order. [`ProcessError::Failed`](crate::process::ProcessError::Failed) when any of them fails in a
    /// way that Nix code can't catch.
    fn look<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        paths: &'a [Vec<String>],
    ) -> BoxFuture<'a, Result<Vec<Attribute>, NixError>>;

    /// Builds or substitutes derivations, and keeps their outputs from the garbage collector by
    /// links in the folder `roots`. How that goes is told to `log`. [`NixError::Killed`] when a build
    /// was ended from outside.
    fn realise<'a>(
        &'a self,
        derivations: &'a [Derivation],
        roots: &'a Path,
        log: &'a BuildLog,
    ) -> BoxFuture<'a, Result<(), NixError>>;

    /// Fetches or builds store paths again that were changed after Nix had made them. How that goes is
    /// told to `log`.
    fn repair<'a>(
        &'a self,
        paths: &'a [StorePath],
        log: &'a BuildLog,
    ) -> BoxFuture<'a, Result<(), NixError>>;

    /// The closure of valid store paths.
    fn closure<'a>(&'a self, roots: &'a [StorePath]) -> BoxFuture<'a, Result<Closure, NixError>>;

    /// LocalCache a folder into the store, without git's own folder; the revision is the hash in its
    /// store path, which is that of its content.
    fn add_folder<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Fetched, NixError>>;

    /// Keeps a store path from the garbage collector, by a link to it.
    fn keep<'a>(&'a self, path: &'a Path, link: &'a Path) -> BoxFuture<'a, Result<(), NixError>>;

    /// Unpacks a tarball from a URL into the store.
    fn fetch_tarball<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Fetched, NixError>>;

    /// Fetches a flake and its inputs into the store, by its own lock, and makes one package set of
    /// them; `dir` is the flake's folder in its source. The revision is the hash in the store path of
    /// that, and so that of all its content.
    fn fetch_flake<'a>(
        &'a self,
        url: &'a str,
        dir: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, NixError>>;

    /// Runs git, with the environment of what fetches, for at most so long; returns its stdout.
    fn git<'a>(
        &'a self,
        arguments: Vec<OsString>,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Vec<u8>, NixError>>;

    /// Fetches a commit of a git repository into the store; `reference` is the full name of the
    /// ref that holds it (`refs/heads/main`).
    fn fetch_git<'a>(
        &'a self,
        url: &'a str,
        reference: &'a str,
        commit: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, NixError>>;
}
