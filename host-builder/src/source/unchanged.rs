//! Whether a source still is what it was when its package set was fetched: then it is not fetched again.
//!
//! | source | its state |
//! | --- | --- |
//! | git, a flake in a git repository | the commit, which never changes |
//! | channel | the server's validator ([`archive`]) |
//! | folder, a flake in one | sizes, times and inodes ([`folder_state`]) |
//! | another flake | none: only Nix can tell |
//!
//! A state is looked at before a fetch and after it, and noted only if both are the same: then it is the
//! state of what was fetched. It is trusted for [`FULL_CHECK`], since a server or a file system may be
//! wrong. A commit cannot be. States are in memory: after a restart, everything is fetched once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Source;
use super::archive::{self, Validator};
use super::folder_state;
use super::git::Commit;
use crate::closure::STORE_DIR;
use crate::nix::Fetched;
use crate::process::NetworkSettings;

/// How long a validator or the state of a folder is trusted.
pub(super) const FULL_CHECK: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Names its content.
    Fixed(String),
    Archive(Validator),
    Folder(String),
}

impl State {
    /// Of a source now; for an archive, `known` itself if it has not changed.
    pub(super) async fn of(
        source: &Source,
        commit: Option<&Commit>,
        network: &NetworkSettings,
        known: Option<&Self>,
    ) -> Option<Self> {
        if let Some(Commit { id, .. }) = commit {
            return Some(Self::Fixed(id.clone()));
        }
        let folder = match source {
            Source::Channel { .. } => {
                let known = match known {
                    Some(Self::Archive(validator)) => Some(validator),
                    _ => None,
                };
                let now = archive::validator(network, &source.url()?, known).await;
                return now.map(Self::Archive);
            }
            Source::Path { path } if path.starts_with(STORE_DIR) => {
                return Some(Self::Fixed(path.display().to_string()));
            }
            Source::Path { path } => path.as_path(),
            Source::Flake { url, .. } => url.folder()?,
            Source::Git { .. } => return None,
        };
        folder_state::state(folder).await.map(Self::Folder)
    }
}

struct Noted {
    state: State,
    fetched: Fetched,
    at: Instant,
}

/// What was fetched, by tag.
#[derive(Default)]
pub(super) struct Fetches(Mutex<BTreeMap<String, Noted>>);

impl Fetches {
    /// What was fetched for a tag, if it is still in the Nix store, kept there by the link, and its state
    /// may be trusted.
    pub(super) fn last(&self, tag: &str, link: &Path, now: Instant) -> Option<(State, Fetched)> {
        let noted = self.0.lock();
        let Noted { state, fetched, at } = noted.get(tag)?;
        let is_trusted = matches!(state, State::Fixed(_)) || now.duration_since(*at) < FULL_CHECK;
        let is_kept = fs::read_link(link).is_ok_and(|target| target == fetched.path);
        let is_there = is_trusted && is_kept && fetched.path.exists();
        is_there.then(|| (state.clone(), fetched.clone()))
    }

    /// Notes what was fetched; forgets it if its state is unknown.
    pub(super) fn note(&self, tag: &str, state: Option<State>, fetched: &Fetched, now: Instant) {
        let mut noted = self.0.lock();
        noted.remove(tag);
        if let Some(state) = state {
            let (fetched, at) = (fetched.clone(), now);
            noted.insert(tag.to_owned(), Noted { state, fetched, at });
        }
    }

    /// Forgets tags without a link: that is their bound.
    pub(super) fn prune(&self, has_link: impl Fn(&str) -> bool) {
        self.0.lock().retain(|tag, _| has_link(tag));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_fetch_counts_while_it_is_kept_in_the_store_and_its_state_may_be_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("set"), folder.path().join("link"));
        fs::create_dir(&path).unwrap();
        symlink(&path, &link).unwrap();
        let fetched = Fetched {
            path: path.clone(),
            revision: "1".to_owned(),
        };
        let (fetches, start) = (Fetches::default(), Instant::now());
        let last = |after| fetches.last("latest", &link, start + after).is_some();
        assert!(!last(Duration::ZERO));
        for (state, forever) in [
            (State::Folder("a".to_owned()), false),
            (State::Fixed("a".to_owned()), true),
        ] {
            fetches.note("latest", Some(state), &fetched, start);
            assert!(last(FULL_CHECK / 2));
            assert_eq!(last(FULL_CHECK), forever);
        }
        // Another tag's link, no link, and no package set.
        fs::remove_file(&link).unwrap();
        symlink("/nonexistent", &link).unwrap();
        assert!(!last(Duration::ZERO));
        fs::remove_file(&link).unwrap();
        assert!(!last(Duration::ZERO));
        symlink(&path, &link).unwrap();
        assert!(last(Duration::ZERO));
        fs::remove_dir(&path).unwrap();
        assert!(!last(Duration::ZERO));
        fs::create_dir(&path).unwrap();
        fetches.note("latest", None, &fetched, start);
        assert!(!last(Duration::ZERO));
    }
}
