//! Packs a layer of store paths.
//!
//! ```text
//!   nix/                       0755   parents first: without entries, clients would choose their
//!   nix/store/                 0755   permissions
//!   nix/store/…-git/           0555   then each path, in order, as Nix has it:
//!   nix/store/…-git/bin/       0555     directories and programs 0555,
//!   nix/store/…-git/bin/git    0555     other files 0444
//!   nix/store/…-git/bin/git-log ──▶ hard link to …-git/bin/git
//! ```
//!
//! # A layer has what Nix made
//!
//! Nix records the hash of a store path when it makes it, and does not check it later. So packing
//! hashes the bytes that go into the layer, and fails if a path was changed ([`Altered`]). [`check`]
//! does the same for a tree that is read without packing.
//!
//! # Hard links
//!
//! Hard links on disk depend on the machine: Nix's archive format has none, so packages from a binary
//! cache have none either, while an optimised store (`nix-store --optimise`) has them everywhere. So a
//! layer follows *contents*: equal files are stored once, and later names are hard links to the first.
//! Each package keeps the hard links that it was built with, and every machine gets the same bytes.
//! Packages work with that, since they work in optimised stores.
//!
//! A file gets up to [`MAX_NAMES`] names; then it is stored again, and the next names are links to that.
//!
//! Only files with the same size and mode can be equal, so only their contents have to be known before they
//! are written: small ones are held in memory, large ones are read twice, and must not change meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::encoder::HashingWriter;
use super::nar::{self, Visitor};
use super::tar::{ExactReader, TarWriter};
use super::tree::{Tree, TreeError, Unfit, read_tree, unfit};
use super::{Altered, PackError, root_tree};
use nixgate_core::distribution::Digest;

use crate::closure::StorePath;

const DIRECTORY_MODE: u32 = 0o555;
const EXECUTABLE_MODE: u32 = 0o555;
const FILE_MODE: u32 = 0o444;

/// Names of one file in a layer. File systems bound its links: ext4 to 65,000, NTFS to 1,024.
const MAX_NAMES: usize = 1000;

/// Files up to this size that may have an equal are read into memory.
const SMALL: u64 = 1 << 20;

/// Writes store paths and the directories above them. See [`super::pack_store_paths`].
pub(super) fn write<W: Write>(
    tar: &mut TarWriter<W>,
    root: &Path,
    paths: &BTreeMap<StorePath, String>,
) -> Result<(), PackError> {
    let trees = collect(paths.iter().map(|(path, hash)| {
        let tree = tree_of(root, path, hash)?;
        if unfit(&path.in_archive(), &tree).is_some() {
            // Tells whether the file belongs to the package, or somebody has added it.
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
    collect(compared).map(drop)
}

/// Collects results, or the altered store paths of all errors.
pub(crate) fn collect<T>(
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

/// Reads the tree of a store path, and checks its contents against the NAR hash that Nix recorded.
///
/// # Errors
///
/// When it can't be read, has a file that no layer can hold, or differs from its hash.
pub(crate) fn check(root: &Path, path: &StorePath, hash: &str) -> Result<Tree, PackError> {
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

/// The present hash, for tests.
#[cfg(test)]
pub(super) fn hash_of(root: &Path, path: &StorePath) -> String {
    let tree = tree_of(root, path, "").unwrap();
    nar::hash(&path.in_archive(), &tree, &mut Contents { root }).unwrap()
}

fn tree_of(root: &Path, path: &StorePath, hash: &str) -> Result<Tree, PackError> {
    let on_disk = path.on_disk(root);
    read_tree(&on_disk).map_err(|error| match error {
        TreeError::UnsupportedType { .. } => Altered::of(path, hash, error),
        TreeError::Io { path: at, source } => read_failure(path, hash, at, source),
        // Nix may have made it or not: telling takes a walk over the whole tree.
        TreeError::TooDeep { path: file } => PackError::Unfit {
            path: path.clone(),
            file: file.strip_prefix(&on_disk).unwrap_or(&file).to_owned(),
            reason: Unfit::TooDeep,
        },
    })
}

/// For a file of a store path that can't be read. If it is missing or too short, the path was altered.
fn read_failure(path: &StorePath, hash: &str, file: PathBuf, source: io::Error) -> PackError {
    match source.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::UnexpectedEof => {
            Altered::of(path, hash, format!("{}: {source}", file.display()))
        }
        // A relative path could write it.
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

/// Lets `visitor` read a store path, and checks the bytes against the hash.
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
            Err(read_failure(path, hash, root.join(file), source))
        }
        Err(error) => Err(error),
    }
}

/// Only reads the files.
struct Contents<'a> {
    root: &'a Path,
}

impl Visitor for Contents<'_> {
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

fn open(root: &Path, path: &Path, size: u64) -> io::Result<ExactReader<File>> {
    Ok(ExactReader::new(File::open(root.join(path))?, size))
}

struct Layer<'a, W: Write> {
    tar: &'a mut TarWriter<W>,
    root: &'a Path,
    /// The number of files by size and mode.
    files_like: HashMap<(u64, u32), usize>,
    /// The first file by contents and mode.
    first_with: HashMap<(Digest, u32), Linked>,
}

/// Equal files in the layer.
#[derive(Default)]
struct Linked {
    /// To which further ones become hard links.
    first: PathBuf,
    /// Of all of them, including hard links.
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

    /// The earlier file to which this one becomes a hard link; none if this one has to be stored.
    fn link_target(&mut self, path: &Path, contents: Digest, mode: u32) -> Option<PathBuf> {
        let linked = self.first_with.entry((contents, mode)).or_default();
        let is_first = linked.names.is_multiple_of(MAX_NAMES);
        if is_first {
            linked.first = path.to_owned();
        }
        linked.names += 1;
        (!is_first).then(|| linked.first.clone())
    }

    /// Writes a file that may have an equal.
    fn write_deduplicated(
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
            return match self.link_target(path, Digest::of(&contents), mode) {
                Some(earlier) => self.tar.hard_link(path, mode, &earlier),
                None => self.tar.file(path, mode, size, &contents[..]),
            }
            .map_err(PackError::Write);
        }
        let mut first = HashingWriter::new(archive);
        io::copy(&mut file, &mut first).map_err(read(path))?;
        let (_, contents, _) = first.finish();
        if let Some(earlier) = self.link_target(path, contents, mode) {
            return self
                .tar
                .hard_link(path, mode, &earlier)
                .map_err(PackError::Write);
        }
        let mut file = file.into_inner();
        file.rewind().map_err(read(path))?;
        let mut again = HashingWriter::new(io::sink());
        self.stream(path, mode, size, file, &mut again)?;
        let (_, packed, _) = again.finish();
        if packed != contents {
            // This kind of error counts as altered.
            let error = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file changes while it is packed",
            );
            return Err(read(path)(error));
        }
        Ok(())
    }

    /// Writes a file as it is read, and copies it to `copy`.
    fn stream(
        &mut self,
        path: &Path,
        mode: u32,
        size: u64,
        file: File,
        copy: &mut impl Write,
    ) -> Result<(), PackError> {
        let mut contents = TeeReader {
            file: ExactReader::new(file, size),
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

/// Copies what it reads.
struct TeeReader<R, W> {
    file: R,
    copy: W,
    /// Whether the file could not be read.
    failed: bool,
}

impl<R: Read, W: Write> Read for TeeReader<R, W> {
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
        // A link to an empty file saves nothing, and packages have many empty files.
        if size > 0 && self.files_like.get(&(size, mode)) > Some(&1) {
            return self.write_deduplicated(path, mode, size, archive);
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
