//! Each worker's own copies of the entries that it uses most, in front of the shared cache.
//!
//! ```text
//!   key ──► copy of this second? ──yes──► the entry
//!                 │ no
//!                 ▼
//!   shared cache ──► is it the copy's version, or sealed? ──► copy …
//! ```
//!
//! Reading a slot takes two host calls, a copy of the manifest, its SHA-256 for the seal, and hashing the
//! key: together more than Envoy needs for the rest of the request.
//!
//! The shared entry may be replaced meanwhile. So a copy is used until the next tick of the worker's
//! timer, a second at most, and then compared with the shared entry. This needs no clock: an entry that
//! could expire before the next tick is not copied.

use std::collections::BTreeMap;

use super::{Content, Entry, Key};
use crate::Seconds;

/// How often [`Copies::tick`] is to be called, in seconds.
pub const TICK: Seconds = 1;
/// A copy is made within a second and used until the next tick, which may be late.
const LONGEST_USE: Seconds = 1 + TICK + 1;

struct Copy {
    entry: Entry,
    /// The version of the shared entry.
    version: u32,
    bytes: usize,
    /// The tick at which it was last compared with the shared entry.
    compared: u64,
}

/// A worker's copies of entries.
pub struct Copies {
    copies: BTreeMap<Key, Copy>,
    max_bytes: usize,
    bytes: usize,
    ticks: u64,
    /// The tick of the last eviction.
    swept: Option<u64>,
}

impl Copies {
    /// No copies yet, and at most `max_bytes` of them.
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            copies: BTreeMap::new(),
            max_bytes,
            bytes: 0,
            ticks: 0,
            swept: None,
        }
    }

    /// The copy for a key, if it was compared with the shared entry since the last tick.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        let copy = self.copies.get(key)?;
        (copy.compared == self.ticks).then_some(&copy.entry)
    }

    /// The copy for a key if the shared entry still has this version, so that it need not be read. The copy
    /// is then valid until the next tick, unless the entry could expire before.
    pub fn compare(&mut self, key: &Key, version: u32, now: Seconds) -> Option<&Entry> {
        let copy = self.copies.get_mut(key)?;
        if copy.version != version {
            return None;
        }
        if copy.entry.outlives_copies(now) {
            copy.compared = self.ticks;
        }
        Some(&copy.entry)
    }

    /// Copies the shared entry of a key if it qualifies. Copies that were not used since the last tick are
    /// evicted to make room; without room nothing is copied.
    pub fn insert(&mut self, key: &Key, entry: &Entry, version: u32, now: Seconds) {
        self.remove(key);
        let Some(bytes) = entry.copied_bytes(now) else {
            return;
        };
        let bytes = bytes.saturating_add(key.as_bytes().len());
        // Copies that were used in this tick stay, so one eviction for each tick is enough.
        let is_full = self.bytes.saturating_add(bytes) > self.max_bytes;
        if is_full && self.swept != Some(self.ticks) {
            let ticks = self.ticks;
            self.copies.retain(|_, copy| copy.compared == ticks);
            self.bytes = self.copies.values().map(|copy| copy.bytes).sum();
            self.swept = Some(ticks);
        }
        let total = self.bytes.saturating_add(bytes);
        if total > self.max_bytes {
            return;
        }
        self.bytes = total;
        let copy = Copy {
            entry: entry.clone(),
            version,
            bytes,
            compared: self.ticks,
        };
        self.copies.insert(key.clone(), copy);
    }

    /// Removes the copy for a key.
    pub fn remove(&mut self, key: &Key) {
        if let Some(copy) = self.copies.remove(key) {
            self.bytes = self.bytes.saturating_sub(copy.bytes);
        }
    }

    /// Ends a second: every copy is compared before its next use.
    pub const fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
    }
}

