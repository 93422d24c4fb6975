//! A file that is reloaded when it changes.
//!
//! A restart would end running builds, so changes of users and recipes must not need one. Each use
//! compares the file with the last one that was read (one system call). Invalid content changes nothing,
//! and is logged once.
//!
//! **Nor does an incomplete file.** The safe way to change a file is to rename a new one onto it. Not
//! everybody does, and half a list of users is a list of fewer users. So
//!
//! - a file is read once it was unchanged for [`REST`]: by its modification time, or by the time since
//!   the change was seen, in case the clock was set back;
//! - it must be the same before and after it is read;
//! - a file of lines must end with a newline ([`lines`]), so it can't be empty; JSON and PEM can't be
//!   parsed unless they are complete.
//!
//! A writer that pauses for longer, or dies, at the end of a line is not noticed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

use crate::telemetry::logging::chain;

/// How long a changed file must stay the same. Writers take milliseconds.
const REST: Duration = Duration::from_secs(1);

/// Differs for each content: orchestrators replace the file, editors write into it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// A file and its parsed content.
pub(crate) struct Reloading<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T>,
    last: Mutex<Last<T>>,
}

struct Last<T> {
    /// Of the last content, valid or not.
    read: Stamp,
    /// The last valid content.
    content: Arc<T>,
    /// Another content, and when it was first seen.
    new: Option<(Stamp, Instant)>,
    /// An unreadable file that was logged already.
    unreadable: Option<Stamp>,
}

impl<T> Reloading<T> {
    /// # Errors
    /// When the file can't be read or parsed.
    pub(crate) fn open(path: &Path, parse: fn(&str) -> Result<T>) -> Result<Self> {
        let (stamp, text) = read(path)?;
        let content = parse(&with_newline(text)).with_context(|| unusable(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            parse,
            last: Mutex::new(Last {
                read: stamp,
                content: Arc::new(content),
                new: None,
                unreadable: None,
            }),
        })
    }

    /// The latest valid content. This reads from the disk.
    pub(crate) fn current(&self) -> Arc<T> {
        let mut last = self.last.lock();
        match self.changed(&mut last) {
            Ok(None) => {}
            Ok(Some(content)) => {
                tracing::info!(path = %self.path.display(), "reloaded the changed file");
                last.content = Arc::new(content);
            }
            Err(error) => tracing::error!(
                error = chain(&*error),
                "cannot reload a changed file: its earlier content stays in force"
            ),
        }
        Arc::clone(&last.content)
    }

    /// The content, if it is new and has rested.
    fn changed(&self, last: &mut Last<T>) -> Result<Option<T>> {
        // A file that is being replaced may be missing for a moment.
        let Ok(stamp) = Stamp::of(&self.path) else {
            return Ok(None);
        };
        if stamp == last.read {
            last.new = None;
            return Ok(None);
        }
        let (now, seen) = (Instant::now(), last.new.filter(|(new, _)| *new == stamp));
        let since = seen.map_or(now, |(_, since)| since);
        last.new = Some((stamp, since));
        if !has_rested(stamp.modified, SystemTime::now(), now.duration_since(since)) {
            tracing::debug!(path = %self.path.display(), "waiting until the changed file has rested");
            return Ok(None);
        }
        let (before, text) = match read(&self.path) {
            Ok(read) => read,
            // Its permissions may change without its stamp: it is read each time, and logged once.
            Err(_) if last.unreadable == Some(stamp) => return Ok(None),
            Err(error) => {
                last.unreadable = Some(stamp);
                return Err(error);
            }
        };
        if before != stamp || Stamp::of(&self.path).ok() != Some(stamp) {
            // It changed meanwhile.
            return Ok(None);
        }
        let is_replaced = stamp.inode != last.read.inode;
        last.read = stamp;
        last.unreadable = None;
        let text = if is_replaced {
            with_newline(text)
        } else {
            text
        };
        let content = (self.parse)(&text).with_context(|| unusable(&self.path))?;
        Ok(Some(content))
    }
}

/// Ends the last line of a file that must be complete: it was there at the start, or replaced another.
/// Secrets that orchestrators mount often lack that newline.
fn with_newline(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The lines of a text without comments and blank lines, numbered from 1.
///
/// # Errors
/// When the last line has no end: the text may be incomplete.
pub(crate) fn lines(text: &str) -> Result<impl Iterator<Item = (usize, &str)>> {
    ensure!(
        text.ends_with('\n'),
        "its last line has no newline, so the file may be incomplete: add a newline, and rename the \
         new file onto the old one"
    );
    let lines = (1..).zip(text.lines().map(str::trim));
    Ok(lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')))
}

fn has_rested(modified: Option<SystemTime>, clock: SystemTime, seen_for: Duration) -> bool {
    let age = modified.and_then(|modified| clock.duration_since(modified).ok());
    age.is_some_and(|age| age >= REST) || seen_for >= REST
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            inode: file.ino(),
            bytes: file.len(),
            modified: file.modified().ok(),
        })
    }
}

