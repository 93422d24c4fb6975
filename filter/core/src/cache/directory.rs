//! The directory of one set: the entry in each way, and the eviction order.
//!
//! Expired entries are evicted first, then those whose insertion or last hit is the oldest, counted in
//! insertions into the set. A hit counts as much as [`CREDIT`] insertions: names that are requested once
//! don't evict those that are requested again and again, and an entry that is no longer requested goes in
//! the end.
//!
//! ```text
//!   insertions since the stamp   0 … 15 │ 16 …
//!   the first hit                writes │ writes
//!   a later hit                  reads  │ writes         the directory, with the stamp of now
//! ```
//!
//! Hits don't count as insertions. So a set that nothing is inserted into is soon only read.

use super::Key;
use crate::Seconds;

/// Ways of a set. The directory is read on every lookup, so it stays small: 16 × 24 bytes.
const WAYS: usize = 16;
/// Bytes of all slots of a set. A manifest of 94 layers has about 20 kB, so a set holds a dozen of them,
/// or 16 smaller entries.
const SET_BYTES: u32 = 256 << 10;
/// How many insertions a hit is worth. If half of the requests are for 100 manifests of 15 kB and half
/// for names that are requested once, 4 MiB give 99.9 % hits on the former, against 55 % in order of
/// insertion and 80 % in order of use.
const CREDIT: u64 = 32;
/// How many insertions a record's stamp may lag behind before a hit updates it: an update for every hit
/// would cost a write each.
const LAG: u64 = 16;

/// The number of sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    sets: u64,
}

impl Geometry {
    /// As many sets as fit into `max_bytes`, at least one.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            sets: max_bytes
                .checked_div(u64::from(SET_BYTES))
                .unwrap_or(0)
                .max(1),
        }
    }

    /// Every set's number.
    pub fn sets(self) -> impl Iterator<Item = u64> {
        0..self.sets
    }

    /// The set in which a key is kept.
    pub fn set_of(self, key: &Key) -> u64 {
        key.hash().0.checked_rem(self.sets).unwrap_or(0)
    }
}

/// The number of a slot within its set.
pub type Way = usize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    fingerprint: u64,
    /// Bytes of the slot; zero when the way is free.
    length: u32,
    expires: u32,
    /// The set's clock, which counts insertions, at the insertion or at a later hit.
    stamp: u64,
    /// Whether there was a hit.
    demanded: bool,
}

impl Record {
    /// The lowest is evicted first.
    fn rank(&self) -> u64 {
        let credit = if self.demanded { CREDIT } else { 0 };
        self.stamp.saturating_add(credit)
    }
}

/// The place of a new entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its way.
    pub way: Way,
    /// The ways that were evicted, whose slots are to be emptied.
    pub evicted: Vec<Way>,
}

/// The directory of one set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory([Record; WAYS]);

