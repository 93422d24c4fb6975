//! What is in a store path: names, kinds and sizes, but no contents.
//!
//! A tree says of a file what Nix's archive format says of it, and no more: whether it is
//! executable. Owner, time and the other permissions are no part of what a store path is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use super::PackError;

/// The owner's permission to execute: the one bit that Nix keeps.
const OWNER_EXECUTE: u32 = 0o100;

/// The start of names that mean a deletion in a layer (OCI image spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// Entries of a directory, sorted by the bytes of their names.
pub type Directory = BTreeMap<OsString, Tree>;

/// A file, a link, or a directory and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
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

/// Reads the tree at `path`, usually a store path [on disk](crate::closure::StorePath::on_disk).
/// A symbolic link at `path` is not followed.
///
/// # Errors
///
/// When something can't be read, or no layer could hold it.
pub fn read_tree(path: &Path) -> Result<Tree, PackError> {
    let metadata = fs::symlink_metadata(path).map_err(PackError::io(path))?;
    if metadata.is_dir() {
        read_directory(path).map(Tree::Directory)
    } else if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(PackError::io(path))?;
        Ok(Tree::Symlink(target.into()))
    } else if metadata.is_file() {
        Ok(file(&metadata))
    } else {
        Err(PackError::UnsupportedType {
            path: path.to_owned(),
            kind: kind(metadata.file_type()),
        })
    }
}

fn read_directory(path: &Path) -> Result<Directory, PackError> {
    let mut directory = Directory::new();
    for entry in fs::read_dir(path).map_err(PackError::io(path))? {
        let name = entry.map_err(PackError::io(path))?.file_name();
        let below = path.join(&name);
        if is_whiteout(&name) {
            return Err(PackError::ReservedName { path: below });
        }
        directory.insert(name, read_tree(&below)?);
    }
    Ok(directory)
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
    fn what_no_layer_can_hold_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let _listener = UnixListener::bind(root.join("s")).unwrap();
        let error = read_tree(root).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot pack {}/s: it is a socket", root.display())
        );

        fs::remove_file(root.join("s")).unwrap();
        fs::write(root.join(".wh.gone"), "").unwrap();
        let error = read_tree(root).unwrap_err().to_string();
        assert!(
            error.ends_with("/.wh.gone: layers reserve names that begin with .wh."),
            "{error}"
        );

        let error = read_tree(&root.join("absent")).unwrap_err().to_string();
        assert!(error.contains("/absent: No such file"), "{error}");
    }
}
