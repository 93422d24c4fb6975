//! Which images are admitted to the queue, fairly between the rules of the policy.
//!
//! The edge names the rule that let a caller in, which usually stands for a team. An image that several
//! rules want counts for the one that asked first.
//!
//! While the queue has places, any rule takes them. Once it is full, a rule with fewer images than its
//! share (the bound divided by the number of rules in the queue, but at least one) is still admitted,
//! above the bound. With a bound of 6:
//!
//! ```text
//!   A alone      A A A A A A             all places
//!   B comes      A A A A A A │ B B B     6 / 2 above the bound
//!   C comes      A A A A A A │ B B B │ C C                 6 / 3
//! ```
//!
//! So the rule with the most images has at most the bound, the second at most half of it, the third a
//! third, and each at least one: `n` rules have at most `bound × (1 + 1/2 + … + 1/n)` images.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The rule of the policy that let the caller in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule(Option<Arc<str>>);

impl Rule {
    /// No rule: there is no policy, it allows by default, or the caller is not the edge. It counts as a
    /// rule of its own.
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn named(name: &str) -> Self {
        Self(Some(name.into()))
    }

    /// Whether a queue with images of these rules, bounded to `bound`, admits another one of this rule.
    pub(super) fn is_taken_in<'a>(
        &'a self,
        queue: impl IntoIterator<Item = &'a Self>,
        bound: usize,
    ) -> bool {
        let mut held = BTreeMap::from([(self, 0)]);
        for rule in queue {
            *held.entry(rule).or_insert(0) += 1;
        }
        let share = (bound / held.len()).max(1);
        held.values().sum::<usize>() < bound || held.get(self).is_none_or(|&own| own < share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The comers that are admitted, one after the other.
    fn taken_in(comers: &str, bound: usize) -> String {
        let mut queue: Vec<Rule> = Vec::new();
        let comers = comers.split_terminator("").skip(1);
        let taken = comers.filter(|name| {
            let rule = Rule::named(name);
            let is_taken = rule.is_taken_in(&queue, bound);
            queue.extend(is_taken.then_some(rule));
            is_taken
        });
        taken.collect()
    }

    #[test]
    fn a_full_queue_admits_rules_below_their_share() {
        for (comers, bound, expected) in [
            ("aaaaaaa", 6, "aaaaaa"),
            ("aaaaaaabbbbccc", 6, "aaaaaabbbcc"),
            ("aaabbbbacc", 6, "aaabbbcc"),
            // Each rule gets at least one place.
            ("abcdabcd", 2, "abcd"),
            ("aab", 1, "ab"),
        ] {
            assert_eq!(taken_in(comers, bound), expected, "{comers} into {bound}");
        }
        assert!(!Rule::NONE.is_taken_in(&[Rule::NONE], 1));
        assert!(Rule::NONE.is_taken_in(&[Rule::named("a")], 1));
    }

    proptest! {
        #[test]
        fn the_queue_stays_within_its_bounds_in_any_order(
            bound in 1_usize..12,
            steps in prop::collection::vec((0_usize..8, any::<bool>()), 0..200),
        ) {
            let mut queue: Vec<Rule> = Vec::new();
            for (number, comes) in steps {
                if comes || queue.is_empty() {
                    let rule = Rule::named(&number.to_string());
                    let own = queue.iter().filter(|other| **other == rule).count();
                    let is_taken = rule.is_taken_in(&queue, bound);
                    prop_assert!(is_taken || (own > 0 && queue.len() >= bound));
                    queue.extend(is_taken.then_some(rule));
                } else {
                    queue.remove(number % queue.len());
                }
                let mut held: BTreeMap<&Rule, usize> = BTreeMap::new();
                for rule in &queue {
                    *held.entry(rule).or_default() += 1;
                }
                let mut held: Vec<usize> = held.into_values().collect();
                held.sort_unstable_by(|one, other| other.cmp(one));
                for (index, held) in held.into_iter().enumerate() {
                    prop_assert!(held <= (bound / (index + 1)).max(1), "{queue:?}");
                }
            }
        }
    }
}
