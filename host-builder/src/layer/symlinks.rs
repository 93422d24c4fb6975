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
//! package, like `sbin` above. That directory is merged, so `/sbin` shows the programs of all packages.
//!
//! # Links to directories
//!
//! When packages disagree about a path, a link that leads to a directory counts as that directory, in this
//! package or in another store path ([`Known`]):
//!
//! ```text
//!   …-bash               …-jdk                              the image
//!   └─ bin/              ├─ bin ─▶ lib/openjdk/bin          └─ bin/
//!      └─ bash           └─ lib/openjdk/bin/                   ├─ bash ──▶ /nix/store/…-bash/bin/bash
//!                           └─ java                            └─ java ──▶ /nix/store/…-jdk/bin/java
//! ```
//!
//! So the order of the packages decides between files, and never between directories. A directory also goes
//! before a file. What the image lacks of a package is reported.
//!
//! # The image's own
//!
//! The image needs some directories itself ([`Base`]): a package may add to them, but not replace them. It
//! may not even add to those that a container runtime mounts over, and not to `/nix`.
//!
//! # The profile
//!
//! `/nix/var/nixgate/profile` has the same tree once more, by links into the store alone. So the tools of an
//! image work in any container that has its `/nix` mounted, which has none of `/bin` and `/lib` of the image.
//! A directory that comes from one package alone is one link there, as in a Nix profile: the tree would double
//! otherwise. What leads out of the store is left out.
//!
//! # Bounds
//!
//! Links to directories could make a small package into an endless tree. None is followed that leads to a
//! directory on the way to itself, nor when [`MAX_FOLLOWED`] entries were merged behind links.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::ptr;

use super::base::{Base, is_mounted};
use super::environment::{Environment, Packages};
use super::known::{Known, split};
use super::origins::{Entry, Origins, Reason};
use super::reach::Reach;
use super::root_tree::{DIRECTORY_MODE, Owner, RootDirectory, RootEntry, RootTree};
use super::tree::{Directory, MAX_DEPTH, MAX_PATH, Tree};
use crate::closure::StorePath;

/// Entries of directories behind links that are merged into one image. Real images have a few thousand.
const MAX_FOLLOWED: usize = 100_000;

/// The packages' tree by links into the store alone.
const PROFILE: &str = "nix/var/nixgate/profile";

/// Directories that lead to the modules in a package.
const ABOVE_MODULES: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merged {
    /// With the files that every image has.
    pub(crate) root: RootTree,
    /// Variables by which programs find what the packages bring.
    pub(crate) environment: Environment,
    /// Why it has each of these.
    pub(crate) reasons: BTreeMap<String, Vec<Reason>>,
    /// Where the upper entries of the root come from.
    pub(crate) entries: Vec<Entry>,
    /// Pythons for which the image has modules, but that are not in it: `python3.12`.
    pub(crate) absent_pythons: Vec<String>,
    /// In the order of the image's paths.
    pub(crate) dropped: Vec<Dropped>,
    /// Packages that are a single file, which has no name outside of the store.
    pub(crate) without_directory: Vec<StorePath>,
}

/// A package's entry that the image lacks, because another one has its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Relative to the image's root.
    pub(crate) path: PathBuf,
    pub(crate) package: StorePath,
    /// The package whose entry the image has; none if it is the image's own.
    pub(crate) kept: Option<StorePath>,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, package) = (self.path.display(), self.package.name());
        match &self.kept {
            Some(kept) if kept.name() == package => {
                write!(f, "/{path} of {} is left out: {kept} has it", self.package)
            }
            Some(kept) => write!(
                f,
                "/{path} of {package} is left out: {} has it",
                kept.name()
            ),
            None => write!(f, "/{path} of {package} is left out: it is the image's own"),
        }
    }
}

