//! The layer of some store paths.
//!
//! ```text
//!   nix/                       0755   parents first: without entries of their own they would be
//!   nix/store/                 0755   made with whatever permissions the client thinks of
//!   nix/store/…-git/           0555   then each path, in order, as Nix has it:
//!   nix/store/…-git/bin/       0555     directories and programs 0555,
//!   nix/store/…-git/bin/git    0555     other files 0444
//!   nix/store/…-git/bin/git-log ──▶ hard link to …-git/bin/git
//! ```
//!
//! # What is packed is what Nix made
//!
//! Nix records the hash of a store path when it makes it, and does not look again; whoever can write
//! to the store can change what is in it. So the hash is made of the bytes that go into the layer, as
//! they go, and a layer with a path that is not what it was is no layer ([`Altered`]). Of a path that is
//! packed nowhere the [`tree`](check) is checked in the same way before anything is made of it.
//!
//! # Hard links
//!
//! Whether two files share an inode says nothing about a store path: Nix's archive format does not
//! record it, so a package that was built with hard links arrives from a binary cache without
//! them, and an optimised store (`nix-store --optimise`) has them everywhere. If a layer followed
//! the disk, its digest would tell where its contents had come from. So it follows the *contents*:
//! files that are equal are stored once, and the later names are hard links to the first. That
//! keeps every hard link that a package was made with, finds those that have been lost, and is the
//! same on each machine. It is also no news to the packages, which live in optimised stores.
//!
//! A file gets [`MAX_NAMES`] names; then it is stored again, and the next names are links to that.
//!
//! Only files that have a twin of the same size can be equal, so only of these the contents have to
//! be known before they are written: small ones are kept in memory for that moment, large ones are
//! read twice, and have to be the same both times.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::encoder::Measured;
use super::nar::{self, Visitor};
use super::tar::{Exactly, TarWriter};
use super::tree::{Tree, TreeError, Unfit, read_tree, unfit};
use super::{Altered, PackError, root_tree};
use nixgate_core::distribution::Digest;

use crate::closure::StorePath;

const DIRECTORY_MODE: u32 = 0o555;
const EXECUTABLE_MODE: u32 = 0o555;
const FILE_MODE: u32 = 0o444;

/// Names of one file in a layer, at most. What clients unpack to has bounds of its own (ext4 65,000, and
/// whatever else links to the same file counts), of which NTFS has the least: 1,024. One copy in a
/// thousand costs nothing.
const MAX_NAMES: usize = 1000;

/// Files up to this size, of which equal ones may be there, are read into memory.
const SMALL: u64 = 1 << 20;

/// Writes store paths and the directories above them. See [`super::pack_store_paths`].
pub(super) fn write<W: Write>(
    tar: &mut TarWriter<W>,
    root: &Path,
    paths: &BTreeMap<StorePath, String>,
) -> Result<(), PackError> {
    let trees = all(paths.iter().map(|(path, hash)| {
        let tree = tree_of(root, path, hash)?;
        if unfit(&path.in_archive(), &tree).is_some() {
            // It is in the package itself, unless somebody has put it there.
            check(root, path, hash)?;
        }
        Ok((path, hash, tree))
    }))?;
    for parent in ["nix", "nix/store"].map(Path::new) {
        tar.directory(parent, root_tree::DIRECTORY_MODE)
            .map_err(PackError::Write)?;
    }
    let mut layer = Layer {
        tar,
        root,
        files_like: HashMap::new(),
        first_with: HashMap::new(),
    };
    for (_, _, tree) in &trees {
        layer.count_files(tree);
    }
    let compared = trees
        .iter()
        .map(|(path, hash, tree)| compare(root, path, hash, tree, &mut layer));
    all(compared).map(drop)
}

/// All that there is to be had; of store paths that are not what Nix made, all are told.
pub(crate) fn all<T>(
    results: impl Iterator<Item = Result<T, PackError>>,
) -> Result<Vec<T>, PackError> {
    let (mut found, mut altered) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(one) => found.push(one),
            Err(PackError::Altered(more)) => altered.extend(more),
            Err(error) => return Err(error),
        }
    }
    match altered.is_empty() {
        true => Ok(found),
        false => Err(PackError::Altered(altered)),
    }
}

