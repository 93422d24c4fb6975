//! Groups by dominators.
//!
//! Images share what their packages have in common. So a path that one package needs goes into that
//! package's layer; a path that several need gets its own. Dominators tell which is which.
//!
//! # The graph
//!
//! The closure's references, below a root that stands for the image:
//!
//! ```text
//!                  image                     an edge from the image to
//!               ╱    │   ╲                     · each requested package
//!             git  htop   ╲                    · each path whose own closure is
//!            ╱   ╲   │ ╲   ╲                     larger than 100 MB
//!         perl  zlib │ ncurses ╲               · each path that is popular
//!            ╲    ╲  │  ╱       ╲
//!             ╰────▶ glibc ◀─────╯
//! ```
//!
//! # Dominators
//!
//! One path *dominates* another if every way from the image to the other leads through it. The
//! dominators of a graph form a tree. Each child of the image in that tree becomes a group, with all
//! that it dominates:
//!
//! ```text
//!              image
//!            ╱   │   ╲
//!         git  glibc  htop           groups: {git, perl, zlib}
//!        ╱   ╲           ╲                   {glibc}
//!     perl   zlib      ncurses               {htop, ncurses}
//! ```
//!
//! Both git and htop need glibc, so neither dominates it. perl is in git's group here; if it were
//! requested, large or popular, its edge from the image would give it its own. These edges make the
//! same layer appear in images that differ elsewhere.
//!
//! # Rating and order
//!
//! A group's rating is the popularity of its head times the bytes of its members: the bytes that a
//! layer of its own may save. Layers are ordered by rating, highest first, since clients with a chain
//! of layers (Docker) fetch everything after the first layer that differs. Content breaks ties, so the
//! order is deterministic.
//!
//! # Budget
//!
//! While there are more groups than layers, the two with the lowest ratings are merged, their ratings
//! added, *and the result is sorted in again*. So groups beyond the budget spread evenly:
//!
//! ```text
//!   budget 3      9   7   4   2   1
//!                 9   7   4   [2+1]     = 3
//!                 9   7   [4+[2+1]]     = 7, as high as the second
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroUsize;

use petgraph::algo::dominators::{Dominators, simple_fast};
use petgraph::graph::{DiGraph, NodeIndex};

use super::reach::{Set, reachable};
use super::{Group, Popularity};
use crate::closure::{Closure, StorePath};

/// A path with a larger closure gets a layer of its own (bytes).
const LARGE: u64 = 100_000_000;

/// A path with this popularity gets a layer of its own. About one in a hundred packages of nixpkgs has it.
const POPULAR: u64 = 1_000;

/// Groups the paths of a closure into at most `budget` layers, highest rating first. Each path of the closure
/// is in exactly one.
pub(super) fn plan(closure: &Closure, popularity: &Popularity, budget: NonZeroUsize) -> Vec<Group> {
    fit(group(closure, popularity), budget)
}

/// One group for each child of the image in the dominator tree.
fn group(closure: &Closure, popularity: &Popularity) -> Vec<Group> {
    let (graph, image) = reference_graph(closure, popularity);
    let heads = heads(&graph, image);

    let mut members: BTreeMap<NodeIndex, (u64, Vec<StorePath>)> = BTreeMap::new();
    for ((path, info), &head) in closure.paths().iter().zip(&heads) {
        let (bytes, paths) = members.entry(head).or_default();
        *bytes = bytes.saturating_add(info.nar_size);
        paths.push(path.clone());
    }
    let path_of: Vec<&StorePath> = closure.paths().keys().collect();
    members
        .into_iter()
        .map(|(head, (bytes, paths))| Group {
            rating: bytes.saturating_mul(popularity.of(path_of[head.index()])),
            paths,
        })
        .collect()
}

/// The closure's references and the image's own edges. A node's index is its path's index in the
/// closure; the last node is the image.
fn reference_graph(closure: &Closure, popularity: &Popularity) -> (DiGraph<u64, ()>, NodeIndex) {
    let mut graph = DiGraph::with_capacity(closure.paths().len() + 1, 0);
    let nodes: BTreeMap<&StorePath, NodeIndex> = closure
        .paths()
        .iter()
        .map(|(path, info)| (path, graph.add_node(info.nar_size)))
        .collect();
    for (path, info) in closure.paths() {
        for reference in &info.references {
            graph.add_edge(nodes[path], nodes[reference], ());
        }
    }

    let closure_sizes = closure_sizes(&graph);
    let image = graph.add_node(0);
    for (path, &node) in &nodes {
        let apart = closure.roots().contains(path)
            || closure_sizes[node.index()] > LARGE
            || popularity.of(path) >= POPULAR;
        if apart {
            graph.add_edge(image, node, ());
        }
    }
    (graph, image)
}

/// Bytes of each node and all that can be reached from it. Reachable sets overlap, so sizes can't be added
/// along the edges.
fn closure_sizes(graph: &DiGraph<u64, ()>) -> Vec<u64> {
    let size = |index| graph[NodeIndex::new(index)];
    let sum = |set: &Set| set.ones().map(size).fold(0, u64::saturating_add);
    reachable(graph).iter().map(sum).collect()
}

/// For each path, the child of the image that dominates it; in the order of nodes.
fn heads(graph: &DiGraph<u64, ()>, image: NodeIndex) -> Vec<NodeIndex> {
    let dominators = simple_fast(graph, image);
    let mut known: Vec<Option<NodeIndex>> = vec![None; graph.node_count()];
    graph
        .node_indices()
        .filter(|&node| node != image)
        .map(|node| head(node, image, &dominators, &mut known))
        .collect()
}

/// Climbs the dominator tree from a node to a child of the image. Notes the answer for each node on the
/// way, so that a long chain is climbed once.
fn head(
    node: NodeIndex,
    image: NodeIndex,
    dominators: &Dominators<NodeIndex>,
    known: &mut [Option<NodeIndex>],
) -> NodeIndex {
    let mut climbed = Vec::new();
    let mut at = node;
    let head = loop {
        if let Some(head) = known[at.index()] {
            break head;
        }
        climbed.push(at);
        match dominators.immediate_dominator(at) {
            Some(above) if above != image => at = above,
            // Every path can be reached from a root, so each has a dominator.
            _ => break at,
        }
    };
    for node in climbed {
        known[node.index()] = Some(head);
    }
    head
}

/// Merges the two lowest groups until all fit; sorts the highest first.
fn fit(groups: Vec<Group>, budget: NonZeroUsize) -> Vec<Group> {
    let mut lowest_first: BinaryHeap<Reverse<Group>> = groups.into_iter().map(Reverse).collect();
    while lowest_first.len() > budget.get() {
        let (Some(Reverse(a)), Some(Reverse(b))) = (lowest_first.pop(), lowest_first.pop()) else {
            break;
        };
        lowest_first.push(Reverse(merge(a, b)));
    }
    let mut layers: Vec<Group> = lowest_first
        .into_iter()
        .map(|Reverse(group)| group)
        .collect();
    layers.sort_by(|a, b| b.rating.cmp(&a.rating).then_with(|| a.paths.cmp(&b.paths)));
    layers
}

fn merge(mut a: Group, b: Group) -> Group {
    a.rating = a.rating.saturating_add(b.rating);
    a.paths.extend(b.paths);
    a.paths.sort_unstable();
    a
}

#[cfg(test)]
mod tests;
