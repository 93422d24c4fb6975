//! Finds and fetches the package set of a tag: the slow part of pinning.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::FutureExt;
use nixgate_core::package_set::System;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::git::{self, Commit, Refs};
use super::mirror::Mirror;
use super::roots::Roots;
use super::unchanged::{Fetches, State};
use super::{DEFAULT, Pin, PinError, Source, required_nix};
use crate::closure::STORE_DIR;
use crate::files::expiry::renew;
use crate::fingerprint::Fingerprint;
use crate::memo::{Bound, Known, Lifetime, Memo};
use crate::nix::{Fetched, Nix, NixError, Writes, reason};
use crate::process::{NetworkSettings, ProcessError};
use crate::telemetry::build_log::{BuildLog, BuildLogs};
use crate::telemetry::logging::chain;

/// How long the list of a repository's refs is used. An unknown tag stays unknown for as long.
const REFS_TTL: Duration = Duration::from_secs(30);
/// Fetches at once: each may be a whole nixpkgs. Names in use, new names and commits have permits of
/// their own, so that nobody waits behind the many that one client may ask for.
const NAMES_AT_ONCE: usize = 2;
const NEW_NAMES_AT_ONCE: usize = 2;
const COMMITS_AT_ONCE: usize = 1;
/// Package sets that are known to be usable: more than are pinned at once by default.
const MOST_USABLE: usize = 256;

/// See the module.
pub(super) struct Finder {
    pub(super) source: Arc<Source>,
    pub(super) roots: Roots,
    nix: Arc<dyn Nix>,
    network: NetworkSettings,
    logs: BuildLogs,
    fetches: Fetches,
    refs: Memo<Arc<Refs>, PinError>,
    mirror: Option<Mirror>,
    /// The platform for which package sets are tried.
    system: System,
    /// Those that were tried with success, as paths in the store, which never change.
    usable: Mutex<VecDeque<PathBuf>>,
    /// Why the default tag's package set can't be used, when it was last tried.
    fault: Mutex<Option<PinError>>,
    names: Semaphore,
    new_names: Semaphore,
    commits: Semaphore,
}

impl Finder {
    /// Links of package sets are in `state_dir`. They stay for the time `keep` after the last fetch.
    pub(super) fn new(
        source: Source,
        nix: Arc<dyn Nix>,
        system: System,
        network: NetworkSettings,
        logs: BuildLogs,
        keep: Duration,
        state_dir: &Path,
    ) -> std::io::Result<Self> {
        let repository = source.repository();
        Ok(Self {
            mirror: repository.map(|(url, allowed)| Mirror::new(state_dir, url, allowed)),
            source: Arc::new(source),
            system,
            usable: Mutex::default(),
            fault: Mutex::default(),
            nix,
            network,
            logs,
            fetches: Fetches::default(),
            refs: Memo::new(Bound::NONE),
            roots: Roots::new(state_dir, keep)?,
            names: Semaphore::new(NAMES_AT_ONCE),
            new_names: Semaphore::new(NEW_NAMES_AT_ONCE),
            commits: Semaphore::new(COMMITS_AT_ONCE),
        })
    }

    /// The refs of the git repository, for which this waits at most `wait`; none for other sources.
    pub(super) async fn refs(&self, wait: Duration) -> Result<Option<Known<Arc<Refs>>>, PinError> {
        let Some((url, allowed)) = self.source.repository() else {
            return Ok(None);
        };
        let list = |_: &[()]| {
            let (nix, source) = (Arc::clone(&self.nix), Arc::clone(&self.source));
            let (url, allowed) = (url.to_owned(), allowed.clone());
            let refs = async move {
                let refs = git::refs(&*nix, &url, &allowed).await;
                let refs = refs.map(Arc::new).map_err(|error| source.explain(error));
                if let Err(error) = &refs {
                    tracing::warn!(
                        error = chain(error),
                        "cannot list the branches and tags of the package source"
                    );
                }
                (refs, Lifetime::fresh(REFS_TTL))
            };
            Ok(refs.boxed())
        };
        let refs = self.refs.get("", wait, (), list).await;
        refs.map(Some).map_err(|(error, _)| error)
    }

    #[cfg(test)]
    pub(super) fn forget_refs(&self) {
        self.refs.forget("");
    }

    /// Fetches the package set of a tag into the Nix store, and keeps it there.
    pub(super) async fn find(&self, tag: &str, is_new: bool) -> Result<Pin, PinError> {
        let found = self.fetch_and_keep(tag, is_new).await;
        let found = found.map_err(|error| self.source.explain(error));
        match &found {
            Ok(Pin { revision, .. }) => tracing::info!(tag, revision, "pinned the package set"),
            Err(error) => {
                tracing::warn!(tag, error = chain(error), "cannot pin the package source");
            }
        }
        if tag == DEFAULT {
            let fault = found.as_ref().err().filter(|error| error.is_of_the_set());
            *self.fault.lock() = fault.cloned();
        }
        found
    }

    async fn fetch_and_keep(&self, tag: &str, is_new: bool) -> Result<Pin, PinError> {
        // Before the permit: it may take a mirror of the whole repository.
        let commit = self.commit(tag).await?;
        let permits = match git::is_commit(tag) {
            true => &self.commits,
            false if is_new => &self.new_names,
            false => &self.names,
        };
        let permit = permits.acquire().await;
        let _permit = permit.map_err(|_| PinError::Interrupted)?;
        let Fetched { path, revision } = self.unchanged_or_fetch(tag, commit).await?;
        if let Some(needed) = required_nix(&path) {
            let found = self.nix.version().await?.version;
            if found < needed {
                return Err(PinError::NixTooOld { needed, found });
            }
        }
        self.try_set(&path).await?;
        Ok(Pin { path, revision })
    }

