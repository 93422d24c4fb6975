//! Nix's archive format (NAR). Nix records the SHA-256 of every store path's archive.
//!
//! ```text
//!   archive   "nix-archive-1" node
//!   node      "(" "type" "regular" [ "executable" "" ] "contents" bytes ")"
//!             "(" "type" "symlink" "target" bytes ")"
//!             "(" "type" "directory" { "entry" "(" "name" bytes "node" node ")" } ")"
//!
//!   each word and all bytes:   length, 64 bits, little-endian │ content │ zeros up to 8 bytes
//! ```
//!
//! Entries are sorted by the bytes of their names, as in a [`Tree`] and in a layer. So one walk writes
//! both: a [`Visitor`] reads each file, packs it, and writes the same bytes to the archive. The packed
//! bytes are the hashed ones, whatever happens to the disk meanwhile.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::PackError;
use super::encoder::HashingWriter;
use super::tree::Tree;

/// Lengths are padded to multiples of this.
const ALIGNMENT: u64 = 8;

/// Visits a tree in the order of the archive, parents first.
pub(super) trait Visitor {
    fn directory(&mut self, _: &Path) -> Result<(), PackError> {
        Ok(())
    }

    fn symlink(&mut self, _: &Path, _: &OsStr) -> Result<(), PackError> {
        Ok(())
    }

    /// Must write the file's `size` bytes to `archive`.
    fn file(
        &mut self,
        path: &Path,
        executable: bool,
        size: u64,
        archive: &mut impl Write,
    ) -> Result<(), PackError>;
}

/// The NAR hash of a tree at `path`, in hexadecimal digits.
pub(super) fn hash(
    path: &Path,
    tree: &Tree,
    visitor: &mut impl Visitor,
) -> Result<String, PackError> {
    let mut archive = HashingWriter::new(io::sink());
    write(&mut archive, path, tree, visitor)?;
    let (_, digest, _) = archive.finish();
    Ok(digest.hex())
}

fn write(
    archive: &mut impl Write,
    path: &Path,
    tree: &Tree,
    visitor: &mut impl Visitor,
) -> Result<(), PackError> {
    words(archive, &["nix-archive-1"])?;
    node(archive, path, tree, visitor)
}

fn node(
    archive: &mut impl Write,
    path: &Path,
    tree: &Tree,
    visitor: &mut impl Visitor,
) -> Result<(), PackError> {
    words(archive, &["(", "type"])?;
    match tree {
        Tree::Directory(entries) => {
            visitor.directory(path)?;
            words(archive, &["directory"])?;
            for (name, entry) in entries {
                words(archive, &["entry", "(", "name"])?;
                bytes(archive, name.as_bytes())?;
                words(archive, &["node"])?;
                node(archive, &path.join(name), entry, visitor)?;
                words(archive, &[")"])?;
            }
        }
        &Tree::File { executable, size } => {
            words(archive, &["regular"])?;
            if executable {
                words(archive, &["executable", ""])?;
            }
            words(archive, &["contents"])?;
            put(archive, &size.to_le_bytes())?;
            visitor.file(path, executable, size, archive)?;
            pad(archive, size)?;
        }
        Tree::Symlink(target) => {
            visitor.symlink(path, target)?;
            words(archive, &["symlink", "target"])?;
            bytes(archive, target.as_bytes())?;
        }
    }
    words(archive, &[")"])
}

fn words(archive: &mut impl Write, words: &[&str]) -> Result<(), PackError> {
    words
        .iter()
        .try_for_each(|word| bytes(archive, word.as_bytes()))
}

fn bytes(archive: &mut impl Write, content: &[u8]) -> Result<(), PackError> {
    let length = content.len() as u64;
    put(archive, &length.to_le_bytes())?;
    put(archive, content)?;
    pad(archive, length)
}

fn pad(archive: &mut impl Write, length: u64) -> Result<(), PackError> {
    let missing = length.next_multiple_of(ALIGNMENT) - length;
    put(archive, &[0; ALIGNMENT as usize][..missing as usize])
}