impl Directory {
    /// Decodes a directory; malformed bytes are an empty one.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut directory = Self::default();
        let (records, _) = bytes.as_chunks::<24>();
        for (record, bytes) in directory.0.iter_mut().zip(records) {
            let (words, _) = bytes.as_chunks();
            let [fingerprint, sizes, stamp] = *words else {
                continue;
            };
            let (sizes, stamp) = (u64::from_be_bytes(sizes), u64::from_be_bytes(stamp));
            *record = Record {
                fingerprint: u64::from_be_bytes(fingerprint),
                length: (sizes >> 32) as u32,
                expires: sizes as u32,
                stamp: stamp >> 1,
                demanded: stamp & 1 == 1,
            };
        }
        directory
    }

    /// The directory's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(WAYS.saturating_mul(24));
        for record in &self.0 {
            bytes.extend_from_slice(&record.fingerprint.to_be_bytes());
            bytes.extend_from_slice(&record.length.to_be_bytes());
            bytes.extend_from_slice(&record.expires.to_be_bytes());
            let stamp = record.stamp << 1 | u64::from(record.demanded);
            bytes.extend_from_slice(&stamp.to_be_bytes());
        }
        bytes
    }

    /// The way that may hold `key`; the key in the slot decides.
    pub fn find(&self, key: &Key) -> Option<Way> {
        let (_, fingerprint) = key.hash();
        self.0
            .iter()
            .position(|record| record.length > 0 && record.fingerprint == fingerprint)
    }

    /// Records a hit. Returns whether the directory changed and should be written back; if that fails,
    /// only the record of the hit is lost.
    pub fn touch(&mut self, way: Way) -> bool {
        let clock = self.clock();
        match self.0.get_mut(way) {
            Some(record)
                if record.length > 0
                    && (!record.demanded || clock.saturating_sub(record.stamp) >= LAG) =>
            {
                record.stamp = clock;
                record.demanded = true;
                true
            }
            _ => false,
        }
    }

    /// The highest stamp.
    fn clock(&self) -> u64 {
        let stamps = self.0.iter().map(|record| record.stamp);
        stamps.max().unwrap_or(0)
    }

    /// Makes room for a slot of `length` bytes: in the key's own way, else in a free one, else in the first
    /// to evict; then evicts more until the set is within its limit. None if the slot alone is over it.
    pub fn place(
        &mut self,
        key: &Key,
        length: usize,
        expires: Seconds,
        now: Seconds,
    ) -> Option<Placement> {
        let length = u32::try_from(length)
            .ok()
            .filter(|length| (1..=SET_BYTES).contains(length))?;
        let (_, fingerprint) = key.hash();
        let stamp = self.clock().saturating_add(1);
        let own = self.find(key);
        let way = own
            .or_else(|| self.0.iter().position(|record| record.length == 0))
            .or_else(|| self.first_to_evict(None, now))?;
        let expires = u32::try_from(expires).unwrap_or(u32::MAX);
        *self.0.get_mut(way)? = Record {
            fingerprint,
            length,
            expires,
            stamp,
            // An entry that is replaced was requested again.
            demanded: own.is_some(),
        };

        let mut evicted = Vec::new();
        while self.bytes() > u64::from(SET_BYTES) {
            let victim = self.first_to_evict(Some(way), now)?;
            *self.0.get_mut(victim)? = Record::default();
            evicted.push(victim);
        }
        Some(Placement { way, evicted })
    }

    /// The number of ways in use.
    pub fn used(&self) -> usize {
        self.0.iter().filter(|record| record.length > 0).count()
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|record| u64::from(record.length)).sum()
    }

    fn first_to_evict(&self, keep: Option<Way>, now: Seconds) -> Option<Way> {
        self.0
            .iter()
            .enumerate()
            .filter(|&(way, record)| record.length > 0 && Some(way) != keep)
            .min_by_key(|(_, record)| (u64::from(record.expires) > now, record.rank()))
            .map(|(way, _)| way)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PackageSet;
    use crate::distribution::Repository;

    fn key(number: usize) -> Key {
        let name = Repository::parse(&format!("p{number}")).unwrap();
        Key::tags("builder", &PackageSet::of(&name).unwrap().into())
    }

    #[test]
    fn a_key_is_found_where_it_was_placed() {
        let mut directory = Directory::default();
        assert_eq!((directory.find(&key(1)), directory.used()), (None, 0));
        let placement = directory.place(&key(1), 100, 50, 0).unwrap();
        assert_eq!(directory.find(&key(1)), Some(placement.way));
        assert_eq!(
            directory.place(&key(1), 200, 60, 0).unwrap().way,
            placement.way
        );
        assert_eq!(directory.used(), 1);
        assert_eq!(Directory::decode(&directory.encode()), directory);
    }

    #[test]
    fn what_has_expired_goes_before_what_is_old() {
        let mut directory = Directory::default();
        for number in 0..WAYS {
            let expires = if number == 5 { 10 } else { 1000 };
            directory.place(&key(number), 100, expires, 0).unwrap();
        }
        let gone = directory.find(&key(5)).unwrap();
        assert_eq!(directory.place(&key(100), 100, 1000, 20).unwrap().way, gone);
        let oldest = directory.find(&key(0)).unwrap();
        assert_eq!(
            directory.place(&key(101), 100, 1000, 20).unwrap().way,
            oldest
        );
    }

    fn newcomers(directory: &mut Directory, numbers: std::ops::Range<usize>) {
        for number in numbers {
            directory.place(&key(number), 100, 1000, 0).unwrap();
        }
    }

    #[test]
    fn what_is_in_demand_stays_however_many_come_once() {
        let mut directory = Directory::default();
        newcomers(&mut directory, 0..12);
        for round in 0..20 {
            for demanded in 0..12 {
                let way = directory.find(&key(demanded)).expect("it is in demand");
                directory.touch(way);
            }
            let first = 100 + 100 * round;
            newcomers(&mut directory, first..first + 20);
        }
    }

    #[test]
    fn what_was_in_demand_goes_in_the_end() {
        let mut directory = Directory::default();
        newcomers(&mut directory, 0..WAYS);
        for way in 0..WAYS {
            directory.touch(way);
        }
        newcomers(&mut directory, 100..100 + CREDIT as usize);
        assert!(directory.find(&key(1)).is_some());
        newcomers(&mut directory, 200..200 + WAYS);
        assert_eq!(directory.find(&key(1)), None);
    }

    #[test]
    fn hits_alone_soon_change_nothing() {
        let mut directory = Directory::default();
        newcomers(&mut directory, 0..WAYS);
        let mut writes = |rounds: usize| {
            let hits = (0..rounds).flat_map(|_| 0..WAYS);
            hits.filter(|&way| directory.touch(way)).count()
        };
        assert_eq!(writes(1), WAYS);
        assert_eq!(writes(10), 0);
    }

    #[test]
    fn a_free_way_is_not_in_demand() {
        let mut directory = Directory::default();
        for number in 0..8 {
            directory.place(&key(number), 100, 1000, 0).unwrap();
        }
        assert!(!directory.touch(WAYS - 1) && !directory.touch(WAYS));
    }

    #[test]
    fn an_entry_over_the_bound_is_not_kept() {
        let mut directory = Directory::default();
        assert_eq!(
            directory.place(&key(1), SET_BYTES as usize + 1, 50, 0),
            None
        );
        assert_eq!(directory, Directory::default());
    }

    proptest! {
        #[test]
        fn a_set_never_outgrows_its_bytes(
            lengths in prop::collection::vec(1_usize..SET_BYTES as usize, 1..100),
        ) {
            let mut directory = Directory::default();
            for (number, &length) in lengths.iter().enumerate() {
                let placement = directory.place(&key(number), length, 1000, 0).unwrap();
                prop_assert!(directory.bytes() <= u64::from(SET_BYTES));
                prop_assert_eq!(directory.find(&key(number)), Some(placement.way));
                prop_assert!(!placement.evicted.contains(&placement.way));
            }
        }

        #[test]
        fn garbage_is_a_directory_that_can_be_used(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut directory = Directory::decode(&bytes);
            if let Some(placement) = directory.place(&key(1), 100, 10, 0) {
                prop_assert_eq!(directory.find(&key(1)), Some(placement.way));
            }
            prop_assert!(directory.bytes() <= u64::from(SET_BYTES));
        }
    }
}
