//! Follows links through the trees of store paths that are known, as the kernel would in a container.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::tree::Tree;
use crate::closure::{STORE_DIR, StorePath};

/// Links on the way to one file. The kernel follows 40.
const MAX_LINKS: usize = 40;

/// The trees of store paths.
#[derive(Debug, Clone, Default)]
pub(super) struct Known<'a>(BTreeMap<&'a StorePath, &'a Tree>);

impl<'a> FromIterator<(&'a StorePath, &'a Tree)> for Known<'a> {
    fn from_iter<T: IntoIterator<Item = (&'a StorePath, &'a Tree)>>(trees: T) -> Self {
        Self(trees.into_iter().collect())
    }
}

impl<'a> Known<'a> {
    /// The file or directory at a path of a package, behind all links; none if a link leads nowhere, or to
    /// what is not known.
    pub(super) fn find(&self, package: &'a StorePath, path: &Path) -> Option<&'a Tree> {
        let mut way: Vec<&'a Tree> = vec![self.0.get(package)?];
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        lay(path, &mut ahead);
        let mut links = 0;
        loop {
            let tree: &'a Tree = way.last()?;
            if let Tree::Symlink(target) = tree {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                match split(target) {
                    Some((package, within)) => {
                        way = vec![self.0.get(&package)?];
                        lay(within, &mut ahead);
                    }
                    None if Path::new(target).is_absolute() => return None,
                    None => {
                        way.pop();
                        lay(Path::new(target), &mut ahead);
                    }
                }
                continue;
            }
            let Some(name) = ahead.pop_front() else {
                return Some(tree);
            };
            match tree {
                Tree::Directory(_) if name == ".." => drop(way.pop()),
                Tree::Directory(entries) => way.push(entries.get(&name)?),
                Tree::File { .. } | Tree::Symlink(_) => return None,
            }
        }
    }

    pub(super) fn any_has(
        &self,
        mut packages: impl Iterator<Item = &'a StorePath>,
        path: &Path,
    ) -> bool {
        packages.any(|package| self.has(package, path))
    }

    /// Whether a package has a file or directory at a path.
    pub(super) fn has(&self, package: &'a StorePath, path: &Path) -> bool {
        self.find(package, path).is_some() || self.leads_on(package, path)
    }

    /// Whether a package has a link into another store path, which need not be known: what a package names in
    /// the store is there.
    fn leads_on(&self, package: &'a StorePath, path: &Path) -> bool {
        let parent = path.parent().unwrap_or(Path::new(""));
        let Some(Tree::Directory(entries)) = self.find(package, parent) else {
            return false;
        };
        let entry = path.file_name().and_then(|name| entries.get(name));
        matches!(entry, Some(Tree::Symlink(target)) if split(target).is_some())
    }
}

/// Puts the names of a path before those that lie ahead.
fn lay(path: &Path, ahead: &mut VecDeque<OsString>) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

/// The store path that a link's target is in, and the rest.
pub(super) fn split(target: &OsStr) -> Option<(StorePath, &Path)> {
    let text = target.to_str()?;
    let below = text.strip_prefix(STORE_DIR)?.strip_prefix('/')?;
    let (base_name, rest) = below.split_once('/').unwrap_or((below, ""));
    let path = format!("{STORE_DIR}/{base_name}").parse().ok()?;
    Some((path, Path::new(OsStr::from_bytes(rest.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_path(name: &str) -> StorePath {
        format!("/nix/store/{}-{name}", "0".repeat(32))
            .parse()
            .unwrap()
    }

    #[test]
    fn links_are_followed_within_packages_and_between_them() {
        let file = |size| Tree::File {
            executable: false,
            size,
        };
        let link = |target: &str| Tree::Symlink(target.replace('…', &"0".repeat(32)).into());
        let folder = |entries: Vec<(&str, Tree)>| {
            let entries = entries.into_iter();
            Tree::Directory(entries.map(|(name, tree)| (name.into(), tree)).collect())
        };
        let (jdk, env, out) = (store_path("jdk"), store_path("env"), store_path("out"));
        let trees = [
            folder(vec![
                ("bin", link("lib/vm/bin")),
                (
                    "lib",
                    folder(vec![
                        (
                            "openjdk",
                            folder(vec![("bin", folder(vec![("java", file(7))]))]),
                        ),
                        ("vm", link("./openjdk/../openjdk")),
                    ]),
                ),
                ("loop", link("loop")),
                ("up", link("../x")),
            ]),
            folder(vec![
                ("bin", link("/nix/store/…-jdk//bin")),
                ("tmp", link("/tmp")),
                ("absent", link("/nix/store/…-absent/bin")),
            ]),
            link("/nix/store/…-env"),
        ];
        let known: Known<'_> = [&jdk, &env, &out].into_iter().zip(&trees).collect();
        for (package, path, expected) in [
            (&jdk, "bin/java", Some(7)),
            (&env, "bin/java", Some(7)),
            (&out, "bin/java", Some(7)),
            (&out, "bin/../vm/../bin/java", None),
            (&out, "bin/../../vm/bin/java", Some(7)),
            (&jdk, "bin/java/..", None),
            (&jdk, "bin/javac", None),
            (&jdk, "loop", None),
            (&jdk, "up", None),
            (&env, "tmp", None),
            (&env, "absent", None),
        ] {
            let found = known.find(package, Path::new(path));
            let size = found.map(|tree| match tree {
                Tree::File { size, .. } => *size,
                other => panic!("{path} is {other:?}"),
            });
            assert_eq!(size, expected, "{path}");
        }
        for (package, path, expected) in [
            (&jdk, "bin/java", true),
            (&jdk, "up", false),
            (&env, "absent", true),
            (&env, "tmp", false),
        ] {
            let has = known.any_has([package].into_iter(), Path::new(path));
            assert_eq!(has, expected, "{path}");
        }
        assert!(matches!(
            known.find(&out, Path::new("")),
            Some(Tree::Directory(_))
        ));
    }
}
