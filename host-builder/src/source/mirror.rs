//! The builder's own mirror of a git repository: which commits its allowed refs hold.
//!
//! ```text
//!   commit ── a tip? ── yes ─────────────────────────────────────► the ref
//!               │ no
//!               ▼
//!   mirror ── as old as the list of refs? ── no ── git fetch ─┐
//!               │ yes                                        │
//!               ▼                                            ▼
//!             a ref that is allowed contains it ── yes ────► that ref
//!               │ no
//!               ▼
//!             unknown, without an evaluation
//! ```
//!
//! A forge is not asked whether it has a commit: it has those of every fork and merge request, under
//! the name of the repository. The mirror has the commits of allowed refs, and of these nothing but
//! the commits: no folders, no files, where the server can leave them out (`--filter=tree:0`). It is
//! fetched when the first commit is asked for, and again when the list of refs has changed. Until
//! then, a commit that it hasn't is remembered for a while, so that a client who insists costs no
//! process.

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

/// How long a fetch may take: all commits of nixpkgs are some hundred megabytes.
const FETCH: Duration = Duration::from_secs(900);
/// How long a look at the mirror may take.
const LOOK: Duration = Duration::from_secs(60);
/// Unknown commits that are remembered, of about 100 bytes each.
const MOST_UNKNOWN: usize = 1000;

/// See the module.
pub(super) struct Mirror {
    folder: PathBuf,
    allowed: AllowedRefs,
    /// Whoever fetches or looks holds it.
    fetched: Mutex<Fetched>,
}

/// What the mirror has.
#[derive(Default)]
struct Fetched {
    /// The list of refs that was fetched last.
    refs: Option<Arc<Refs>>,
    /// Commits that none of these refs holds, each until it is looked for again.
    unknown: BTreeMap<String, Instant>,
}

impl Fetched {
    fn is_unknown(&mut self, commit: &str) -> bool {
        let now = Instant::now();
        self.unknown.retain(|_, until| now < *until);
        self.unknown.contains_key(commit)
    }

    fn note_unknown(&mut self, commit: &str) {
        if self.unknown.len() < MOST_UNKNOWN {
            let until = Instant::now() + negative_ttl::hold_for(commit);
            self.unknown.insert(commit.to_owned(), until);
        }
    }
}

impl Mirror {
    pub(super) fn new(state_dir: &Path, allowed: AllowedRefs) -> Self {
        Self {
            folder: state_dir.join("mirrors"),
            allowed,
            fetched: Mutex::default(),
        }
    }

    /// An allowed ref of the repository that contains a commit, if there is one. `refs` is what the
    /// repository lists now.
    pub(super) async fn holder(
        &self,
        nix: &dyn Nix,
        url: &str,
        refs: &Arc<Refs>,
        commit: &str,
    ) -> Result<Option<String>, PinError> {
        let mut fetched = self.fetched.lock().await;
        let mirror = self
            .folder
            .join(Fingerprint::new("mirror-1").part(url).hex());
        if fetched.refs.as_ref() != Some(refs) {
            *fetched = Fetched::default();
            let new = ["init", "--quiet", "--bare", "--"];
            let mut new: Vec<OsString> = new.map(Into::into).into();
            new.push(mirror.clone().into());
            // The repository's URL, and a password in it, will be in the mirror's configuration.
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.folder);
            made.map_err(|error| PinError::Folder {
                path: self.folder.clone(),
                reason: error.to_string(),
            })?;
            nix.git(new, LOOK).await?;
            let Some(fetch) = self.fetch(&mirror, url, refs) else {
                return Ok(None);
            };
            nix.git(fetch, FETCH).await?;
            fetched.refs = Some(Arc::clone(refs));
        }
        if fetched.is_unknown(commit) {
            return Ok(None);
        }
        let holder = match nix.git(self.look(&mirror, commit), LOOK).await {
            Ok(output) => {
                let output = String::from_utf8_lossy(&output);
                let holders = || output.lines().filter(|name| !name.is_empty());
                let plain = holders().find(|name| is_plain(name));
                plain.or_else(|| holders().next()).map(str::to_owned)
            }
            // It doesn't have the commit at all.
            Err(NixError::Process(ProcessError::Failed { .. })) => None,
            Err(error) => return Err(error.into()),
        };
        if holder.is_none() {
            fetched.note_unknown(commit);
        }
        Ok(holder)
    }

    /// Fetches what there is of the allowed refs; none when there is nothing. A name without a star
    /// that the repository doesn't have would make git fail.
    fn fetch(&self, mirror: &Path, url: &str, refs: &Refs) -> Option<Vec<OsString>> {
        let mut arguments = at(mirror);
        // Looking for a commit among thousands of refs is quick with it.
        arguments.extend(["-c", "fetch.writeCommitGraph=true"].map(Into::into));
        let fetch = ["fetch", "--quiet", "--prune", "--no-tags", "--force"];
        arguments.extend(fetch.map(Into::into));
        arguments.extend(["--filter=tree:0", "--", url].map(Into::into));
        let patterns = self.allowed.patterns();
        let mut patterns = patterns
            .filter(|pattern| pattern.contains('*') || refs.has(pattern))
            .map(|pattern| format!("+{pattern}:{pattern}").into())
            .peekable();
        patterns.peek()?;
        arguments.extend(patterns);
        Some(arguments)
    }

    fn look(&self, mirror: &Path, commit: &str) -> Vec<OsString> {
        let mut arguments = at(mirror);
        // A mirror without files would ask the repository for what it lacks, and forges have it.
        arguments.extend(["-c", "protocol.allow=never"].map(Into::into));
        let look = ["for-each-ref", "--format=%(refname)"];
        arguments.extend(look.map(Into::into));
        arguments.push(format!("--contains={commit}").into());
        arguments
    }
}

fn at(mirror: &Path) -> Vec<OsString> {
    let mut git_dir = OsString::from("--git-dir=");
    git_dir.push(mirror);
    vec![git_dir]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::nix::fake::FakeNix;
    use crate::source::{git, tests};

    #[tokio::test]
    async fn an_unknown_commit_is_not_looked_for_again_until_the_refs_change() {
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
        let mirror = Mirror::new(state.path(), allowed.clone());
        let refs = async || Arc::new(git::refs(&nix, &url, &allowed).await.unwrap());
        let listed = refs().await;
        let mut calls = Vec::new();
        for _ in 0..3 {
            let holder = mirror.holder(&nix, &url, &listed, &wanted).await.unwrap();
            assert_eq!(holder, None);
            calls.push(nix.gits.load(Ordering::SeqCst));
        }
        assert_eq!(calls, [calls[0]; 3]);

        run(&["branch", "--force", "main"]);
        run(&commit);
        run(&["branch", "next"]);
        let holder = mirror.holder(&nix, &url, &refs().await, &wanted).await;
        assert_eq!(holder.unwrap().as_deref(), Some("refs/heads/main"));
    }

    #[test]
    fn unknown_commits_without_end_are_not_remembered() {
        let mut fetched = Fetched::default();
        for number in 0..2 * MOST_UNKNOWN {
            fetched.note_unknown(&number.to_string());
        }
        assert_eq!(fetched.unknown.len(), MOST_UNKNOWN);
        assert!(fetched.is_unknown("0"));
    }
}