    /// Evaluates a package set without asking for a package. Today's nixpkgs tells so that Nix is too old,
    /// and any set that it is broken as a whole: that is no package's fault.
    async fn try_set(&self, path: &Path) -> Result<(), PinError> {
        let is_known = |usable: &VecDeque<PathBuf>| usable.iter().any(|known| known == path);
        if is_known(&self.usable.lock()) {
            return Ok(());
        }
        match self
            .nix
            .resolve(path, self.system, &[], Writes::Derivations)
            .await
        {
            Ok(_) => {
                let mut usable = self.usable.lock();
                if !is_known(&usable) {
                    usable.truncate(MOST_USABLE - 1);
                    usable.push_front(path.to_owned());
                }
                Ok(())
            }
            Err(NixError::Process(ProcessError::Failed { stderr, .. })) => {
                let reason = reason(&stderr).unwrap_or_else(|| "Nix gives no reason".to_owned());
                let nix = self.nix.version().await?.to_string();
                Err(PinError::Unusable { reason, nix })
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn fault(&self) -> Option<PinError> {
        self.fault.lock().clone()
    }

    /// What was fetched the last time, if the source has not changed since; else fetches it, and keeps it
    /// in the store.
    async fn unchanged_or_fetch(
        &self,
        tag: &str,
        commit: Option<Commit>,
    ) -> Result<Fetched, PinError> {
        let link = self.roots.link(tag);
        let last = self.fetches.last(tag, &link, Instant::now());
        let state = |known: Option<State>| {
            let (source, commit) = (&self.source, commit.as_ref());
            async move { State::of(source, commit, &self.network, known.as_ref()).await }
        };
        let before = state(last.as_ref().map(|(known, _)| known.clone())).await;
        if let Some((known, fetched)) = last
            && before.as_ref() == Some(&known)
            // As fetching again would do.
            && renew(&link).is_ok()
        {
            tracing::debug!(
                tag,
                revision = fetched.revision,
                "the source has not changed"
            );
            return Ok(fetched);
        }
        let started = Instant::now();
        let fetched = self.fetch_with_log(tag, commit.as_ref()).await?;
        self.nix.keep(&fetched.path, &link).await?;
        // One that changed meanwhile may be either.
        let same = match before {
            Some(_) => state(before.clone())
                .await
                .filter(|after| before.as_ref() == Some(after)),
            None => None,
        };
        self.fetches.note(tag, same, &fetched, started);
        self.fetches.prune(|tag| self.roots.link(tag).is_symlink());
        Ok(fetched)
    }

    /// Fetches a package set. Its progress can be watched like that of a build.
    async fn fetch_with_log(
        &self,
        tag: &str,
        commit: Option<&Commit>,
    ) -> Result<Fetched, PinError> {
        let id = Fingerprint::new("source-fetch-1").part(tag).hex();
        let kind = self.source.kind();
        tracing::info!(tag, kind, "fetching the package set");
        let log = self.logs.begin_source(&id, &format!("{kind} {tag}"));
        let fetched = self.fetch(commit, &log).await;
        let fetched = fetched.map_err(|error| self.source.explain(error));
        log.end(fetched.as_ref().err().cloned().map(Into::into));
        fetched
    }

    /// The commit of a tag, with an allowed ref that contains it; none without a git repository.
    async fn commit(&self, tag: &str) -> Result<Option<Commit>, PinError> {
        let refs = match self.refs(git::LIST_TIMEOUT).await? {
            Some(Known::Value(refs, _)) => refs,
            Some(Known::Pending(_)) => return Err(PinError::Interrupted),
            None => return Ok(None),
        };
        let tip = refs.find(tag);
        if let (Err(_), Some(mirror), true) = (&tip, &self.mirror, git::is_commit(tag))
            && let Some(reference) = mirror.ref_containing(&*self.nix, &refs, tag).await?
        {
            let id = tag.to_owned();
            return Ok(Some(Commit { reference, id }));
        }
        tip.map(Some)
    }

    async fn fetch(&self, commit: Option<&Commit>, log: &BuildLog) -> Result<Fetched, PinError> {
        match &*self.source {
            Source::Channel { name, base } => {
                let url = format!("{base}/{name}.tar.gz");
                Ok(self.nix.fetch_tarball(&url, log).await?)
            }
            Source::Git { url, .. } => {
                let Commit { reference, id } = commit.ok_or(PinError::Interrupted)?;
                Ok(self.nix.fetch_git(url, reference, id).await?)
            }
            Source::Flake { url, .. } => {
                let pinned = url.at(commit);
                let mut fetched = self.nix.fetch_flake(&pinned, url.dir()).await?;
                if let Some(Commit { id, .. }) = commit {
                    fetched.revision.clone_from(id);
                }
                Ok(fetched)
            }
            // Immutable already.
            Source::Path { path } if path.starts_with(STORE_DIR) => Ok(Fetched {
                path: path.clone(),
                revision: path.display().to_string(),
            }),
            Source::Path { path } => {
                if let Err(error) = tokio::fs::read_dir(path).await {
                    return Err(PinError::Folder {
                        path: path.clone(),
                        reason: error.to_string(),
                        setting: "NIXERY_PKGS_PATH",
                    });
                }
                Ok(self.nix.add_folder(path).await?)
            }
        }
    }
}
