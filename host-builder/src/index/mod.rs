//! What a package set has, known before anybody asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use nixgate_core::package_set::System;

use crate::closure::StorePath;

/// The packages of one package set, for one system.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The outputs of packages with the names in lower case by which clients can ask for them.
    outputs: Vec<(StorePath, String)>,
}

impl Index {
    /// All names of the packages with one of these outputs.
    pub(crate) fn names_of(&self, outputs: &[StorePath]) -> BTreeSet<String> {
        let same = self.outputs.iter();
        let same = same.filter(|(output, _)| outputs.contains(output));
        same.map(|(_, name)| name.clone()).collect()
    }
}

/// The indexes of the package sets in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indexes {}

impl Indexes {
    /// The index of the package set with this revision, if it is complete.
    pub(crate) async fn of(&self, _revision: &str, _system: System) -> Option<Arc<Index>> {
        None
    }
}

#[cfg(test)]
impl Index {
    /// An index of names with their outputs.
    pub(crate) fn example(names: &[(&str, StorePath)]) -> Self {
        let outputs = names.iter();
        Self {
            outputs: outputs
                .map(|(name, output)| (output.clone(), (*name).to_owned()))
                .collect(),
        }
    }
}
