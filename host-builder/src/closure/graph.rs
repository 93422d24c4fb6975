//! The graph of an image's store paths.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::StorePath;

/// What Nix records of a valid store path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PathInfo {
    /// SHA-256 of the path's NAR, in hexadecimal digits. Unlike the hash in the store path, it pins the
    /// contents.
    pub(crate) nar_hash: String,
    /// Size of the NAR in bytes.
    pub(crate) nar_size: u64,
    /// The store paths that the contents mention.
    pub(crate) references: BTreeSet<StorePath>,
}

/// The packages of an image (the roots) and everything that they need at run time: complete, and nothing
/// else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closure {
    roots: BTreeSet<StorePath>,
    paths: BTreeMap<StorePath, PathInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IncompleteClosure {
    #[error("Nix has no information about {root}, which was requested")]
    Root { root: StorePath },
    #[error("Nix has no information about {missing}, which {referrer} references")]
    Reference {
        missing: StorePath,
        referrer: StorePath,
    },
}

impl Closure {
    /// The closure of `roots`, taken from `records`, which may have more paths. Drops references of a
    /// path to itself, which Nix reports too.
    ///
    /// # Errors
    ///
    /// When the records lack a path.
    pub(crate) fn new(
        roots: impl IntoIterator<Item = StorePath>,
        mut records: BTreeMap<StorePath, PathInfo>,
    ) -> Result<Closure, IncompleteClosure> {
        let roots: BTreeSet<StorePath> = roots.into_iter().collect();
        let mut paths = BTreeMap::new();

        let mut pending: Vec<(StorePath, Option<StorePath>)> =
            roots.iter().map(|root| (root.clone(), None)).collect();
        while let Some((path, referrer)) = pending.pop() {
            if paths.contains_key(&path) {
                continue;
            }
            let Some(mut info) = records.remove(&path) else {
                return Err(match referrer {
                    None => IncompleteClosure::Root { root: path },
                    Some(referrer) => IncompleteClosure::Reference {
                        missing: path,
                        referrer,
                    },
                });
            };
            info.references.remove(&path);
            pending.extend(
                info.references
                    .iter()
                    .map(|reference| (reference.clone(), Some(path.clone()))),
            );
            paths.insert(path, info);
        }
        Ok(Closure { roots, paths })
    }

    pub(crate) fn into_paths(self) -> BTreeMap<StorePath, PathInfo> {
        self.paths
    }

    pub(crate) fn roots(&self) -> &BTreeSet<StorePath> {
        &self.roots
    }

    /// All paths, including the roots.
    pub(crate) fn paths(&self) -> &BTreeMap<StorePath, PathInfo> {
        &self.paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        format!("/nix/store/{}-{name}", "0".repeat(32))
            .parse()
            .unwrap()
    }

    fn records(edges: &[(&str, &[&str])]) -> BTreeMap<StorePath, PathInfo> {
        let info = |references: &[&str]| PathInfo {
            nar_hash: "sha256:00".to_owned(),
            nar_size: 1,
            references: references.iter().map(|name| path(name)).collect(),
        };
        edges
            .iter()
            .map(|(name, references)| (path(name), info(references)))
            .collect()
    }

    fn names(closure: &Closure) -> Vec<&str> {
        closure.paths().keys().map(StorePath::name).collect()
    }

    #[test]
    fn only_what_a_root_needs_is_kept() {
        let all = records(&[("git", &["libc"]), ("libc", &[]), ("vim", &["libc"])]);
        let closure = Closure::new([path("git")], all).unwrap();
        assert_eq!(names(&closure), ["git", "libc"]);
        assert_eq!(closure.roots(), &BTreeSet::from([path("git")]));
    }

    #[test]
    fn references_to_oneself_are_dropped_and_cycles_end() {
        let all = records(&[("a", &["a", "b"]), ("b", &["a"])]);
        let closure = Closure::new([path("a")], all).unwrap();
        assert_eq!(
            closure.paths()[&path("a")].references,
            BTreeSet::from([path("b")])
        );
        assert_eq!(names(&closure), ["a", "b"]);
    }

    #[test]
    fn a_missing_path_is_named_with_its_referrer() {
        let error = Closure::new([path("git")], records(&[("git", &["libc"])])).unwrap_err();
        assert_eq!(
            error,
            IncompleteClosure::Reference {
                missing: path("libc"),
                referrer: path("git")
            }
        );
        let error = Closure::new([path("git")], BTreeMap::new()).unwrap_err();
        assert_eq!(error, IncompleteClosure::Root { root: path("git") });
    }
}