/// Reads what is in a store path. See [`super::check`].
pub(super) fn check(root: &Path, path: &StorePath, hash: &str) -> Result<Tree, PackError> {
    let tree = tree_of(root, path, hash)?;
    compare(root, path, hash, &tree, &mut Contents { root })?;
    let in_archive = path.in_archive();
    match unfit(&in_archive, &tree) {
        None => Ok(tree),
        Some((file, reason)) => Err(PackError::Unfit {
            path: path.clone(),
            file: file.strip_prefix(&in_archive).unwrap_or(&file).to_owned(),
            reason,
        }),
    }
}

/// The hash of what is there, for tests that made it.
#[cfg(test)]
pub(super) fn hash_of(root: &Path, path: &StorePath) -> String {
    let tree = tree_of(root, path, "").unwrap();
    nar::hash(&path.in_archive(), &tree, &mut Contents { root }).unwrap()
}

fn tree_of(root: &Path, path: &StorePath, hash: &str) -> Result<Tree, PackError> {
    let on_disk = path.on_disk(root);
    read_tree(&on_disk).map_err(|error| match error {
        // Nix makes no such thing.
        TreeError::UnsupportedType { .. } => Altered::of(path, hash, error),
        TreeError::Io { path: at, source } => reading(path, hash, at, source),
        // Whether Nix made it is not found out: that takes a walk to its end.
        TreeError::TooDeep { path: file } => PackError::Unfit {
            path: path.clone(),
            file: file.strip_prefix(&on_disk).unwrap_or(&file).to_owned(),
            reason: Unfit::TooDeep,
        },
    })
}

/// A file of a store path can't be read. What isn't there, or ends too early, was there when Nix made the
/// path: it was changed.
fn reading(path: &StorePath, hash: &str, file: PathBuf, source: io::Error) -> PackError {
    match source.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::UnexpectedEof => {
            Altered::of(path, hash, format!("{}: {source}", file.display()))
        }
        // Whatever wrote it there did not use its whole path.
        io::ErrorKind::InvalidFilename => {
            let within = file.iter().skip_while(|name| *name != path.base_name());
            PackError::Unfit {
                path: path.clone(),
                file: within.skip(1).collect(),
                reason: Unfit::TooLong,
            }
        }
        _ => PackError::Read { path: file, source },
    }
}

/// As when a file ends too early: it is not what it was a moment ago.
fn changed(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, how)
}

/// Shows a store path to `visitor`, and fails when what it was shown is not what Nix made.
fn compare(
    root: &Path,
    path: &StorePath,
    hash: &str,
    tree: &Tree,
    visitor: &mut impl Visitor,
) -> Result<(), PackError> {
    match nar::hash(&path.in_archive(), tree, visitor) {
        Ok(found) if found == hash => Ok(()),
        Ok(found) => Err(Altered::of(path, hash, format!("hash {found}"))),
        Err(PackError::Read { path: file, source }) => {
            Err(reading(path, hash, root.join(file), source))
        }
        Err(error) => Err(error),
    }
}

/// Hands over the contents of files as they are on disk, below `root`.
struct Contents<'a> {
    root: &'a Path,
}

impl Visitor for Contents<'_> {
    fn directory(&mut self, _: &Path) -> Result<(), PackError> {
        Ok(())
    }

    fn symlink(&mut self, _: &Path, _: &OsStr) -> Result<(), PackError> {
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        _: bool,
        size: u64,
        archive: &mut impl Write,
    ) -> Result<(), PackError> {
        let read = open(self.root, path, size).and_then(|mut file| io::copy(&mut file, archive));
        read.map(drop).map_err(PackError::read(path))
    }
}

fn open(root: &Path, path: &Path, size: u64) -> io::Result<Exactly<File>> {
    Ok(Exactly::new(File::open(root.join(path))?, size))
}

struct Layer<'a, W: Write> {
    tar: &'a mut TarWriter<W>,
    /// Below which the store is mounted.
    root: &'a Path,
    /// How many files have this size and mode.
    files_like: HashMap<(u64, u32), usize>,
    /// The file that the next one with these contents and this mode is linked to.
    first_with: HashMap<(Digest, u32), Linked>,
}

/// A file in the layer, and how many names it has.
struct Linked {
    first: PathBuf,
    names: usize,
}

