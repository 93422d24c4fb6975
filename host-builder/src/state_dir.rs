//! The folder of the builder's own files, which is one builder's alone.
//!
//! ```text
//!   lock          held for as long as the builder lives
//!   token-key.pem the private key of the tokens, where the settings name none
//!   *.nix         the expressions that Nix is asked with
//!   staging/      layers in the making                                   emptied at start
//!   kept/         links that keep packages from the garbage collector
//!   records/      copies of what storage knows of packages
//! ```
//!
//! A second builder would remove what the first has in the making, so nothing is touched before
//! the lock is held. The kernel lets go of it when the builder ends, however it does.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

/// The expressions that Nix is asked with. They travel inside the binary, so that the builder is
/// one file to install.
const EXPRESSIONS: [(&str, &str); 5] = [
    ("resolve.nix", include_str!("../../nix/resolve.nix")),
    ("attributes.nix", include_str!("../../nix/attributes.nix")),
    ("sandbox.nix", include_str!("../../nix/sandbox.nix")),
    ("flake.nix", include_str!("../../nix/flake.nix")),
    ("flake-set.nix", include_str!("../../nix/flake-set.nix")),
];

/// The folder, locked until this is dropped.
#[derive(Debug)]
pub struct StateDir {
    /// Absolute: Nix links to roots by their absolute paths.
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Locks a folder, which is created when it isn't there, and prepares what is in it.
    ///
    /// # Errors
    /// When another builder has it, or it can't be written.
    pub fn open(path: &Path) -> Result<Self> {
        let unusable = || {
            format!(
                "the state folder {} can't be used: check NIXGATE_STATE_DIR, and that the folder \
                 is writable for the builder",
                path.display()
            )
        };
        let (path, lock) = create(path).with_context(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another builder is using the state folder {}: end it, or give this one another \
                 NIXGATE_STATE_DIR",
                path.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(unusable),
        }
        let state = Self { path, _lock: lock };
        state.prepare().with_context(unusable)?;
        Ok(state)
    }

    /// Where the expressions are that Nix is asked with.
    pub fn expressions(&self) -> PathBuf {
        self.path.clone()
    }

    /// Where the private key of the tokens is, or is to be made.
    pub fn token_key(&self) -> PathBuf {
        self.path.join("token-key.pem")
    }

    /// Layers in the making.
    pub fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// Links that keep packages from the garbage collector.
    pub fn kept(&self) -> PathBuf {
        self.path.join("kept")
    }

    /// Copies of what storage knows of packages.
    pub fn records(&self) -> PathBuf {
        self.path.join("records")
    }

    fn prepare(&self) -> io::Result<()> {
        // Whatever a builder that was killed has left behind is of no use to anyone.
        let staging = self.staging();
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&staging)?,
        }
        // By renaming: a Nix that outlived its builder may be reading it.
        for (name, expression) in EXPRESSIONS {
            let new = self.staging().join(name);
            fs::write(&new, expression)?;
            fs::rename(new, self.path.join(name))?;
        }
        Ok(())
    }
}

/// Removes what is in a folder and older than `age`. What can't be removed costs disk alone.
///
/// What was made further ahead than that, before the clock was set back, goes as well: it would stay
/// for as long as the clock has to catch up.
pub fn remove_older(folder: &Path, age: Duration) {
    let now = SystemTime::now();
    for (made, path) in entries(folder) {
        if distance(made, now) > age {
            remove(&path);
        }
    }
}

/// How far apart two times are, whichever comes first.
fn distance(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other)
        .unwrap_or_else(|error| error.duration())
}

/// Removes what is in a folder under names with this prefix, but for the `most` that were made last.
/// What was made before the clock was set back, and seems to be to come, counts as the oldest.
pub fn remove_all_but_latest(folder: &Path, prefix: &str, most: usize) {
    let now = SystemTime::now();
    let mut entries: Vec<_> = entries(folder)
        .filter(|(_, path)| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(prefix.as_bytes())
        })
        .map(|(made, path)| (made <= now, made, path))
        .collect();
    entries.sort();
    for (_, _, path) in entries.iter().rev().skip(most) {
        remove(path);
    }
}

/// What is in a folder, and when it was made.
fn entries(folder: &Path) -> impl Iterator<Item = (SystemTime, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        // Of a link, not of what it points to: store paths are from 1970.
        let made = entry.metadata().and_then(|metadata| metadata.modified());
        Some((made.ok()?, entry.path()))
    })
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("can't remove {}: {error}", path.display());
    }
}

fn create(path: &Path) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(path)?;
    let path = path.canonicalize()?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))?;
    Ok((path, lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_builder_touches_nothing_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = StateDir::open(&path).unwrap();
        let layer = first.staging().join("layer");
        fs::write(&layer, "half").unwrap();

        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("NIXGATE_STATE_DIR"), "{error}");
        assert!(layer.exists());

        drop(first);
        let second = StateDir::open(&path).unwrap();
        assert!(!layer.exists() && second.staging().exists());
        for (name, expression) in EXPRESSIONS {
            let written = fs::read_to_string(second.expressions().join(name));
            assert_eq!(written.unwrap(), expression);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_names_the_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = StateDir::open(&file.path().join("state")).unwrap_err();
        assert!(error.to_string().contains("NIXGATE_STATE_DIR"), "{error:#}");
    }
    /// Files that were made so many seconds ago, or are to be.
    fn files<const N: usize>(folder: &Path, ages: [(&str, i64); N]) {
        let now = SystemTime::now();
        for (name, age) in ages {
            let distance = Duration::from_secs(age.unsigned_abs());
            let made = if age < 0 {
                now + distance
            } else {
                now - distance
            };
            let file = File::create(folder.join(name)).unwrap();
            file.set_modified(made).unwrap();
        }
    }

    const YEAR: i64 = 365 * 24 * 3600;

    #[test]
    fn the_latest_of_a_kind_stay_whatever_becomes_of_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let ages = [
            ("x-1", 30),
            ("x-2", 10),
            ("x-3", 20),
            ("x-4", 40),
            ("x-5", -YEAR),
            ("y", 50),
        ];
        files(folder.path(), ages);
        remove_all_but_latest(folder.path(), "x-", 2);
        let left = ages.map(|(name, _)| folder.path().join(name).exists());
        assert_eq!(left, [false, true, true, false, false, true]);
    }

    #[test]
    fn what_is_older_goes_and_so_does_what_is_too_far_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let ages = [
            ("1", 10),
            ("2", 3700),
            ("3", YEAR),
            ("4", -10),
            ("5", -YEAR),
        ];
        files(folder.path(), ages);
        remove_older(folder.path(), Duration::from_secs(3600));
        let left = ages.map(|(name, _)| folder.path().join(name).exists());
        assert_eq!(left, [true, false, false, true, false]);
    }
}
