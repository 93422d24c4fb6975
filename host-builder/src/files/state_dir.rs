//! The folder of the builder's own files, which is one builder's alone.
//!
//! ```text
//!   lock          held for as long as the builder lives
//!   token-key.pem the private key of the tokens, where the settings name none
//!   *.nix         the expressions that Nix is asked with
//!   probe/        the program that shows what builds can do
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

use anyhow::{Context, Result, bail};

/// The expressions that Nix is asked with. They travel inside the binary, so that the builder is
/// one file to install.
const EXPRESSIONS: [(&str, &str); 5] = [
    ("resolve.nix", include_str!("../../../nix/resolve.nix")),
    (
        "attributes.nix",
        include_str!("../../../nix/attributes.nix"),
    ),
    ("sandbox.nix", include_str!("../../../nix/sandbox.nix")),
    ("flake.nix", include_str!("../../../nix/flake.nix")),
    ("flake-set.nix", include_str!("../../../nix/flake-set.nix")),
];

/// The folder, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    /// Absolute: Nix links to roots by their absolute paths.
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Locks a folder, which is created when it isn't there, and prepares what is in it.
    ///
    /// # Errors
    /// When another builder has it, or it can't be written.
    pub(crate) fn open(path: &Path) -> Result<Self> {
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
    pub(crate) fn expressions(&self) -> PathBuf {
        self.path.clone()
    }

    /// Where the private key of the tokens is, or is to be made.
    pub(crate) fn token_key(&self) -> PathBuf {
        self.path.join("token-key.pem")
    }

    /// Layers in the making.
    pub(crate) fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// Links that keep packages from the garbage collector.
    pub(crate) fn kept(&self) -> PathBuf {
        self.path.join("kept")
    }

    /// LocalCache of what storage knows of packages.
    pub(crate) fn records(&self) -> PathBuf {
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
}
