//! For whom an image is built, and how many places of the queue are theirs.
//!
//! The edge says by which rule of its policy a caller came in: most often a team. Between these
//! rules the queue is fair, whoever is behind them. An image that several rules want is the affair
//! of the one that asked first.
//!
//! While the queue has places, anyone takes them. Once all are taken, a rule that has fewer than its
//! share of them (as many as everybody's when all rules in the queue have equally many) is still
//! taken in, above the bound, and never turned away without having one. With a bound of 6:
//!
//! ```text
//!   A alone      A A A A A A             all places
//!   B comes      A A A A A A │ B B B     6 / 2 above the bound
//!   C comes      A A A A A A │ B B B │ C C                 6 / 3
//! ```
//!
//! So the rule with the most images in the queue has at most as many as the bound, the second at
//! most half of that, the third a third, and each at least one: of `n` rules, the images are at most
//! `bound × (1 + 1/2 + … + 1/n)`, and no more than the bound when there is one rule.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The policy's rule that let the caller in who wants an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule(Option<Arc<str>>);

impl Rule {
    /// No rule had to: there is no policy, or it allows what no rule speaks of. Whatever is built
    /// without the edge is of this one too. It is a rule among the others.
    pub(crate) const NONE: Self = Self(None);

    /// The rule of this name.
    pub(crate) fn named(name: &str) -> Self {
        Self(Some(name.into()))
    }

    /// Whether one more image of this rule is taken into a queue that is bounded to `bound` images,
    /// of which there are these by now.
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

    /// Who is taken in of those who come, one after the other.
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
    fn a_full_queue_has_places_for_those_who_have_less_than_their_share() {
        for (comers, bound, expected) in [
            ("aaaaaaa", 6, "aaaaaa"),
            ("aaaaaaabbbbccc", 6, "aaaaaabbbcc"),
            ("aaabbbbacc", 6, "aaabbbcc"),
            // Nobody is told to come back before they have one.
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
        fn however_they_come_and_go_the_queue_stays_within_what_is_said(
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