/// The text of a file, and its stamp before.
fn read(path: &Path) -> Result<(Stamp, String)> {
    let read = || Ok((Stamp::of(path)?, fs::read_to_string(path)?));
    read().map_err(|error: io::Error| anyhow::Error::new(error).context(unusable(path)))
}

fn unusable(path: &Path) -> String {
    format!("cannot use {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn number(text: &str) -> Result<u32> {
        let mut lines = lines(text)?;
        Ok(lines.next().context("no number")?.1.parse()?)
    }

    /// Changes a file, which has rested since.
    fn write(path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        rest(path);
    }

    fn rest(path: &Path) {
        let file = File::options().append(true).open(path).unwrap();
        let before = SystemTime::now() - 2 * REST;
        file.set_modified(before).unwrap();
    }

    #[test]
    fn a_valid_change_is_loaded_and_an_invalid_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        assert!(Reloading::open(&path, number).is_err());

        write(&path, "1\n");
        let file = Reloading::open(&path, number).unwrap();
        for (content, expected) in [("22\n", 22), ("none\n", 22), ("333\n", 333)] {
            write(&path, content);
            assert_eq!(*file.current(), expected, "{content}");
        }
        // As orchestrators do: another file under the same name.
        let new = folder.path().join("new");
        write(&new, "444\n");
        fs::rename(&new, &path).unwrap();
        assert_eq!(*file.current(), 444);
        fs::remove_file(&path).unwrap();
        assert_eq!(*file.current(), 444);
    }

    #[test]
    fn an_incomplete_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        write(&path, "12\n");
        let file = Reloading::open(&path, number).unwrap();
        // A writer is at work: the text could be parsed, and is not.
        for half in ["", "3", "34\n"] {
            fs::write(&path, half).unwrap();
            assert_eq!(*file.current(), 12, "{half:?}");
        }
        rest(&path);
        assert_eq!(*file.current(), 34);
        // The writer is gone, and the last line has no end.
        for half in ["", "5", "56\n7"] {
            write(&path, half);
            assert_eq!(*file.current(), 34, "{half:?}");
        }
        write(&path, "56\n");
        assert_eq!(*file.current(), 56);
    }

    #[test]
    fn a_file_is_complete_at_the_start_and_after_a_rename() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("number"), folder.path().join("new"));
        write(&path, "12");
        let file = Reloading::open(&path, number).unwrap();
        assert_eq!(*file.current(), 12);
        write(&new, "34");
        fs::rename(&new, &path).unwrap();
        assert_eq!(*file.current(), 34);
        write(&path, "5");
        assert_eq!(*file.current(), 34, "written in place");
    }

    #[test]
    fn an_unreadable_file_is_loaded_once_it_is_readable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        write(&path, "12\n");
        let file = Reloading::open(&path, number).unwrap();
        // Root can read any file, but not a folder.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        File::open(&path)
            .unwrap()
            .set_modified(SystemTime::now() - 2 * REST)
            .unwrap();
        for _ in 0..2 {
            assert_eq!(*file.current(), 12);
        }
        fs::remove_dir(&path).unwrap();
        write(&path, "34\n");
        assert_eq!(*file.current(), 34);
    }

    #[test]
    fn a_file_has_rested_by_its_own_time_or_since_it_was_seen() {
        let now = SystemTime::now();
        let (little, long) = (REST / 2, REST * 2);
        for (modified, seen_for, expected) in [
            (Some(now), Duration::ZERO, false),
            (Some(now - little), little, false),
            (Some(now - long), Duration::ZERO, true),
            // The clock was set back, or the file has no time.
            (Some(now + long), little, false),
            (Some(now + long), REST, true),
            (None, little, false),
            (None, REST, true),
        ] {
            let rested = has_rested(modified, now, seen_for);
            assert_eq!(rested, expected, "{modified:?} {seen_for:?}");
        }
    }

    #[test]
    fn lines_are_numbered_from_one_without_blanks_and_comments() {
        let found: Vec<_> = lines("# a\n\n b \nc\n").unwrap().collect();
        assert_eq!(found, [(3, "b"), (4, "c")]);
        assert!(lines("a\nb").is_err() && lines("").is_err());
    }
}
