//! The packages that this builder's Nix store has, and that the garbage collector leaves alone.
//!
//! ```text
//!   kept/<batch>/root, root-2 …   links to store paths: Nix takes them for roots
//!   kept/<batch>/<package>        an empty file for each package that the batch keeps
//! ```
//!
//! What Nix made for one image is one batch. Its packages are there, with all that they need, for as
//! long as the links are, which nobody has to ask Nix for: so layers of them can be packed at once
//! when a next image has other ones. A batch that was of no use for a while is let go of, and one
//! that was never finished at the next start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::files::expiry::{age, renew};
use crate::telemetry::logging::chain;

/// See the module.
#[derive(Debug)]
pub(crate) struct GcRoots {
    folder: PathBuf,
    /// For how long a batch is kept that is not used.
    unused_for: Duration,
    packages: Mutex<BTreeMap<String, Arc<Batch>>>,
}

/// A folder of links that were made by one call of Nix.
#[derive(Debug)]
struct Batch {
    path: PathBuf,
    /// Whether the folder outlives this. One that keeps no package any more goes with its last holder.
    stays: AtomicBool,
}

impl Batch {
    fn new(path: PathBuf) -> Arc<Self> {
        let stays = AtomicBool::new(true);
        Arc::new(Self { path, stays })
    }

    /// Lets the folder go when nobody holds it any more.
    fn let_go(&self) {
        self.stays.store(false, Ordering::Relaxed);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if *self.stays.get_mut() {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(
                path = %self.path.display(),
                error = chain(&error),
                "can't let go of store paths"
            );
        }
    }
}

/// Packages that stay in the store until this is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Vec<Arc<Batch>>);