fn put(archive: &mut impl Write, content: &[u8]) -> Result<(), PackError> {
    archive.write_all(content).map_err(PackError::Write)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::super::tree::Directory;
    use super::*;

    /// Knows what is in the files.
    struct Files(BTreeMap<std::path::PathBuf, Vec<u8>>);

    impl Visitor for Files {
        fn file(
            &mut self,
            path: &Path,
            _: bool,
            size: u64,
            archive: &mut impl Write,
        ) -> Result<(), PackError> {
            assert_eq!(self.0[path].len() as u64, size);
            put(archive, &self.0[path])
        }
    }

    fn file(executable: bool, size: u64) -> Tree {
        Tree::File { executable, size }
    }

    /// As `nix-store --dump` (Nix 2.8) has it.
    #[test]
    fn a_small_tree_is_what_nix_dumps() {
        let files = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            Files(
                pairs
                    .map(|(path, text)| (path.into(), text.as_bytes().to_vec()))
                    .collect(),
            )
        };
        let mut dump = Vec::new();
        let program = Tree::Directory([("run".into(), file(true, 3))].into());
        write(
            &mut dump,
            Path::new("x"),
            &program,
            &mut files(&[("x/run", "#!\n")]),
        )
        .unwrap();
        let text: String = dump.escape_ascii().to_string().replace("\\x00", "");
        assert_eq!(
            text,
            "\\rnix-archive-1\\x01(\\x04type\\tdirectory\\x05entry\\x01(\\x04name\\x03run\\x04node\
             \\x01(\\x04type\\x07regular\\nexecutable\\x08contents\\x03#!\\n\\x01)\\x01)\\x01)"
        );
        assert_eq!(dump.len() % 8, 0);
    }

    /// As `nix-hash --type sha256` (Nix 2.8) has them.
    #[test]
    fn hashes_are_those_of_nix() {
        let sizes = [0, 1, 7, 8, 9, 16, 17].map(|size: u64| (format!("size-{size}"), size));
        let mut entries = Directory::from_iter(
            sizes
                .clone()
                .map(|(name, size)| (name.into(), file(false, size))),
        );
        let in_bin = [
            ("run".into(), file(true, 10)),
            ("link".into(), Tree::Symlink("./run".into())),
        ];
        entries.extend([
            ("bin".into(), Tree::Directory(in_bin.into())),
            ("empty".into(), Tree::Directory(Directory::new())),
            (OsString::from_vec(vec![0xff, 0xc3]), file(false, 1)),
            ("Z a".into(), file(false, 1)),
        ]);
        let mut contents = BTreeMap::from([
            ("x".into(), Vec::new()),
            ("x/bin/run".into(), b"#!/bin/sh\n".to_vec()),
            (
                Path::new("x").join(OsString::from_vec(vec![0xff, 0xc3])),
                b"y".to_vec(),
            ),
            ("x/Z a".into(), b"z".to_vec()),
        ]);
        contents.extend(
            sizes.map(|(name, size)| (Path::new("x").join(name), vec![b'x'; size as usize])),
        );
        let mut files = Files(contents);
        for (tree, expected) in [
            (
                file(false, 0),
                "77ac62e2629d8e45f624589c0c8bf99e24b3a722349bf1e79bc186008534e246",
            ),
            (
                Tree::Directory(Directory::new()),
                "a50a5ab6d992f5598edd92105059fae9acfc192981e08bd88534c2167e92526a",
            ),
            (
                Tree::Directory(entries),
                "66abbea7c637b45970f4498953d2e66f48eaf8e67045548b879fb064a2da37e9",
            ),
        ] {
            assert_eq!(hash(Path::new("x"), &tree, &mut files).unwrap(), expected);
        }
    }

    #[derive(Clone, Debug)]
    enum Kind {
        Directory(BTreeMap<Vec<u8>, Kind>),
        File(bool, Vec<u8>),
        Symlink(Vec<u8>),
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>().prop_filter("", |b| !b"\0/".contains(b)), 1..20)
            .prop_filter("no name", |name| name != b"." && name != b"..")
    }

    fn kind() -> impl Strategy<Value = Kind> {
        let leaf = prop_oneof![
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(executable, content)| Kind::File(executable, content)),
            name().prop_map(Kind::Symlink),
        ];
        leaf.prop_recursive(4, 40, 8, |inner| {
            prop::collection::btree_map(name(), inner, 0..8).prop_map(Kind::Directory)
        })
    }

    fn tree(kind: &Kind, path: &Path, files: &mut Files) -> Tree {
        match kind {
            Kind::Directory(entries) => {
                let entries = entries.iter().map(|(name, kind)| {
                    let name = OsString::from_vec(name.clone());
                    let below = tree(kind, &path.join(&name), files);
                    (name, below)
                });
                Tree::Directory(entries.collect())
            }
            Kind::File(executable, content) => {
                files.0.insert(path.to_owned(), content.clone());
                file(*executable, content.len() as u64)
            }
            Kind::Symlink(target) => Tree::Symlink(OsString::from_vec(target.clone())),
        }
    }

    /// Reads an archive as the grammar says.
    struct Reader<'a>(&'a [u8]);

    impl<'a> Reader<'a> {
        fn bytes(&mut self) -> &'a [u8] {
            let (length, rest) = self.0.split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let (content, rest) = rest.split_at(length);
            let (padding, rest) = rest.split_at(length.next_multiple_of(8) - length);
            assert!(padding.iter().all(|&byte| byte == 0));
            self.0 = rest;
            content
        }

        fn expect(&mut self, words: &[&str]) {
            for word in words {
                assert_eq!(self.bytes().escape_ascii().to_string(), *word);
            }
        }

        fn node(&mut self) -> Kind {
            self.expect(&["(", "type"]);
            match self.bytes() {
                b"directory" => {
                    let mut entries = BTreeMap::new();
                    while self.bytes() == b"entry" {
                        self.expect(&["(", "name"]);
                        let name = self.bytes().to_vec();
                        assert!(
                            entries
                                .last_key_value()
                                .is_none_or(|(last, _)| *last < name)
                        );
                        self.expect(&["node"]);
                        entries.insert(name, self.node());
                        self.expect(&[")"]);
                    }
                    // What was no `entry` was the end.
                    Kind::Directory(entries)
                }
                b"regular" => {
                    let executable = self.bytes() == b"executable";
                    if executable {
                        self.expect(&["", "contents"]);
                    }
                    let content = self.bytes().to_vec();
                    self.expect(&[")"]);
                    Kind::File(executable, content)
                }
                _ => {
                    self.expect(&["target"]);
                    let target = self.bytes().to_vec();
                    self.expect(&[")"]);
                    Kind::Symlink(target)
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_tree_is_read_back(kind in kind()) {
            let mut files = Files(BTreeMap::new());
            let path = Path::new("x");
            let tree = tree(&kind, path, &mut files);
            let mut archive = Vec::new();
            write(&mut archive, path, &tree, &mut files).unwrap();
            let mut reader = Reader(&archive);
            reader.expect(&["nix-archive-1"]);
            let read = reader.node();
            prop_assert!(reader.0.is_empty());
            prop_assert_eq!(format!("{read:?}"), format!("{kind:?}"));
        }
    }
}
