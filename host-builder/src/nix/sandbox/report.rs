//! The probe's report: written inside the build, read outside.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Identifies a folder, whatever its name and mount point.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    #[cfg(test)]
    pub(super) const fn new(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// Names in `/`.
    pub(crate) root: BTreeSet<String>,
    /// The build's user id outside of its user namespace; none if it has none there.
    pub(crate) user: Option<u32>,
    /// The store's folder, if it was writable.
    pub(crate) store: Option<Identity>,
    /// Writable inputs.
    pub(crate) inputs: Vec<PathBuf>,
    /// Other writable mounts.
    pub(crate) mounts: Vec<PathBuf>,
}

/// A user id outside of its user namespace, by the namespace's map (user_namespaces(7)): lines of "first
/// inside, first outside, count".
pub(super) fn outside(uid_map: &str, user: u32) -> Option<u32> {
    uid_map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let (inside, outside, count) = (next()?, next()?, next()?);
        let offset = user.checked_sub(inside)?;
        (offset < count).then(|| outside.checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_is_mapped_to_the_one_outside() {
        let build_user = "      1000      30001          1\n";
        for (uid_map, user, expected) in [
            (build_user, 1000, Some(30_001)),
            (build_user, 1001, None),
            (build_user, 0, None),
            ("1000 0 1", 1000, Some(0)),
            ("0 0 4294967295", 30_002, Some(30_002)),
            ("0 100000 65536\n65536 0 1", 65_536, Some(0)),
            ("", 0, None),
            ("0 4294967295 2", 1, None),
        ] {
            assert_eq!(outside(uid_map, user), expected, "{uid_map:?} {user}");
        }
    }
}
