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
//! Shared data grows to the configured bytes and stays there: nothing in it can be deleted, only
//! emptied. It is shared by every plugin with the same `vm_id`.

use nixgate_core::Seconds;
use nixgate_core::cache::{Directory, Entry, Geometry, Key, Seal, Way};
use proxy_wasm::types::LogLevel;

use crate::host::{self, Status};

/// How often an insertion is tried while other workers change the same set. Giving up costs the
/// next client one callout.
const ATTEMPTS: usize = 4;

/// The cache that all workers share.
pub(crate) struct SharedCache {
    geometry: Geometry,
    seal: Seal,
}

impl SharedCache {
    /// Creates the directories that don't exist yet. Says how many slots the others use.
    ///
    /// # Errors
    /// When the host has no shared data for the filter.
    pub(crate) fn create(geometry: Geometry, seal: Seal) -> host::Result<(Self, usize)> {
        let mut used = 0_usize;
        for set in geometry.sets() {
            let name = directory_name(set);
            match host::shared_data(&name)? {
                Some((bytes, _)) => used = used.saturating_add(Directory::decode(&bytes).used()),
                None => host::set_shared_data(&name, &Directory::default().encode(), 0)?,
            }
        }
        Ok((Self { geometry, seal }, used))
    }

    /// What is kept for a key, expired or not, and a number that changes with it. A cache that
    /// can't be read is one that misses. The seal is looked at unless the caller has had what
    /// bears this number before.
    pub(crate) fn get(&self, key: &Key, known: impl FnOnce(u32) -> bool) -> Option<(Entry, u32)> {
        let set = self.geometry.set_of(key);
        let name = directory_name(set);
        let (bytes, cas) = read(&name)?;
        let mut directory = Directory::decode(&bytes);
        let way = directory.find(key)?;
        let (sealed, version) = read(&slot_name(set, way))?;
        let slot = if known(version) {
            Seal::opened_before(&sealed)
        } else {
            self.seal.open(&sealed)
        };
        let entry = Entry::decode(slot?, key)?;
        if directory.touch(way) {
            // When another worker has changed the set meanwhile, a later hit tells it again.
            _ = host::set_shared_data(&name, &directory.encode(), cas);
        }
        Some((entry, version))
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
