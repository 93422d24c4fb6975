//! A package set as a graph, and what Nix would make of it at each revision.
//!
//! A store path's hash covers the hashes of all that it depends on. So one changed package renames every
//! package above it:
//!
//! ```text
//!   revision 1     git-1 ──► openssl-1 ──► libc-1
//!   revision 2     git-1'──► openssl-2 ──► libc-1       git is packed and pulled again
//! ```

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;
use sha2::{Digest, Sha256};

use crate::closure::{Closure, PathInfo, StorePath};

/// The package of which a change renames nearly everything.
const LIBC: &str = "glibc";

/// What an index says of a package.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// The source package, which changes as a whole.
    pub(crate) source: String,
    /// The versions in the first and in the last state of the index.
    pub(crate) versions: [String; 2],
    /// Bytes of the files.
    pub(crate) size: u64,
    /// Bytes of the compressed package.
    pub(crate) packed: u64,
    /// By name. Unknown names are ignored.
    pub(crate) depends: Vec<String>,
    /// Whether users would name it in an image.
    pub(crate) is_program: bool,
}

/// A node of the graph: a package, or several that depend on each other, which must share a store path.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) size: u64,
    pub(crate) packed: u64,
    pub(crate) is_program: bool,
    versions: [String; 2],
    /// Indices of nodes before this one.
    depends: Vec<usize>,
}

/// Dependencies come before those that need them.
#[derive(Debug)]
pub(crate) struct Universe {
    pub(crate) nodes: Vec<Node>,
    by_name: BTreeMap<String, usize>,
}

/// Store paths of a universe at one revision.
pub(crate) struct Revision<'a> {
    universe: &'a Universe,
    paths: Vec<StorePath>,
}

impl Universe {
    pub(crate) fn new(packages: Vec<Package>) -> Universe {
        let index: BTreeMap<&str, usize> = packages
            .iter()
            .enumerate()
            .map(|(at, package)| (package.name.as_str(), at))
            .collect();
        let mut graph = DiGraph::<(), ()>::new();
        let handles: Vec<_> = packages.iter().map(|_| graph.add_node(())).collect();
        for (at, package) in packages.iter().enumerate() {
            for other in package
                .depends
                .iter()
                .filter_map(|name| index.get(name.as_str()))
            {
                graph.add_edge(handles[at], handles[*other], ());
            }
        }
        let mut node_of = vec![0; packages.len()];
        let mut nodes = Vec::new();
        // In reverse topological order: dependencies first.
        for component in kosaraju_scc(&graph) {
            let mut members: Vec<usize> = component.iter().map(|handle| handle.index()).collect();
            members.sort_by(|a, b| packages[*a].name.cmp(&packages[*b].name));
            for &member in &members {
                node_of[member] = nodes.len();
            }
            let first = &packages[members[0]];
            let depends: BTreeSet<usize> = component
                .iter()
                .flat_map(|&handle| graph.neighbors(handle))
                .map(|handle| node_of[handle.index()])
                .filter(|&node| node != nodes.len())
                .collect();
            let all = || members.iter().map(|&member| &packages[member]);
            let version = |state: usize| {
                let versions: Vec<&str> = all().map(|p| p.versions[state].as_str()).collect();
                versions.join("+")
            };
            nodes.push(Node {
                name: first.name.clone(),
                // libc6 is in a cycle with libgcc-s1.
                source: match all().any(|package| package.source == LIBC) {
                    true => LIBC.to_owned(),
                    false => first.source.clone(),
                },
                size: all().map(|package| package.size).sum(),
                packed: all().map(|package| package.packed).sum(),
                is_program: all().any(|package| package.is_program),
                versions: [version(0), version(1)],
                depends: depends.into_iter().collect(),
            });
        }
        let by_name = packages
            .iter()
            .zip(&node_of)
            .map(|(p, &node)| (p.name.clone(), node))
            .collect();
        Universe { nodes, by_name }
    }

    pub(crate) fn node(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Sources whose version differs between the two states, but for libc, sorted.
    pub(crate) fn changed_sources(&self) -> BTreeSet<&str> {
        let changed = self
            .nodes
            .iter()
            .filter(|node| node.versions[0] != node.versions[1]);
        changed
            .map(|node| node.source.as_str())
            .filter(|source| *source != LIBC)
            .collect()
    }

    /// How many nodes need each one directly, by the name of its store path.
    pub(crate) fn counts(&self, revision: &Revision<'_>) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for node in &self.nodes {
            for &dependency in &node.depends {
                *counts
                    .entry(revision.paths[dependency].name().to_owned())
                    .or_insert(0) += 1;
            }
        }
        counts
    }

