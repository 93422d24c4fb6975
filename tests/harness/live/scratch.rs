//! Folders of one test run, of two kinds:
//!
//! ```text
//!   STATE_DIR/e2e/<process id>/    what is stored: beside the state, not in /tmp, which may be
//!                                  small, or on a file system that can't carry overlays
//!   /run/nixgate-e2e/<process id>/ sockets and the like: the path of a socket has at most 107
//!                                  bytes, podman's runroot 50, and a checkout may be anywhere
//! ```
//!
//! A test removes its own folders. The next run removes shared folders and those of aborted runs.

use std::fs;
use std::path::Path;
use std::process::{self, Command};
use std::sync::Once;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::live::install;
use crate::live::process::run;

/// Makes a folder for what is stored; it is removed with what this returns.
///
/// # Errors
/// When it can't be made.
pub fn folder(prefix: &str) -> Result<TempDir> {
    static FIRST: Once = Once::new();
    folder_in(&install::state_dir().join("e2e"), prefix, &FIRST)
}

/// Makes a folder with a short path, for sockets; it is removed with what this returns.
///
/// # Errors
/// When it can't be made.
pub fn run_folder() -> Result<TempDir> {
    static FIRST: Once = Once::new();
    folder_in(Path::new("/run/nixgate-e2e"), "", &FIRST)
}

fn folder_in(all: &Path, prefix: &str, first: &Once) -> Result<TempDir> {
    let ours = all.join(process::id().to_string());
    fs::create_dir_all(&ours).with_context(|| format!("can't make {}", ours.display()))?;
    first.call_once(|| remove_abandoned(all));
    tempfile::Builder::new()
        .prefix(prefix)
        // Programs get the path without `..`: podman and Nix compare paths as text.
        .tempdir_in(ours.canonicalize()?)
        .with_context(|| format!("can't make a folder in {}", ours.display()))
}

/// Unmounts all that is mounted below a folder, so that it can be removed: clients keep their
/// storage mounted. What fails here shows when the folder is removed.
pub fn unmount(folder: &Path) {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|mount| Path::new(mount).starts_with(folder));
    // Later ones may be inside of earlier ones.
    for mount in mounts.collect::<Vec<_>>().into_iter().rev() {
        _ = run(Command::new("umount").args(["--lazy", mount]));
    }
}

/// Removes the folders of test runs that have ended. One that can't be removed costs disk alone.
fn remove_abandoned(all: &Path) {
    for folder in fs::read_dir(all).into_iter().flatten().flatten() {
        let alive = Path::new("/proc").join(folder.file_name()).exists();
        if !alive && let Ok(folder) = folder.path().canonicalize() {
            unmount(&folder);
            _ = fs::remove_dir_all(folder);
        }
    }
}
