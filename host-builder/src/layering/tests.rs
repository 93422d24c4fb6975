//! What holds for every grouping.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::Group;
use crate::closure::{Closure, StorePath};

/// Each path is in one group, there are not too many, and all is in order.
pub(super) fn check_groups(
    closure: &Closure,
    layers: usize,
    planned: &[Group],
) -> Result<(), TestCaseError> {
    prop_assert!(planned.len() <= layers);
    prop_assert!(planned.is_sorted_by(|a, b| a.rating >= b.rating));
    let placed: Vec<&StorePath> = planned.iter().flat_map(|group| &group.paths).collect();
    let distinct: BTreeSet<&StorePath> = placed.iter().copied().collect();
    prop_assert_eq!(placed.len(), distinct.len());
    prop_assert_eq!(distinct, closure.paths().keys().collect());
    for group in planned {
        prop_assert!(group.paths.is_sorted());
    }
    Ok(())
}
