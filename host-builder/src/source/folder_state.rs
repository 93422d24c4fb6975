//! Whether a folder has changed, without reading its files.
//!
//! Every change of a file changes its size, its times or its inode, and the kernel alone sets the time of
//! the last change (ctime). So a hash over these stands for the content. Two changes within one step of
//! the file system's clock look like one: a folder that has just been changed has no state. File systems
//! with a coarser clock than [`SETTLED`] are why the folder is copied again after
//! [`FULL_CHECK`](super::unchanged::FULL_CHECK) all the same.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::fingerprint::Fingerprint;

/// The kernel's clock for files has steps of 10 ms at most.
const SETTLED: Duration = Duration::from_millis(100);
/// Ten times as many as in nixpkgs with all its folders.
const MOST_ENTRIES: usize = 1_000_000;

/// Stands for the content of a folder, without `.git`, as Nix copies it. None if nobody can tell: it was
/// changed just now, is too large, or can't be read.
pub(super) async fn state(folder: &Path) -> Option<String> {
    let folder = folder.to_owned();
    let state = tokio::task::spawn_blocking(move || state_at(&folder, SystemTime::now()));
    state.await.ok()?.ok()?
}

fn state_at(folder: &Path, now: SystemTime) -> io::Result<Option<String>> {
    let mut walk = Walk {
        state: Fingerprint::new("folder-state-1"),
        latest: SystemTime::UNIX_EPOCH,
        entries: 0,
    };
    // The folder itself may be a link.
    let root = fs::canonicalize(folder)?;
    walk.add(&root, &fs::symlink_metadata(&root)?);
    let mut pending = vec![root];
    while let Some(folder) = pending.pop() {
        if !walk.list(&folder, &mut pending)? {
            return Ok(None);
        }
    }
    // One dated ahead is of a clock that is not ours.
    let age = now.duration_since(walk.latest).unwrap_or_default();
    Ok((age >= SETTLED).then(|| walk.state.hex()))
}

struct Walk {
    state: Fingerprint,
    /// The last change of any entry.
    latest: SystemTime,
    entries: usize,
}

impl Walk {
    /// Adds the entries of a folder; false if there are too many.
    fn list(&mut self, folder: &Path, pending: &mut Vec<PathBuf>) -> io::Result<bool> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // As `add_folder` in `nix/arguments.rs`.
            if entry.file_name() != ".git" {
                entries.push(entry.path());
            }
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Ok(false);
            }
        }
        entries.sort_unstable();
        for path in entries {
            let metadata = fs::symlink_metadata(&path)?;
            self.add(&path, &metadata);
            if metadata.is_dir() {
                pending.push(path);
            }
        }
        Ok(true)
    }

    fn add(&mut self, path: &Path, of: &Metadata) {
        let numbers = [
            u64::from(of.mode()),
            of.dev(),
            of.ino(),
            of.size(),
            of.mtime().cast_unsigned(),
            of.mtime_nsec().cast_unsigned(),
            of.ctime().cast_unsigned(),
            of.ctime_nsec().cast_unsigned(),
        ];
        let state = std::mem::replace(&mut self.state, Fingerprint::new(""));
        let numbers = numbers.map(u64::to_be_bytes);
        self.state = state.part(path.as_os_str().as_bytes()).list(numbers.iter());
        let seconds = u64::try_from(of.ctime()).unwrap_or_default();
        let nanoseconds = u32::try_from(of.ctime_nsec()).unwrap_or_default();
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        self.latest = self.latest.max(changed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const LATER: Duration = Duration::from_secs(3600);

    #[test]
    fn each_kind_of_change_changes_the_state_and_reading_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("set");
        let (file, sub) = (root.join("sub/default.nix"), root.join("sub"));
        fs::create_dir_all(&sub).unwrap();
        fs::create_dir(root.join(".git")).unwrap();
        fs::write(&file, "1").unwrap();
        let state = || {
            let state = state_at(&root, SystemTime::now() + LATER);
            state.unwrap().unwrap()
        };
        let times = || {
            let times = fs::metadata(&file).unwrap();
            fs::FileTimes::new().set_modified(times.modified().unwrap())
        };
        let changes: [(&str, &dyn Fn()); 6] = [
            // Of the same size, and dated back.
            ("a file", &|| {
                let before = times();
                fs::write(&file, "2").unwrap();
                let file = fs::File::options().write(true).open(&file).unwrap();
                file.set_times(before).unwrap();
            }),
            ("another file of that name", &|| {
                fs::write(root.join("new"), "3").unwrap();
                fs::rename(root.join("new"), &file).unwrap();
            }),
            ("its mode", &|| {
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            }),
            ("a link", &|| symlink("a", root.join("link")).unwrap()),
            ("its target", &|| {
                fs::remove_file(root.join("link")).unwrap();
                symlink("b", root.join("link")).unwrap();
            }),
            ("a name", &|| fs::rename(&sub, root.join("other")).unwrap()),
        ];
        let mut last = state();
        for (what, change) in changes {
            // The clock for files has to move on between two changes.
            std::thread::sleep(SETTLED);
            fs::read_dir(&root).unwrap().count();
            assert_eq!(state(), last, "before {what}");
            change();
            let now = state();
            assert_ne!(now, last, "{what}");
            last = now;
        }
        fs::write(root.join(".git/index"), "").unwrap();
        assert_eq!(state(), last, ".git");
    }

    #[test]
    fn a_folder_that_was_changed_just_now_or_cannot_be_read_has_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let state = |now| state_at(folder.path(), now);
        let made = fs::metadata(folder.path()).unwrap().modified().unwrap();
        assert_eq!(state(made).unwrap(), None);
        assert_eq!(state(made - LATER).unwrap(), None);
        assert!(state(made + LATER).unwrap().is_some());
        assert!(state_at(Path::new("/nonexistent"), made).is_err());
    }

    #[test]
    fn a_link_to_a_folder_stands_for_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        for name in ["one", "two"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let state_of = |target: &str| {
            let _ = fs::remove_file(&link);
            symlink(target, &link).unwrap();
            state_at(&link, SystemTime::now() + LATER).unwrap().unwrap()
        };
        assert_ne!(state_of("one"), state_of("two"));
    }
}
