//! The bytes of layers: deterministic archives, hashed and compressed on the way out.
//!
//! ```text
//!   store paths ──▶ store_paths ─┐    nar: is each path what Nix made?
//!                                ├─▶ tar ──▶ encoder ──▶ any writer
//!   requested ──▶ tree ──▶ symlinks ──▶ root_tree ─┘        │
//!   packages                                                └─▶ Packed: digests, sizes
//! ```
//!
//! An image has two kinds of layers. Most hold store paths as they are ([`pack_store_paths`]). The
//! last one makes them usable: `/bin`, `/etc`, `/share` … full of links into the store
//! ([`pack_root`]).
//!
//! The same store paths give the same bytes on every machine. So nothing that Nix does not vouch
//! for gets into an archive: no owner, no time, no permission but *executable*, no number of a
//! device or inode, and not the order in which a file system lists a folder.
//!
//! Contents are streamed; what is held in memory is names, and files of a megabyte at most, one at a
//! time. Everything here blocks.

mod base;
mod encoder;
mod nar;
mod root_tree;
mod store_paths;
mod symlinks;
mod tar;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use encoder::{ENCODER_ID, Encoder, Packed};
pub(crate) use root_tree::RootTree;
pub(crate) use store_paths::all;
pub(crate) use symlinks::merge;
pub(crate) use tar::TarWriter;
#[cfg(test)]
pub(crate) use tree::MAX_DEPTH;
pub(crate) use tree::{Tree, Unfit};

use crate::closure::StorePath;

/// A layer that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A package has what no layer can hold.
    #[error("cannot pack {} of {path}: {reason}", file.display())]
    Unfit {
        /// The package.
        path: StorePath,
        /// The file in it.
        file: PathBuf,
        /// Why.
        reason: Unfit,
    },
    /// Store paths are not what Nix made.
    #[error("cannot pack what was changed: {}", list(.0))]
    Altered(Vec<Altered>),
    /// The layer itself could not be written.
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
}

impl PackError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> PackError {
        let path = path.to_owned();
        move |source| PackError::Read { path, source }
    }
}

/// A store path that was changed after Nix had made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Altered {
    /// The path.
    pub(crate) path: StorePath,
    /// The hash that Nix recorded.
    pub(crate) recorded: String,
    /// What is there instead.
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

/// Packs store paths, of which Nix recorded these hashes of their archives, into a layer. `root` is the
/// folder below which the store is mounted, `/` for a usual one.
///
/// # Errors
///
/// When a path can't be read, holds what no layer can hold, or is not what Nix recorded; or `out`
/// fails. What was written to `out` by then is to be thrown away.
pub(crate) fn pack_store_paths(
    root: &Path,
    paths: &BTreeMap<StorePath, String>,
    out: impl Write,
) -> Result<Packed, PackError> {
    pack(out, |tar| store_paths::write(tar, root, paths))
}

/// What is in a store path, of which Nix recorded this hash of its archive.
///
/// # Errors
///
/// When it can't be read, holds what no layer can hold, or is not what Nix recorded.
pub(crate) fn check(root: &Path, path: &StorePath, hash: &str) -> Result<Tree, PackError> {
    store_paths::check(root, path, hash)
}

/// Packs the folders and links that make an image's packages usable: its last layer.
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
