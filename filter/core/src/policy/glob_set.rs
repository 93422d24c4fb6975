//! Many globs at once: which of them match a text?
//!
//! A policy may hold thousands of patterns, nearly all of them plain names or with a literal
//! beginning or end. Each is filed under what a text must be, begin with or end with, so that a
//! text is compared with the few that can match it:
//!
//! ```text
//!   exact      "git" ────────► [3, 17]
//!   prefixed   "python3" ────► [(python3*, 4)]
//!   suffixed   "-unwrapped" ─► [(*-unwrapped, 9)]
//!   rest                       [(*ssl*, 2)]
//! ```
//!
//! Literals are filed by a hash that grows byte by byte, so one walk along a text has the hashes of
//! all that it begins with, and one back those of all that it ends with. Hashes may collide: what is
//! found under one is compared as a whole.
//!
//! What is left, and whatever else is found, is compared only if the text has all pairs of letters
//! that the glob has, by a set of 64 bits for each ([`Pairs`]): of a thousand patterns such as
//! `*ssl*`, a few dozen are then looked at.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::glob::Glob;

/// Globs, each with the number of what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GlobSet {
    exact: Filed,
    prefixed: Filed,
    suffixed: Filed,
    rest: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    pairs: Pairs,
    glob: Glob,
    id: usize,
}

/// Globs by the hash of a literal part.
type Filed = HashMap<u64, Vec<Item>, BuildHasherDefault<Hashed>>;

impl GlobSet {
    /// A set without globs.
    pub(super) fn new() -> Self {
        Self {
            exact: Filed::default(),
            prefixed: Filed::default(),
            suffixed: Filed::default(),
            rest: Vec::new(),
        }
    }

    /// Adds a glob that stands for `id`.
    pub(super) fn insert(&mut self, glob: Glob, id: usize) {
        let [forwards, backwards] = [
            Hash::of(glob.prefix().bytes()),
            Hash::of(glob.suffix().bytes().rev()),
        ];
        let place = if glob.is_literal() {
            self.exact.entry(forwards.0).or_default()
        } else if !glob.prefix().is_empty() {
            self.prefixed.entry(forwards.0).or_default()
        } else if !glob.suffix().is_empty() {
            self.suffixed.entry(backwards.0).or_default()
        } else {
            &mut self.rest
        };
        place.push(Item {
            pairs: Pairs::of_literals(glob.text()),
            glob,
            id,
        });
    }

    /// Tells `hit` what every matching glob stands for, the same number more than once when
    /// several of its globs match.
    pub(super) fn each_match(&self, text: &str, mut hit: impl FnMut(usize)) {
        let pairs = Pairs::of(text);
        let mut look_at = |items: &[Item]| {
            for item in items {
                if pairs.have(item.pairs) && item.glob.matches(text) {
                    hit(item.id);
                }
            }
        };
        let mut hash = Hash::EMPTY;
        for byte in text.bytes() {
            hash = hash.with(byte);
            if let Some(items) = self.prefixed.get(&hash.0) {
                look_at(items);
            }
        }
        if let Some(items) = self.exact.get(&hash.0) {
            look_at(items);
        }
        hash = Hash::EMPTY;
        for byte in text.bytes().rev() {
            hash = hash.with(byte);
            if let Some(items) = self.suffixed.get(&hash.0) {
                look_at(items);
            }
        }
        look_at(&self.rest);
    }
}

/// A hash that grows byte by byte (FNV-1a, 64 bits).
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    const fn with(self, byte: u8) -> Self {
        // A byte always fits.
        Self((self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3))
    }

    fn of(bytes: impl Iterator<Item = u8>) -> Self {
        bytes.fold(Self::EMPTY, Self::with)
    }
}

/// For keys that are hashes themselves.
#[derive(Clone, Copy, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(Hash(self.0), |hash, &byte| hash.with(byte))
            .0;
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Which pairs of neighbouring bytes a text has, roughly: several pairs share a bit, so that all of
/// a glob's may seem to be there when they are not, and never the reverse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pairs(u64);

impl Pairs {
    fn of(text: &str) -> Self {
        text.bytes().zip(text.bytes().skip(1)).collect()
    }

    /// Those of a glob that every match has.
    fn of_literals(glob: &str) -> Self {
        let pairs = glob.bytes().zip(glob.bytes().skip(1));
        let is_wild = |byte| matches!(byte, b'*' | b'?');
        pairs
            .filter(|&(one, other)| !is_wild(one) && !is_wild(other))
            .collect()
    }

    const fn have(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }
}

impl FromIterator<(u8, u8)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (u8, u8)>>(pairs: I) -> Self {
        Self(pairs.into_iter().fold(0, |bits, (one, other)| {
            // The upper six bits of a product tell pairs apart the best (Fibonacci hashing).
            let pair = u32::from(u16::from_be_bytes([one, other]));
            let bit = pair.wrapping_mul(0x9e37_79b9) >> 26;
            bits | 1_u64.wrapping_shl(bit)
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::glob::Reach;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn a_set_finds_what_its_globs_match_one_by_one(
            patterns in prop::collection::vec("[ab.*?]{1,6}", 0..12),
            text in "[ab.é]{0,8}",
        ) {
            let globs: Vec<_> = patterns
                .iter()
                .flat_map(|pattern| Glob::parse(pattern, Reach::OneAttribute).unwrap())
                .collect();
            let mut set = GlobSet::new();
            let mut expected = BTreeSet::new();
            for (id, glob) in globs.into_iter().enumerate() {
                if glob.matches(&text) {
                    expected.insert(id);
                }
                set.insert(glob, id);
            }
            let mut found = BTreeSet::new();
            set.each_match(&text, |id| { found.insert(id); });
            prop_assert_eq!(found, expected);
        }
    }
}
