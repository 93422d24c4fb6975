//! What an image's root needs of store paths that nobody asked for.
//!
//! ```text
//!   …-env/bin ─▶ /nix/store/…-tools/bin        linked:  the tree of …-tools, to be merged with
//!                                                       other packages' bin
//!   …-requests/nix-support/propagated-…        modules: lib/python3.13/site-packages of …-urllib3,
//!        └─ …-urllib3                                   without which requests can't be imported
//! ```
//!
//! Both are found once for each package, and are part of its record. Like the trees of outputs, they are
//! read only from store paths that match Nix's record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::known::split;
use super::store_paths::check;
use super::tree::{Directory, Tree};
use super::{PackError, collect};
use crate::closure::{Closure, StorePath};

/// Entries of all trees that links lead to. The largest real packages have about a hundred thousand. A link
/// to a tree beyond that is copied, and can't be merged with other packages' directories.
const MAX_ENTRIES: usize = 300_000;

/// Bytes of a list of propagated packages. Real ones have less than 10,000.
const MAX_LIST: u64 = 1 << 20;

/// The list of a package, in which nixpkgs names the packages that have to be there too.
const PROPAGATED: &str = "nix-support/propagated-build-inputs";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The trees of store paths that links to directories lead to.
    pub(crate) linked: Vec<(StorePath, Tree)>,
    /// The folders of modules of propagated packages, nearest first.
    pub(crate) modules: Vec<(StorePath, Tree)>,
    /// Whether the C library that its programs use has the locale C.UTF-8.
    pub(crate) has_utf8: bool,
}

impl Reach {
    /// Reads it for the outputs of a package. The store is mounted below `root`, usually `/`.
    ///
    /// # Errors
    ///
    /// As [`check`].
    pub(crate) fn read(
        root: &Path,
        outputs: &[(StorePath, &Tree)],
        closure: &Closure,
    ) -> Result<Self, PackError> {
        Ok(Self {
            linked: linked(root, outputs, closure)?,
            modules: modules(root, outputs, closure)?,
            has_utf8: closure
                .paths()
                .keys()
                .any(|path| has_utf8(&path.on_disk(root))),
        })
    }
}

/// Whether a package on disk is a C library with the locale C.UTF-8, as nixpkgs builds glibc. The locales
/// of another package would not be found.
fn has_utf8(package: &Path) -> bool {
    let library = package.join("lib");
    library.join("locale/C.utf8").is_dir() && library.join("libc.so.6").exists()
}

/// The tree of a store path of the closure.
fn read(root: &Path, path: &StorePath, closure: &Closure) -> Result<Tree, PackError> {
    let info = closure.paths().get(path);
    check(root, path, info.map_or("", |info| info.nar_hash.as_str()))
}

fn linked(
    root: &Path,
    outputs: &[(StorePath, &Tree)],
    closure: &Closure,
) -> Result<Vec<(StorePath, Tree)>, PackError> {
    let mut found: BTreeMap<StorePath, Tree> = BTreeMap::new();
    let mut entries = 0;
    let mut targets = BTreeSet::new();
    for (_, tree) in outputs {
        absolute_targets(tree, &mut targets);
    }
    let mut seen = BTreeSet::new();
    while let Some(target) = targets.pop_first() {
        let Some((path, within)) = split(target.as_os_str()) else {
            continue;
        };
        let is_known = outputs.iter().any(|(output, _)| *output == path);
        if is_known || !closure.paths().contains_key(&path) || !seen.insert(target.clone()) {
            continue;
        }
        if !found.contains_key(&path) {
            if !path.on_disk(root).join(within).is_dir() {
                continue;
            }
            let tree = read(root, &path, closure)?;
            entries += size(&tree);
            if entries > MAX_ENTRIES {
                break;
            }
            found.insert(path.clone(), tree);
        }
        // Only what is below the target can be merged, unless the way there has links.
        let tree = found.get(&path);
        let below = tree.and_then(|tree| tree.below(within)).or(tree);
        if let Some(below) = below {
            absolute_targets(below, &mut targets);
        }
    }
    Ok(found.into_iter().collect())
}

