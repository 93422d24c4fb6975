//! Which packages an image's entries and variables come from, told by the code that makes them: for people.
//!
//! Entries are told of down to [`DEPTH`]: `/bin/git` is what people look for, and deeper trees have a hundred
//! thousand entries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::root_tree::{RootDirectory, RootEntry, RootTree};
use crate::closure::StorePath;

/// Names in a path.
const DEPTH: usize = 2;

/// An entry of an image's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the root.
    pub(crate) path: PathBuf,
    pub(crate) is_directory: bool,
    /// In their canonical order, several for a directory; none if it is the image's own.
    pub(crate) packages: Vec<StorePath>,
}

/// Why an image has a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// What packages bring.
    pub(crate) what: String,
    /// None if it is not known which.
    pub(crate) packages: Vec<StorePath>,
}

/// Collects the packages of entries while these are made.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<PathBuf, Vec<StorePath>>);

impl Origins {
    pub(super) fn add<'a>(
        &mut self,
        path: &Path,
        packages: impl IntoIterator<Item = &'a StorePath>,
    ) {
        if path.components().count() > DEPTH {
            return;
        }
        let known = self.0.entry(path.to_owned()).or_default();
        for package in packages {
            if !known.contains(package) {
                known.push(package.clone());
            }
        }
    }

    /// The entries of a finished root, parents first. What no package has brought is the image's own.
    pub(super) fn entries(mut self, root: &RootTree) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut tell = |path: PathBuf, entry: &RootEntry| {
            entries.push(Entry {
                packages: self.0.remove(&path).unwrap_or_default(),
                is_directory: matches!(entry, RootEntry::Directory { .. }),
                path,
            });
        };
        for (name, entry) in &root.entries {
            let path = PathBuf::from(name);
            tell(path.clone(), entry);
            if let RootEntry::Directory(RootDirectory { entries, .. }) = entry {
                for (name, entry) in entries {
                    tell(path.join(name), entry);
                }
            }
        }
        entries
    }
}
