//! A file that is read again when it has changed.
//!
//! Users and recipes come and go, and a builder that is started anew ends the builds that are under
//! way. So each use looks whether the file is the one that was read (a system call). A new content
//! that is not right changes nothing, and is told in the log once.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::logging::chain;

/// What tells one content from the next: orchestrators replace the file, editors write into it.
type Stamp = (u64, u64, i64, i64);

/// A file and what it says.
pub struct Watched<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T>,
    last: Mutex<(Stamp, Arc<T>)>,
}

impl<T> Watched<T> {
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read or `parse` refuses it.
    pub fn open(path: &Path, parse: fn(&str) -> Result<T>) -> Result<Self> {
        let stamp = stamp(path)?;
        let content = read(path, parse)?;
        Ok(Self {
            path: path.to_path_buf(),
            parse,
            last: Mutex::new((stamp, Arc::new(content))),
        })
    }

    /// What the file says now, or said when it was last right. It reads from the disk.
    pub fn current(&self) -> Arc<T> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match stamp(&self.path) {
            Ok(stamp) if stamp != last.0 => stamp,
            // One that is being replaced may be away for a moment.
            _ => return Arc::clone(&last.1),
        };
        // Before the reading: a change that comes after is seen the next time.
        last.0 = stamp;
        match read(&self.path, self.parse) {
            Ok(content) => {
                tracing::info!(path = %self.path.display(), "read again, since it has changed");
                last.1 = Arc::new(content);
            }
            Err(error) => tracing::error!(
                error = chain(&*error),
                "what was read before stays in force"
            ),
        }
        Arc::clone(&last.1)
    }
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T>) -> Result<T> {
    fs::read_to_string(path)
        .map_err(Into::into)
        .and_then(|text| parse(&text))
        .with_context(|| format!("{} can't be used", path.display()))
}

fn stamp(path: &Path) -> Result<Stamp> {
    let of = |file: &Metadata| (file.ino(), file.len(), file.mtime(), file.mtime_nsec());
    let file = fs::metadata(path).with_context(|| format!("{} can't be used", path.display()))?;
    Ok(of(&file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_and_a_wrong_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let parse = |text: &str| Ok(text.trim().parse::<u32>()?);
        assert!(Watched::open(&path, parse).is_err());

        fs::write(&path, "1").unwrap();
        let file = Watched::open(&path, parse).unwrap();
        for (content, expected) in [("22", 22), ("none", 22), ("333", 333)] {
            fs::write(&path, content).unwrap();
            assert_eq!(*file.current(), expected, "{content}");
        }
        // As orchestrators do: another file under the same name.
        let new = folder.path().join("new");
        fs::write(&new, "444").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(*file.current(), 444);
        fs::remove_file(&path).unwrap();
        assert_eq!(*file.current(), 444);
    }
}
