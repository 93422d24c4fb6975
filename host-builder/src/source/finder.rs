//! Finding out what a tag means now: the slow part of pinning, which runs in tasks of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use tokio::sync::Semaphore;

use super::git::{self, Commit, Refs};
use super::mirror::Mirror;
use super::refreshing::{Known, Refreshing};
use super::roots::Roots;
use super::{DEFAULT, PIN_STALE, Pin, PinError, Pins, Source, required_nix};
use crate::closure::STORE_DIR;
use crate::nix::{Fetched, Nix};
use crate::telemetry::logging::chain;

/// How long the list of a repository's branches and tags holds: so long an unknown tag stays
/// unknown without asking the repository again.
const REFS_TTL: Duration = Duration::from_secs(30);
/// Package sets of names that are fetched at once: each may be a whole nixpkgs.
const NAMES_AT_ONCE: usize = 2;
/// Those of names that are new, and of commits, which have turns of their own: a client may ask for many
/// of them, and what others use is not to wait behind these.
const NEW_NAMES_AT_ONCE: usize = 2;
const COMMITS_AT_ONCE: usize = 1;

/// A source, and what finding out takes.
pub(super) struct Finder {
    source: Arc<Source>,
    nix: Arc<dyn Nix>,
    refs: Refreshing<Arc<Refs>>,
    mirror: Option<Mirror>,
    roots: Roots,
    name_turns: Semaphore,
    new_name_turns: Semaphore,
    commit_turns: Semaphore,
    /// The pins, whose links stay for as long as they are remembered.
    pins: Pins,
}

impl Finder {
    pub(super) fn new(
        source: Source,
        nix: Arc<dyn Nix>,
        hold: Duration,
        state_dir: &Path,
        pins: Pins,
    ) -> std::io::Result<Self> {
        let repository = source.repository();
        let mirror = repository.map(|(_, allowed)| Mirror::new(state_dir, allowed.clone()));
        Ok(Self {
            source: Arc::new(source),
            nix,
            mirror,
            // An old list can't say that a tag is unknown.
            refs: Refreshing::new(REFS_TTL, Duration::ZERO),
            roots: Roots::new(state_dir, hold + PIN_STALE)?,
            name_turns: Semaphore::new(NAMES_AT_ONCE),
            new_name_turns: Semaphore::new(NEW_NAMES_AT_ONCE),
            commit_turns: Semaphore::new(COMMITS_AT_ONCE),
            pins,
        })
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// The branches and tags of a git repository, for which this waits at most `wait`; of another
    /// source there are none.
    pub(super) async fn refs(&self, wait: Duration) -> Result<Known<Arc<Refs>>, PinError> {
        let Some((url, allowed)) = self.source.repository() else {
            return Ok(Known::Value(Arc::default(), REFS_TTL));
        };
        let (nix, url, allowed) = (Arc::clone(&self.nix), url.to_owned(), allowed.clone());
        let source = Arc::clone(&self.source);
        let list = || {
            let listed = async move {
                let refs = git::refs(&*nix, &url, &allowed).await;
                refs.map(Arc::new).map_err(|error| source.explain(error))
            };
            listed
                .inspect(|listed| log_failure("its branches and tags can't be listed", listed))
                .boxed()
        };
        self.refs.get("", wait, list).await
    }

    /// The package set that `wanted` means now, in the Nix store and kept there.
    pub(super) async fn find(&self, wanted: &str) -> Result<Pin, PinError> {
        let found = self.fetch_and_keep(wanted).await;
        let found = found.map_err(|error| self.source.explain(error));
        match &found {
            Ok(pin) => tracing::info!(
                tag = wanted,
                revision = pin.revision,
                "pinned the package set"
            ),
            Err(_) => log_failure(&format!("\"{wanted}\" can't be pinned"), &found),
        }
        found
    }

    async fn fetch_and_keep(&self, wanted: &str) -> Result<Pin, PinError> {
        // Before the turn: to find a commit may take a mirror of the whole repository.
        let commit = match self.source.repository() {
            Some(_) => Some(self.commit(wanted).await?),
            None => None,
        };
        let is_known = wanted == DEFAULT || self.pins.of(wanted).last(wanted).is_some();
        let turns = match (git::is_commit(wanted), is_known) {
            (true, _) => &self.commit_turns,
            (false, false) => &self.new_name_turns,
            (false, true) => &self.name_turns,
        };
        let turn = turns.acquire().await;
        let _turn = turn.map_err(|_| PinError::Interrupted)?;
        let Fetched { path, revision } = self.fetch(commit).await?;
        let root = self.roots.link(wanted);
        self.nix.keep(&path, &root).await?;
        let Pins { names, commits } = &self.pins;
        self.roots.prune(&names.keys(), &commits.keys());
        if let Some(needed) = required_nix(&path) {
            let found = self.nix.version().await?.version;
            if found < needed {
                return Err(PinError::NixTooOld { needed, found });
            }
        }
        Ok(Pin { path, revision })
    }

    /// The commit that a tag means, and an allowed ref that holds it.
    async fn commit(&self, wanted: &str) -> Result<Commit, PinError> {
        let Known::Value(refs, _) = self.refs(git::LIMIT).await? else {
            return Err(PinError::Interrupted);
        };
        let tip = refs.find(wanted);
        match (&tip, &self.mirror, self.source.repository()) {
            (Err(_), Some(mirror), Some((url, _))) if git::is_commit(wanted) => {
                let holder = mirror.holder(&*self.nix, url, &refs, wanted).await?;
                holder.map_or(tip, |reference| {
                    Ok(Commit {
                        reference,
                        id: wanted.to_owned(),
                    })
                })
            }
            _ => tip,
        }
    }

    /// `commit` is the one that is wanted of a repository.
    async fn fetch(&self, commit: Option<Commit>) -> Result<Fetched, PinError> {
        match &*self.source {
            Source::Channel { name, base } => {
                let url = format!("{base}/{name}.tar.gz");
                Ok(self.nix.fetch_tarball(&url).await?)
            }
            Source::Git { url, .. } => {
                let commit = commit.ok_or(PinError::Interrupted)?;
                Ok(self
                    .nix
                    .fetch_git(url, &commit.reference, &commit.id)
                    .await?)
            }
            Source::Flake { url, .. } => {
                let pinned = url.at(commit.as_ref());
                let fetched = self.nix.fetch_flake(&pinned, url.dir()).await?;
                Ok(Fetched {
                    revision: commit.map_or(fetched.revision, |commit| commit.id),
                    ..fetched
                })
            }
            // The store is immutable already, and the name says it all.
            Source::Path { path } if path.starts_with(STORE_DIR) => Ok(Fetched {
                path: path.clone(),
                revision: path.display().to_string(),
            }),
            Source::Path { path } => {
                if let Err(error) = tokio::fs::read_dir(path).await {
                    return Err(PinError::Folder {
                        path: path.clone(),
                        reason: error.to_string(),
                    });
                }
                Ok(self.nix.add_folder(path).await?)
            }
        }
    }
}

fn log_failure<T>(what: &str, result: &Result<T, PinError>) {
    if let Err(error) = result {
        tracing::warn!(error = chain(error), "package source: {what}");
    }
}
