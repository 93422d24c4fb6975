//! The state folder, which belongs to one builder.
//!
//! ```text
//!   lock          held while the builder runs
//!   token-key.pem the private key for tokens, unless the settings name another
//!   *.nix         our Nix expressions
//!   probe/        the program of the sandbox probe
//!   staging/      unfinished layers                                      emptied at start
//!   kept/         links that protect packages from the garbage collector
//!   overlays/     links that protect overlays
//!   records/      copies of packages' records in storage
//!   index/        what the package sets in use have
//! ```
//!
//! A second builder would remove the first one's unfinished layers, so nothing is touched without the
//! lock. The kernel releases it when the builder ends, however that happens.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Our Nix expressions. They are part of the binary, so that the builder is one file to install.
const EXPRESSIONS: [(&str, &str); 6] = [
    ("packages.nix", include_str!("../../../nix/packages.nix")),
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
    /// Creates and locks the folder, and prepares its contents.
    ///
    /// # Errors
    /// When another builder uses it, or it can't be written.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let unusable = || {
            format!(
                "cannot use the state folder {}: check NIXGATE_STATE_DIR, and that the builder can write \
                 there",
                path.display()
            )
        };
        let (path, lock) = create(path).with_context(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another builder is using the state folder {}. Stop it, or set another NIXGATE_STATE_DIR \
                 for this one",
                path.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(unusable),
        }
        let state = Self { path, _lock: lock };
        state.prepare().with_context(unusable)?;
        Ok(state)
    }

    /// The folder itself, with our Nix expressions.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The private key for tokens, which may have to be made.
    pub(crate) fn token_key(&self) -> PathBuf {
        self.path.join("token-key.pem")
    }

    /// The folder of unfinished layers.
    pub(crate) fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// The folder of links that protect packages from the garbage collector.
    pub(crate) fn gc_roots(&self) -> PathBuf {
        self.path.join("kept")
    }

    /// The folder of links that protect overlays from the garbage collector.
    pub(crate) fn overlays(&self) -> PathBuf {
        self.path.join("overlays")
    }

    /// The folder of indexes of package sets.
    pub(crate) fn indexes(&self) -> PathBuf {
        self.path.join("index")
    }

    /// The folder of copies of packages' records.
    pub(crate) fn records(&self) -> PathBuf {
        self.path.join("records")
    }

    fn prepare(&self) -> io::Result<()> {
        // A killed builder has left unfinished layers.
        let staging = self.staging();
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&staging)?,
        }
        fs::create_dir_all(self.overlays())?;
        // Renamed into place, since a Nix process of an earlier builder may be reading it.
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
            let written = fs::read_to_string(second.path().join(name));
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
