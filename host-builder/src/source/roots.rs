//! Links that keep pinned package sets from Nix's garbage collector.
//!
//! There is one link per tag. It is renewed with each fetch, and removed when the last one is too long
//! ago for the pin to be of use. Clients choose among all branches, tags and commits, so the links of
//! names and of commits are bounded: those of remembered pins stay, and the latest others up to the
//! bound. Links outlive the builder, so that the next one need not fetch again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use super::DEFAULT;
use super::git::is_commit;
use crate::files::expiry::{remove_all_but_latest, remove_older};
use crate::fingerprint::Fingerprint;

/// The prefix of links of commits.
const COMMIT: &str = "commit-";

/// A folder of links.
pub(super) struct Roots {
    folder: PathBuf,
    keep: Duration,
    /// The links of an earlier builder whose tags nobody has requested since.
    restored: Mutex<BTreeSet<OsString>>,
}

impl Roots {
    pub(super) fn new(state_dir: &Path, keep: Duration) -> std::io::Result<Self> {
        let folder = state_dir.join("sources");
        std::fs::create_dir_all(&folder)?;
        // Nix links to roots by their absolute paths.
        let folder = folder.canonicalize()?;
        let links = std::fs::read_dir(&folder)?.flatten();
        Ok(Self {
            restored: Mutex::new(links.map(|link| link.file_name()).collect()),
            folder,
            keep,
        })
    }

    /// The path of a tag's link. A tag may be too long for the name of a file, so it is hashed.
    pub(super) fn link(&self, tag: &str) -> PathBuf {
        self.folder.join(file_name(tag))
    }

    /// Whether an earlier builder has left a link of a tag; true once.
    pub(super) fn take_restored(&self, tag: &str) -> bool {
        let mut restored = self.restored.lock();
        restored.remove(&OsString::from(file_name(tag)))
    }

    /// Removes old links, and those beyond the bounds. `names` and `commits` are remembered tags, each
    /// with the bound for the links of its kind. The link of the default branch does not count.
    pub(super) fn prune(&self, names: (&[String], usize), commits: (&[String], usize)) {
        remove_older(&self.folder, |_| true, self.keep);
        for (of_commits, (remembered, most)) in [(false, names), (true, commits)] {
            let counted = remembered.iter().filter(|tag| *tag != DEFAULT).count();
            let remembered = remembered.iter().map(String::as_str);
            let remembered: BTreeSet<_> = remembered.chain([DEFAULT]).map(file_name).collect();
            let is_other = |name: &[u8]| {
                let name = str::from_utf8(name).unwrap_or_default();
                name.starts_with(COMMIT) == of_commits && !remembered.contains(name)
            };
            remove_all_but_latest(&self.folder, is_other, most.saturating_sub(counted));
        }
    }
}

fn file_name(tag: &str) -> String {
    let prefix = if is_commit(tag) { COMMIT } else { "" };
    let name = Fingerprint::new("source-1").part(tag).hex();
    format!("{prefix}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::expiry::date;

    const MOST: usize = 20;

    #[test]
    fn links_that_are_not_renewed_are_removed() {
        let state = tempfile::tempdir().unwrap();
        for (keep, stays) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
            let roots = Roots::new(state.path(), keep).unwrap();
            let link = roots.link("latest");
            if !link.is_symlink() {
                std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
            }
            roots.prune((&[], 100), (&[], 100));
            assert_eq!(link.is_symlink(), stays, "{keep:?}");
        }
    }

    #[test]
    fn links_dated_ahead_stay_since_their_pins_may_be_in_use() {
        let state = tempfile::tempdir().unwrap();
        let keep = Duration::from_secs(3600);
        let roots = Roots::new(state.path(), keep).unwrap();
        let link = roots.link("latest");
        std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
        date(&link, 1000 * keep, true);
        roots.prune((&[], 100), (&[], 100));
        assert!(link.is_symlink());
        date(&link, 2 * keep, false);
        roots.prune((&[], 100), (&[], 100));
        assert!(!link.is_symlink());
    }

    #[test]
    fn links_of_remembered_commits_stay_and_the_latest_others_up_to_the_bound() {
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
        roots.prune((&[], 1), (std::slice::from_ref(oldest), MOST));
        let mut expected = vec![true; MOST + 1];
        expected[MOST - 1] = false;
        assert_eq!(stay(), expected);
        roots.prune((&[], 1), (others, MOST));
        expected[MOST] = false;
        assert_eq!(stay(), expected);
    }

    #[test]
    fn links_of_names_have_a_bound_of_their_own_and_the_default_branch_stays() {
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
        roots.prune((&asked, 2), (&[], 1));
        let stay = names.map(|name| roots.link(&name).is_symlink());
        assert_eq!(stay, [true, false, true, true]);
        assert!(roots.link(&commit).is_symlink());
    }
}
