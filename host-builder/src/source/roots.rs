//! Links that keep pinned package sets from Nix's garbage collector.
//!
//! One link a tag, renewed whenever the tag is pinned, and removed when that was too long ago for
//! the pin to be of use. Of commits, which clients choose among all that there ever were, only so
//! many are kept as are remembered, those that were pinned last. The links stay when the builder
//! ends: the next one need not fetch again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MAX_COMMITS;
use super::git::is_commit;
use crate::age::{remove_all_but_latest, remove_older};
use crate::fingerprint::Fingerprint;

/// What the names of links of commits begin with.
const COMMIT: &str = "commit-";

/// A folder of links.
pub(super) struct Roots {
    folder: PathBuf,
    /// How long a link stays that isn't renewed.
    keep: Duration,
}

impl Roots {
    pub(super) fn new(state_dir: &Path, keep: Duration) -> std::io::Result<Self> {
        let folder = state_dir.join("sources");
        std::fs::create_dir_all(&folder)?;
        // Nix links to roots by their absolute paths.
        let folder = folder.canonicalize()?;
        Ok(Self { folder, keep })
    }

    /// Where the link of a tag is. Not by its name, which may be too long for a file.
    pub(super) fn link(&self, tag: &str) -> PathBuf {
        let kind = if is_commit(tag) { COMMIT } else { "" };
        let name = Fingerprint::new("source-1").part(tag).hex();
        self.folder.join(format!("{kind}{name}"))
    }

    /// Removes what is too old, and of commits all but the latest.
    pub(super) fn prune(&self) {
        remove_older(&self.folder, |_| true, self.keep);
        let is_commit = |name: &[u8]| name.starts_with(COMMIT.as_bytes());
        remove_all_but_latest(&self.folder, is_commit, MAX_COMMITS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::age::date;

    #[test]
    fn links_that_were_not_renewed_are_removed() {
        let state = tempfile::tempdir().unwrap();
        for (keep, stays) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
            let roots = Roots::new(state.path(), keep).unwrap();
            let link = roots.link("latest");
            if !link.is_symlink() {
                std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
            }
            roots.prune();
            assert_eq!(link.is_symlink(), stays, "{keep:?}");
        }
    }
    #[test]
    fn links_that_are_dated_ahead_stay_since_their_pins_may_be_in_use() {
        let state = tempfile::tempdir().unwrap();
        let keep = Duration::from_secs(3600);
        let roots = Roots::new(state.path(), keep).unwrap();
        let link = roots.link("latest");
        std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
        date(&link, 1000 * keep, true);
        roots.prune();
        assert!(link.is_symlink());
        date(&link, 2 * keep, false);
        roots.prune();
        assert!(!link.is_symlink());
    }
}
