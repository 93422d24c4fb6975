//! Packs layers: deterministic archives, compressed and hashed in one pass.
//!
//! ```text
//!   store paths ──▶ store_paths ─┐    nar: is each path what Nix made?
//!                                ├─▶ tar ──▶ encoder ──▶ any writer
//!   requested ─▶ tree, reach ─▶ symlinks ─▶ root_tree ─┘     │
//!   packages                                                └─▶ Packed: digests, sizes
//! ```
//!
//! An image has two kinds of layers. Most hold store paths as they are ([`pack_store_paths`]). The last
//! one has `/bin`, `/etc`, `/share` … with links into the store ([`pack_root`]).
//!
//! The same store paths give the same bytes on every machine. So an archive has only what Nix's own hash
//! covers: no owner, no time, no permission except *executable*, no device or inode numbers, and not the
//! order in which a file system lists a folder.
//!
//! Contents are streamed: memory holds names, and one file of up to a megabyte at a time. Everything here
//! blocks.

mod base;
mod encoder;
mod environment;
mod foreign;
mod known;
mod nar;
mod origins;
mod reach;
mod root_tree;
mod start;
mod store_paths;
mod symlinks;
mod tar;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use encoder::{ENCODER_ID, Encoder, Packed};
pub(crate) use environment::Environment;
pub(crate) use origins::{Entry, Reason};
pub(crate) use reach::Reach;
pub(crate) use root_tree::RootTree;
pub(crate) use start::Start;
pub(crate) use store_paths::{check, collect};
pub(crate) use symlinks::{Dropped, Merged, merge};
pub(crate) use tar::TarWriter;
#[cfg(test)]
pub(crate) use tree::MAX_DEPTH;
pub(crate) use tree::{Tree, Unfit};

use crate::closure::StorePath;

/// A layer that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// No layer can hold a file of a package.
    #[error("cannot pack {} of {path}: {reason}", file.display())]
    Unfit {
        path: StorePath,
        /// Relative to the store path.
        file: PathBuf,
        reason: Unfit,
    },
    #[error("cannot pack store paths that were changed after Nix made them: {}", list(.0))]
    Altered(Vec<Altered>),
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
}

impl PackError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> PackError {
        let path = path.to_owned();
        move |source| PackError::Read { path, source }
    }
}

/// A store path that was changed after Nix made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Altered {
    pub(crate) path: StorePath,
    /// The hash that Nix recorded.
    pub(crate) recorded: String,
    /// The present hash, or another difference.
    pub(crate) found: String,
}

impl Altered {
    fn of(path: &StorePath, recorded: &str, found: impl fmt::Display) -> PackError {
        PackError::Altered(vec![Altered {
            path: path.clone(),
            recorded: recorded.to_owned(),
            found: found.to_string(),
        }])
    }
}

fn list(altered: &[Altered]) -> String {
    let paths = altered.iter().map(|one| one.path.to_string());
    paths.collect::<Vec<_>>().join(", ")
}

/// Packs store paths, with the NAR hashes that Nix recorded, into a layer. The store is mounted below
/// `root`, usually `/`.
///
/// # Errors
///
/// When a path can't be read, has a file that no layer can hold, or differs from its hash; or when `out`
/// fails. Then the output is invalid.
pub(crate) fn pack_store_paths(
    root: &Path,
    paths: &BTreeMap<StorePath, String>,
    out: impl Write,
) -> Result<Packed, PackError> {
    pack(out, |tar| store_paths::write(tar, root, paths))
}

/// Packs the last layer: the folders and links outside of the store.
///
/// # Errors
///
/// When `out` fails.
pub(crate) fn pack_root(root: &RootTree, out: impl Write) -> Result<Packed, PackError> {
    pack(out, |tar| root.write(tar))
}

fn pack<W: Write>(
    out: W,
    write: impl FnOnce(&mut TarWriter<Encoder<W>>) -> Result<(), PackError>,
) -> Result<Packed, PackError> {
    let mut tar = TarWriter::new(Encoder::new(out));
    write(&mut tar)?;
    tar.finish()
        .and_then(Encoder::finish)
        .map_err(PackError::Write)
}

#[cfg(test)]
mod tests;
