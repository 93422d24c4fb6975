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
//! Only files that have a twin of the same size can be equal, so only these are read twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::encoder::Measured;
use super::tar::TarWriter;
use super::tree::{Tree, read_tree};
use super::{PackError, root_tree};
use nixgate_core::distribution::Digest;

use crate::closure::StorePath;

const DIRECTORY_MODE: u32 = 0o555;
const EXECUTABLE_MODE: u32 = 0o555;
const FILE_MODE: u32 = 0o444;

/// Writes store paths and the directories above them. See [`super::pack_store_paths`].
pub(super) fn write<W: Write>(
    tar: &mut TarWriter<W>,
    root: &Path,
    paths: &[StorePath],
) -> Result<(), PackError> {
    let mut paths: Vec<&StorePath> = paths.iter().collect();
    paths.sort_unstable();
    paths.dedup();
    let trees: Vec<(PathBuf, Tree)> = paths
        .into_iter()
        .map(|path| Ok((path.in_archive(), read_tree(&path.on_disk(root))?)))
        .collect::<Result<_, PackError>>()?;

    for parent in ["nix", "nix/store"].map(Path::new) {
        tar.directory(parent, root_tree::DIRECTORY_MODE)
            .map_err(PackError::io(parent))?;
    }
    let mut layer = Layer {
        tar,
        root,
        files_like: HashMap::new(),
        first_with: HashMap::new(),
    };
    for (_, tree) in &trees {
        layer.count_files(tree);
    }
    for (path, tree) in &trees {
        layer.write(path, tree)?;
    }
    Ok(())
}

struct Layer<'a, W: Write> {
    tar: &'a mut TarWriter<W>,
    /// Below which the store is mounted.
    root: &'a Path,
    /// How many files have this size and mode.
    files_like: HashMap<(u64, u32), usize>,
    /// The first file that has these contents and this mode.
    first_with: HashMap<(Digest, u32), PathBuf>,
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

    /// `path` is relative to the image's root as well as to the root on disk.
    fn write(&mut self, path: &Path, tree: &Tree) -> Result<(), PackError> {
        match tree {
            Tree::Directory(entries) => {
                self.tar
                    .directory(path, DIRECTORY_MODE)
                    .map_err(PackError::io(path))?;
                for (name, entry) in entries {
                    self.write(&path.join(name), entry)?;
                }
                Ok(())
            }
            &Tree::File { executable, size } => self
                .write_file(path, size, file_mode(executable))
                .map_err(PackError::io(path)),
            Tree::Symlink(target) => self.tar.symlink(path, target).map_err(PackError::io(path)),
        }
    }

    fn write_file(&mut self, path: &Path, size: u64, mode: u32) -> io::Result<()> {
        let on_disk = self.root.join(path);
        // A link saves nothing for an empty file, and packages have so many of these that file
        // systems would run out of links (ext4: 65,000).
        let may_have_twin = size > 0 && self.files_like.get(&(size, mode)) > Some(&1);
        if may_have_twin {
            let contents = (hash_file(&on_disk)?, mode);
            if let Some(first) = self.first_with.get(&contents) {
                return self.tar.hard_link(path, mode, first);
            }
            self.first_with.insert(contents, path.to_owned());
        }
        self.tar.file(path, mode, size, File::open(on_disk)?)
    }
}

fn file_mode(executable: bool) -> u32 {
    if executable {
        EXECUTABLE_MODE
    } else {
        FILE_MODE
    }
}

fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut contents = Measured::new(io::sink());
    io::copy(&mut File::open(path)?, &mut contents)?;
    let (_, digest, _) = contents.finish();
    Ok(digest)
}
