//! A Nix for unit tests: packages exist when they were put in, and nothing is started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{FutureExt, ready};
use tokio::sync::Semaphore;

use super::{Attribute, Derivation, Fetched, Nix, NixError, NixFuture, Release, Resolution};
use crate::closure::{Closure, PathInfo, StorePath};
use crate::process::{self, Command, Limits, NetworkSettings, ProcessError, Purpose};
use crate::telemetry::build_log::BuildLog;
use nixgate_core::package_set::System;

/// See the module.
#[derive(Default)]
pub(crate) struct FakeNix {
    /// The resolution of each name; others are unknown.
    pub(crate) packages: BTreeMap<String, Resolution>,
    /// The suggestions for unknown names.
    pub(crate) near: Vec<String>,
    /// By attribute path, joined by dots.
    pub(crate) attributes: BTreeMap<String, Attribute>,
    /// Calls of [`Nix::look`].
    pub(crate) looked: AtomicUsize,
    /// Names whose evaluation fails.
    pub(crate) broken: Vec<String>,
    /// Calls of [`Nix::resolve`].
    pub(crate) resolved: AtomicUsize,
    /// Calls of [`Nix::realise`].
    pub(crate) realised: AtomicUsize,
    /// The error of realising and repairing.
    pub(crate) failure: Mutex<Option<NixError>>,
    /// The closure of any paths.
    pub(crate) paths: BTreeMap<StorePath, PathInfo>,
    /// The path of everything fetched.
    pub(crate) store: PathBuf,
    /// Fetches so far.
    pub(crate) fetched: AtomicUsize,
    /// Calls of [`Nix::git`].
    pub(crate) gits: AtomicUsize,
    /// A fetch waits for a permit of this.
    pub(crate) gate: Mutex<Option<Arc<Semaphore>>>,
    /// Realising waits for a permit of this, or until it is closed.
    pub(crate) realise_gate: Option<Semaphore>,
}

impl FakeNix {
    fn fetched(&self, revision: String) -> NixFuture<'_, Fetched> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap().clone();
        let fetched = Fetched {
            path: self.store.clone(),
            revision,
        };
        Box::pin(async {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            Ok(fetched)
        })
    }
}

fn failed(name: &str) -> NixError {
    NixError::Process(ProcessError::Failed {
        program: "nix-instantiate",
        status: std::process::ExitStatus::from_raw(1 << 8),
        stderr: format!("error: {name} is a mess\n"),
    })
}

impl Nix for FakeNix {
    fn version(&self) -> NixFuture<'_, Release> {
        ready(Ok(Release::parse("nix (Nix) 2.8.0").unwrap())).boxed()
    }

    fn ask_store(&self) -> NixFuture<'_, ()> {
        ready(Ok(())).boxed()
    }

    fn check_sandbox(&self) -> NixFuture<'_, ()> {
        ready(Ok(())).boxed()
    }

    fn resolve<'a>(
        &'a self,
        _: &'a Path,
        _: System,
        names: &'a [String],
    ) -> NixFuture<'a, Vec<Resolution>> {
        self.resolved.fetch_add(1, Ordering::SeqCst);
        if let Some(name) = names.iter().find(|name| self.broken.contains(name)) {
            return ready(Err(failed(name))).boxed();
        }
        let found = |name| {
            self.packages
                .get(name)
                .cloned()
                .unwrap_or(Resolution::Unknown {
                    near: self.near.clone(),
                })
        };
        ready(Ok(names.iter().map(found).collect())).boxed()
    }

    fn explain<'a>(
        &'a self,
        _: &'a Path,
        _: System,
        name: &'a str,
    ) -> NixFuture<'a, Option<String>> {
        ready(Ok(Some(format!("{name} has an unfree license")))).boxed()
    }

    fn look<'a>(
        &'a self,
        _: &'a Path,
        _: System,
        paths: &'a [Vec<String>],
    ) -> NixFuture<'a, Vec<Attribute>> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        let broken = |path: &Vec<String>| self.broken.contains(&path.join("."));
        if let Some(path) = paths.iter().find(|path| broken(path)) {
            return ready(Err(failed(&path.join(".")))).boxed();
        }
        let seen = paths.iter().map(|path| {
            let seen = self.attributes.get(&path.join("."));
            seen.cloned().unwrap_or(Attribute::Refused)
        });
        ready(Ok(seen.collect())).boxed()
    }

    fn realise<'a>(
        &'a self,
        _: &'a [Derivation],
        _: &'a Path,
        _: &'a BuildLog,
    ) -> NixFuture<'a, ()> {
        self.realised.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            if let Some(gate) = &self.realise_gate {
                drop(gate.acquire().await);
            }
            self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
        })
    }

    fn repair<'a>(&'a self, _: &'a [StorePath], _: &'a BuildLog) -> NixFuture<'a, ()> {
        ready(self.failure.lock().unwrap().clone().map_or(Ok(()), Err)).boxed()
    }

    fn closure<'a>(&'a self, _: &'a [StorePath]) -> NixFuture<'a, Closure> {
        let roots = self.paths.keys().cloned();
        ready(Ok(Closure::new(roots, self.paths.clone()).unwrap())).boxed()
    }

    fn add_folder<'a>(&'a self, _: &'a Path) -> NixFuture<'a, Fetched> {
        self.fetched("hash of the folder".to_owned())
    }

    fn keep<'a>(&'a self, path: &'a Path, root: &'a Path) -> NixFuture<'a, ()> {
        let _ = std::fs::remove_file(root);
        std::os::unix::fs::symlink(path, root).unwrap();
        ready(Ok(())).boxed()
    }

    fn fetch_tarball<'a>(&'a self, url: &'a str) -> NixFuture<'a, Fetched> {
        self.fetched(format!("hash of {url}"))
    }

    fn fetch_flake<'a>(&'a self, url: &'a str, _: &'a str) -> NixFuture<'a, Fetched> {
        self.fetched(format!("hash of {url}"))
    }

    /// Git is real.
    fn git(&self, arguments: Vec<OsString>, limit: Duration) -> NixFuture<'_, Vec<u8>> {
        self.gits.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let command = Command::new("git").args(arguments);
            let limits = Limits::time(limit);
            Ok(process::run(command, Purpose::Fetch, &NetworkSettings::default(), limits).await?)
        })
    }

    fn fetch_git<'a>(&'a self, _: &'a str, _: &'a str, commit: &'a str) -> NixFuture<'a, Fetched> {
        self.fetched(commit.to_owned())
    }
}
