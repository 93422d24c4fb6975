//! A Nix for unit tests: packages exist when they were put in, and nothing is started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use tokio::sync::Semaphore;

use super::{Attribute, Derivation, Fetched, Nix, NixError, Release, Resolution};
use crate::closure::{Closure, PathInfo, StorePath};
use crate::process::{self, Command, Limits, NetworkSettings, ProcessError, Purpose};
use crate::telemetry::build_log::BuildLog;
use nixgate_core::package_set::System;

/// See the module.
#[derive(Default)]
pub(crate) struct FakeNix {
    /// What each name resolves to; others are unknown.
    pub(crate) packages: BTreeMap<String, Resolution>,
    /// What is near to names that are unknown.
    pub(crate) near: Vec<String>,
    /// What is at each attribute path, its names joined by dots; elsewhere is nothing.
    pub(crate) attributes: BTreeMap<String, Attribute>,
    /// Calls of [`Nix::look`].
    pub(crate) looked: AtomicUsize,
    /// Names that make every evaluation fail that they are part of.
    pub(crate) broken: Vec<String>,
    /// Calls of [`Nix::resolve`].
    pub(crate) resolved: AtomicUsize,
    /// Calls of [`Nix::realise`].
    pub(crate) realised: AtomicUsize,
    /// What realising fails with.
    pub(crate) failure: Mutex<Option<NixError>>,
    /// What the store says that it has, for all who ask.
    pub(crate) paths: BTreeMap<StorePath, PathInfo>,
    /// Where everything is that was fetched.
    pub(crate) store: PathBuf,
    /// How often something was fetched.
    pub(crate) fetched: AtomicUsize,
    /// Calls of [`Nix::git`].
    pub(crate) gits: AtomicUsize,
    /// What a fetch waits for, if for anything.
    pub(crate) gate: Mutex<Option<Arc<Semaphore>>>,
    /// What realising waits for: it ends when the semaphore has a permit or is closed.
    pub(crate) realise_gate: Option<Semaphore>,
}

impl FakeNix {
    fn fetched(&self, revision: String) -> BoxFuture<'_, Result<Fetched, NixError>> {
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
    fn version(&self) -> BoxFuture<'_, Result<Release, NixError>> {
        ready(Ok(Release::parse("nix (Nix) 2.8.0").unwrap())).boxed()
    }

    fn ask_store(&self) -> BoxFuture<'_, Result<(), NixError>> {
        ready(Ok(())).boxed()
    }

    fn check_sandbox(&self) -> BoxFuture<'_, Result<(), NixError>> {
        ready(Ok(())).boxed()
    }

    fn resolve<'a>(
        &'a self,
        _: &'a Path,
        _: System,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Resolution>, NixError>> {
        self.resolved.fetch_add(1, Ordering::SeqCst);
        if let Some(name) = names.iter().find(|name| self.broken.contains(name)) {
            return ready(Err(failed(name))).boxed();
        }
        let found = |name| {
            self.packages
                .get(name)
                .cloned()
                .unwrap_or(Resolution::Unknown(self.near.clone()))
        };
        ready(Ok(names.iter().map(found).collect())).boxed()
    }

    fn explain<'a>(
        &'a self,
        _: &'a Path,
        _: System,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, NixError>> {
        ready(Ok(Some(format!("{name} has an unfree license")))).boxed()
    }

    fn look<'a>(
        &'a self,
        _: &'a Path,
        _: System,
        paths: &'a [Vec<String>],
    ) -> BoxFuture<'a, Result<Vec<Attribute>, NixError>> {
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
    ) -> BoxFuture<'a, Result<(), NixError>> {
        self.realised.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            if let Some(gate) = &self.realise_gate {
                drop(gate.acquire().await);
            }
            self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
        })
    }

    fn repair<'a>(
        &'a self,
        _: &'a [StorePath],
        _: &'a BuildLog,
    ) -> BoxFuture<'a, Result<(), NixError>> {
        ready(self.failure.lock().unwrap().clone().map_or(Ok(()), Err)).boxed()
    }

    fn closure<'a>(&'a self, _: &'a [StorePath]) -> BoxFuture<'a, Result<Closure, NixError>> {
        let roots = self.paths.keys().cloned();
        ready(Ok(Closure::new(roots, self.paths.clone()).unwrap())).boxed()
    }

    fn add_folder<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Result<Fetched, NixError>> {
        self.fetched("hash of the folder".to_owned())
    }

    fn keep<'a>(&'a self, path: &'a Path, root: &'a Path) -> BoxFuture<'a, Result<(), NixError>> {
        let _ = std::fs::remove_file(root);
        std::os::unix::fs::symlink(path, root).unwrap();
        ready(Ok(())).boxed()
    }

    fn fetch_tarball<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Fetched, NixError>> {
        self.fetched(format!("hash of {url}"))
    }

    fn fetch_flake<'a>(
        &'a self,
        url: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, NixError>> {
        self.fetched(format!("hash of {url}"))
    }

    /// Git is real.
    fn git<'a>(
        &'a self,
        arguments: Vec<OsString>,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Vec<u8>, NixError>> {
        self.gits.fetch_add(1, Ordering::SeqCst);
        let program = "git";
        let command = Command { program, arguments };
        Box::pin(async move {
            let limits = Limits::time(limit);
            Ok(process::run(command, Purpose::Fetch, &NetworkSettings::default(), limits).await?)
        })
    }

    fn fetch_git<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        commit: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, NixError>> {
        self.fetched(commit.to_owned())
    }
}
