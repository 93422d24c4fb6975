//! Links that keep pinned package sets from Nix's garbage collector.
//!
//! One link a tag, renewed whenever the tag is pinned, and removed when that was too long ago for
//! the pin to be of use. Clients choose among all commits that there ever were, and all branches and
//! tags: so of both, those links stay whose pins are remembered. The links outlive the builder, so that
//! the next one need not fetch again: where fewer are remembered than may be, those that were pinned last
//! stay as well.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::git::is_commit;
use super::refreshing::Keys;
use crate::files::expiry::{remove_all_but_latest, remove_older};
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

    /// Removes what is too old, and of names and commits what is too many beside those that are
    /// remembered.
    pub(super) fn prune(&self, names: &Keys, commits: &Keys) {
        remove_older(&self.folder, |_| true, self.keep);
        self.remove_others(false, names);
        self.remove_others(true, commits);
    }

    fn remove_others(&self, of_commits: bool, Keys { keys, bound }: &Keys) {
        let is_always = |key: &&String| bound.always == Some(key.as_str());
        let counted = keys.iter().filter(|key| !is_always(key)).count();
        let remembered = keys.iter().map(String::as_str).chain(bound.always);
        let remembered: BTreeSet<_> = remembered.map(name).collect();
        let is_other = |name: &[u8]| {
            let name = str::from_utf8(name).unwrap_or_default();
            name.starts_with(COMMIT) == of_commits && !remembered.contains(name)
        };
        let room = bound.most.saturating_sub(counted);
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
    use super::super::refreshing::Bound;
    use super::*;
    use crate::files::expiry::date;

    const MOST: usize = 20;

    fn keys(keys: &[String], most: usize) -> Keys {
        let keys = keys.to_vec();
        let always = Some("latest");
        let bound = Bound { most, always };
        Keys { keys, bound }
    }

    #[test]
    fn links_that_were_not_renewed_are_removed() {
        let state = tempfile::tempdir().unwrap();
        for (keep, stays) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
            let roots = Roots::new(state.path(), keep).unwrap();
            let link = roots.link("latest");
            if !link.is_symlink() {
                std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
            }
            roots.prune(&keys(&[], 100), &keys(&[], 100));
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
        roots.prune(&keys(&[], 100), &keys(&[], 100));
        assert!(link.is_symlink());
        date(&link, 2 * keep, false);
        roots.prune(&keys(&[], 100), &keys(&[], 100));
        assert!(!link.is_symlink());
    }

    #[test]
    fn links_of_commits_stay_that_are_remembered_however_old_and_others_while_there_is_room() {
        let state = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(24 * 3600);
        let roots = Roots::new(state.path(), 1000 * day).unwrap();
        // The first is the youngest.
        let commits: Vec<_> = (0..=MOST).map(|age| format!("{age:040}")).collect();
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
        roots.prune(&keys(&[], 1), &keys(std::slice::from_ref(oldest), MOST));
        let mut expected = vec![true; MOST + 1];
        expected[MOST - 1] = false;
        assert_eq!(stay(), expected);
        roots.prune(&keys(&[], 1), &keys(others, MOST));
        expected[MOST] = false;
        assert_eq!(stay(), expected);
    }

    #[test]
    fn links_of_names_are_bounded_for_themselves_and_that_of_the_default_branch_stays() {
        let state = tempfile::tempdir().unwrap();
        let roots = Roots::new(state.path(), Duration::from_secs(3600)).unwrap();
        let names = ["latest", "old", "new", "asked"].map(str::to_owned);
        let commit = "c".repeat(40);
        for (age, name) in (0..).zip([&commit].into_iter().chain(names.iter().rev())) {
            let link = roots.link(name);
            std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
            date(&link, age * Duration::from_secs(60), false);
        }
        let asked = [names[3].clone()];
        roots.prune(&keys(&asked, 2), &keys(&[], 1));
        let stay = names.map(|name| roots.link(&name).is_symlink());
        assert_eq!(stay, [true, false, true, true]);
        assert!(roots.link(&commit).is_symlink());
    }
}
