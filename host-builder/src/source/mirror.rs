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
//! fetched when the first commit is asked for, and again when the list of refs has changed.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::PinError;
use super::allowed_refs::AllowedRefs;
use super::git::{Refs, is_plain};
use crate::fingerprint::Fingerprint;
use crate::nix::{Nix, NixError};

/// How long a fetch may take: all commits of nixpkgs are some hundred megabytes.
const FETCH: Duration = Duration::from_secs(900);
/// How long a look at the mirror may take.
const LOOK: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Mirror {
    folder: PathBuf,
    allowed: AllowedRefs,
    /// The list of refs that was fetched last. Whoever fetches or looks holds it.
    fetched: Mutex<Option<Arc<Refs>>>,
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
        if fetched.as_ref() != Some(refs) {
            *fetched = None;
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
            *fetched = Some(Arc::clone(refs));
        }
        match nix.git(self.look(&mirror, commit), LOOK).await {
            Ok(output) => {
                let output = String::from_utf8_lossy(&output);
                let holders = || output.lines().filter(|name| !name.is_empty());
                let plain = holders().find(|name| is_plain(name));
                Ok(plain.or_else(|| holders().next()).map(str::to_owned))
            }
            // It doesn't have the commit at all.
            Err(NixError::Failed { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
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
