//! The overlays of the settings, in the Nix store.
//!
//! ```text
//!   overlay ──► link in the state folder ──► path in the store ──► file that Nix imports
//!               its name is the pin          fetched when the link has none
//! ```
//!
//! A link keeps the source from garbage collection, and spares the next builder the fetch: what it names
//! can't change. Fetched when the first package set is tried, so that a builder without network starts.

use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use super::{Fetched, Nix, NixError, reason};
use crate::files::expiry::remove_all_but_latest;
use crate::process::ProcessError;
use pinned::Pinned;

pub(crate) use pinned::Overlay;

mod pinned;

/// What Nix and git print when no later try will go better, and what that means.
const LASTING: [(&str, &str); 7] = [
    ("hash mismatch", "its content has another hash"),
    ("not our ref", NO_COMMIT),
    ("object not found", NO_COMMIT),
    ("annot find Git revision", NO_COMMIT),
    ("couldn't find remote ref", "the repository has no such ref"),
    (
        "Unrecognized archive format",
        "its server sends no tar archive",
    ),
    (
        "don't know how to build",
        "neither this machine's Nix store nor a binary cache has it",
    ),
];
const NO_COMMIT: &str = "the default branch, or \"ref\", has no such commit";

/// An overlay in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// All that it may read.
    pub(super) source: PathBuf,
    /// What Nix imports.
    pub(super) file: PathBuf,
}

/// See the module.
pub(super) struct Overlays {
    folder: PathBuf,
    overlays: Vec<Overlay>,
    /// Held by who fetches.
    fetching: Mutex<()>,
}

