//! `/bin`, `/etc`, `/share` … of an image: the merged trees of its packages.
//!
//! The last layer is what nixpkgs' `symlinkJoin` would make of the requested packages: directories are real
//! and merged; everything else is a link into the store.
//!
//! ```text
//!   …-bash               …-git                  the image
//!   ├─ bin/              ├─ bin/                ├─ bin/
//!   │  ├─ bash           │  └─ git              │  ├─ bash ──▶ /nix/store/…-bash/bin/bash
//!   │  └─ sh ─▶ bash     ├─ sbin ─▶ bin         │  ├─ git  ──▶ /nix/store/…-git/bin/git
//!   └─ share/            └─ share/              │  └─ sh   ──▶ /nix/store/…-bash/bin/sh
//!      └─ man/              └─ man/             ├─ sbin ──▶ bin
//!                                               └─ share/man/ …
//! ```
//!
//! A package's own links are not followed, and linked to like files. Two kinds are copied instead: links
//! with an absolute target, which lead to the same place anyway; and links to a *directory* of the same
//! package, like `sbin` above. That directory is merged, so `/sbin` shows the programs of all packages, and
//! packages with the same link don't collide.
//!
//! If packages collide, the first in the given order wins, and the others are reported.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::base;
use super::root_tree::{DIRECTORY_MODE, RootEntry, RootTree};
use super::tree::{Directory, Tree};
use crate::closure::StorePath;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merged {
    /// With the files that every image has.
    pub(crate) root: RootTree,
    pub(crate) collisions: Vec<Collision>,
    /// Packages that are a single file or link, which have no name outside of the store.
    pub(crate) without_directory: Vec<StorePath>,
}

/// Two packages have the same path, and it can't be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collision {
    /// Relative to the image's root.
    pub(crate) path: PathBuf,
    /// The package whose entry the image has.
    pub(crate) kept: StorePath,
    /// The package whose entry it lacks.
    pub(crate) dropped: StorePath,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(
            f,
            "/{path} is from {}, not from {}",
            self.kept, self.dropped
        )
    }
}

/// Merges packages, in their canonical order, and adds the files of every image.
pub(crate) fn merge<'a>(packages: impl IntoIterator<Item = (&'a StorePath, &'a Tree)>) -> Merged {
    let mut without_directory = Vec::new();
    let mut directories = Vec::new();
    for (path, tree) in packages {
        match tree {
            Tree::Directory(root) => directories.push((Package { path, root }, root)),
            Tree::File { .. } | Tree::Symlink(_) => without_directory.push(path.clone()),
        }
    }
    let mut collisions = Vec::new();
    let entries = merge_directories(Path::new(""), &directories, &mut collisions);
    let mut root = RootTree { entries };
    base::add(&mut root);
    Merged {
        root,
        collisions,
        without_directory,
    }
}

/// Names at a package's root that only Nix's builders use; and `nix`, which would hide the store.
fn is_left_out(name: &OsStr) -> bool {
    name == "nix" || name == "nix-support" || name.as_bytes().starts_with(b"propagated-")
}

#[derive(Clone, Copy)]
struct Package<'a> {
    path: &'a StorePath,
    root: &'a Directory,
}

/// A package and its entry at some path.
type Candidate<'a> = (Package<'a>, &'a Tree);

/// Merges one directory of several packages.
fn merge_directories(
    at: &Path,
    directories: &[(Package<'_>, &Directory)],
    collisions: &mut Vec<Collision>,
) -> BTreeMap<OsString, RootEntry> {
    let is_root = at.as_os_str().is_empty();
    let mut by_name: BTreeMap<&OsStr, Vec<Candidate<'_>>> = BTreeMap::new();
    for &(package, directory) in directories {
        for (name, tree) in directory {
            if is_root && is_left_out(name) {
                continue;
            }
            by_name.entry(name).or_default().push((package, tree));
        }
    }
    by_name
        .into_iter()
        .filter_map(|(name, candidates)| {
            let entry = merge_candidates(&at.join(name), &candidates, collisions)?;
            Some((name.to_owned(), entry))
        })
        .collect()
}

/// Merges the entries at one path. The first decides whether it is a directory. None without candidates.
fn merge_candidates(
    path: &Path,
    candidates: &[Candidate<'_>],
    collisions: &mut Vec<Collision>,
) -> Option<RootEntry> {
    let (&(first, tree), others) = candidates.split_first()?;
    let mut collide = |other: Package<'_>| {
        collisions.push(Collision {
            path: path.to_owned(),
            kept: first.path.clone(),
            dropped: other.path.clone(),
        });
    };
    if let Tree::Directory(directory) = tree {
        let mut directories = vec![(first, directory)];
        for &(package, tree) in others {
            match tree {
                Tree::Directory(directory) => directories.push((package, directory)),
                Tree::File { .. } | Tree::Symlink(_) => collide(package),
            }
        }
        return Some(RootEntry::Directory {
            mode: DIRECTORY_MODE,
            entries: merge_directories(path, &directories, collisions),
        });
    }
    let target = link_target(first, path, tree);
    for &(package, tree) in others {
        let is_directory = matches!(tree, Tree::Directory(_));
        if is_directory || link_target(package, path, tree) != target {
            collide(package);
        }
    }
    Some(RootEntry::Symlink(target))
}

/// The target of the image's link to a package's file or link.
fn link_target(package: Package<'_>, path: &Path, tree: &Tree) -> OsString {
    if let Tree::Symlink(target) = tree {
        let target_path = Path::new(target);
        if target_path.is_absolute() || leads_to_directory(package.root, path, target_path) {
            return target.clone();
        }
    }
    Path::new(&package.path.to_string()).join(path).into()
}

/// Whether the target of a link at `path` is a directory of the same package that is merged. Returns false
/// for a target behind further links.
fn leads_to_directory(root: &Directory, path: &Path, target: &Path) -> bool {
    let mut way = vec![root];
    let parent = path.parent().unwrap_or(Path::new(""));
    for component in parent.components().chain(target.components()) {
        match component {
            Component::CurDir => {}
            // `..` at the root leads out of the package.
            Component::ParentDir if way.len() > 1 => {
                way.pop();
            }
            Component::Normal(name) if way.len() > 1 || !is_left_out(name) => {
                match way.last().and_then(|directory| directory.get(name)) {
                    Some(Tree::Directory(directory)) => way.push(directory),
                    _ => return false,
                }
            }
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