impl<W: Write> Layer<'_, W> {
    fn count_files(&mut self, tree: &Tree) {
        match tree {
            Tree::Directory(entries) => entries.values().for_each(|entry| self.count_files(entry)),
            &Tree::File { executable, size } => {
                *self
                    .files_like
                    .entry((size, file_mode(executable)))
                    .or_default() += 1;
            }
            Tree::Symlink(_) => {}
        }
    }

    /// The file that another one with these contents is to be linked to. Without one, this is it for
    /// those that follow.
    fn earlier(&mut self, path: &Path, contents: Digest, mode: u32) -> Option<PathBuf> {
        let linked = self.first_with.entry((contents, mode)).or_insert(Linked {
            first: path.to_owned(),
            names: 0,
        });
        if linked.names == MAX_NAMES {
            *linked = Linked {
                first: path.to_owned(),
                names: 0,
            };
        }
        linked.names += 1;
        (linked.names > 1).then(|| linked.first.clone())
    }

    /// Writes a file of which there may be an equal one.
    fn twin(
        &mut self,
        path: &Path,
        mode: u32,
        size: u64,
        archive: &mut impl Write,
    ) -> Result<(), PackError> {
        let read = PackError::read;
        let mut file = open(self.root, path, size).map_err(read(path))?;
        if size <= SMALL {
            let mut contents = Vec::with_capacity(size as usize);
            file.read_to_end(&mut contents).map_err(read(path))?;
            archive.write_all(&contents).map_err(PackError::Write)?;
            return match self.earlier(path, Digest::of(&contents), mode) {
                Some(earlier) => self.tar.hard_link(path, mode, &earlier),
                None => self.tar.file(path, mode, size, &contents[..]),
            }
            .map_err(PackError::Write);
        }
        let mut first = Measured::new(archive);
        io::copy(&mut file, &mut first).map_err(read(path))?;
        let (_, contents, _) = first.finish();
        if let Some(earlier) = self.earlier(path, contents, mode) {
            return self
                .tar
                .hard_link(path, mode, &earlier)
                .map_err(PackError::Write);
        }
        let mut file = file.into_inner();
        file.rewind().map_err(read(path))?;
        let mut again = Measured::new(io::sink());
        self.stream(path, mode, size, file, &mut again)?;
        let (_, packed, _) = again.finish();
        if packed != contents {
            return Err(read(path)(changed("it changes while it is packed")));
        }
        Ok(())
    }

    /// Writes a file as it is read, which goes to `copy` as well.
    fn stream(
        &mut self,
        path: &Path,
        mode: u32,
        size: u64,
        file: File,
        copy: &mut impl Write,
    ) -> Result<(), PackError> {
        let mut contents = Copied {
            file: Exactly::new(file, size),
            copy,
            failed: false,
        };
        let written = self.tar.file(path, mode, size, &mut contents);
        written.map_err(|error| match contents.failed {
            true => PackError::read(path)(error),
            false => PackError::Write(error),
        })
    }
}

/// LocalCache what is read.
struct Copied<R, W> {
    file: R,
    copy: W,
    /// Whether the file could not be read.
    failed: bool,
}

impl<R: Read, W: Write> Read for Copied<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer).inspect_err(|error| {
            self.failed = error.kind() != io::ErrorKind::Interrupted;
        })?;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}

impl<W: Write> Visitor for Layer<'_, W> {
    fn directory(&mut self, path: &Path) -> Result<(), PackError> {
        self.tar
            .directory(path, DIRECTORY_MODE)
            .map_err(PackError::Write)
    }

    fn symlink(&mut self, path: &Path, target: &OsStr) -> Result<(), PackError> {
        self.tar.symlink(path, target).map_err(PackError::Write)
    }

    fn file(
        &mut self,
        path: &Path,
        executable: bool,
        size: u64,
        archive: &mut impl Write,
    ) -> Result<(), PackError> {
        let mode = file_mode(executable);
        // A link saves nothing for an empty file, and packages have many of these.
        if size > 0 && self.files_like.get(&(size, mode)) > Some(&1) {
            return self.twin(path, mode, size, archive);
        }
        let file = File::open(self.root.join(path)).map_err(PackError::read(path))?;
        self.stream(path, mode, size, file, archive)
    }
}

fn file_mode(executable: bool) -> u32 {
    if executable {
        EXECUTABLE_MODE
    } else {
        FILE_MODE
    }
}
