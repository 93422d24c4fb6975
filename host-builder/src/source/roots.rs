//! Links that keep pinned package sets from Nix's garbage collector.
//!
//! One link a tag, renewed whenever the tag is pinned, and removed when that was too long ago for
//! the pin to be of use. Of commits, which clients choose among all that there ever were, those links
//! stay whose pins are remembered. The links outlive the builder, so that the next one need not fetch
//! again: where fewer commits are remembered than may be, those that were pinned last stay as well.

use std::collections::BTreeSet;
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
        self.folder.join(name(tag))
    }

    /// Removes what is too old, and of commits what is too many beside those that are remembered.
    pub(super) fn prune(&self, remembered: &[String]) {
        remove_older(&self.folder, |_| true, self.keep);
        let remembered: BTreeSet<_> = remembered.iter().map(|commit| name(commit)).collect();
        let is_other = |name: &[u8]| {
            let name = str::from_utf8(name).unwrap_or_default();
            name.starts_with(COMMIT) && !remembered.contains(name)
        };
        let room = MAX_COMMITS.saturating_sub(remembered.len());
        remove_all_but_latest(&self.folder, is_other, room);
    }
}

fn name(tag: &str) -> String {
    let kind = if is_commit(tag) { COMMIT } else { "" };
    let name = Fingerprint::new("source-1").part(tag).hex();
    format!("{kind}{name}")
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
            roots.prune(&[]);
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
        roots.prune(&[]);
        assert!(link.is_symlink());
        date(&link, 2 * keep, false);
        roots.prune(&[]);
        assert!(!link.is_symlink());
    }

    #[test]
    fn links_of_commits_stay_that_are_remembered_however_old_and_others_while_there_is_room() {
        let state = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(24 * 3600);
        let roots = Roots::new(state.path(), 1000 * day).unwrap();
        // The first is the youngest.
        let commits: Vec<_> = (0..=MAX_COMMITS).map(|age| format!("{age:040}")).collect();
        for (age, commit) in (0..).zip(&commits) {
            let link = roots.link(commit);
            std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
            date(&link, age * day, false);
        }
        let stay = || {
            let stay = commits.iter().map(|commit| roots.link(commit).is_symlink());
            stay.collect::<Vec<_>>()
        };
        let (oldest, others) = commits.split_last().unwrap();
        roots.prune(std::slice::from_ref(oldest));
        let mut expected = vec![true; MAX_COMMITS + 1];
        expected[MAX_COMMITS - 1] = false;
        assert_eq!(stay(), expected);
        roots.prune(others);
        expected[MAX_COMMITS] = false;
        assert_eq!(stay(), expected);
    }
}
