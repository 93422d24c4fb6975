//! What is in a store path: names, kinds and sizes, but no contents.
//!
//! A tree says of a file what Nix's archive format says of it, and no more: whether it is
//! executable. Owner, time and the other permissions are no part of what a store path is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The owner's permission to execute: the one bit that Nix keeps.
const OWNER_EXECUTE: u32 = 0o100;

/// The start of names that mean a deletion in a layer (OCI image spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// Bytes that the path of a file may have in a layer. The kernel takes 4,095, and clients unpack below
/// folders of their own (of containerd, podman and Docker about 100 bytes; 256 are left to them).
const MAX_PATH: usize = 4095 - 256;

/// Names that may lie below each other in a store path. Real packages have fewer than 30; the kernel takes
/// 2,000, for which whatever walks a tree would need more stack than a thread has. And a package's record
/// has to be readable: `serde_json` takes 127 levels, of which each directory has two.
pub(crate) const MAX_DEPTH: usize = 60;

/// A tree that could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// No store path can hold it.
    #[error("{} is a {kind}", path.display())]
    UnsupportedType { path: PathBuf, kind: &'static str },
    /// More than [`MAX_DEPTH`] names lie below each other.
    #[error("{} lies too deep", path.display())]
    TooDeep { path: PathBuf },
}

impl TreeError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }
}

/// Why no layer can hold a file that Nix can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// In a layer, a name that begins with `.wh.` means that a file of a lower layer is deleted
    /// (OCI image spec, "Whiteouts").
    #[error("names that begin with .wh. mean a deletion in images")]
    ReservedName,
    /// The client could not unpack it.
    #[error("its path is longer than {MAX_PATH} bytes, too long to be unpacked")]
    TooLong,
    /// A tree is walked in more than one place, and kept in records.
    #[error("it lies more than {MAX_DEPTH} directories deep")]
    TooDeep,
}

/// Entries of a directory, sorted by the bytes of their names.
pub(crate) type Directory = BTreeMap<OsString, Tree>;

/// A file, a link, or a directory and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    /// A directory.
    Directory(Directory),
    /// A regular file.
    File {
        /// Whether it may be run.
        executable: bool,
        /// Bytes.
        size: u64,
    },
    /// A symbolic link and its target.
    Symlink(OsString),
}

/// Reads the tree at `path`, usually a store path [on disk](crate::closure::StorePath::on_disk). A
/// symbolic link at `path` is not followed.
pub(super) fn read_tree(path: &Path) -> Result<Tree, TreeError> {
    read(path, 0)
}

/// Reads what lies below so many names.
fn read(path: &Path, depth: usize) -> Result<Tree, TreeError> {
    if depth > MAX_DEPTH {
        return Err(TreeError::TooDeep {
            path: path.to_owned(),
        });
    }
    let metadata = fs::symlink_metadata(path).map_err(TreeError::io(path))?;
    if metadata.is_dir() {
        read_directory(path, depth).map(Tree::Directory)
    } else if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(TreeError::io(path))?;
        Ok(Tree::Symlink(target.into()))
    } else if metadata.is_file() {
        Ok(file(&metadata))
    } else {
        Err(TreeError::UnsupportedType {
            path: path.to_owned(),
            kind: kind(metadata.file_type()),
        })
    }
}

/// Lists the directory to its end first: it would stay open for as long as what is below is read.
fn read_directory(path: &Path, depth: usize) -> Result<Directory, TreeError> {
    let entries = fs::read_dir(path).map_err(TreeError::io(path))?;
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names
        .collect::<io::Result<_>>()
        .map_err(TreeError::io(path))?;
    let entries = names.into_iter().map(|name| {
        let tree = read(&path.join(&name), depth + 1)?;
        Ok((name, tree))
    });
    entries.collect()
}

/// The first file in a tree, which lies at `path` in a layer, that no layer can hold.
pub(super) fn unfit(path: &Path, tree: &Tree) -> Option<(PathBuf, Unfit)> {
    if path.as_os_str().len() > MAX_PATH {
        return Some((path.to_owned(), Unfit::TooLong));
    }
    let Tree::Directory(entries) = tree else {
        return None;
    };
    entries.iter().find_map(|(name, tree)| {
        let below = path.join(name);
        match is_whiteout(name) {
            true => Some((below, Unfit::ReservedName)),
            false => unfit(&below, tree),
        }
    })
}

fn is_whiteout(name: &OsStr) -> bool {
    name.as_bytes().starts_with(WHITEOUT)
}

fn file(metadata: &Metadata) -> Tree {
    Tree::File {
        executable: metadata.permissions().mode() & OWNER_EXECUTE != 0,
        size: metadata.len(),
    }
}

fn kind(file_type: FileType) -> &'static str {
    if file_type.is_fifo() {
        "named pipe"
    } else if file_type.is_socket() {
        "socket"
    } else if file_type.is_block_device() || file_type.is_char_device() {
        "device"
    } else {
        "file of unknown type"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn directories_files_and_links_are_told_apart() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        fs::create_dir(root.join("bin")).unwrap();
        fs::write(root.join("bin/run"), "#!").unwrap();
        fs::set_permissions(root.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("text"), "").unwrap();
        symlink("nowhere", root.join("link")).unwrap();

        let run = Tree::File {
            executable: true,
            size: 2,
        };
        let text = Tree::File {
            executable: false,
            size: 0,
        };
        assert_eq!(
            read_tree(root).unwrap(),
            Tree::Directory(Directory::from([
                ("bin".into(), Tree::Directory([("run".into(), run)].into())),
                ("link".into(), Tree::Symlink("nowhere".into())),
                ("text".into(), text.clone()),
            ]))
        );
        assert_eq!(read_tree(&root.join("text")).unwrap(), text);
        assert_eq!(
            read_tree(&root.join("link")).unwrap(),
            Tree::Symlink("nowhere".into())
        );
    }

    #[test]
    fn what_no_store_path_can_hold_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let _listener = UnixListener::bind(root.join("s")).unwrap();
        let error = read_tree(root).unwrap_err().to_string();
        assert_eq!(error, format!("{}/s is a socket", root.display()));
        let error = read_tree(&root.join("absent")).unwrap_err().to_string();
        assert!(error.contains("/absent: No such file"), "{error}");
    }

    #[test]
    fn what_no_layer_can_hold_is_found_wherever_it_is() {
        let file = Tree::File {
            executable: false,
            size: 0,
        };
        let within = |names: &[&str]| {
            let names = names.iter().rev();
            names.fold(file.clone(), |tree, name| {
                Tree::Directory([("a".into(), file.clone()), (name.into(), tree)].into())
            })
        };
        let path = Path::new("nix/store/x");
        for (names, expected) in [
            (&["b", "wh.c", ".w", ".wh"][..], None),
            (&[".wh."], Some(".wh.")),
            (&["b", ".wh..wh..opq"], Some("b/.wh..wh..opq")),
            (&["b", ".wh.c", "d"], Some("b/.wh.c")),
        ] {
            let expected = expected.map(|file| (path.join(file), Unfit::ReservedName));
            assert_eq!(unfit(path, &within(names)), expected, "{names:?}");
        }
        let longest = "x".repeat(MAX_PATH - path.as_os_str().len() - 1);
        assert_eq!(unfit(path, &within(&[&longest])), None);
        let longer = format!("{longest}x");
        let found = unfit(path, &within(&[&longer]));
        assert_eq!(found, Some((path.join(longer), Unfit::TooLong)));
    }
}