/// Merges packages, in their canonical order, and adds the files of every image. `reach` has what the
/// packages need of other store paths.
pub(crate) fn merge<'a>(
    packages: impl IntoIterator<Item = (&'a StorePath, &'a Tree)>,
    reach: impl IntoIterator<Item = &'a Reach>,
) -> Merged {
    let packages: Vec<(&StorePath, &Tree)> = packages.into_iter().collect();
    let reach: Vec<&Reach> = reach.into_iter().collect();
    let linked = reach.iter().flat_map(|one| &one.linked);
    let known: Known<'_> = linked
        .map(|(path, tree)| (path, tree))
        .chain(packages.iter().copied())
        .collect();
    let mut without_directory = Vec::new();
    let mut directories = Vec::new();
    for &(package, _) in &packages {
        match known.find(package, Path::new("")) {
            Some(Tree::Directory(root)) => directories.push(Part::root(package, root)),
            _ => without_directory.push(package.clone()),
        }
    }
    let requested: Vec<&StorePath> = directories.iter().map(|part| part.package).collect();
    let base = Base::new(&known, requested.iter().copied());
    let modules = reach.iter().flat_map(|one| &one.modules);
    let (mut more, mut trees) = (Vec::new(), Vec::new());
    for (package, tree) in modules {
        let is_new = |part: &Part<'_>| part.package != package;
        if let Tree::Directory(root) = tree
            && directories.iter().all(is_new)
            && more.iter().all(is_new)
        {
            more.push(Part {
                whole_below: ABOVE_MODULES,
                ..Part::root(package, root)
            });
            trees.push((package, tree));
        }
    }
    directories.extend(more);
    let packages = Packages {
        known: &known,
        requested: &requested,
        modules: &trees,
        has_utf8: reach.iter().any(|one| one.has_utf8),
    };
    let (environment, reasons) = packages.environment();
    let absent_pythons = packages.other_pythons();
    let mut merge = Merge {
        known: &known,
        base: &base,
        followed: 0,
        dropped: Vec::new(),
        origins: Origins::default(),
    };
    let entries = merge.directories(Path::new(""), &directories);
    let (dropped, origins) = (merge.dropped, merge.origins);
    let profile = directory(profile(&entries), None);
    let mut root = RootTree { entries };
    root.put_if_absent(Path::new(PROFILE), RootEntry::Directory(profile));
    base.add(&mut root);
    Merged {
        entries: origins.entries(&root),
        root,
        environment,
        reasons,
        absent_pythons,
        dropped,
        without_directory,
    }
}

/// A directory of root's.
fn directory(entries: BTreeMap<OsString, RootEntry>, alone: Option<OsString>) -> RootDirectory {
    RootDirectory {
        mode: DIRECTORY_MODE,
        owner: Owner::default(),
        entries,
        alone,
    }
}

/// The packages' tree without what leads out of the store, and with one link for what one package alone has.
/// A relative link leads to a directory of this tree.
fn profile(entries: &BTreeMap<OsString, RootEntry>) -> BTreeMap<OsString, RootEntry> {
    let entries = entries.iter().filter_map(|(name, entry)| {
        let entry = match entry {
            RootEntry::Directory(merged) => match &merged.alone {
                Some(target) => RootEntry::Symlink(target.clone()),
                None => RootEntry::Directory(directory(profile(&merged.entries), None)),
            },
            RootEntry::Symlink(target) => {
                let leads_out = Path::new(target).is_absolute() && split(target).is_none();
                (!leads_out).then(|| entry.clone())?
            }
            RootEntry::File(_) => return None,
        };
        Some((name.clone(), entry))
    });
    entries.collect()
}

/// Names at a package's root that only Nix's builders use.
fn is_for_builders(name: &OsStr) -> bool {
    name == "nix-support" || name.as_bytes().starts_with(b"propagated-")
}

