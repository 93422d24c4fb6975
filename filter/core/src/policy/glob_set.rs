//! Finds which of many globs match a text.
//!
//! A policy may have thousands of patterns, nearly all of them plain names or with a literal
//! beginning, end or middle. Each is filed under the literal that a text must be, begin with, end with
//! or contain, so a text is compared only with the few that can match it:
//!
//! ```text
//!   exact      "git" ────────► [3, 17]
//!   prefixed   "python3" ────► [(python3*, 4)]
//!   suffixed   "-unwrapped" ─► [(*-unwrapped, 9)]
//!   tripled    "ssl" ────────► [(*openssl*, 2)]       three neighbouring letters of its own
//!   paired     "ss" ─────────► [(*ss*, 3)]            two, where there are no three
//!   rest                       [(*, 5), (?x, 6)]
//! ```
//!
//! Literals are filed by a hash that grows byte by byte, so one walk along a text gives the hashes of
//! all its beginnings, and one walk back those of all its ends. Hashes may collide, so every glob that
//! is found is compared as a whole.

// Nothing iterates over the maps, so their random order has no effect. A name takes dozens of
// look-ups, which are slower in a `BTreeMap`.
#![allow(clippy::disallowed_types)]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::glob::Glob;

/// Globs, each with the index of its rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GlobSet {
    exact: Filed,
    prefixed: Filed,
    suffixed: Filed,
    tripled: Filed,
    paired: Filed,
    rest: Vec<(Glob, usize)>,
}

/// Globs by the hash of a literal part.
type Filed = HashMap<u64, Vec<(Glob, usize)>, BuildHasherDefault<Hashed>>;

impl GlobSet {
    pub(super) fn insert(&mut self, glob: Glob, rule: usize) {
        let forwards = Hash::of(glob.prefix().bytes());
        let backwards = Hash::of(glob.suffix().bytes().rev());
        let place = if glob.is_literal() {
            self.exact.entry(forwards.0).or_default()
        } else if !glob.prefix().is_empty() {
            self.prefixed.entry(forwards.0).or_default()
        } else if !glob.suffix().is_empty() {
            self.suffixed.entry(backwards.0).or_default()
        } else if let Some(triple) = rarest::<3>(&self.tripled, &glob) {
            self.tripled.entry(triple).or_default()
        } else if let Some(pair) = rarest::<2>(&self.paired, &glob) {
            self.paired.entry(pair).or_default()
        } else {
            &mut self.rest
        };
        place.push((glob, rule));
    }

    /// Calls `hit` with the rule of every glob that matches: several times when several globs of a
    /// rule do. Inlined, it saves a third of the time of a verdict.
    #[inline]
    pub(super) fn each_match(&self, text: &str, mut hit: impl FnMut(usize)) {
        let mut look_at = |items: &[(Glob, usize)]| {
            for (glob, rule) in items {
                if glob.matches(text) {
                    hit(*rule);
                }
            }
        };
        let mut look_under = |filed: &Filed, hash: u64| {
            if let Some(items) = filed.get(&hash) {
                look_at(items);
            }
        };
        let mut hash = Hash::EMPTY;
        for byte in text.bytes() {
            hash = hash.with(byte);
            look_under(&self.prefixed, hash.0);
        }
        look_under(&self.exact, hash.0);
        hash = Hash::EMPTY;
        for byte in text.bytes().rev() {
            hash = hash.with(byte);
            look_under(&self.suffixed, hash.0);
        }
        for triple in neighbours::<3>(text) {
            look_under(&self.tripled, Hash::of(triple).0);
        }
        for pair in neighbours::<2>(text) {
            look_under(&self.paired, Hash::of(pair).0);
        }
        look_at(&self.rest);
    }
}

/// The hash of the `N` neighbouring bytes of a glob's literals under which the fewest globs are filed.
fn rarest<const N: usize>(filed: &Filed, glob: &Glob) -> Option<u64> {
    neighbours::<N>(glob.text())
        .filter(|bytes| !bytes.iter().any(|byte| matches!(byte, b'*' | b'?')))
        .map(|bytes| Hash::of(bytes).0)
        .min_by_key(|hash| filed.get(hash).map_or(0, Vec::len))
}

fn neighbours<const N: usize>(text: &str) -> impl Iterator<Item = [u8; N]> {
    let windows = text.as_bytes().windows(N);
    windows.filter_map(|window| window.try_into().ok())
}

/// A hash that grows byte by byte (FNV-1a, 64 bits).
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    const fn with(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3))
    }

    fn of(bytes: impl IntoIterator<Item = u8>) -> Self {
        bytes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// A hasher for keys that are hashes already.
#[derive(Clone, Copy, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        let hash = bytes.iter().copied();
        self.0 = hash.fold(Hash(self.0), Hash::with).0;
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
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
            let mut set = GlobSet::default();
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
