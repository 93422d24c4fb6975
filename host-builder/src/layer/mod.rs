//! The bytes of layers: deterministic archives, hashed and compressed on the way out.
//!
//! ```text
//!   store paths ──▶ store_paths ─┐
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
//! Contents are streamed; what is held in memory is names. Everything here blocks.

mod base;
mod encoder;
mod root_tree;
mod store_paths;
mod symlinks;
mod tar;
mod tree;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use encoder::{ENCODER_ID, Encoder, Packed};
pub use root_tree::{Entry, RootTree};
pub use symlinks::{Collision, Merged, merge};
pub use tar::TarWriter;
pub use tree::{Directory, Tree, read_tree};

use crate::closure::StorePath;

/// A layer that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file could not be read or its entry not written.
    #[error("cannot pack {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Something in the store that a store path can't hold. Nix makes no such path.
    #[error("cannot pack {}: it is a {kind}", path.display())]
    UnsupportedType {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// In a layer, a name that begins with `.wh.` means that a file of a lower layer is deleted
    /// (OCI image spec, "Whiteouts"), so no file can have such a name.
    #[error("cannot pack {}: layers reserve names that begin with .wh.", path.display())]
    ReservedName {
        /// The file.
        path: PathBuf,
    },
    /// The layer itself could not be written.
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
}

impl PackError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> PackError {
        let path = path.to_owned();
        move |source| PackError::Io { path, source }
    }
}

/// Packs store paths into a layer. `root` is the folder below which the store is mounted, `/` for
/// a usual one. The order of `paths` is of no matter.
///
/// # Errors
///
/// When a path can't be read, holds what no layer can hold, or `out` fails. What was written to
/// `out` by then is to be thrown away.
pub fn pack_store_paths(
    root: &Path,
    paths: &[StorePath],
    out: impl Write,
) -> Result<Packed, PackError> {
    pack(out, |tar| store_paths::write(tar, root, paths))
}

/// Packs the folders and links that make an image's packages usable: its last layer.
///
/// # Errors
///
/// When `out` fails.
pub fn pack_root(root: &RootTree, out: impl Write) -> Result<Packed, PackError> {
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
