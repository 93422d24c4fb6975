//! Trees as records have them.
//!
//! Names of files are bytes and JSON has text, so each byte is written as the character of that
//! number: names of ASCII read as they are, and no name is lost.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};

use crate::layer::Tree;

/// A tree of short words: a large package has a hundred thousand of them.
#[derive(Serialize, Deserialize)]
pub(super) enum Stored {
    /// A directory.
    #[serde(rename = "d")]
    Directory(BTreeMap<String, Stored>),
    /// A file and its size.
    #[serde(rename = "f")]
    File(u64),
    /// A file that can be run.
    #[serde(rename = "x")]
    Executable(u64),
    /// A symbolic link and its target.
    #[serde(rename = "l")]
    Symlink(String),
}

/// What no tree can have.
#[derive(Debug)]
pub(super) struct Damaged;

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

/// The name of one entry of a directory, and not a way to another.
fn file_name(text: &str) -> Result<OsString, Damaged> {
    match text {
        "" | "." | ".." => Err(Damaged),
        _ if text.contains(['/', '\0']) => Err(Damaged),
        _ => bytes(text),
    }
}
