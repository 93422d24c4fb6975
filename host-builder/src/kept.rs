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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// See the module.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    /// For how long a batch is kept that is not used.
    unused_for: Duration,
    packages: Mutex<BTreeMap<String, Arc<Batch>>>,
}

/// A folder of links that were made by one call of Nix.
#[derive(Debug)]
struct Batch {
    path: PathBuf,
    /// Of a batch that keeps no package: it goes when nobody holds it any more.
    _temporary: Option<TempDir>,
}

/// Packages that stay in the store until this is dropped.
#[derive(Clone, Debug, Default)]
pub struct Held(Vec<Arc<Batch>>);

impl Kept {
    /// Looks at what is kept in a folder. A batch is let go of when it was of no use for
    /// `unused_for`.
    ///
    /// # Errors
    /// When the folder can't be read or written.
    pub fn open(folder: &Path, unused_for: Duration) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut packages = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let batch = Arc::new(Batch {
                path: entry?.path(),
                _temporary: None,
            });
            for entry in fs::read_dir(&batch.path)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    let package = entry.file_name().to_string_lossy().into_owned();
                    packages.insert(package, Arc::clone(&batch));
                }
            }
            if Arc::strong_count(&batch) == 1 {
                fs::remove_dir_all(&batch.path)?;
            }
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
    pub fn start(&self) -> io::Result<TempDir> {
        tempfile::tempdir_in(&self.folder)
    }

    /// Keeps a batch for the sake of these packages.
    ///
    /// # Errors
    /// When that can't be noted; then the batch is not kept.
    pub fn finish(&self, batch: TempDir, packages: &[String]) -> io::Result<Held> {
        for package in packages {
            File::create_new(batch.path().join(package))?;
        }
        let (path, temporary) = match packages {
            [] => (batch.path().to_owned(), Some(batch)),
            _ => (batch.keep(), None),
        };
        let batch = Arc::new(Batch {
            path,
            _temporary: temporary,
        });
        let mut known = self.packages();
        for package in packages {
            let earlier = known.insert(package.clone(), Arc::clone(&batch));
            if let Some(earlier) = earlier.and_then(Arc::into_inner) {
                remove(&earlier.path);
            }
        }
        Ok(Held(vec![batch]))
    }

    /// Holds a package that is kept.
    pub fn hold(&self, package: &str) -> Option<Held> {
        let batch = Arc::clone(self.packages().get(package)?);
        // Whoever cleaned up by hand has let go of it.
        let used =
            File::open(&batch.path).and_then(|folder| folder.set_modified(SystemTime::now()));
        used.is_ok().then(|| Held(vec![batch]))
    }

    /// Lets go of what was of no use for a while.
    pub fn sweep(&self) {
        let mut packages = self.packages();
        let mut held: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for batch in packages.values() {
            *held.entry(batch.path.clone()).or_default() += 1;
        }
        packages.retain(|_, batch| {
            let is_used = Arc::strong_count(batch) > held.get(&batch.path).copied().unwrap_or(0);
            is_used || !self.is_over(&batch.path)
        });
        let still: Vec<&Path> = packages
            .values()
            .map(|batch| batch.path.as_path())
            .collect();
        for path in held.keys().filter(|path| !still.contains(&path.as_path())) {
            remove(path);
        }
    }

    /// Whether nobody used it for long enough. A clock that was set back makes it wait.
    fn is_over(&self, batch: &Path) -> bool {
        let used = fs::metadata(batch).and_then(|metadata| metadata.modified());
        used.map_or(true, |used| {
            let unused = SystemTime::now().duration_since(used);
            unused.is_ok_and(|unused| unused >= self.unused_for)
        })
    }

    fn packages(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Batch>>> {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(batch: &Path) {
    if let Err(error) = fs::remove_dir_all(batch) {
        tracing::warn!(path = %batch.display(), "can't let go of store paths: {error}");
    }
}

impl Extend<Held> for Held {
    fn extend<T: IntoIterator<Item = Held>>(&mut self, others: T) {
        self.0.extend(others.into_iter().flat_map(|held| held.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn batch(kept: &Kept, packages: &[&str]) -> Held {
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
        let kept = Kept::open(folder.path(), WEEK).unwrap();
        batch(&kept, &["git", "htop"]);
        let _unfinished = kept.start().unwrap().keep();
        assert!(kept.hold("git").is_some() && kept.hold("vim").is_none());
        assert_eq!(folders(folder.path()), 2);

        let again = Kept::open(folder.path(), WEEK).unwrap();
        assert!(again.hold("git").is_some() && again.hold("htop").is_some());
        assert_eq!(folders(folder.path()), 1);
    }

    #[test]
    fn what_is_of_no_use_goes_and_what_is_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path(), Duration::ZERO).unwrap();
        let git = batch(&kept, &["git"]);
        batch(&kept, &["htop"]);
        kept.sweep();
        assert!(kept.hold("htop").is_none());
        assert_eq!(folders(folder.path()), 1);
        let more = kept.hold("git").unwrap();
        drop(git);
        kept.sweep();
        assert_eq!(folders(folder.path()), 1);
        drop(more);
        kept.sweep();
        assert!(kept.hold("git").is_none());
        assert_eq!(folders(folder.path()), 0);
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_gone_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path(), WEEK).unwrap();
        let nameless = batch(&kept, &[]);
        assert_eq!(folders(folder.path()), 1);
        drop(nameless);
        assert_eq!(folders(folder.path()), 0);
        batch(&kept, &["git", "htop"]);
        batch(&kept, &["git"]);
        assert_eq!(folders(folder.path()), 2);
        batch(&kept, &["htop"]);
        assert_eq!(folders(folder.path()), 2);
    }

    #[test]
    fn what_was_removed_by_hand_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path(), WEEK).unwrap();
        let git = batch(&kept, &["git"]);
        fs::remove_dir_all(&git.0[0].path).unwrap();
        assert!(kept.hold("git").is_none());
    }
}
