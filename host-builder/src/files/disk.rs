//! Free space on the builder's disks: refuses work that would fill one.
//!
//! ```text
//!   state folder   unfinished layers ─┐
//!   storage        layers             ├─► before a build: is the reserve free?
//!   Nix store      packages          ─┘   before packing: is there also room for the layers?
//! ```
//!
//! A bucket has no such bound. Nobody knows what a build will take in the Nix store; there Nix's own
//! `min-free` makes room. If a disk gets full anyway, that is reported as the builder's failure.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nixgate_core::distribution::{Error, ErrorKind};

use crate::closure::STORE_DIR;

/// A layer has at most half of its uncompressed size: programs are compressed to about a third.
const COMPRESSED: u64 = 2;
const MIB: u64 = 1 << 20;

/// A folder whose disk has to have room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    State,
    Storage,
    NixStore,
}

impl Place {
    /// For messages.
    const fn name(self) -> &'static str {
        match self {
            Self::State => "state folder",
            Self::Storage => "storage folder",
            Self::NixStore => "Nix store",
        }
    }

    /// For metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Storage => "storage",
            Self::NixStore => "nix_store",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Free {
    place: Place,
    /// The device number.
    disk: u64,
    bytes: u64,
}

/// Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    places: Arc<[(Place, PathBuf)]>,
    /// The reserve of each disk, in bytes.
    min_free: u64,
}

impl Disks {
    /// The disks of the state folder, the Nix store and, unless it is a bucket, storage.
    pub(crate) fn new(state: &Path, storage: Option<&Path>, min_free: u64) -> Self {
        let storage = storage.map(|folder| (Place::Storage, folder.to_owned()));
        let places = [
            (Place::State, state.to_owned()),
            (Place::NixStore, STORE_DIR.into()),
        ];
        Self {
            places: places.into_iter().chain(storage).collect(),
            min_free,
        }
    }

    /// Free bytes by place, without folders that are missing.
    pub(crate) fn free(&self) -> impl Iterator<Item = (Place, u64)> {
        self.look().into_iter().map(|free| (free.place, free.bytes))
    }

    /// Checks that each disk has its reserve.
    ///
    /// # Errors
    /// [`ErrorKind::TooBusy`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        match shortage(&self.look(), &BTreeMap::new(), self.min_free) {
            None => Ok(()),
            Some(shortage) => Err(shortage.error("the builder accepts no new images")),
        }
    }

    /// Checks that there is also room to pack layers with these uncompressed sizes, `at_once` at a time.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn check_for(&self, layers: &[u64], at_once: usize) -> Result<(), Error> {
        match shortage(&self.look(), &needs(layers, at_once), self.min_free) {
            None => Ok(()),
            Some(shortage) => Err(shortage.error("cannot pack the image's layers")),
        }
    }

    fn look(&self) -> Vec<Free> {
        let look = |(place, folder): &(Place, PathBuf)| {
            let disk = fs::metadata(folder).ok()?.dev();
            let stat = rustix::fs::statvfs(folder).ok()?;
            Some(Free {
                place: *place,
                disk,
                bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            })
        };
        self.places.iter().filter_map(look).collect()
    }
}

/// The most that layers take: all of them in storage, and the largest unfinished ones in the state folder.
fn needs(layers: &[u64], at_once: usize) -> BTreeMap<Place, u64> {
    let mut sizes: Vec<u64> = layers.iter().map(|size| size / COMPRESSED).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let sum = |sizes: &[u64]| {
        sizes
            .iter()
            .fold(0_u64, |sum, size| sum.saturating_add(*size))
    };
    let unfinished = sum(&sizes[..at_once.min(sizes.len())]);
    [(Place::State, unfinished), (Place::Storage, sum(&sizes))].into()
}

/// A disk with too little room.
#[derive(Debug, PartialEq, Eq)]
struct Shortage {
    place: Place,
    free: u64,
    needed: u64,
    min_free: u64,
}

impl Shortage {
    fn error(&self, consequence: &str) -> Error {
        let needs = match self.needed {
            0 => String::new(),
            needed => format!("about {} MiB are needed, and ", needed.div_ceil(MIB)),
        };
        let message = format!(
            "{consequence}: the disk of its {} has {} MiB free; {needs}{} MiB must stay free. Stored images \
             are still served. Ask the registry's administrator to free space, or to lower \
             NIXGATE_MIN_FREE_BYTES",
            self.place.name(),
            self.free / MIB,
            self.min_free.div_ceil(MIB),
        );
        Error::new(ErrorKind::TooBusy, message)
    }
}

/// The first disk that would have less than `min_free` left. Places may share a disk.
fn shortage(free: &[Free], needs: &BTreeMap<Place, u64>, min_free: u64) -> Option<Shortage> {
    let needed = |disk: u64| {
        let on_it = free.iter().filter(|one| one.disk == disk);
        on_it
            .filter_map(|one| needs.get(&one.place))
            .fold(0_u64, |sum, need| sum.saturating_add(*need))
    };
    free.iter().find_map(|one| {
        let needed = needed(one.disk);
        (one.bytes < min_free.saturating_add(needed)).then_some(Shortage {
            place: one.place,
            free: one.bytes,
            needed,
            min_free,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(place: Place, disk: u64, bytes: u64) -> Free {
        Free { place, disk, bytes }
    }

    #[test]
    fn each_disk_keeps_its_reserve() {
        let disks = [
            free(Place::State, 1, 100),
            free(Place::NixStore, 2, 50),
            free(Place::Storage, 1, 100),
        ];
        let none = BTreeMap::new();
        assert_eq!(shortage(&disks, &none, 50), None);
        assert_eq!(shortage(&disks, &none, 51).unwrap().place, Place::NixStore);
        assert_eq!(shortage(&disks, &none, 101).unwrap().place, Place::State);
        assert_eq!(shortage(&[], &none, 101), None);
    }

    #[test]
    fn unfinished_and_stored_layers_have_to_fit_on_a_shared_disk() {
        // 20 and 40 bytes are unfinished at the same time, 60 bytes are stored.
        let needs = needs(&[80, 40, 0], 2);
        assert_eq!(needs[&Place::State], 60);
        assert_eq!(needs[&Place::Storage], 60);
        let one = [free(Place::State, 1, 120), free(Place::Storage, 1, 120)];
        assert_eq!(shortage(&one, &needs, 0), None);
        assert_eq!(shortage(&one, &needs, 1).unwrap().needed, 120);
        let two = [free(Place::State, 1, 61), free(Place::Storage, 2, 59)];
        assert_eq!(shortage(&two, &needs, 0).unwrap().place, Place::Storage);
        // One at a time.
        assert_eq!(super::needs(&[80, 40], 1)[&Place::State], 40);
        assert_eq!(super::needs(&[], 4)[&Place::State], 0);
    }

    #[test]
    fn the_reason_names_no_folder_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let disks = Disks::new(folder.path(), None, u64::MAX);
        for error in [
            disks.check().unwrap_err(),
            disks.check_for(&[u64::MAX, u64::MAX], 1).unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::TooBusy);
            assert!(error.message.contains("state folder"), "{error}");
            assert!(error.message.contains("NIXGATE_MIN_FREE_BYTES"), "{error}");
            let path = folder.path().to_string_lossy().into_owned();
            assert!(!error.message.contains(&path), "{error}");
        }
        Disks::new(folder.path(), None, 0).check().unwrap();
    }
}