impl GcRoots {
    /// Looks at what is kept in a folder. A batch is let go of when it was of no use for
    /// `unused_for`.
    ///
    /// # Errors
    /// When the folder can't be read or written.
    pub(crate) fn open(folder: &Path, unused_for: Duration) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut packages = BTreeMap::new();
        let mut batches = Vec::new();
        for entry in fs::read_dir(folder)? {
            let batch = Batch::new(entry?.path());
            for entry in fs::read_dir(&batch.path)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    let package = entry.file_name().to_string_lossy().into_owned();
                    packages.insert(package, Arc::clone(&batch));
                }
            }
            batches.push(batch);
        }
        // Those that were never finished, and those whose packages are all in others as well.
        for batch in batches.iter().filter(|batch| Arc::strong_count(batch) == 1) {
            batch.let_go();
        }
        let kept = Self {
            folder: folder.to_owned(),
            unused_for,
            packages: Mutex::new(packages),
        };
        kept.sweep();
        Ok(kept)
    }

    /// A folder for the links of a new batch. What is in it is kept for as long as the folder is
    /// not dropped.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn start(&self) -> io::Result<TempDir> {
        tempfile::tempdir_in(&self.folder)
    }

    /// Keeps a batch for the sake of these packages.
    ///
    /// # Errors
    /// When that can't be noted; then the batch is not kept.
    pub(crate) fn finish(&self, batch: TempDir, packages: &[String]) -> io::Result<Held> {
        for package in packages {
            File::create_new(batch.path().join(package))?;
        }
        let batch = Batch::new(batch.keep());
        if packages.is_empty() {
            batch.let_go();
        }
        let mut known = self.packages();
        for package in packages {
            let earlier = known.insert(package.clone(), Arc::clone(&batch));
            let is_kept = |earlier: &Arc<Batch>| known.values().any(|it| Arc::ptr_eq(it, earlier));
            if let Some(earlier) = earlier.filter(|earlier| !is_kept(earlier)) {
                earlier.let_go();
            }
        }
        Ok(Held(vec![batch]))
    }

    /// Holds a package that is kept.
    pub(crate) fn hold(&self, package: &str) -> Option<Held> {
        let batch = Arc::clone(self.packages().get(package)?);
        // Whoever cleaned up by hand has let go of it.
        renew(&batch.path).is_ok().then(|| Held(vec![batch]))
    }

    /// Keeps a package no longer: it is not what it was.
    pub(crate) fn forget(&self, package: &str) {
        let mut known = self.packages();
        let Some(batch) = known.remove(package) else {
            return;
        };
        // Not after the next start either; what can't be removed is found out again then.
        _ = fs::remove_file(batch.path.join(package));
        if !known.values().any(|other| Arc::ptr_eq(other, &batch)) {
            batch.let_go();
        }
    }

    /// Lets go of what was of no use for a while.
    pub(crate) fn sweep(&self) {
        let mut packages = self.packages();
        // Whoever holds one has used it just now.
        packages.retain(|_, batch| {
            let stays = !self.is_over(&batch.path);
            if !stays {
                batch.let_go();
            }
            stays
        });
    }

    /// Whether nobody used it for long enough.
    fn is_over(&self, batch: &Path) -> bool {
        age(batch).map_or(true, |unused| unused >= self.unused_for)
    }

    fn packages(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Batch>>> {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Extend<Held> for Held {
    fn extend<T: IntoIterator<Item = Held>>(&mut self, others: T) {
        self.0.extend(others.into_iter().flat_map(|held| held.0));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::files::expiry::date;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn batch(kept: &GcRoots, packages: &[&str]) -> Held {
        let folder = kept.start().unwrap();
        let packages: Vec<_> = packages.iter().map(|&name| name.to_owned()).collect();
        kept.finish(folder, &packages).unwrap()
    }

    fn folders(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_what_was_not_finished_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let kept = GcRoots::open(folder.path(), WEEK).unwrap();
        batch(&kept, &["git", "htop"]);
        let _unfinished = kept.start().unwrap().keep();
        assert!(kept.hold("git").is_some() && kept.hold("vim").is_none());
        assert_eq!(folders(folder.path()), 2);

        let again = GcRoots::open(folder.path(), WEEK).unwrap();
        assert!(again.hold("git").is_some() && again.hold("htop").is_some());
        assert_eq!(folders(folder.path()), 1);
    }

    #[test]
    fn what_is_of_no_use_goes_and_what_is_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let kept = GcRoots::open(folder.path(), Duration::ZERO).unwrap();
        let git = batch(&kept, &["git"]);
        batch(&kept, &["htop"]);
        kept.sweep();
        assert!(kept.hold("htop").is_none());
        assert_eq!(folders(folder.path()), 1);
        // Nobody gets it any more, and who has it keeps it.
        assert!(kept.hold("git").is_none());
        drop(git);
        assert_eq!(folders(folder.path()), 0);
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_gone_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let kept = GcRoots::open(folder.path(), WEEK).unwrap();
        let nameless = batch(&kept, &[]);
        assert_eq!(folders(folder.path()), 1);
        drop(nameless);
        assert_eq!(folders(folder.path()), 0);
        batch(&kept, &["git", "htop"]);
        batch(&kept, &["git"]);
        assert_eq!(folders(folder.path()), 2);
        let htop = batch(&kept, &["htop"]);
        assert_eq!(folders(folder.path()), 2);
        batch(&kept, &["htop"]);
        assert_eq!(folders(folder.path()), 3, "somebody holds it");
        drop(htop);
        assert_eq!(folders(folder.path()), 2);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_for_longer_than_that() {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let folder = tempfile::tempdir().unwrap();
        let kept = GcRoots::open(folder.path(), WEEK).unwrap();
        let git = batch(&kept, &["git"]);
        let path = git.0[0].path.clone();
        drop(git);
        date(&path, YEAR, true);
        kept.sweep();
        assert!(path.exists());
        let used = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(used <= SystemTime::now(), "its time runs from now on");
        date(&path, YEAR, false);
        kept.sweep();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_forgotten_is_not_held_and_goes_with_the_last_of_its_batch() {
        let folder = tempfile::tempdir().unwrap();
        let kept = GcRoots::open(folder.path(), WEEK).unwrap();
        drop(batch(&kept, &["git", "htop"]));
        kept.forget("git");
        kept.forget("git");
        let kept = GcRoots::open(folder.path(), WEEK).unwrap();
        assert!(kept.hold("git").is_none() && kept.hold("htop").is_some());
        assert_eq!(folders(folder.path()), 1);
        kept.forget("htop");
        assert_eq!(folders(folder.path()), 0);
    }

    #[test]
    fn what_was_removed_by_hand_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let kept = GcRoots::open(folder.path(), WEEK).unwrap();
        let git = batch(&kept, &["git"]);
        fs::remove_dir_all(&git.0[0].path).unwrap();
        assert!(kept.hold("git").is_none());
    }
}
