//! Groups by what it costs to share a layer, as the [parent module](super) explains.
//!
//! Names, sizes and references decide, hashes don't: after a change of libc, which renames every path, the
//! same paths share a layer as before.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use petgraph::graph::{DiGraph, NodeIndex};

use super::Group;
use super::popularity::is_in_every_image;
use super::reach::{Set, reachable};
use crate::closure::{Closure, StorePath};

/// Groups that are compared with each other, at most: the work is its square. The smallest paths of a
/// larger closure begin in [`BINS`] groups.
const COMPARED: usize = 512;
const BINS: usize = 128;

/// Bytes of paths below which a layer is small. Packed, it has 256 kB at most: a request for it costs a
/// client more than the layer saves.
const SMALL: u64 = 750_000;

/// Small layers that an image may have.
const SMALL_LAYERS: usize = 5;

/// Paths that need only a part of a group, for an even chance that another image has only a part.
const REQUIRERS: f64 = 8.0;

/// Paths that a group needs, for an even chance that one of them changes.
const DEPENDENCIES: f64 = 20.0;

/// Weight of a change beside that of another image.
const CHANGE: f64 = 1.0;

/// Weight of what can't be known: other images have paths that need any part of a group.
const UNKNOWN: f64 = 0.3;

/// Store paths that may share a layer. Paths are numbers: their ranks by name.
#[derive(Clone)]
struct Cluster {
    paths: Vec<usize>,
    bytes: u64,
    /// Paths that need a part of the cluster, its own included.
    any: Set,
    /// Paths that need all of it.
    all: Set,
    /// All that it needs, itself included.
    below: Set,
    /// Bytes that are expected to be pulled and stored in vain, since this is one layer.
    cost: f64,
}

/// The cheapest partner of a cluster.
#[derive(Clone, Copy)]
struct Partner {
    cost: f64,
    at: usize,
}

/// Groups the paths into at most `budget` layers. That of every image comes first, then the largest.
pub(super) fn plan(closure: &Closure, budget: NonZeroUsize) -> Vec<Group> {
    let mut paths: Vec<&StorePath> = closure.paths().keys().collect();
    paths.sort_by(|a, b| a.name().cmp(b.name()).then_with(|| a.cmp(b)));
    let sizes: Vec<u64> = paths
        .iter()
        .map(|path| closure.paths()[*path].nar_size)
        .collect();

    let (of_every_image, others) = begin(&paths, &sizes, clusters(closure, &paths, &sizes));
    let mut budget = budget.get();
    let mut clusters = others;
    let first = match of_every_image {
        // With one layer for all others, nothing is gained.
        Some(cluster) if budget > 2 => {
            budget -= 1;
            Some(cluster)
        }
        Some(cluster) => {
            clusters.push(cluster);
            None
        }
        None => None,
    };
    clusters = merge(clusters, |_| true, |clusters| clusters > budget);
    clusters = merge(clusters, Cluster::is_small, |small| small > SMALL_LAYERS);

    clusters.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.paths.cmp(&b.paths)));
    let others = clusters.into_iter().map(|cluster| (cluster.bytes, cluster));
    first
        .map(|cluster| (u64::MAX, cluster))
        .into_iter()
        .chain(others)
        .map(|(rating, cluster)| {
            let mut members: Vec<StorePath> = cluster
                .paths
                .iter()
                .map(|&path| paths[path].clone())
                .collect();
            members.sort_unstable();
            Group {
                rating,
                paths: members,
            }
        })
        .collect()
}

/// A cluster for each path.
fn clusters(closure: &Closure, paths: &[&StorePath], sizes: &[u64]) -> Vec<Cluster> {
    let mut graph = DiGraph::with_capacity(paths.len(), 0);
    for &size in sizes {
        graph.add_node(size);
    }
    let numbers: BTreeMap<&StorePath, usize> = paths
        .iter()
        .enumerate()
        .map(|(number, &path)| (path, number))
        .collect();
    for (number, path) in paths.iter().enumerate() {
        for reference in &closure.paths()[*path].references {
            graph.add_edge(
                NodeIndex::new(number),
                NodeIndex::new(numbers[reference]),
                (),
            );
        }
    }
    let below = reachable(&graph);
    graph.reverse();
    let above = reachable(&graph);
    below
        .into_iter()
        .zip(above)
        .enumerate()
        .map(|(number, (below, above))| Cluster {
            paths: vec![number],
            bytes: sizes[number],
            any: above.clone(),
            all: above,
            cost: cost(sizes[number], 0, below.count_ones(..), 1),
            below,
        })
        .collect()
}

