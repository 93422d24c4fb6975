//! The age of files, by the time that stands on them.
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
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

/// For how long a file or folder has been as it is; of a link, the link itself, since store paths are
/// from 1970.
///
/// # Errors
/// When it is not there, or dated ahead and can't be dated otherwise.
pub fn age(path: &Path) -> io::Result<Duration> {
    let made = fs::symlink_metadata(path)?.modified()?;
    match SystemTime::now().duration_since(made) {
        Ok(age) => Ok(age),
        Err(_) => renew(path).map(|()| Duration::ZERO),
    }
}

/// Makes a file's age begin now; of a link, its own.
///
/// # Errors
/// When it is not there, or can't be written.
pub fn renew(path: &Path) -> io::Result<()> {
    // The kernel's now for both times: so whoever may write to a file may set it, also where the
    // file is another's.
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Dates a file or link, in a test: so long ago, or so long ahead.
#[cfg(test)]
pub fn date(path: &Path, age: Duration, is_ahead: bool) {
    let now = SystemTime::now();
    let made = if is_ahead { now + age } else { now - age };
    let made = made.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let made = made.try_into().unwrap();
    let times = Timestamps {
        last_access: made,
        last_modification: made,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn what_is_dated_ahead_ages_from_now_on_and_a_link_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        date(&file, DAY, false);
        date(&link, DAY, true);
        assert!(age(&file).unwrap() >= DAY);
        assert!(age(&link).unwrap() < DAY);
        let made = fs::symlink_metadata(&link).unwrap().modified().unwrap();
        assert!(made <= SystemTime::now(), "its time runs from now on");
        assert!(
            age(&file).unwrap() >= DAY,
            "what it points at is not touched"
        );
        let missing = age(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