    /// How many nodes need each one directly, in the order of nodes.
    pub(crate) fn dependents(&self) -> Vec<u32> {
        let mut counts = vec![0; self.nodes.len()];
        for node in &self.nodes {
            for &dependency in &node.depends {
                counts[dependency] += 1;
            }
        }
        counts
    }

    /// The store paths when the sources in `updated` have their last version, all others their first.
    /// `salt` renames libc, and so nearly everything.
    pub(crate) fn revision(&self, updated: &BTreeSet<&str>, salt: &str) -> Result<Revision<'_>> {
        let mut paths: Vec<StorePath> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let version = &node.versions[usize::from(updated.contains(node.source.as_str()))];
            let mut hash = Sha256::new();
            for part in [&node.name, version] {
                hash.update(part.as_bytes());
                hash.update([0]);
            }
            if node.source == LIBC {
                hash.update(salt.as_bytes());
            }
            for &dependency in &node.depends {
                hash.update(paths[dependency].hash_part().as_bytes());
            }
            let digits: String = hash
                .finalize()
                .iter()
                .map(|byte| char::from(BASE32[usize::from(byte % 32)]))
                .collect();
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
            // The first of several that share a path names it.
            let version = version.split('+').next().unwrap_or_default();
            // nixgate knows the packages of every image by nixpkgs' names.
            let name = match node.name.as_str() {
                "ca-certificates" => "cacert",
                "netbase" => "iana-etc",
                name => name,
            };
            let name: String = format!("{name}-{version}")
                .chars()
                .map(|c| if is_allowed(c) { c } else { '_' })
                .collect();
            let path = format!("/nix/store/{digits}-{name}");
            paths.push(path.parse().with_context(|| format!("naming {name}"))?);
        }
        Ok(Revision {
            universe: self,
            paths,
        })
    }
}

const BASE32: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

impl Revision<'_> {
    /// The closure of an image with these nodes, and the node of each of its paths, in the order of paths.
    pub(crate) fn closure(&self, roots: &[usize]) -> Result<(Closure, Vec<usize>)> {
        let mut pending = roots.to_vec();
        let mut found = BTreeMap::new();
        while let Some(node) = pending.pop() {
            if found.insert(&self.paths[node], node).is_none() {
                pending.extend(&self.universe.nodes[node].depends);
            }
        }
        let records = found.iter().map(|(&path, &at)| {
            let node = &self.universe.nodes[at];
            let info = PathInfo {
                nar_hash: String::new(),
                nar_size: node.size,
                references: node
                    .depends
                    .iter()
                    .map(|&to| self.paths[to].clone())
                    .collect(),
            };
            (path.clone(), info)
        });
        let roots = roots.iter().map(|&root| self.paths[root].clone());
        let closure = Closure::new(roots, records.collect())?;
        Ok((closure, found.into_values().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, last: &str, depends: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            source: name.to_owned(),
            versions: ["1".to_owned(), last.to_owned()],
            size: 10,
            packed: 3,
            depends: depends.iter().map(|&name| name.to_owned()).collect(),
            is_program: true,
        }
    }

    #[test]
    fn a_change_renames_what_needs_it_and_nothing_else() {
        let universe = Universe::new(vec![
            package("git", "1", &["openssl", "absent"]),
            package("openssl", "2", &["libc"]),
            package("libc", "1", &[]),
            package("sed", "1", &["libc"]),
        ]);
        assert_eq!(universe.changed_sources(), BTreeSet::from(["openssl"]));
        let roots = [universe.node("git").unwrap(), universe.node("sed").unwrap()];
        let paths = |updated: &[&str]| {
            let updated = updated.iter().copied().collect();
            let revision = universe.revision(&updated, "").unwrap();
            let closure = revision.closure(&roots).unwrap().0;
            closure.paths().keys().cloned().collect::<BTreeSet<_>>()
        };
        let (before, after) = (paths(&[]), paths(&["openssl"]));
        let kept: Vec<&str> = before
            .intersection(&after)
            .map(StorePath::package_name)
            .collect();
        assert_eq!(before.len(), 4);
        assert_eq!(BTreeSet::from_iter(kept), BTreeSet::from(["libc", "sed"]));
    }

    #[test]
    fn packages_that_need_each_other_share_a_path() {
        let universe = Universe::new(vec![
            package("a", "1", &["b"]),
            package("b", "1", &["a"]),
            package("c", "1", &["b"]),
        ]);
        assert_eq!(universe.node("a"), universe.node("b"));
        let shared = &universe.nodes[universe.node("a").unwrap()];
        assert_eq!((shared.size, shared.packed), (20, 6));
    }
}
