//! JSON of trees in records, for serde's `with`.
//!
//! File names are bytes, and JSON has text: each byte is written as the character with its number. So ASCII
//! names are readable, and no name is lost.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::closure::StorePath;
use crate::layer::{Reach, Tree};

/// With short keys: a large package has a hundred thousand of these.
#[derive(Serialize, Deserialize)]
enum Stored {
    #[serde(rename = "d")]
    Directory(BTreeMap<String, Stored>),
    /// With its size.
    #[serde(rename = "f")]
    File(u64),
    /// With its size.
    #[serde(rename = "x")]
    Executable(u64),
    /// With its target.
    #[serde(rename = "l")]
    Symlink(String),
}

/// A name that no tree can have.
#[derive(Debug)]
struct Damaged;

pub(super) fn serialize<S: Serializer>(trees: &[Tree], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(trees.iter().map(Stored::from))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Tree>, D::Error> {
    let stored = Vec::<Stored>::deserialize(deserializer)?;
    let trees = stored.into_iter().map(Tree::try_from);
    trees
        .collect::<Result<_, _>>()
        .map_err(|_| D::Error::custom("a file name is damaged"))
}

/// The same of [`Reach`].
pub(super) mod reach {
    use super::*;

    type Trees = Vec<(StorePath, Stored)>;

    #[derive(Default, Serialize, Deserialize)]
    struct StoredReach {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        linked: Trees,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        modules: Trees,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        utf8: bool,
    }

    pub(in crate::records) fn serialize<S: Serializer>(
        reach: &Reach,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let stored = |trees: &[(StorePath, Tree)]| {
            let trees = trees.iter();
            trees
                .map(|(path, tree)| (path.clone(), tree.into()))
                .collect()
        };
        let stored = StoredReach {
            linked: stored(&reach.linked),
            modules: stored(&reach.modules),
            utf8: reach.has_utf8,
        };
        stored.serialize(serializer)
    }

    pub(in crate::records) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Reach, D::Error> {
        let stored = StoredReach::deserialize(deserializer)?;
        let trees = |stored: Trees| {
            let trees = stored.into_iter();
            let trees = trees.map(|(path, tree)| Ok((path, Tree::try_from(tree)?)));
            let trees: Result<Vec<_>, Damaged> = trees.collect();
            trees.map_err(|_| D::Error::custom("a file name is damaged"))
        };
        Ok(Reach {
            linked: trees(stored.linked)?,
            modules: trees(stored.modules)?,
            has_utf8: stored.utf8,
        })
    }
}

impl From<&Tree> for Stored {
    fn from(tree: &Tree) -> Self {
        match tree {
            Tree::Directory(entries) => {
                let entries = entries.iter();
                Self::Directory(
                    entries
                        .map(|(name, tree)| (text(name), tree.into()))
                        .collect(),
                )
            }
            Tree::File { executable, size } => match executable {
                true => Self::Executable(*size),
                false => Self::File(*size),
            },
            Tree::Symlink(target) => Self::Symlink(text(target)),
        }
    }
}

impl TryFrom<Stored> for Tree {
    type Error = Damaged;

    fn try_from(stored: Stored) -> Result<Self, Damaged> {
        let file = |executable, size| Self::File { executable, size };
        Ok(match stored {
            Stored::Directory(entries) => {
                let entries = entries.into_iter();
                let entries = entries.map(|(name, tree)| Ok((file_name(&name)?, tree.try_into()?)));
                Self::Directory(entries.collect::<Result<_, Damaged>>()?)
            }
            Stored::File(size) => file(false, size),
            Stored::Executable(size) => file(true, size),
            Stored::Symlink(target) => Self::Symlink(bytes(&target)?),
        })
    }
}

fn text(name: &OsStr) -> String {
    name.as_bytes().iter().copied().map(char::from).collect()
}

fn bytes(text: &str) -> Result<OsString, Damaged> {
    let bytes = text
        .chars()
        .map(u8::try_from)
        .collect::<Result<Vec<u8>, _>>();
    bytes.map(OsString::from_vec).map_err(|_| Damaged)
}

/// The name of an entry, and no path to another place.
fn file_name(text: &str) -> Result<OsString, Damaged> {
    match text {
        "" | "." | ".." => Err(Damaged),
        _ if text.contains(['/', '\0']) => Err(Damaged),
        _ => bytes(text),
    }
}