/// What a package has at some path: a directory.
#[derive(Clone)]
struct Part<'a> {
    package: &'a StorePath,
    /// Its tree, in which it is searched for targets of links.
    root: &'a Directory,
    directory: &'a Directory,
    /// The directories on the way, itself included.
    way: Vec<&'a Directory>,
    /// Whether a link is on the way.
    followed: bool,
    /// How many directories deep the tree leaves out other things of the package.
    whole_below: usize,
}

impl<'a> Part<'a> {
    fn root(package: &'a StorePath, root: &'a Directory) -> Self {
        Self {
            package,
            root,
            directory: root,
            way: vec![root],
            followed: false,
            whole_below: 0,
        }
    }

    /// A directory below, or behind a link that is below.
    fn below(&self, directory: &'a Directory, is_link: bool) -> Self {
        let mut way = self.way.clone();
        way.push(directory);
        Self {
            directory,
            way,
            followed: self.followed || is_link,
            ..self.clone()
        }
    }
}

/// What a package has in a directory.
type Candidate<'p, 'a> = (&'p Part<'a>, &'a Tree);

struct Merge<'b, 'a> {
    known: &'b Known<'a>,
    base: &'b Base,
    /// Entries behind links so far.
    followed: usize,
    dropped: Vec<Dropped>,
    origins: Origins,
}

impl<'a> Merge<'_, 'a> {
    /// Merges one directory of several packages.
    fn directories(&mut self, at: &Path, parts: &[Part<'a>]) -> BTreeMap<OsString, RootEntry> {
        let is_root = at.as_os_str().is_empty();
        let mut by_name: BTreeMap<&OsStr, Vec<Candidate<'_, 'a>>> = BTreeMap::new();
        for part in parts {
            for (name, tree) in part.directory {
                by_name.entry(name).or_default().push((part, tree));
            }
        }
        let mut merged = BTreeMap::new();
        for (name, candidates) in by_name {
            let path = at.join(name);
            if is_root && is_for_builders(name) {
            } else if is_root && is_mounted(name) {
                for (part, _) in candidates {
                    self.drop(&path, part.package, None);
                }
            } else if let Some(entry) = self.candidates(&path, &candidates) {
                merged.insert(name.to_owned(), entry);
            }
        }
        merged
    }

    /// Merges the entries at one path. None if the image needs a directory there, and no package has one.
    fn candidates(&mut self, path: &Path, candidates: &[Candidate<'_, 'a>]) -> Option<RootEntry> {
        let is_own = self.base.needs_directory(path);
        let agreed = agreed_target(path, candidates);
        if let Some(target) = agreed.filter(|_| !is_own) {
            let packages = candidates.iter().map(|(part, _)| part.package);
            self.origins.add(path, packages);
            return Some(RootEntry::Symlink(target));
        }
        let mut parts: Vec<Part<'a>> = Vec::new();
        let mut others = Vec::new();
        for &(part, tree) in candidates {
            match self.directory(part, path, tree) {
                Some(directory) => parts.push(directory),
                None => others.push((part, tree)),
            }
        }
        if let Some(first) = parts.first() {
            let kept = (!is_own).then_some(first.package);
            for (other, _) in others {
                self.drop(path, other.package, kept);
            }
            self.origins
                .add(path, parts.iter().map(|part| part.package));
            return Some(RootEntry::Directory(directory(
                self.directories(path, &parts),
                alone(path, &parts),
            )));
        }
        let kept = others.first().filter(|_| !is_own);
        let target = kept.map(|(part, tree)| Target::of(part, path, tree));
        if let Some((part, _)) = kept {
            self.origins.add(path, [part.package]);
        }
        for (other, tree) in &others {
            if target.as_ref() != Some(&Target::of(other, path, tree)) {
                self.drop(path, other.package, kept.map(|(part, _)| part.package));
            }
        }
        target.map(|target| RootEntry::Symlink(target.text))
    }

    /// The directory that an entry is, or that it leads to.
    fn directory(&mut self, part: &Part<'a>, path: &Path, tree: &'a Tree) -> Option<Part<'a>> {
        let found = match tree {
            Tree::Directory(directory) => part.below(directory, false),
            Tree::File { .. } => return None,
            Tree::Symlink(_) => {
                let Some(Tree::Directory(directory)) = self.known.find(part.package, path) else {
                    return None;
                };
                if part.way.iter().any(|above| ptr::eq(*above, directory)) {
                    return None;
                }
                part.below(directory, true)
            }
        };
        if found.followed {
            // Links may lead to deep trees, again and again.
            if path.components().count() > MAX_DEPTH || path.as_os_str().len() > MAX_PATH {
                return None;
            }
            let followed = self.followed + found.directory.len() + 1;
            if followed > MAX_FOLLOWED {
                return None;
            }
            self.followed = followed;
        }
        Some(found)
    }

    fn drop(&mut self, path: &Path, package: &StorePath, kept: Option<&StorePath>) {
        self.dropped.push(Dropped {
            path: path.to_owned(),
            package: package.clone(),
            kept: kept.cloned(),
        });
    }
}

