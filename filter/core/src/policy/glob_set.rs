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

use std::collections::{BTreeMap, BTreeSet};

use super::glob::Glob;

/// Globs, each with the number of what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GlobSet {
    exact: BTreeMap<Box<str>, Vec<usize>>,
    prefixed: Filed,
    suffixed: Filed,
    rest: Vec<(Glob, usize)>,
}

impl GlobSet {
    /// A set without globs.
    pub(super) const fn new() -> Self {
        Self {
            exact: BTreeMap::new(),
            prefixed: Filed::new(),
            suffixed: Filed::new(),
            rest: Vec::new(),
        }
    }

    /// Adds a glob that stands for `id`.
    pub(super) fn insert(&mut self, glob: Glob, id: usize) {
        if glob.is_literal() {
            let key = glob.prefix().into();
            self.exact.entry(key).or_default().push(id);
        } else if !glob.prefix().is_empty() {
            let key = glob.prefix().into();
            self.prefixed.insert(key, glob, id);
        } else if !glob.suffix().is_empty() {
            let key = glob.suffix().into();
            self.suffixed.insert(key, glob, id);
        } else {
            self.rest.push((glob, id));
        }
    }

    /// Tells `hit` what every matching glob stands for, the same number more than once when
    /// several of its globs match.
    pub(super) fn each_match(&self, text: &str, mut hit: impl FnMut(usize)) {
        for &id in self.exact.get(text).into_iter().flatten() {
            hit(id);
        }
        let prefixes = self.prefixed.lengths.iter().map(|&end| text.get(..end));
        let prefixed = prefixes.flat_map(|key| self.prefixed.under(key));
        let suffixes = self.suffixed.lengths.iter().map(|&length| {
            let start = text.len().checked_sub(length)?;
            text.get(start..)
        });
        let suffixed = suffixes.flat_map(|key| self.suffixed.under(key));
        for (glob, id) in prefixed.chain(suffixed).chain(&self.rest) {
            if glob.matches(text) {
                hit(*id);
            }
        }
    }
}

/// Globs by a literal part, and which lengths such parts have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filed {
    lengths: BTreeSet<usize>,
    globs: BTreeMap<Box<str>, Vec<(Glob, usize)>>,
}

impl Filed {
    const fn new() -> Self {
        Self {
            lengths: BTreeSet::new(),
            globs: BTreeMap::new(),
        }
    }

    fn insert(&mut self, key: Box<str>, glob: Glob, id: usize) {
        self.lengths.insert(key.len());
        self.globs.entry(key).or_default().push((glob, id));
    }

    fn under(&self, key: Option<&str>) -> impl Iterator<Item = &(Glob, usize)> {
        key.and_then(|key| self.globs.get(key))
            .into_iter()
            .flatten()
    }
}

#[cfg(test)]
mod tests {
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