/// Adds the targets of a tree's links into the store.
fn absolute_targets(tree: &Tree, targets: &mut BTreeSet<PathBuf>) {
    match tree {
        Tree::Directory(entries) => entries
            .values()
            .for_each(|entry| absolute_targets(entry, targets)),
        Tree::Symlink(target) if split(target).is_some() => {
            targets.insert(target.into());
        }
        Tree::Symlink(_) | Tree::File { .. } => {}
    }
}

fn size(tree: &Tree) -> usize {
    match tree {
        Tree::Directory(entries) => 1 + entries.values().map(size).sum::<usize>(),
        Tree::File { .. } | Tree::Symlink(_) => 1,
    }
}

fn modules(
    root: &Path,
    outputs: &[(StorePath, &Tree)],
    closure: &Closure,
) -> Result<Vec<(StorePath, Tree)>, PackError> {
    let mut seen: BTreeSet<StorePath> = outputs.iter().map(|(path, _)| path.clone()).collect();
    let mut ahead: VecDeque<StorePath> = outputs.iter().map(|(path, _)| path.clone()).collect();
    let mut found = Vec::new();
    while let Some(path) = ahead.pop_front() {
        for next in propagated(&path.on_disk(root)) {
            let is_new = closure.paths().contains_key(&next) && seen.insert(next.clone());
            if !is_new || !has_modules(&next.on_disk(root)) {
                continue;
            }
            let tree = read(root, &next, closure);
            if tree.is_ok() {
                // Its list is now known to be what Nix made.
                ahead.push_back(next.clone());
            }
            found.push(tree.map(|tree| {
                let folders = match &tree {
                    Tree::Directory(entries) => module_folders(entries),
                    Tree::File { .. } | Tree::Symlink(_) => Directory::new(),
                };
                (next, Tree::Directory(folders))
            }));
        }
    }
    collect(found.into_iter())
}

/// The store paths in a package's list; none if it has no list that nixpkgs would write.
fn propagated(package: &Path) -> Vec<StorePath> {
    let path = package.join(PROPAGATED);
    let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
    let mut text = String::new();
    let read = is_file
        && File::open(path).is_ok_and(|file| file.take(MAX_LIST).read_to_string(&mut text).is_ok());
    let paths = text.split_whitespace().filter(|_| read);
    paths.filter_map(|path| path.parse().ok()).collect()
}

/// Whether a package on disk has modules. An interpreter has a folder for them as well, which is large and
/// needed by nobody but itself.
fn has_modules(package: &Path) -> bool {
    let library = package.join("lib");
    let Ok(entries) = fs::read_dir(&library) else {
        return false;
    };
    let is_interpreter = ["bin/python3", "bin/python", "bin/perl"]
        .iter()
        .any(|program| package.join(program).symlink_metadata().is_ok());
    let mut names = entries.flatten().map(|entry| entry.file_name());
    !is_interpreter
        && names.any(|name| {
            let folder = module_folder(&name);
            folder.is_some_and(|folder| library.join(&name).join(folder).is_dir())
        })
}

/// Where modules are in a folder of `lib`: as nixpkgs has them.
fn module_folder(name: &OsStr) -> Option<&'static str> {
    let name = name.to_str()?;
    if name == "perl5" {
        return Some("site_perl");
    }
    let version = name.strip_prefix("python")?;
    let is_version = version.starts_with(|first: char| first.is_ascii_digit());
    is_version.then_some("site-packages")
}

/// The tree with the folders of modules alone.
fn module_folders(package: &Directory) -> Directory {
    let Some(Tree::Directory(library)) = package.get(OsStr::new("lib")) else {
        return Directory::new();
    };
    let folders = library.iter().filter_map(|(name, tree)| {
        let folder = module_folder(name)?;
        let modules = tree.below(Path::new(folder))?.clone();
        let within = Tree::Directory([(folder.into(), modules)].into());
        Some((name.clone(), within))
    });
    Directory::from([("lib".into(), Tree::Directory(folders.collect()))])
}

#[cfg(test)]
mod tests;
