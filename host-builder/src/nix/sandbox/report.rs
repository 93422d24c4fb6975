//! What a build says of what it could do: written inside of it, read outside.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What names a folder of a machine, whatever it is called and wherever it is mounted.
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

/// See the module.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// What is in the root folder.
    pub(crate) root: BTreeSet<String>,
    /// As whom it runs, as the world outside of its user namespace sees it; none when that is nobody.
    pub(crate) user: Option<u32>,
    /// The folder of the store, where it could write to that.
    pub(crate) store: Option<Identity>,
    /// Its inputs that it could change.
    pub(crate) inputs: Vec<PathBuf>,
    /// What else is mounted for it and it could change.
    pub(crate) mounts: Vec<PathBuf>,
}

/// As whom somebody with this number runs outside, by the table of their user namespace
/// (user_namespaces(7)): lines of "first inside, first outside, how many".
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
    fn who_somebody_is_outside_is_told_by_the_table() {
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