/// The packages of every image as one cluster, and all others, few enough to compare.
fn begin(
    paths: &[&StorePath],
    sizes: &[u64],
    clusters: Vec<Cluster>,
) -> (Option<Cluster>, Vec<Cluster>) {
    let name = |cluster: &Cluster| paths[cluster.paths[0]].package_name();
    let (every, mut others): (Vec<Cluster>, Vec<Cluster>) = clusters
        .into_iter()
        .partition(|cluster| is_in_every_image(name(cluster)));
    let of_every_image = every.into_iter().reduce(|a, b| a.with(&b));
    if others.len() <= COMPARED {
        return (of_every_image, others);
    }
    others.sort_by_key(|cluster| (Reverse(sizes[cluster.paths[0]]), cluster.paths[0]));
    let mut bins: Vec<Option<Cluster>> = vec![None; BINS];
    for cluster in others.split_off(COMPARED - BINS) {
        let bin = &mut bins[bin_of(name(&cluster))];
        *bin = Some(match bin.take() {
            Some(earlier) => earlier.with(&cluster),
            None => cluster,
        });
    }
    others.extend(bins.into_iter().flatten());
    (of_every_image, others)
}

/// A name's bin: the same in every image and version. FNV-1a.
fn bin_of(name: &str) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % BINS as u64) as usize
}

/// Merges the pair that costs least, among the clusters that take part, while those are too many.
fn merge(
    clusters: Vec<Cluster>,
    takes_part: impl Fn(&Cluster) -> bool,
    too_many: impl Fn(usize) -> bool,
) -> Vec<Cluster> {
    let (active, mut done): (Vec<Cluster>, Vec<Cluster>) =
        clusters.into_iter().partition(&takes_part);
    let mut count = active.len();
    let mut active: Vec<Option<Cluster>> = active.into_iter().map(Some).collect();
    let mut partners: Vec<Option<Partner>> = (0..active.len())
        .map(|at| {
            if too_many(count) {
                cheapest_partner(&active, at)
            } else {
                None
            }
        })
        .collect();
    while too_many(count) {
        let cheapest = (0..active.len())
            .filter_map(|at| Some((at, partners[at]?)))
            .min_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost));
        let Some((at, other)) = cheapest else { break };
        let (Some(a), Some(b)) = (active[at].take(), active[other.at].take()) else {
            break;
        };
        let merged = a.with(&b);
        let stays = takes_part(&merged);
        count -= if stays { 1 } else { 2 };
        match stays {
            true => active[at] = Some(merged),
            false => done.push(merged),
        }
        for index in 0..active.len() {
            let gone = |partner: &Partner| partner.at == at || partner.at == other.at;
            partners[index] = match (&active[index], partners[index]) {
                (None, _) => None,
                (Some(_), Some(partner)) if index != at && !gone(&partner) => {
                    Some(partner.or_cheaper(&active, index, at))
                }
                (Some(_), _) => cheapest_partner(&active, index),
            };
        }
    }
    done.extend(active.into_iter().flatten());
    done
}

/// The cheapest partner of the cluster at this index.
fn cheapest_partner(clusters: &[Option<Cluster>], at: usize) -> Option<Partner> {
    let cluster = clusters[at].as_ref()?;
    clusters
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != at)
        .filter_map(|(at, other)| {
            let cost = cluster.cost_with(other.as_ref()?);
            Some(Partner { cost, at })
        })
        .min_by(|a, b| a.cost.total_cmp(&b.cost))
}

impl Partner {
    /// This partner of the cluster at `index`, or that at `new`.
    fn or_cheaper(self, clusters: &[Option<Cluster>], index: usize, new: usize) -> Partner {
        let (Some(cluster), Some(other)) = (&clusters[index], &clusters[new]) else {
            return self;
        };
        let cost = cluster.cost_with(other);
        if cost < self.cost {
            Partner { cost, at: new }
        } else {
            self
        }
    }
}

impl Cluster {
    fn is_small(&self) -> bool {
        self.bytes < SMALL
    }

    fn with(&self, other: &Cluster) -> Cluster {
        let mut merged = self.clone();
        merged.cost = self.merged_cost(other);
        merged.paths.extend(&other.paths);
        merged.paths.sort_unstable();
        merged.bytes = merged.bytes.saturating_add(other.bytes);
        merged.any.union_with(&other.any);
        merged.all.intersect_with(&other.all);
        merged.below.union_with(&other.below);
        merged
    }

    /// What it costs more to merge the two.
    fn cost_with(&self, other: &Cluster) -> f64 {
        self.merged_cost(other) - self.cost - other.cost
    }

    fn merged_cost(&self, other: &Cluster) -> f64 {
        let partly = self.any.union_count(&other.any) - self.all.intersection_count(&other.all);
        let below = self.below.union_count(&other.below);
        let bytes = self.bytes.saturating_add(other.bytes);
        cost(bytes, partly, below, self.paths.len() + other.paths.len())
    }
}

/// In operations that every processor rounds alike.
fn cost(bytes: u64, partly: usize, below: usize, paths: usize) -> f64 {
    let chance = |count: usize, even: f64| count as f64 / (count as f64 + even);
    let again = chance(partly, REQUIRERS)
        + CHANGE * chance(below, DEPENDENCIES)
        + UNKNOWN * (1.0 - 1.0 / paths as f64);
    // A path without bytes costs the request too.
    (bytes as f64 + 1.0) * again
}

#[cfg(test)]
mod tests;
