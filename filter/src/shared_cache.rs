//! The cache of `nixgate_core::cache` in Envoy's shared data, which all workers see.
//!
//! ```text
//!   "nixgate/<set>"           the set's directory, changed by compare-and-swap
//!   "nixgate/<set>/<way>"     a slot
//! ```
//!
//! A first insertion into shared data is not atomic: when two VMs set a key that does not exist
//! yet, the last one wins, whatever number they compare by. So every directory is created, empty,
//! before the first request; then the compare-and-swap on it decides who gets a way. The slot is
//! written after that without one. Whoever reads in between, or finds the slot of a writer that
//! overtook another, sees another key in it, which is a miss and heals with the next insertion.
//!
//! In front of it are the worker's own copies, which need no call of the host.
//!
//! Shared data grows to the configured bytes and stays there: nothing in it can be deleted, only
//! emptied. It is shared by every plugin with the same `vm_id`.

use std::cell::RefCell;

use nixgate_core::Seconds;
use nixgate_core::cache::{Copies, Directory, Entry, Geometry, Key, Seal, Way};
use proxy_wasm::types::LogLevel;

use crate::host::{self, Status};

/// How often an insertion is tried while other workers change the same set. Giving up costs the
/// next client one callout.
const ATTEMPTS: usize = 4;

/// The cache that all workers share.
pub(crate) struct SharedCache {
    geometry: Geometry,
    seal: Seal,
    /// Borrowed for no host call.
    copies: RefCell<Copies>,
}

/// What is kept for a key, expired or not.
pub(crate) struct Found {
    pub(crate) entry: Entry,
    /// Whether the worker has a copy, which is good for this second.
    is_copied: bool,
}

impl Found {
    /// The entry, if it is good for this second.
    pub(crate) fn copied(&self) -> Option<&Entry> {
        self.is_copied.then_some(&self.entry)
    }
}

impl SharedCache {
    /// Creates the directories that don't exist yet. Says how many slots the others use. The
    /// worker's copies take `copied_bytes` at most.
    ///
    /// # Errors
    /// When the host has no shared data for the filter.
    pub(crate) fn create(
        geometry: Geometry,
        seal: Seal,
        copied_bytes: usize,
    ) -> host::Result<(Self, usize)> {
        let mut used = 0_usize;
        for set in geometry.sets() {
            let name = directory_name(set);
            match host::shared_data(&name)? {
                Some((bytes, _)) => used = used.saturating_add(Directory::decode(&bytes).used()),
                None => host::set_shared_data(&name, &Directory::default().encode(), 0)?,
            }
        }
        let cache = Self {
            geometry,
            seal,
            copies: RefCell::new(Copies::new(copied_bytes)),
        };
        Ok((cache, used))
    }

    /// What is kept for a key. A cache that can't be read is one that misses. The seal is looked at
    /// unless it was for the same version.
    pub(crate) fn get(&self, key: &Key, now: Seconds) -> Option<Found> {
        if let Some(entry) = self.copies.borrow().get(key) {
            return Some(Found {
                entry: entry.clone(),
                is_copied: true,
            });
        }
        let entry = self.read(key, now)?;
        Some(Found {
            entry,
            is_copied: self.copies.borrow().get(key).is_some(),
        })
    }

    /// What the shared data hold, which are copied.
    fn read(&self, key: &Key, now: Seconds) -> Option<Entry> {
        let set = self.geometry.set_of(key);
        let name = directory_name(set);
        let (bytes, cas) = read(&name)?;
        let mut directory = Directory::decode(&bytes);
        let way = directory.find(key)?;
        let (sealed, version) = read(&slot_name(set, way))?;
        let mut copies = self.copies.borrow_mut();
        let entry = match copies.compare(key, version, now) {
            Some(entry) => entry.clone(),
            None => {
                let entry = Entry::decode(self.seal.open(&sealed)?, key)?;
                copies.insert(key, &entry, version, now);
                entry
            }
        };
        drop(copies);
        if directory.touch(way) {
            // When another worker has changed the set meanwhile, a later hit tells it again.
            _ = host::set_shared_data(&name, &directory.encode(), cas);
        }
        Some(entry)
    }

    /// A second is over.
    pub(crate) fn tick(&self) {
        self.copies.borrow_mut().tick();
    }

    /// Keeps an entry, unless it is larger than a set or other workers are always faster. Says by
    /// how many the number of slots in use has changed.
    pub(crate) fn insert(&self, key: &Key, entry: &Entry, now: Seconds) -> i64 {
        self.try_insert(key, entry, now).unwrap_or_else(|error| {
            host::log(LogLevel::Warn, &format!("an answer is not cached: {error}"));
            0
        })
    }

    fn try_insert(&self, key: &Key, entry: &Entry, now: Seconds) -> host::Result<i64> {
        let set = self.geometry.set_of(key);
        let name = directory_name(set);
        self.copies.borrow_mut().remove(key);
        let slot = self.seal.seal(entry.encode(key));
        for _ in 0..ATTEMPTS {
            let Some((bytes, cas)) = host::shared_data(&name)? else {
                return Ok(0);
            };
            let mut directory = Directory::decode(&bytes);
            let before = directory.used();
            let Some(placement) = directory.place(key, slot.len(), entry.useful_until(), now)
            else {
                return Ok(0);
            };
            match host::set_shared_data(&name, &directory.encode(), cas) {
                Ok(()) => {
                    host::set_shared_data(&slot_name(set, placement.way), &slot, 0)?;
                    for way in placement.evicted {
                        host::set_shared_data(&slot_name(set, way), &[], 0)?;
                    }
                    // Both are at most a few.
                    return Ok(directory.used() as i64 - before as i64);
                }
                Err(error) if error.status == Status::CasMismatch => {}
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }
}

fn read(name: &str) -> Option<(Vec<u8>, u32)> {
    host::shared_data(name).ok().flatten()
}

fn directory_name(set: u64) -> String {
    format!("nixgate/{set}")
}

fn slot_name(set: u64, way: Way) -> String {
    format!("nixgate/{set}/{way}")
}