/// The directory in the store that has all that is at a path, if one package alone has something there.
fn alone(path: &Path, parts: &[Part<'_>]) -> Option<OsString> {
    let [part] = parts else {
        return None;
    };
    let is_whole = path.components().count() > part.whole_below;
    is_whole.then(|| in_store(part.package, path))
}

/// What a package has at a path of the image.
fn in_store(package: &StorePath, path: &Path) -> OsString {
    Path::new(&package.to_string()).join(path).into()
}

/// The target of the image's link, if all packages have the same link there.
fn agreed_target(path: &Path, candidates: &[Candidate<'_, '_>]) -> Option<OsString> {
    let mut targets = candidates.iter().map(|(part, tree)| match tree {
        Tree::Directory(_) => None,
        Tree::File { .. } | Tree::Symlink(_) => Some(Target::of(part, path, tree)),
    });
    let first = targets.next()??;
    let agree = targets.all(|target| target.as_ref() == Some(&first));
    agree.then_some(first.text)
}

/// The target of the image's link to a package's file or link.
#[derive(Debug)]
struct Target {
    text: OsString,
    /// For a directory of the package that is merged: its path in the image. It can be written in several
    /// ways.
    directory: Option<PathBuf>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        match (&self.directory, &other.directory) {
            (Some(one), Some(other)) => one == other,
            (None, None) => self.text == other.text,
            _ => false,
        }
    }
}

impl Target {
    fn of(part: &Part<'_>, path: &Path, tree: &Tree) -> Self {
        let text = |text: &OsStr, directory| Self {
            text: text.to_owned(),
            directory,
        };
        if let Tree::Symlink(target) = tree {
            let target_path = Path::new(target);
            if target_path.is_absolute() {
                return text(target, None);
            }
            if let Some(directory) = merged_directory(part.root, path, target_path) {
                return text(target, Some(directory));
            }
        }
        text(&in_store(part.package, path), None)
    }
}

/// The directory of the same package that a link at `path` leads to, if it is merged. None for a target
/// behind further links.
fn merged_directory(root: &Directory, path: &Path, target: &Path) -> Option<PathBuf> {
    let (mut way, mut at) = (vec![root], PathBuf::new());
    let parent = path.parent().unwrap_or(Path::new(""));
    for component in parent.components().chain(target.components()) {
        match component {
            Component::CurDir => {}
            // `..` at the root leads out of the package.
            Component::ParentDir if way.len() > 1 => {
                way.pop();
                at.pop();
            }
            Component::Normal(name)
                if way.len() > 1 || !(is_for_builders(name) || is_mounted(name)) =>
            {
                let Some(Tree::Directory(directory)) = way.last()?.get(name) else {
                    return None;
                };
                way.push(directory);
                at.push(name);
            }
            _ => return None,
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests;