impl Overlays {
    /// Removes links of earlier overlays.
    pub(super) fn new(folder: PathBuf, overlays: Vec<Overlay>) -> Self {
        if folder.is_dir() {
            let names = overlays.iter().map(|overlay| overlay.source.link_name());
            let names: Vec<_> = names.collect();
            let is_other = |link: &[u8]| !names.iter().any(|name| name.as_bytes() == link);
            remove_all_but_latest(&folder, is_other, 0);
        }
        Self {
            folder,
            overlays,
            fetching: Mutex::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.overlays.is_empty()
    }

    /// All of them, in order. Fetches those that the store lacks.
    pub(super) async fn stored(&self, nix: &dyn Nix) -> Result<Vec<Stored>, NixError> {
        let mut stored = Vec::new();
        for overlay in &self.overlays {
            let pinned = &overlay.source;
            let source = self.source(nix, pinned).await;
            let source = source.map_err(|error| explained(pinned, error))?;
            let file = overlay.file_in(&source);
            if !file.is_file() {
                let name = file.strip_prefix(&source).unwrap_or(&file).display();
                return Err(NixError::Overlay {
                    overlay: pinned.to_string(),
                    reason: format!("it has no file {name}: name one by \"file\""),
                    lasts: true,
                });
            }
            stored.push(Stored { source, file });
        }
        Ok(stored)
    }

    async fn source(&self, nix: &dyn Nix, pinned: &Pinned) -> Result<PathBuf, NixError> {
        let _one = self.fetching.lock().await;
        let link = self.folder.join(pinned.link_name());
        if let Ok(path) = std::fs::read_link(&link)
            && path.exists()
        {
            return Ok(path);
        }
        let path = match pinned {
            Pinned::Git {
                url,
                reference,
                commit,
            } => fetched(pinned, nix.fetch_git(url, reference, commit).await)?,
            Pinned::Archive { url, sha256 } => {
                fetched(pinned, nix.fetch_archive(url, sha256).await)?
            }
            // Keeping it fetches it from a binary cache, if the store lacks it.
            Pinned::Store(path) => path.on_disk(Path::new("/")),
        };
        nix.keep(&path, &link).await?;
        Ok(path)
    }
}

fn fetched(pinned: &Pinned, fetched: Result<Fetched, NixError>) -> Result<PathBuf, NixError> {
    let path = fetched?.path;
    tracing::info!(overlay = %pinned, "fetched an overlay");
    Ok(path)
}

/// Names the overlay, unless Nix as such is at fault.
fn explained(pinned: &Pinned, error: NixError) -> NixError {
    let lasting = match &error {
        NixError::Process(ProcessError::Failed { stderr, .. }) => lasting(stderr),
        NixError::Process(ProcessError::TimedOut { .. }) => None,
        _ => return error,
    };
    let lasts = lasting.is_some();
    let reason = lasting.unwrap_or_else(|| error.to_string());
    NixError::Overlay {
        overlay: pinned.to_string(),
        reason: reason.trim_end().trim_end_matches('.').to_owned(),
        lasts,
    }
}

/// What is wrong, if no network or host is.
fn lasting(stderr: &str) -> Option<String> {
    let says = |words: &str| stderr.contains(words);
    // Newer versions of Nix say that the commit is missing also when git could not ask for it.
    let is_answer = says("not our ref") || says("couldn't find remote ref");
    if says("unable to download") || (says("fatal: ") && !is_answer) {
        return None;
    }
    let (_, meaning) = LASTING.iter().find(|(words, _)| says(words))?;
    match reason(stderr) {
        // With both hashes.
        Some(reason) if reason.contains("hash mismatch") => Some(format!("{meaning} ({reason})")),
        _ => Some((*meaning).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::Ordering;

    use serde_json::json;

    use super::*;
    use crate::nix::fake::FakeNix;

    fn overlay(commit: &str, file: &str) -> Overlay {
        let written = json!({"git": "https://a/o", "commit": commit, "file": file});
        serde_json::from_value(written).unwrap()
    }

    #[tokio::test]
    async fn an_overlay_is_fetched_once_and_again_when_the_store_lacks_it() {
        let state = tempfile::tempdir().unwrap();
        let store = tempfile::tempdir().unwrap();
        let path = store.path().join("source");
        let nix = FakeNix {
            store: path.clone(),
            ..FakeNix::default()
        };
        std::fs::create_dir(&path).unwrap();
        for file in ["one.nix", "two.nix"] {
            std::fs::write(path.join(file), "").unwrap();
        }
        let commit = "a".repeat(40);
        let list = vec![overlay(&commit, "two.nix"), overlay(&commit, "one.nix")];
        let open = || Overlays::new(state.path().to_owned(), list.clone());
        let expected = ["two.nix", "one.nix"].map(|file| Stored {
            source: path.clone(),
            file: path.join(file),
        });
        let fetches = || nix.fetched.load(Ordering::SeqCst);
        let overlays = open();
        assert_eq!(overlays.stored(&nix).await.unwrap(), expected);
        assert_eq!(overlays.stored(&nix).await.unwrap(), expected);
        assert_eq!(open().stored(&nix).await.unwrap(), expected);
        assert_eq!(fetches(), 1, "both have one source");
        std::fs::remove_dir_all(&path).unwrap();
        assert!(
            overlays.stored(&nix).await.is_err(),
            "the fetch brings nothing"
        );
        assert_eq!(fetches(), 2);
    }

    #[tokio::test]
    async fn a_missing_file_is_told_with_the_overlay() {
        let state = tempfile::tempdir().unwrap();
        let nix = FakeNix {
            store: state.path().to_owned(),
            ..FakeNix::default()
        };
        let list = vec![overlay(&"a".repeat(40), "no/file.nix")];
        let overlays = Overlays::new(state.path().join("links"), list);
        std::fs::create_dir(state.path().join("links")).unwrap();
        let error = overlays.stored(&nix).await.unwrap_err();
        assert!(matches!(error, NixError::Overlay { lasts: true, .. }));
        let error = error.to_string();
        for words in ["https://a/o at aaaa", "no file no/file.nix", "NIXGATE_"] {
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_wrong_pin_lasts_and_a_host_that_is_down_does_not() {
        for (stderr, expected) in [
            // As Nix 2.8 and 2.26 print it.
            (
                "error: hash mismatch in file downloaded from 'https://h/x':\n  specified: a\n  got: b",
                Some(
                    "another hash (hash mismatch in file downloaded from 'https://h/x': specified: a got: b)",
                ),
            ),
            (
                "fatal: remote error: upload-pack: not our ref ff\nerror:\n error: Cannot find Git revision",
                Some("no such commit"),
            ),
            (
                "error: getting Git object 'ff': object not found - no match for id (ff)",
                Some("no such commit"),
            ),
            (
                "error: Cannot find Git revision 'ff' in ref 'HEAD'",
                Some("no such commit"),
            ),
            (
                "fatal: couldn't find remote ref refs/heads/x\nerror: program 'git' failed",
                Some("no such ref"),
            ),
            (
                "don't know how to build these paths:\n  /nix/store/x",
                Some("a binary cache has it"),
            ),
            (
                "error: Failed to open archive (Unrecognized archive format)",
                Some("no tar archive"),
            ),
            (
                "fatal: unable to connect to h\nerror:\n error: Cannot find Git revision 'ff' in ref 'HEAD'",
                None,
            ),
            (
                "warning: unable to download 'https://c/nix-cache-info'\ndon't know how to build these paths:",
                None,
            ),
            (
                "error: unable to download 'https://h/x': HTTP error 503",
                None,
            ),
        ] {
            let found = lasting(stderr);
            assert_eq!(found.is_some(), expected.is_some(), "{stderr}");
            let words = expected.unwrap_or_default();
            let found = found.unwrap_or_default();
            assert!(found.ends_with(words), "{stderr}: {found}");
        }
    }

    #[test]
    fn links_of_earlier_overlays_are_removed() {
        let state = tempfile::tempdir().unwrap();
        let overlay = overlay(&"a".repeat(40), "x.nix");
        let (used, other) = (overlay.source.link_name(), "0".repeat(64));
        for name in [&used, &other] {
            symlink("/nonexistent", state.path().join(name)).unwrap();
        }
        Overlays::new(state.path().to_owned(), vec![overlay]);
        assert!(state.path().join(used).is_symlink());
        assert!(!state.path().join(other).is_symlink());
    }
}
