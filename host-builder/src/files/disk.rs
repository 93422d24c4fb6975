//! Room on the builder's disks: what would fill one up is not begun.
//!
//! ```text
//!   state folder   layers in the making ─┐
//!   storage        layers                ├─► before a build: is more free than is to stay so?
//!   Nix store      packages             ─┘   before packing: and besides, what the layers will take?
//! ```
//!
//! Storage in a bucket has no end. What a build takes of the Nix store nobody knows before; Nix's own
//! `min-free` makes room there. What fills up all the same is a failure of this machine: what was begun
//! is removed, and it is told as such.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nixgate_core::distribution::{Error, ErrorKind};

use crate::closure::STORE_DIR;

/// A layer is half as large as what is in it, or less: programs are compressed to about a third.
const COMPRESSED: u64 = 2;
const MIB: u64 = 1 << 20;

/// A folder on whose disk images take room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The builder's own folder.
    State,
    /// The folder with the images.
    Storage,
    /// Where packages are built.
    NixStore,
}

impl Place {
    /// What people call it.
    const fn name(self) -> &'static str {
        match self {
            Self::State => "state folder",
            Self::Storage => "storage folder",
            Self::NixStore => "Nix store",
        }
    }

    /// What the metric calls it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Storage => "storage",
            Self::NixStore => "nix_store",
        }
    }
}

/// How much of a disk is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Free {
    place: Place,
    /// What names the disk.
    disk: u64,
    bytes: u64,
}

/// See the module. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    places: Arc<[(Place, PathBuf)]>,
    /// What is to stay free on each.
    min_free: u64,
}

impl Disks {
    /// The disks of a state folder and, where images are in a folder, of that.
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

    /// What is free, by place; of a folder that isn't there, nothing is said.
    pub(crate) fn free(&self) -> impl Iterator<Item = (Place, u64)> {
        self.look().into_iter().map(|free| (free.place, free.bytes))
    }

    /// Whether there is room for another build.
    ///
    /// # Errors
    /// [`ErrorKind::TooBusy`], when a disk has less free than is to stay so.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match room(&self.look(), &BTreeMap::new(), self.min_free) {
            None => Ok(()),
            Some(lack) => Err(lack.error("the builder takes on no new images")),
        }
    }

    /// Whether there is room to pack layers of so many uncompressed bytes each, so many of them at a
    /// time.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn check_for(&self, layers: &[u64], at_once: usize) -> Result<(), Error> {
        match room(&self.look(), &needs(layers, at_once), self.min_free) {
            None => Ok(()),
            Some(lack) => Err(lack.error("the image's layers can't be packed")),
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

/// What layers take at most, by where: all of them in storage, and of those in the making the largest.
fn needs(layers: &[u64], at_once: usize) -> BTreeMap<Place, u64> {
    let mut sizes: Vec<u64> = layers.iter().map(|size| size / COMPRESSED).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let sum = |sizes: &[u64]| {
        sizes
            .iter()
            .fold(0_u64, |sum, size| sum.saturating_add(*size))
    };
    let in_the_making = sum(&sizes[..at_once.min(sizes.len())]);
    [(Place::State, in_the_making), (Place::Storage, sum(&sizes))].into()
}

/// A disk that has too little room.
#[derive(Debug, PartialEq, Eq)]
struct Lack {
    place: Place,
    free: u64,
    needed: u64,
    min_free: u64,
}

impl Lack {
    fn error(&self, what: &str) -> Error {
        let Self {
            place,
            free,
            needed,
            min_free,
        } = self;
        let needs = match needed {
            0 => String::new(),
            needed => format!("about {} MiB are needed, and ", needed.div_ceil(MIB)),
        };
        let message = format!(
            "{what}: the disk of its {} has {} MiB free, of which {needs}{} MiB are to stay free. \
             Images that are stored are served. The registry's administrator can make room, or lower \
             NIXGATE_MIN_FREE_BYTES",
            place.name(),
            free / MIB,
            min_free.div_ceil(MIB),
        );
        Error::new(ErrorKind::TooBusy, message)
    }
}

/// The first disk that would have less than `min_free` after what is needed was taken. Places may
/// share a disk.
fn room(free: &[Free], needs: &BTreeMap<Place, u64>, min_free: u64) -> Option<Lack> {
    let needed = |disk: u64| {
        let on_it = free.iter().filter(|one| one.disk == disk);
        on_it
            .filter_map(|one| needs.get(&one.place))
            .fold(0_u64, |sum, need| sum.saturating_add(*need))
    };
    free.iter().find_map(|one| {
        let needed = needed(one.disk);
        (one.bytes < min_free.saturating_add(needed)).then_some(Lack {
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
        assert_eq!(room(&disks, &none, 50), None);
        assert_eq!(room(&disks, &none, 51).unwrap().place, Place::NixStore);
        assert_eq!(room(&disks, &none, 101).unwrap().place, Place::State);
        assert_eq!(room(&[], &none, 101), None);
    }

    #[test]
    fn what_is_packed_has_to_fit_and_shares_a_disk_with_what_is_stored() {
        // 20 and 40 bytes are in the making at the same time, 60 bytes are stored.
        let needs = needs(&[80, 40, 0], 2);
        assert_eq!(needs[&Place::State], 60);
        assert_eq!(needs[&Place::Storage], 60);
        let one = [free(Place::State, 1, 120), free(Place::Storage, 1, 120)];
        assert_eq!(room(&one, &needs, 0), None);
        assert_eq!(room(&one, &needs, 1).unwrap().needed, 120);
        let two = [free(Place::State, 1, 61), free(Place::Storage, 2, 59)];
        assert_eq!(room(&two, &needs, 0).unwrap().place, Place::Storage);
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