impl Entry {
    /// The size of a copy in bytes; none if the entry is not copied: because it may expire before the copy,
    /// because it is a refusal, which is logged each time, or because the answer depends on the rest of the
    /// request.
    fn copied_bytes(&self, now: Seconds) -> Option<usize> {
        if !self.outlives_copies(now) {
            return None;
        }
        let content = match &self.content {
            Content::Document { body, .. } => body.len(),
            Content::Redirect { location } => location.len(),
            Content::Stream | Content::Refusal { .. } => return None,
        };
        Some(content.saturating_add(self.facts.len()))
    }

    const fn outlives_copies(&self, now: Seconds) -> bool {
        self.learnt <= now && self.expires > now.saturating_add(LONGEST_USE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Seconds = 1000;

    fn key(number: usize) -> Key {
        Key::catalog(&number.to_string())
    }

    /// An entry that lives long enough, and takes 100 bytes with its key.
    fn redirect(name: &str) -> Entry {
        let mut location = name.to_owned();
        location.extend(vec!['x'; 100 - key(0).as_bytes().len() - name.len()]);
        Entry {
            learnt: 0,
            expires: NOW + 100,
            content: Content::Redirect { location },
            facts: String::new(),
        }
    }

    #[test]
    fn a_copy_is_used_until_the_next_tick_and_compared_after_it() {
        let mut copies = Copies::new(1000);
        let (one, two) = (redirect("one"), redirect("two"));
        assert_eq!(copies.get(&key(0)), None);
        copies.insert(&key(0), &one, 7, NOW);
        assert_eq!(copies.get(&key(0)), Some(&one));
        copies.tick();
        assert_eq!(copies.get(&key(0)), None);
        assert_eq!(copies.compare(&key(0), 8, NOW), None);
        assert_eq!(copies.get(&key(0)), None, "it is of another version");
        assert_eq!(copies.compare(&key(0), 7, NOW), Some(&one));
        assert_eq!(copies.get(&key(0)), Some(&one));
        copies.tick();
        copies.insert(&key(0), &two, 8, NOW);
        assert_eq!(copies.get(&key(0)), Some(&two));
        copies.tick();
        let late = NOW + 100 - LONGEST_USE;
        assert_eq!(copies.compare(&key(0), 8, late), Some(&two));
        assert_eq!(copies.get(&key(0)), None, "it may be over before the tick");
        copies.remove(&key(0));
        assert_eq!(copies.compare(&key(0), 8, NOW), None);
        assert_eq!(copies.bytes, 0);
    }

    #[test]
    fn copies_keep_their_bound_and_the_unused_make_room() {
        let mut copies = Copies::new(300);
        let entry = redirect("r");
        for number in 0..4 {
            copies.insert(&key(number), &entry, 1, NOW);
        }
        assert_eq!(copies.get(&key(2)), Some(&entry));
        assert_eq!(copies.get(&key(3)), None, "three are all that fit");
        copies.tick();
        copies.insert(&key(1), &entry, 1, NOW);
        copies.insert(&key(4), &entry, 1, NOW);
        assert_eq!(copies.get(&key(1)), Some(&entry));
        assert_eq!(copies.get(&key(4)), Some(&entry));
        assert_eq!((copies.copies.len(), copies.bytes), (2, 200));
    }

    #[test]
    fn an_entry_is_copied_only_when_it_outlives_the_copy() {
        let entry = |expires, content| Entry {
            learnt: 0,
            expires,
            content,
            facts: String::new(),
        };
        let redirect = || Content::Redirect {
            location: "https://s3".to_owned(),
        };
        let now = 1000;
        assert_eq!(entry(now + LONGEST_USE, redirect()).copied_bytes(now), None);
        assert_eq!(
            entry(now + LONGEST_USE + 1, redirect()).copied_bytes(now),
            Some(10)
        );
        assert_eq!(entry(2000, Content::Stream).copied_bytes(now), None);
        // Learnt before the clock was set back.
        let learnt = Entry {
            learnt: now + 1,
            ..entry(2000, redirect())
        };
        assert_eq!(learnt.copied_bytes(now), None);
    }
}
