//! The algorithm that the [parent module](super) explains.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroUsize;

use petgraph::algo::dominators::{Dominators, simple_fast};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::Visitable;

use super::Popularity;
use crate::closure::{Closure, StorePath};

/// A path with a larger closure gets a layer of its own (bytes).
const LARGE: u64 = 100_000_000;

/// A path with this popularity gets a layer of its own. About one in a hundred packages of nixpkgs has it.
const POPULAR: u64 = 1_000;

/// Store paths that share a layer. Ordered by rating, then by content: the order of merging.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    /// Popularity times bytes.
    pub(crate) rating: u64,
    /// Sorted.
    pub(crate) paths: Vec<StorePath>,
}

/// Groups the paths of a closure into at most `budget` layers, highest rating first. Each path of the closure
/// is in exactly one.
pub(crate) fn plan(closure: &Closure, popularity: &Popularity, budget: NonZeroUsize) -> Vec<Group> {
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

/// Bytes of each node and all that can be reached from it.
///
/// Reachable sets overlap, so sizes can't be added along the edges: a node's set is the union of its
/// references' sets. As bit sets, those of 5,000 paths take 3 MB. Strongly connected components come in
/// reverse topological order, references first. Nix makes no cycles, but damaged records could have some.
fn closure_sizes(graph: &DiGraph<u64, ()>) -> Vec<u64> {
    let mut reachable = vec![graph.visit_map(); graph.node_count()];
    let mut sizes = vec![0; graph.node_count()];
    for component in kosaraju_scc(graph) {
        let mut union = graph.visit_map();
        for &node in &component {
            union.insert(node.index());
            for reference in graph.neighbors(node) {
                union.union_with(&reachable[reference.index()]);
            }
        }
        let size = union
            .ones()
            .map(|index| graph[NodeIndex::new(index)])
            .fold(0, u64::saturating_add);
        for node in component {
            sizes[node.index()] = size;
            reachable[node.index()].union_with(&union);
        }
    }
    sizes
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
