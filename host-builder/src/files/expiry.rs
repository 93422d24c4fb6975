//! The age of files, by the time that stands on them, and removing what is old.
//!
//! ```text
//!   ────── made ─────────────── now ──────►        its age is between them
//!   ─────────────────────────── now ── made ──►    the clock was set back: its age begins now
//! ```
//!
//! A file that is dated ahead would stay for longer than it is meant to, by as much as the clock was
//! set back. To take it for old would be worse: it may be in use. So it is dated now, and ages from
//! then on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timestamps, utimensat};

use crate::telemetry::logging::chain;

/// For how long a file or folder has been as it is; of a link, the link itself, since store paths are
/// from 1970.
///
/// # Errors
/// When it is not there, or dated ahead and can't be dated otherwise.
pub(crate) fn age(path: &Path) -> io::Result<Duration> {
    let made = fs::symlink_metadata(path)?.modified()?;
    match SystemTime::now().duration_since(made) {
        Ok(age) => Ok(age),
        Err(_) => renew(path).map(|()| Duration::ZERO),
    }
}

/// Makes a file's age begin now; of a link, its own.
///
/// # Errors
/// When it is not there, or another user's.
pub(crate) fn renew(path: &Path) -> io::Result<()> {
    set(path, SystemTime::now())
}

/// Dates a file, or a link itself, which std has no way to.
fn set(path: &Path, made: SystemTime) -> io::Result<()> {
    let since = made.duration_since(SystemTime::UNIX_EPOCH);
    let made = since.map_err(io::Error::other)?.try_into();
    let made = made.map_err(io::Error::other)?;
    let times = Timestamps {
        last_access: made,
        last_modification: made,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Removes what is in a folder, under names that are meant, and older than this. What can't be removed
/// costs disk alone. Returns how many are gone.
pub(crate) fn remove_older(
    folder: &Path,
    is_meant: impl Fn(&[u8]) -> bool,
    than: Duration,
) -> usize {
    let entries = entries(folder, is_meant);
    let old = entries.filter(|(age, _)| *age > than);
    old.filter(|(_, path)| remove(path)).count()
}

/// Removes what is in a folder under names that are meant, but for the `most` that were made last.
pub(crate) fn remove_all_but_latest(folder: &Path, is_meant: impl Fn(&[u8]) -> bool, most: usize) {
    let mut entries: Vec<_> = entries(folder, is_meant).collect();
    entries.sort();
    for (_, path) in entries.iter().skip(most) {
        remove(path);
    }
}

/// What is in a folder, and its age. Others may be removing there as well.
fn entries(
    folder: &Path,
    is_meant: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = (Duration, PathBuf)> {
    let entries = fs::read_dir(folder).inspect_err(|error| complain("read", folder, error));
    let entries = entries.into_iter().flatten().filter_map(|entry| {
        let entry = entry.inspect_err(|error| complain("read", folder, error));
        Some(entry.ok()?.path())
    });
    let is_meant = move |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        is_meant(name.as_encoded_bytes())
    };
    entries.filter(is_meant).filter_map(|path| {
        let age = age(&path).inspect_err(|error| complain("tell the age of", &path, error));
        Some((age.ok()?, path))
    })
}

/// Whether it was there, and is gone.
fn remove(path: &Path) -> bool {
    let removed = fs::remove_file(path).inspect_err(|error| complain("remove", path, error));
    removed.is_ok()
}

/// What is not there any more is as it should be.
fn complain(what: &str, path: &Path, error: &io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        tracing::warn!(error = chain(error), path = %path.display(), "can't {what} this path");
    }
}

/// Dates a file or link, in a test: so long ago, or so long ahead.
#[cfg(test)]
pub(crate) fn date(path: &Path, age: Duration, is_ahead: bool) {
    let now = SystemTime::now();
    let made = if is_ahead { now + age } else { now - age };
    set(path, made).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    const YEAR: i64 = 365 * DAY;

    #[test]
    fn what_is_dated_ahead_ages_from_now_on_and_a_link_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let day = Duration::from_secs(24 * 3600);
        date(&file, day, false);
        date(&link, day, true);
        assert!(age(&file).unwrap() >= day);
        assert!(age(&link).unwrap() < day);
        let made = fs::symlink_metadata(&link).unwrap().modified().unwrap();
        assert!(made <= SystemTime::now(), "its time runs from now on");
        assert!(
            age(&file).unwrap() >= day,
            "what it points at is not touched"
        );
        let missing = age(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    /// Files that were made so many seconds ago, or are to be.
    fn files<const N: usize>(folder: &Path, ages: [(&str, i64); N]) {
        for (name, age) in ages {
            let file = folder.join(name);
            fs::write(&file, "").unwrap();
            date(&file, Duration::from_secs(age.unsigned_abs()), age < 0);
        }
    }

    #[test]
    fn the_latest_of_a_kind_stay_and_what_is_dated_ahead_counts_as_new() {
        let folder = tempfile::tempdir().unwrap();
        let ages = [
            ("x-1", 3000),
            ("x-2", 1000),
            ("x-3", 2000),
            ("x-4", 4000),
            ("x-5", -YEAR),
            ("y", 5000),
        ];
        files(folder.path(), ages);
        remove_all_but_latest(folder.path(), |name| name.starts_with(b"x-"), 2);
        let left = ages.map(|(name, _)| folder.path().join(name).exists());
        assert_eq!(left, [false, true, false, false, true, true]);
    }

    #[test]
    fn what_is_older_goes_and_what_is_dated_ahead_ages_from_now_on() {
        let folder = tempfile::tempdir().unwrap();
        let ages = [("1", DAY), ("2", 8 * DAY), ("3", -6 * DAY), ("4", -YEAR)];
        files(folder.path(), ages);
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(remove_older(folder.path(), |_| true, week), 1);
        let left = ages.map(|(name, _)| folder.path().join(name).exists());
        assert_eq!(left, [true, false, true, true]);
        for name in ["3", "4"] {
            let made = fs::metadata(folder.path().join(name)).unwrap().modified();
            assert!(made.unwrap() <= SystemTime::now(), "{name}");
        }
    }
}
