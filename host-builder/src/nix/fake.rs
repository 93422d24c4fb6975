//! A Nix for unit tests: packages exist when they were put in, and nothing is started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::{
    Attribute, Derivation, Described, Fetched, Nix, NixError, Release, Resolution, Writes,
};
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
    /// By attribute path, joined by dots.
    pub(crate) described_as: BTreeMap<String, Described>,
    /// Calls of [`Nix::describe`].
    pub(crate) described: AtomicUsize,
    /// The outputs that caches have.
    pub(crate) cached: Vec<StorePath>,
    /// Calls of [`Nix::substitute`].
    pub(crate) substituted: AtomicUsize,
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
    /// Resolving waits for a permit of this, or until it is closed.
    pub(crate) resolve_gate: Option<Semaphore>,
    /// Realising waits for a permit of this, or until it is closed.
    pub(crate) realise_gate: Option<Semaphore>,
}

impl FakeNix {
    async fn fetched(&self, revision: String) -> Result<Fetched, NixError> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap().clone();
        let fetched = Fetched {
            path: self.store.clone(),
            revision,
        };
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        Ok(fetched)
    }
}

fn failed(name: &str) -> NixError {
    NixError::Process(ProcessError::Failed {
        program: "nix-instantiate",
        status: std::process::ExitStatus::from_raw(1 << 8),
        stderr: format!("error: {name} is a mess\n"),
    })
}

#[async_trait]
impl Nix for FakeNix {
    async fn version(&self) -> Result<Release, NixError> {
        Ok(Release::parse("nix (Nix) 2.8.0").unwrap())
    }

    async fn ask_store(&self) -> Result<(), NixError> {
        Ok(())
    }

    async fn check_sandbox(&self) -> Result<(), NixError> {
        Ok(())
    }

    async fn resolve(
        &self,
        _: &Path,
        _: System,
        names: &[String],
        _: Writes,
    ) -> Result<Vec<Resolution>, NixError> {
        self.resolved.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.resolve_gate {
            drop(gate.acquire().await);
        }
        if let Some(name) = names.iter().find(|name| self.broken.contains(name)) {
            return Err(failed(name));
        }
        let found = |name| {
            self.packages
                .get(name)
                .cloned()
                .unwrap_or(Resolution::Unknown {
                    near: self.near.clone(),
                })
        };
        Ok(names.iter().map(found).collect())
    }

    async fn explain(&self, _: &Path, _: System, name: &str) -> Result<Option<String>, NixError> {
        Ok(Some(format!("{name} has an unfree license")))
    }

    async fn look(
        &self,
        _: &Path,
        _: System,
        paths: &[Vec<String>],
    ) -> Result<Vec<Attribute>, NixError> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        let broken = |path: &Vec<String>| self.broken.contains(&path.join("."));
        if let Some(path) = paths.iter().find(|path| broken(path)) {
            return Err(failed(&path.join(".")));
        }
        let seen = paths.iter().map(|path| {
            let seen = self.attributes.get(&path.join("."));
            seen.cloned().unwrap_or(Attribute::Refused)
        });
        Ok(seen.collect())
    }

    async fn describe(
        &self,
        _: &Path,
        _: System,
        paths: &[Vec<String>],
    ) -> (Vec<Described>, Result<(), NixError>) {
        self.described.fetch_add(1, Ordering::SeqCst);
        let mut answers = Vec::new();
        for path in paths {
            let path = path.join(".");
            if self.broken.contains(&path) {
                return (answers, Err(failed(&path)));
            }
            let known = self.described_as.get(&path);
            answers.push(known.cloned().unwrap_or(Described::Refused));
        }
        (answers, Ok(()))
    }

    async fn substitute(
        &self,
        derivations: &[Derivation],
        _: &Path,
        _: &BuildLog,
    ) -> Result<(), NixError> {
        self.substituted.fetch_add(1, Ordering::SeqCst);
        let outputs = derivations.iter().flat_map(|one| &one.outputs);
        let missing = outputs.filter(|one| !self.cached.contains(&one.path));
        let names: Vec<_> = missing.map(|one| one.path.name().to_owned()).collect();
        match names.is_empty() {
            true => Ok(()),
            false => Err(NixError::NotInCaches { names }),
        }
    }

    async fn realise(&self, _: &[Derivation], _: &Path, _: &BuildLog) -> Result<(), NixError> {
        self.realised.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.realise_gate {
            drop(gate.acquire().await);
        }
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn repair(&self, _: &[StorePath], _: &BuildLog) -> Result<(), NixError> {
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn closure(&self, _: &[StorePath]) -> Result<Closure, NixError> {
        let roots = self.paths.keys().cloned();
        Ok(Closure::new(roots, self.paths.clone()).unwrap())
    }

    async fn add_folder(&self, _: &Path) -> Result<Fetched, NixError> {
        self.fetched("hash of the folder".to_owned()).await
    }

    async fn keep(&self, path: &Path, root: &Path) -> Result<(), NixError> {
        let _ = std::fs::remove_file(root);
        std::os::unix::fs::symlink(path, root).unwrap();
        Ok(())
    }

    async fn fetch_tarball(&self, url: &str, _: &BuildLog) -> Result<Fetched, NixError> {
        self.fetched(format!("hash of {url}")).await
    }

    async fn fetch_archive(&self, _: &str, sha256: &str) -> Result<Fetched, NixError> {
        self.fetched(sha256.to_owned()).await
    }

    async fn fetch_flake(&self, url: &str, _: &str) -> Result<Fetched, NixError> {
        self.fetched(format!("hash of {url}")).await
    }

    /// Git is real.
    async fn git(&self, arguments: Vec<OsString>, limit: Duration) -> Result<Vec<u8>, NixError> {
        self.gits.fetch_add(1, Ordering::SeqCst);
        let command = Command::new("git").args(arguments);
        let limits = Limits::time(limit);
        Ok(process::run(command, Purpose::Fetch, &NetworkSettings::default(), limits).await?)
    }

    async fn fetch_git(&self, _: &str, _: &str, commit: &str) -> Result<Fetched, NixError> {
        self.fetched(commit.to_owned()).await
    }
}
