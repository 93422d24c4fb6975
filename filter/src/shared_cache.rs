//! The cache of `nixgate_core::cache` in Envoy's shared data, which all workers share.
//!
//! ```text
//!   "nixgate/<set>"           the set's directory, changed by compare-and-swap
//!   "nixgate/<set>/<way>"     a slot
//! ```
//!
//! A first insertion into shared data is not atomic: when two VMs set a new key, the last one wins despite
//! compare-and-swap. So every directory is created, empty, before the first request. Then the
//! compare-and-swap on the directory decides who gets a way, and the slot is written without one. A reader
//! in between, or one that finds the slot of a slower writer, sees another key, which is a miss until the
//! next insertion.
//!
//! In front of it are the worker's own copies, which need no host call.
//!
//! Shared data grows to the configured size and stays there: values can be emptied but not deleted. Every
//! plugin with the same `vm_id` shares it.

use std::cell::RefCell;

use nixgate_core::Seconds;
use nixgate_core::cache::{Copies, Directory, Entry, Geometry, Key, Seal, Way};
use proxy_wasm::types::LogLevel;

use crate::host::{self, Status};

/// How often an insertion is tried while other workers change the same set. Giving up costs one callout.
const ATTEMPTS: usize = 4;

pub(crate) struct SharedCache {
    geometry: Geometry,
    seal: Seal,
    /// Never borrowed across a host call.
    copies: RefCell<Copies>,
}

/// The entry of a key, which may have expired.
pub(crate) struct Found {
    pub(crate) entry: Entry,
    /// Whether the worker has a valid copy.
    is_copied: bool,
}

impl Found {
    /// The entry, if the worker has a valid copy.
    pub(crate) fn copied(&self) -> Option<&Entry> {
        self.is_copied.then_some(&self.entry)
    }
}

impl SharedCache {
    /// Creates missing directories, and returns the number of slots in use. The worker's copies take at most
    /// `copied_bytes`.
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

    /// The entry of a key. Errors are misses. The seal is checked once for each version.
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

    /// Reads and copies the shared entry.
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
            // If another worker has changed the set meanwhile, a later hit records it.
            _ = host::set_shared_data(&name, &directory.encode(), cas);
        }
        Some(entry)
    }

    /// Ends a second.
    pub(crate) fn tick(&self) {
        self.copies.borrow_mut().tick();
    }

    /// Inserts an entry, unless it is larger than a set or other workers are faster. Returns the change in
    /// the number of used slots.
    pub(crate) fn insert(&self, key: &Key, entry: &Entry, now: Seconds) -> i64 {
        self.try_insert(key, entry, now).unwrap_or_else(|error| {
            host::log(LogLevel::Warn, &format!("cannot cache an answer: {error}"));
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
            let Some(placement) = directory.place(key, slot.len(), entry.usable_until(), now)
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
