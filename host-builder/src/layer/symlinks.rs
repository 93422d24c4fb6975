//! `/bin`, `/etc`, `/share` … of an image: the packages laid over each other.
//!
//! Programs look for things in well-known places, the store's paths are anything but. So the last
//! layer is what nixpkgs' `symlinkJoin` would make of the requested packages: directories are real,
//! and merged wherever several packages have them; everything else is a link into the store.
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
//! A package's own links are leaves, never followed, and linked to like files. Two kinds are better
//! repeated than linked to: those with an absolute target, which lead to the same place anyway; and
//! those to a *directory* of the same package, like `sbin` above. The directory they speak of is
//! merged, so that `/sbin` shows the programs of all packages rather than those of one of them,
//! and the many packages that have that link all agree on it.
//!
//! When packages disagree, the first in the order given has its way, and the rest is reported.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::base;
use super::root_tree::{DIRECTORY_MODE, Entry, RootTree};
use super::tree::{Directory, Tree};
use crate::closure::StorePath;

/// The packages of an image laid over each other, and what did not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Directories, links and the files that every image has.
    pub(crate) root: RootTree,
    /// What packages have but the image does not, because an earlier package is in the way.
    pub(crate) collisions: Vec<Collision>,
    /// Packages that are a single file or link. Legal in Nix, but there is no name to put it at.
    pub(crate) without_directory: Vec<StorePath>,
}

/// Two packages have something at the same path, and it can't be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collision {
    /// Relative to the image's root.
    pub(crate) path: PathBuf,
    /// The package whose file, link or directory the image has.
    pub(crate) kept: StorePath,
    /// The package whose file, link or whole directory it has not.
    pub(crate) dropped: StorePath,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(
            f,
            "/{path} is that of {}, not of {}",
            self.kept, self.dropped
        )
    }
}

/// Lays packages over each other, in their canonical order, and adds what every image has.
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

/// Names at a package's root that an image has no use for: they are there for Nix's builders.
/// `nix` would lie over the store itself.
fn is_left_out(name: &OsStr) -> bool {
    name == "nix" || name == "nix-support" || name.as_bytes().starts_with(b"propagated-")
}

#[derive(Clone, Copy)]
struct Package<'a> {
    path: &'a StorePath,
    root: &'a Directory,
}

/// The packages that have something at a path, in order; never empty.
struct Candidates<'a> {
    first: (Package<'a>, &'a Tree),
    others: Vec<(Package<'a>, &'a Tree)>,
}

/// Merges what packages have in one directory, `at`.
fn merge_directories(
    at: &Path,
    directories: &[(Package<'_>, &Directory)],
    collisions: &mut Vec<Collision>,
) -> BTreeMap<OsString, Entry> {
    let is_root = at.as_os_str().is_empty();
    let mut by_name: BTreeMap<&OsStr, Candidates<'_>> = BTreeMap::new();
    for &(package, directory) in directories {
        for (name, tree) in directory {
            if is_root && is_left_out(name) {
                continue;
            }
            by_name
                .entry(name)
                .and_modify(|candidates| candidates.others.push((package, tree)))
                .or_insert_with(|| Candidates {
                    first: (package, tree),
                    others: Vec::new(),
                });
        }
    }
    by_name
        .into_iter()
        .map(|(name, candidates)| {
            let entry = merge_candidates(&at.join(name), &candidates, collisions);
            (name.to_owned(), entry)
        })
        .collect()
}

/// The first package decides whether there is a directory or a leaf; others join in if they can.
fn merge_candidates(
    path: &Path,
    candidates: &Candidates<'_>,
    collisions: &mut Vec<Collision>,
) -> Entry {
    let (first, tree) = candidates.first;
    let mut collide = |other: Package<'_>| {
        collisions.push(Collision {
            path: path.to_owned(),
            kept: first.path.clone(),
            dropped: other.path.clone(),
        });
    };
    if let Tree::Directory(directory) = tree {
        let mut directories = vec![(first, directory)];
        for &(package, tree) in &candidates.others {
            match tree {
                Tree::Directory(directory) => directories.push((package, directory)),
                Tree::File { .. } | Tree::Symlink(_) => collide(package),
            }
        }
        return Entry::Directory {
            mode: DIRECTORY_MODE,
            entries: merge_directories(path, &directories, collisions),
        };
    }
    let target = link_target(first, path, tree);
    for &(package, tree) in &candidates.others {
        let is_directory = matches!(tree, Tree::Directory(_));
        if is_directory || link_target(package, path, tree) != target {
            collide(package);
        }
    }
    Entry::Symlink(target)
}

/// The target of the image's link for a package's file or link.
fn link_target(package: Package<'_>, path: &Path, tree: &Tree) -> OsString {
    if let Tree::Symlink(target) = tree {
        let target_path = Path::new(target);
        if target_path.is_absolute() || leads_to_directory(package.root, path, target_path) {
            return target.clone();
        }
    }
    Path::new(&package.path.to_string()).join(path).into()
}

/// Whether the target of a link at `path` is a directory of the same package that is merged. A way
/// that leads through further links is not followed, and doesn't count.
fn leads_to_directory(root: &Directory, path: &Path, target: &Path) -> bool {
    let mut way = vec![root];
    let parent = path.parent().unwrap_or(Path::new(""));
    for component in parent.components().chain(target.components()) {
        match component {
            Component::CurDir => {}
            // The root stays: `..` in it leads out of the package, which no image can repeat.
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
