//! Packages that stay in this builder's Nix store: roots for its garbage collector.
//!
//! ```text
//!   kept/<batch>/root, root-2 …   links to store paths: Nix takes them for roots
//!   kept/<batch>/<package>        an empty file for each package of the batch
//! ```
//!
//! A batch is everything that Nix made for one image. Its links protect its packages and all that they
//! need, so layers of them can be packed for later images without asking Nix. A batch that was not used
//! for a while is removed; one that was never completed is removed at the next start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;

use crate::files::expiry::{age, renew};
use crate::telemetry::logging::chain;

#[derive(Debug)]
pub(crate) struct GcRoots {
    folder: PathBuf,
    /// A batch that was not used for so long is removed.
    max_unused: Duration,
    packages: Mutex<BTreeMap<String, Arc<Batch>>>,
}

/// A folder of links that one call of Nix made.
#[derive(Debug)]
struct Batch {
    path: PathBuf,
    /// Set once no package refers to the batch: its last guard removes the folder.
    is_obsolete: AtomicBool,
}

impl Batch {
    fn new(path: PathBuf) -> Arc<Self> {
        let is_obsolete = AtomicBool::new(false);
        Arc::new(Self { path, is_obsolete })
    }

    fn retire(&self) {
        self.is_obsolete.store(true, Ordering::Relaxed);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if *self.is_obsolete.get_mut()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(
                path = %self.path.display(),
                error = chain(&error),
                "cannot remove links to store paths, so Nix keeps these. Remove the folder"
            );
        }
    }
}

/// Packages that stay in the store until this is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct RootGuard(Vec<Arc<Batch>>);

impl GcRoots {
    /// Reads the batches of a folder, and removes those that are unused or incomplete.
    ///
    /// # Errors
    /// When the folder can't be read or written.
    pub(crate) fn open(folder: &Path, max_unused: Duration) -> io::Result<Self> {
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
        // No package refers to these: they are incomplete, or other batches have all their packages.
        for batch in batches.iter().filter(|batch| Arc::strong_count(batch) == 1) {
            batch.retire();
        }
        let roots = Self {
            folder: folder.to_owned(),
            max_unused,
            packages: Mutex::new(packages),
        };
        roots.sweep();
        Ok(roots)
    }

    /// A folder for the links of a new batch, which protects their targets until it is dropped or
    /// [registered](Self::register).
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn begin_batch(&self) -> io::Result<TempDir> {
        tempfile::tempdir_in(&self.folder)
    }

    /// Keeps a batch for these packages, in place of earlier batches with them.
    ///
    /// # Errors
    /// When the folder can't be written; then the batch is removed.
    pub(crate) fn register(&self, batch: TempDir, packages: &[String]) -> io::Result<RootGuard> {
        for package in packages {
            File::create_new(batch.path().join(package))?;
        }
        let batch = Batch::new(batch.keep());
        if packages.is_empty() {
            batch.retire();
        }
        let mut known = self.packages.lock();
        for package in packages {
            if let Some(earlier) = known.insert(package.clone(), Arc::clone(&batch)) {
                retire_unless_used(&earlier, &known);
            }
        }
        Ok(RootGuard(vec![batch]))
    }

    /// Guards a package, if a batch has it.
    pub(crate) fn guard(&self, package: &str) -> Option<RootGuard> {
        let batch = Arc::clone(self.packages.lock().get(package)?);
        // Fails when somebody removed the folder by hand.
        renew(&batch.path).is_ok().then(|| RootGuard(vec![batch]))
    }

    /// Removes a package whose contents have changed.
    pub(crate) fn remove(&self, package: &str) {
        let mut known = self.packages.lock();
        let Some(batch) = known.remove(package) else {
            return;
        };
        // If this fails, the next start finds the package again, and then its changed contents.
        _ = fs::remove_file(batch.path.join(package));
        retire_unless_used(&batch, &known);
    }

    /// Removes batches that were not used for a while. A guard has renewed its batch.
    pub(crate) fn sweep(&self) {
        self.packages.lock().retain(|_, batch| {
            let is_used = age(&batch.path).is_ok_and(|unused| unused < self.max_unused);
            if !is_used {
                batch.retire();
            }
            is_used
        });
    }
}

