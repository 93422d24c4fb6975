//! A file that is read again when it has changed.
//!
//! Users and recipes come and go, and a builder that is started anew ends the builds that are under
//! way. So each use looks whether the file is the one that was read (a system call). A new content
//! that is not right changes nothing, and is told in the log once.
//!
//! **Half a file changes nothing either.** The safe way to change one is to write another beside it
//! and to rename that onto it. Not everybody does, and half a list of users is one of fewer users. So
//!
//! - a change is taken once the file has rested for [`REST`]: by its own time, or by how long it has
//!   looked the same, where a clock was set back;
//! - it has to be the same before and after it was read;
//! - a file of lines has to end with the end of a line ([`lines`]), which the empty one does not;
//!   JSON and PEM are whole or can't be read.
//!
//! What is left is a writer that stops for longer, or dies, at the end of a line.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

/// For how long a file that has changed has to stay as it is before it is read: programs that write
/// into it take milliseconds.
const REST: Duration = Duration::from_secs(1);

use crate::telemetry::logging::chain;

/// What tells one content from the next: orchestrators replace the file, editors write into it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// A file and what it says.
pub(crate) struct Reloading<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T>,
    last: Mutex<Last<T>>,
}

struct Last<T> {
    /// Of the content that was read last, whether or not it was right.
    read: Stamp,
    /// What was right last.
    content: Arc<T>,
    /// Another content, and when it was seen first.
    new: Option<(Stamp, Instant)>,
    /// A content that could not be read, of which the log has been told.
    unreadable: Option<Stamp>,
}

impl<T> Reloading<T> {
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read or `parse` refuses it.
    pub(crate) fn open(path: &Path, parse: fn(&str) -> Result<T>) -> Result<Self> {
        let (stamp, text) = read(path)?;
        let content = parse(&ended(text)).with_context(|| unusable(path))?;
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

    /// What the file says now, or said when it was last right. It reads from the disk.
    pub(crate) fn current(&self) -> Arc<T> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.changed(&mut last) {
            Ok(None) => {}
            Ok(Some(content)) => {
                tracing::info!(path = %self.path.display(), "read again, since it has changed");
                last.content = Arc::new(content);
            }
            Err(error) => tracing::error!(
                error = chain(&*error),
                "what was read before stays in force"
            ),
        }
        Arc::clone(&last.content)
    }

    /// What the file says, when that is something new and has come to rest.
    fn changed(&self, last: &mut Last<T>) -> Result<Option<T>> {
        // One that is being replaced may be away for a moment.
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
            tracing::debug!(
                path = %self.path.display(),
                "it has just changed, and is read once it has rested"
            );
            return Ok(None);
        }
        let (before, text) = match read(&self.path) {
            Ok(read) => read,
            // Its rights may change without a change of what its stamp says: it is tried again each
            // time, and told of once.
            Err(_) if last.unreadable == Some(stamp) => return Ok(None),
            Err(error) => {
                last.unreadable = Some(stamp);
                return Err(error);
            }
        };
        if before != stamp || Stamp::of(&self.path).ok() != Some(stamp) {
            // It was changed again while it was read.
            return Ok(None);
        }
        let is_replaced = stamp.inode != last.read.inode;
        last.read = stamp;
        last.unreadable = None;
        let text = if is_replaced { ended(text) } else { text };
        let content = (self.parse)(&text).with_context(|| unusable(&self.path))?;
        Ok(Some(content))
    }
}

/// A text that is whole: it was there at the start, or came under the file's name by a rename, as
/// orchestrators mount secrets, whose last lines often have no end.
fn ended(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The lines of a text that say something, with their numbers.
///
/// # Errors
/// When the last one does not end: more may have been meant to follow.
pub(crate) fn lines(text: &str) -> Result<impl Iterator<Item = (usize, &str)>> {
    ensure!(
        text.ends_with('\n'),
        "its last line has no end, so that it may be half of a file: end it with a newline, and \
         rename the new file onto the old one"
    );
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, line)| (index + 1, line.trim()));
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

/// What a file says, and its stamp before.
fn read(path: &Path) -> Result<(Stamp, String)> {
    let read = || Ok((Stamp::of(path)?, fs::read_to_string(path)?));
    read().map_err(|error: io::Error| anyhow::Error::new(error).context(unusable(path)))
}

fn unusable(path: &Path) -> String {
    format!("{} can't be used", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn number(text: &str) -> Result<u32> {
        let mut lines = lines(text)?;
        Ok(lines.next().context("no number")?.1.parse()?)
    }

    /// Changes a file as something did that has let it rest since.
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
    fn a_change_is_seen_and_a_wrong_one_changes_nothing() {
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
    fn half_a_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        write(&path, "12\n");
        let file = Reloading::open(&path, number).unwrap();
        // What a writer has written until somebody looks: it could be read, and is not.
        for half in ["", "3", "34\n"] {
            fs::write(&path, half).unwrap();
            assert_eq!(*file.current(), 12, "{half:?}");
        }
        rest(&path);
        assert_eq!(*file.current(), 34);
        // And when the writer is gone, what does not end.
        for half in ["", "5", "56\n7"] {
            write(&path, half);
            assert_eq!(*file.current(), 34, "{half:?}");
        }
        write(&path, "56\n");
        assert_eq!(*file.current(), 56);
    }

    #[test]
    fn a_file_that_is_renamed_or_there_at_the_start_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("number"), folder.path().join("new"));
        write(&path, "12");
        let file = Reloading::open(&path, number).unwrap();
        assert_eq!(*file.current(), 12);
        write(&new, "34");
        fs::rename(&new, &path).unwrap();
        assert_eq!(*file.current(), 34);
        write(&path, "5");
        assert_eq!(*file.current(), 34, "it is written into");
    }

    #[test]
    fn a_file_that_can_not_be_read_is_read_as_soon_as_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        write(&path, "12\n");
        let file = Reloading::open(&path, number).unwrap();
        // Root may read whatever there is: a folder, it can't.
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
    fn a_file_has_rested_by_its_own_time_or_by_how_long_it_was_seen() {
        let now = SystemTime::now();
        let (little, long) = (REST / 2, REST * 2);
        for (modified, seen_for, expected) in [
            (Some(now), Duration::ZERO, false),
            (Some(now - little), little, false),
            (Some(now - long), Duration::ZERO, true),
            // The clock was set back, or there is none.
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
    fn lines_that_say_something_have_the_numbers_that_people_count() {
        let found: Vec<_> = lines("# a\n\n b \nc\n").unwrap().collect();
        assert_eq!(found, [(3, "b"), (4, "c")]);
        assert!(lines("a\nb").is_err() && lines("").is_err());
    }
}
