//! A mirror of a git repository, which tells the commits of its allowed refs.
//!
//! ```text
//!   commit ── a tip? ── yes ─────────────────────────────────────► the ref
//!               │ no
//!               ▼
//!   mirror ── as old as the list of refs? ── no ── git fetch ─┐
//!               │ yes                                        │
//!               ▼                                            ▼
//!             an allowed ref contains it ── yes ───────────► that ref
//!               │ no
//!               ▼
//!             unknown, without an evaluation
//! ```
//!
//! A forge can't be asked: it serves the commits of every fork and merge request under the name of the
//! repository. The mirror has the commits of allowed refs alone, without folders and files where the
//! server can leave them out (`--filter=tree:0`). It is fetched for the first commit that is not a tip,
//! and again once the list of refs has changed. Until then an unknown commit is remembered for a while,
//! so that a client that retries starts no process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::PinError;
use super::allowed_refs::AllowedRefs;
use super::git::{Refs, is_plain};
use crate::fingerprint::Fingerprint;
use crate::negative_ttl;
use crate::nix::{Nix, NixError};
use crate::process::ProcessError;

/// All commits of nixpkgs are some hundred megabytes.
const FETCH_TIMEOUT: Duration = Duration::from_secs(900);
const LOCAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Unknown commits that are remembered, of about 100 bytes each.
const MAX_UNKNOWN: usize = 1000;

/// See the module.
pub(super) struct Mirror {
    url: String,
    allowed: AllowedRefs,
    folder: PathBuf,
    git_dir: PathBuf,
    /// Locked while git runs.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The list of refs of the last fetch.
    refs: Option<Arc<Refs>>,
    /// Commits that none of these refs contains, and until when that is remembered.
    unknown: BTreeMap<String, Instant>,
}

impl State {
    fn is_unknown(&mut self, commit: &str) -> bool {
        let now = Instant::now();
        self.unknown.retain(|_, until| now < *until);
        self.unknown.contains_key(commit)
    }

    fn add_unknown(&mut self, commit: &str) {
        if self.unknown.len() < MAX_UNKNOWN {
            let until = Instant::now() + negative_ttl::hold_for(commit);
            self.unknown.insert(commit.to_owned(), until);
        }
    }
}

impl Mirror {
    pub(super) fn new(state_dir: &Path, url: &str, allowed: &AllowedRefs) -> Self {
        let folder = state_dir.join("mirrors");
        Self {
            url: url.to_owned(),
            allowed: allowed.clone(),
            git_dir: folder.join(Fingerprint::new("mirror-1").part(url).hex()),
            folder,
            state: Mutex::default(),
        }
    }

    /// An allowed ref that contains a commit, if there is one. `refs` is the repository's list now.
    pub(super) async fn ref_containing(
        &self,
        nix: &dyn Nix,
        refs: &Arc<Refs>,
        commit: &str,
    ) -> Result<Option<String>, PinError> {
        let mut state = self.state.lock().await;
        if state.refs.as_ref() != Some(refs) {
            *state = State::default();
            self.fetch(nix, refs).await?;
            state.refs = Some(Arc::clone(refs));
        }
        if state.is_unknown(commit) {
            return Ok(None);
        }
        // A mirror without files would ask the repository for missing objects, and forges have them.
        let contains = format!("--contains={commit}");
        let no_network = ["-c", "protocol.allow=never"];
        let list = ["for-each-ref", "--format=%(refname)", &contains];
        let arguments = [&no_network[..], &list].concat();
        let listed = match self.git(nix, &arguments, LOCAL_TIMEOUT).await {
            // It doesn't have the commit at all.
            Err(NixError::Process(ProcessError::Failed { .. })) => Vec::new(),
            listed => listed?,
        };
        let listed = String::from_utf8_lossy(&listed);
        // The mirror may have refs of earlier settings.
        let mut names = listed.lines().filter(|name| refs.has(name)).peekable();
        let first = names.peek().copied();
        let found = names.find(|name| is_plain(name)).or(first);
        if found.is_none() {
            state.add_unknown(commit);
        }
        Ok(found.map(str::to_owned))
    }

