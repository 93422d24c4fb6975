//! Nix, as the rest of the builder sees it: a few questions, each one process.
//!
//! ```text
//!   trait Nix ◄── Processes ──┬── command   what to run: pure
//!       ▲                     ├── process   running it: both pipes drained, killed when dropped
//!       │                     │     └── environment   what of the builder's it may see: pure
//!       │                     └── output    what it said: pure, old and new versions of Nix
//!   a fake in unit tests
//! ```
//!
//! Versions from 2.8 to the newest are understood. Nothing that a client wrote is ever an option
//! or a piece of Nix code: names travel as one JSON string.

mod command;
mod environment;
#[cfg(test)]
pub mod fake;
mod hash;
mod output;
mod process;
mod processes;
mod redact;

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;

use crate::closure::{Closure, StorePath};
use nixgate_core::package_set::System;

pub use command::{Command, NixOptions};
pub use output::{Attribute, Derivation, Resolution, Version, reason};
pub use process::{NixError, run};
pub use processes::Processes;

/// An archive, a repository or a folder that Nix has copied into its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// What names its content: a hash or a commit.
    pub revision: String,
}

/// What the builder needs of Nix.
pub trait Nix: Send + Sync + 'static {
    /// Which Nix there is.
    fn version(&self) -> BoxFuture<'_, Result<Version, NixError>>;

    /// Whether the store can be asked.
    fn ask_store(&self) -> BoxFuture<'_, Result<(), NixError>>;

    /// Finds the derivations behind names, all in one evaluation; one answer a name, in order.
    /// [`NixError::Failed`] when any of them, or the package set itself, can't be evaluated.
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
    /// set itself. One answer a path, in order. [`NixError::Failed`] when any of them fails in a
    /// way that Nix code can't catch.
    fn look<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        paths: &'a [Vec<String>],
    ) -> BoxFuture<'a, Result<Vec<Attribute>, NixError>>;

    /// Builds or substitutes derivations, and keeps their outputs from the garbage collector by
    /// links in the folder `roots`.
    fn realise<'a>(
        &'a self,
        derivations: &'a [Derivation],
        roots: &'a Path,
    ) -> BoxFuture<'a, Result<(), NixError>>;

    /// The closure of valid store paths.
    fn closure<'a>(&'a self, roots: &'a [StorePath]) -> BoxFuture<'a, Result<Closure, NixError>>;

    /// Copies a folder into the store, without git's own folder; the revision is the hash in its
    /// store path, which is that of its content.
    fn add_folder<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Fetched, NixError>>;

    /// Keeps a store path from the garbage collector, by a link to it.
    fn keep<'a>(&'a self, path: &'a Path, link: &'a Path) -> BoxFuture<'a, Result<(), NixError>>;

    /// Unpacks a tarball from a URL into the store.
    fn fetch_tarball<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Fetched, NixError>>;

    /// Fetches a commit of a git repository into the store; `reference` is the full name of the
    /// ref that holds it (`refs/heads/main`).
    fn fetch_git<'a>(
        &'a self,
        url: &'a str,
        reference: &'a str,
        commit: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, NixError>>;
}
