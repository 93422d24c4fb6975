//! The age of files by their modification time, and removal of old files.
//!
//! ```text
//!   ────── modified ─────────── now ──────►            the age is the difference
//!   ─────────────────────────── now ── modified ──►    the clock was set back: the age starts now
//! ```
//!
//! A file with a time in the future would stay too long, and must not count as old, since it may be in
//! use. So its time is set to now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timestamps, utimensat};

use crate::telemetry::logging::chain;

/// The age of a file or folder; of a link, that of the link itself, since store paths are from 1970.
///
/// # Errors
/// When it is missing, or has a time in the future that can't be changed.
pub(crate) fn age(path: &Path) -> io::Result<Duration> {
    let made = fs::symlink_metadata(path)?.modified()?;
    match SystemTime::now().duration_since(made) {
        Ok(age) => Ok(age),
        Err(_) => renew(path).map(|()| Duration::ZERO),
    }
}

/// Restarts the age of a file or folder; of a link, that of the link itself.
///
/// # Errors
/// When it is missing, or belongs to another user.
pub(crate) fn renew(path: &Path) -> io::Result<()> {
    set(path, SystemTime::now())
}

/// Sets a modification time; of a link, that of the link itself, for which std has no function.
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

/// Removes files of a folder with matching names that are older than `than`; returns their number.
/// Failures are logged: they only cost space.
pub(crate) fn remove_older(
    folder: &Path,
    matches: impl Fn(&[u8]) -> bool,
    than: Duration,
) -> usize {
    let entries = entries(folder, matches);
    let old = entries.filter(|(age, _)| *age > than);
    old.filter(|(_, path)| remove(path)).count()
}

/// Removes files of a folder with matching names, except the `most` latest.
pub(crate) fn remove_all_but_latest(folder: &Path, matches: impl Fn(&[u8]) -> bool, most: usize) {
    let mut entries: Vec<_> = entries(folder, matches).collect();
    entries.sort();
    for (_, path) in entries.iter().skip(most) {
        remove(path);
    }
}

/// Entries of a folder with matching names, and their ages. Others may remove entries meanwhile.
fn entries(
    folder: &Path,
    matches: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = (Duration, PathBuf)> {
    let entries = fs::read_dir(folder).inspect_err(|error| warn("read", folder, error));
    let entries = entries.into_iter().flatten().filter_map(|entry| {
        let entry = entry.inspect_err(|error| warn("read", folder, error));
        Some(entry.ok()?.path())
    });
    let matches = move |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        matches(name.as_encoded_bytes())
    };
    entries.filter(matches).filter_map(|path| {
        let age = age(&path).inspect_err(|error| warn("read the age of", &path, error));
        Some((age.ok()?, path))
    })
}

/// Whether this call removed it.
fn remove(path: &Path) -> bool {
    let removed = fs::remove_file(path).inspect_err(|error| warn("remove", path, error));
    removed.is_ok()
}

/// Logs an error, unless the path is already gone.
fn warn(operation: &str, path: &Path, error: &io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        tracing::warn!(error = chain(error), path = %path.display(), "cannot {operation} a file");
    }
}

/// Sets a file's age, for tests; `is_ahead` puts it into the future.
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
    fn a_time_in_the_future_restarts_the_age_and_a_link_has_its_own() {
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
        assert!(made <= SystemTime::now(), "its age starts now");
        assert!(
            age(&file).unwrap() >= day,
            "the link's target is not changed"
        );
        let missing = age(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    /// Makes files with these ages in seconds, which may be negative.
    fn files<const N: usize>(folder: &Path, ages: [(&str, i64); N]) {
        for (name, age) in ages {
            let file = folder.join(name);
            fs::write(&file, "").unwrap();
            date(&file, Duration::from_secs(age.unsigned_abs()), age < 0);
        }
    }

    #[test]
    fn the_latest_files_stay_and_a_time_in_the_future_counts_as_new() {
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
    fn older_files_go_and_a_time_in_the_future_restarts_the_age() {
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