    async fn fetch(&self, nix: &dyn Nix, refs: &Refs) -> Result<(), PinError> {
        // Its configuration has the repository's URL, which may have a password.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|error| PinError::Folder {
                path: self.folder.clone(),
                reason: error.to_string(),
                setting: "NIXGATE_STATE_DIR",
            })?;
        let init = ["init", "--quiet", "--bare"];
        self.git(nix, &init, LOCAL_TIMEOUT).await?;
        // A full name that the repository doesn't have would make git fail.
        let patterns = self.allowed.patterns();
        let patterns = patterns.filter(|pattern| pattern.contains('*') || refs.has(pattern));
        let patterns: Vec<_> = patterns
            .map(|pattern| format!("+{pattern}:{pattern}"))
            .collect();
        if patterns.is_empty() {
            return Ok(());
        }
        // Looking for a commit among thousands of refs is quick with a commit graph.
        let mut fetch = vec!["-c", "fetch.writeCommitGraph=true"];
        fetch.extend(["fetch", "--quiet", "--prune", "--no-tags", "--force"]);
        fetch.extend(["--filter=tree:0", "--", &self.url]);
        fetch.extend(patterns.iter().map(String::as_str));
        self.git(nix, &fetch, FETCH_TIMEOUT).await?;
        Ok(())
    }

    async fn git(
        &self,
        nix: &dyn Nix,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Vec<u8>, NixError> {
        let mut git_dir = OsString::from("--git-dir=");
        git_dir.push(&self.git_dir);
        let arguments = arguments.iter().map(OsString::from);
        let arguments = [git_dir].into_iter().chain(arguments).collect();
        nix.git(arguments, limit).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::nix::fake::FakeNix;
    use crate::source::git;
    use crate::source::pins::tests;

    #[tokio::test]
    async fn an_unknown_commit_costs_no_process_until_the_refs_change_and_only_listed_refs_count() {
        let (repository, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = |arguments: &[&str]| tests::git(repository.path(), arguments);
        run(&["init", "--quiet", "--initial-branch=main"]);
        let commit = ["commit", "--quiet", "--allow-empty", "--message=m"];
        run(&commit);
        run(&["switch", "--quiet", "--detach"]);
        run(&commit);
        let wanted = run(&["rev-parse", "HEAD"]);

        let url = format!("file://{}", repository.path().display());
        let (allowed, nix) = (AllowedRefs::default(), FakeNix::default());
        let mirror = Mirror::new(state.path(), &url, &allowed);
        let refs = async || Arc::new(git::refs(&nix, &url, &allowed).await.unwrap());
        let listed = refs().await;
        let mut calls = Vec::new();
        for _ in 0..3 {
            let found = mirror.ref_containing(&nix, &listed, &wanted).await.unwrap();
            assert_eq!(found, None);
            calls.push(nix.gits.load(Ordering::SeqCst));
        }
        assert_eq!(calls, [calls[0]; 3]);

        run(&["branch", "--force", "main"]);
        run(&commit);
        run(&["branch", "next"]);
        let found = mirror.ref_containing(&nix, &refs().await, &wanted).await;
        assert_eq!(found.unwrap().as_deref(), Some("refs/heads/main"));

        // After a restart with fewer refs, the mirror has more than are allowed.
        for (pattern, expected) in [("refs/heads/next", true), ("refs/heads/ma*", false)] {
            let wanted = run(&["rev-parse", "next"]);
            let allowed = AllowedRefs::parse(&[pattern.to_owned()]).unwrap();
            let refs = Arc::new(git::refs(&nix, &url, &allowed).await.unwrap());
            let mirror = Mirror::new(state.path(), &url, &allowed);
            let found = mirror.ref_containing(&nix, &refs, &wanted).await.unwrap();
            assert_eq!(found.is_some(), expected, "{pattern}");
        }
    }

    #[test]
    fn the_number_of_remembered_unknown_commits_is_bounded() {
        let mut state = State::default();
        for number in 0..2 * MAX_UNKNOWN {
            state.add_unknown(&number.to_string());
        }
        assert_eq!(state.unknown.len(), MAX_UNKNOWN);
        assert!(state.is_unknown("0"));
    }
}
