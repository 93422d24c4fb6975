//! The tree of a store path: names, kinds and sizes, without contents.
//!
//! Of a file's metadata it has what Nix's archive format has: whether it is executable. Owner, time and
//! other permissions don't belong to a store path.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The one permission that Nix keeps.
const OWNER_EXECUTE: u32 = 0o100;

/// The prefix of names that mean a deletion in a layer (OCI image spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// Bytes of a file's path in a layer. The kernel takes 4,095; clients unpack below their own folders, with
/// paths of about 100 bytes, for which 256 are reserved.
pub(super) const MAX_PATH: usize = 4095 - 256;

/// Nested names in a store path. Real packages have fewer than 30. The kernel takes 2,000, for which
/// recursion over a tree would overflow the stack. In a package's record each directory takes two of
/// the 127 levels that `serde_json` reads.
pub(crate) const MAX_DEPTH: usize = 60;

#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Nix makes no such file.
    #[error("{} is a {kind}", path.display())]
    UnsupportedType { path: PathBuf, kind: &'static str },
    #[error("{} is nested more than {MAX_DEPTH} levels deep", path.display())]
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
    #[error("names that begin with .wh. mean a deletion in images")]
    ReservedName,
    #[error("its path is longer than {MAX_PATH} bytes, too long to be unpacked")]
    TooLong,
    #[error("it is nested more than {MAX_DEPTH} directories deep")]
    TooDeep,
}

/// Entries of a directory, sorted by the bytes of their names.
pub(crate) type Directory = BTreeMap<OsString, Tree>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    Directory(Directory),
    File {
        executable: bool,
        /// In bytes.
        size: u64,
    },
    /// With its target.
    Symlink(OsString),
}

impl Tree {
    /// The entry at a path below; none behind a link.
    pub(super) fn below(&self, path: &Path) -> Option<&Self> {
        path.iter().try_fold(self, |tree, name| match tree {
            Self::Directory(entries) => entries.get(name),
            Self::File { .. } | Self::Symlink(_) => None,
        })
    }
}

/// Reads the tree at `path`, without following a symbolic link there.
pub(super) fn read_tree(path: &Path) -> Result<Tree, TreeError> {
    read(path, 0)
}

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

/// Lists the directory before it descends: otherwise each level would keep a file open.
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

/// The first file that no layer can hold, in a tree at `path` in the layer.
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
    fn a_file_that_no_store_path_can_hold_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let _listener = UnixListener::bind(root.join("s")).unwrap();
        let error = read_tree(root).unwrap_err().to_string();
        assert_eq!(error, format!("{}/s is a socket", root.display()));
        let error = read_tree(&root.join("absent")).unwrap_err().to_string();
        assert!(error.contains("/absent: No such file"), "{error}");
    }

    #[test]
    fn a_file_that_no_layer_can_hold_is_found_at_any_depth() {
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