fn retire_unless_used(batch: &Arc<Batch>, packages: &BTreeMap<String, Arc<Batch>>) {
    if !packages.values().any(|other| Arc::ptr_eq(other, batch)) {
        batch.retire();
    }
}

impl Extend<RootGuard> for RootGuard {
    fn extend<T: IntoIterator<Item = RootGuard>>(&mut self, others: T) {
        self.0.extend(others.into_iter().flat_map(|guard| guard.0));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::files::expiry::date;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn batch(roots: &GcRoots, packages: &[&str]) -> RootGuard {
        let folder = roots.begin_batch().unwrap();
        let packages: Vec<_> = packages.iter().map(|&name| name.to_owned()).collect();
        roots.register(folder, &packages).unwrap()
    }

    fn folders(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[test]
    fn registered_batches_survive_a_restart_and_incomplete_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let roots = GcRoots::open(folder.path(), WEEK).unwrap();
        batch(&roots, &["git", "htop"]);
        let _unfinished = roots.begin_batch().unwrap().keep();
        assert!(roots.guard("git").is_some() && roots.guard("vim").is_none());
        assert_eq!(folders(folder.path()), 2);

        let again = GcRoots::open(folder.path(), WEEK).unwrap();
        assert!(again.guard("git").is_some() && again.guard("htop").is_some());
        assert_eq!(folders(folder.path()), 1);
    }

    #[test]
    fn unused_batches_go_and_guarded_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let roots = GcRoots::open(folder.path(), Duration::ZERO).unwrap();
        let git = batch(&roots, &["git"]);
        batch(&roots, &["htop"]);
        roots.sweep();
        assert!(roots.guard("htop").is_none());
        assert_eq!(folders(folder.path()), 1);
        // It is no longer handed out, and its guard still holds it.
        assert!(roots.guard("git").is_none());
        drop(git);
        assert_eq!(folders(folder.path()), 0);
    }

    #[test]
    fn a_batch_without_packages_is_gone_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let roots = GcRoots::open(folder.path(), WEEK).unwrap();
        let nameless = batch(&roots, &[]);
        assert_eq!(folders(folder.path()), 1);
        drop(nameless);
        assert_eq!(folders(folder.path()), 0);
        batch(&roots, &["git", "htop"]);
        batch(&roots, &["git"]);
        assert_eq!(folders(folder.path()), 2);
        let htop = batch(&roots, &["htop"]);
        assert_eq!(folders(folder.path()), 2);
        batch(&roots, &["htop"]);
        assert_eq!(folders(folder.path()), 3, "its guard holds it");
        drop(htop);
        assert_eq!(folders(folder.path()), 2);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_no_batch_longer() {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let folder = tempfile::tempdir().unwrap();
        let roots = GcRoots::open(folder.path(), WEEK).unwrap();
        let git = batch(&roots, &["git"]);
        let path = git.0[0].path.clone();
        drop(git);
        date(&path, YEAR, true);
        roots.sweep();
        assert!(path.exists());
        let used = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(used <= SystemTime::now(), "its time runs from now on");
        date(&path, YEAR, false);
        roots.sweep();
        assert!(!path.exists());
    }

    #[test]
    fn a_removed_package_is_not_guarded_and_its_batch_goes_with_its_last_package() {
        let folder = tempfile::tempdir().unwrap();
        let roots = GcRoots::open(folder.path(), WEEK).unwrap();
        drop(batch(&roots, &["git", "htop"]));
        roots.remove("git");
        roots.remove("git");
        let roots = GcRoots::open(folder.path(), WEEK).unwrap();
        assert!(roots.guard("git").is_none() && roots.guard("htop").is_some());
        assert_eq!(folders(folder.path()), 1);
        roots.remove("htop");
        assert_eq!(folders(folder.path()), 0);
    }

    #[test]
    fn a_batch_that_was_removed_by_hand_is_not_guarded() {
        let folder = tempfile::tempdir().unwrap();
        let roots = GcRoots::open(folder.path(), WEEK).unwrap();
        let git = batch(&roots, &["git"]);
        fs::remove_dir_all(&git.0[0].path).unwrap();
        assert!(roots.guard("git").is_none());
    }
}
