//! How others group, for comparison.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::dominators::simple_fast;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::closure::StorePath;
use crate::measure::Image;

type Groups = Vec<Vec<usize>>;

pub(crate) fn one_layer(image: &Image, _budget: usize) -> Groups {
    vec![(0..image.sizes.len()).collect()]
}

/// No budget: nothing is pulled twice, and every layer is a path.
pub(crate) fn each_path(image: &Image, _budget: usize) -> Groups {
    (0..image.sizes.len()).map(|path| vec![path]).collect()
}

/// nixpkgs' `streamLayeredImage` as it was for years: the paths to which most ways lead from the roots get
/// a layer each, all others share the last.
pub(crate) fn by_popularity(image: &Image, budget: usize) -> Groups {
    let mut ways = vec![0.0_f64; image.sizes.len()];
    for &root in &image.roots {
        ways[root] += 1.0;
    }
    for &path in image.topological().iter().rev() {
        for &to in &image.references[path] {
            ways[to] += ways[path];
        }
    }
    let mut order: Vec<usize> = (0..ways.len()).collect();
    order.sort_by(|&a, &b| {
        ways[b]
            .total_cmp(&ways[a])
            .then(image.name(a).cmp(image.name(b)))
    });
    alone_then_rest(order, budget)
}

/// nixpkgs' `auto-layer.py`: the largest paths head layers; what several heads need is a layer for each set
/// of heads.
pub(crate) fn auto_layer(image: &Image, budget: usize) -> Groups {
    let below = image.below();
    let above = image.above();
    let mut order: Vec<usize> = (0..image.sizes.len()).collect();
    order.sort_by(|&a, &b| image.sizes[b].cmp(&image.sizes[a]).then(a.cmp(&b)));
    let mut heads_of = vec![BTreeSet::new(); order.len()];
    for head in order {
        let mut next = heads_of.clone();
        next[head] = BTreeSet::from([head]);
        for path in below[head].iter().filter(|&path| path != head) {
            next[path].retain(|&user| user == head || !above[head].contains(user));
            if !next[path]
                .iter()
                .any(|&user| user != head && below[head].contains(user))
            {
                next[path].insert(head);
            }
        }
        if next.iter().collect::<BTreeSet<_>>().len() > budget {
            break;
        }
        heads_of = next;
    }
    let mut groups: BTreeMap<BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
    for (path, heads) in heads_of.into_iter().enumerate() {
        groups.entry(heads).or_default().push(path);
    }
    let mut groups: Groups = groups.into_values().collect();
    let closure_size = |group: &Vec<usize>| {
        let all: BTreeSet<usize> = group.iter().flat_map(|&path| below[path].iter()).collect();
        all.into_iter().map(|path| image.sizes[path]).sum::<u64>()
    };
    groups.sort_by_cached_key(closure_size);
    groups
}

/// As chunkah does: what is far larger than the rest is alone, and the rest goes into as many tiers as there
/// are layers left, by a hash of the name.
pub(crate) fn chunkah(image: &Image, budget: usize) -> Groups {
    let mut order: Vec<usize> = (0..image.sizes.len()).collect();
    order.sort_by(|&a, &b| image.sizes[b].cmp(&image.sizes[a]).then(a.cmp(&b)));
    let quartile = |share: usize| image.sizes[order[order.len() * share / 4]];
    let (upper, lower) = (quartile(1), quartile(3));
    let limit = upper + (upper - lower) * 3 / 2;
    let outliers = order
        .iter()
        .take_while(|&&path| image.sizes[path] > limit)
        .count();
    let alone = outliers.min(budget * 3 / 4);
    let tiers = budget - alone;
    let mut groups: Groups = order[..alone].iter().map(|&path| vec![path]).collect();
    let mut rest = vec![Vec::new(); tiers];
    for &path in &order[alone..] {
        rest[(fnv(image.path(path).package_name()) % tiers as u64) as usize].push(path);
    }
    groups.append(&mut rest);
    groups
}

/// As apko does: packages of one origin share a layer; the largest origins get one, all others the last.
pub(crate) fn apko(image: &Image, budget: usize) -> Groups {
    let mut origins: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (path, origin) in image.origins.iter().enumerate() {
        origins.entry(origin).or_default().push(path);
    }
    let mut groups: Groups = origins.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(image.size(group)));
    let rest = groups.split_off(groups.len().min(budget.max(1) - 1));
    groups.push(rest.concat());
    groups
}

/// Nixery's `layers.go`. A path's size is there that of its whole closure, counts are found only under the
/// exact name, and the two lowest groups are merged again and again without sorting anew.
pub(crate) fn nixery(image: &Image, budget: usize, counts: &BTreeMap<String, u64>) -> Groups {
    let below = image.below();
    let sizes: Vec<u64> = below
        .iter()
        .map(|paths| paths.iter().map(|path| image.sizes[path]).sum())
        .collect();
    let popularity: Vec<u64> = (0..sizes.len())
        .map(|path| match image.name(path) {
            name if name.starts_with("cacert") || name.starts_with("iana-etc") => 500_000,
            name => counts.get(name).copied().unwrap_or(1),
        })
        .collect();
    let mut graph = DiGraph::<(), ()>::new();
    let nodes: Vec<NodeIndex> = sizes.iter().map(|_| graph.add_node(())).collect();
    let root = graph.add_node(());
    for path in 0..sizes.len() {
        if image.roots.contains(&path) || sizes[path] > 100_000_000 || popularity[path] >= 100 {
            graph.add_edge(root, nodes[path], ());
        }
        for &to in &image.references[path] {
            graph.add_edge(nodes[path], nodes[to], ());
        }
    }
    let dominators = simple_fast(&graph, root);
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (path, &node) in nodes.iter().enumerate() {
        let mut head = node;
        while let Some(above) = dominators
            .immediate_dominator(head)
            .filter(|&above| above != root)
        {
            head = above;
        }
        members.entry(head.index()).or_default().push(path);
    }
    let mut groups: Vec<(u64, Vec<usize>)> = members
        .into_iter()
        .map(|(head, paths)| {
            let size = paths.iter().map(|&path| sizes[path]).sum::<u64>();
            (size * popularity[head], paths)
        })
        .collect();
    groups.sort();
    let surplus = groups.len().saturating_sub(budget);
    let mut kept = groups.split_off(surplus);
    for (_, mut paths) in groups {
        kept[0].1.append(&mut paths);
    }
    kept.into_iter().map(|(_, paths)| paths).collect()
}

/// FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn alone_then_rest(mut order: Vec<usize>, budget: usize) -> Groups {
    let rest = order.split_off(order.len().min(budget.max(1) - 1));
    let mut groups: Groups = order.into_iter().map(|path| vec![path]).collect();
    groups.push(rest);
    groups
}

/// A set of the paths of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set(Vec<u64>);

impl Set {
    pub(crate) fn new(paths: usize) -> Set {
        Set(vec![0; paths.div_ceil(64)])
    }
    pub(crate) fn insert(&mut self, path: usize) {
        self.0[path / 64] |= 1 << (path % 64);
    }
    pub(crate) fn contains(&self, path: usize) -> bool {
        self.0[path / 64] >> (path % 64) & 1 == 1
    }
    pub(crate) fn add(&mut self, other: &Set) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * 64).filter(|&path| self.contains(path))
    }
}

impl Image {
    pub(crate) fn path(&self, index: usize) -> &StorePath {
        &self.paths[index]
    }
    pub(crate) fn name(&self, index: usize) -> &str {
        self.path(index).name()
    }
    pub(crate) fn size(&self, group: &[usize]) -> u64 {
        group.iter().map(|&path| self.sizes[path]).sum()
    }

    /// Dependencies first.
    pub(crate) fn topological(&self) -> Vec<usize> {
        let mut order = Vec::new();
        let mut state = vec![0_usize; self.sizes.len()];
        let mut is_open = vec![false; self.sizes.len()];
        for start in 0..self.sizes.len() {
            let mut stack = vec![start];
            while let Some(&path) = stack.last() {
                is_open[path] = true;
                match self.references[path].get(state[path]) {
                    Some(&to) => {
                        state[path] += 1;
                        if !is_open[to] {
                            stack.push(to);
                        }
                    }
                    None => {
                        stack.pop();
                        if state[path] != usize::MAX {
                            state[path] = usize::MAX;
                            order.push(path);
                        }
                    }
                }
            }
        }
        order
    }

    /// Of each path: itself, and all that it needs.
    pub(crate) fn below(&self) -> Vec<Set> {
        let mut below = vec![Set::new(self.sizes.len()); self.sizes.len()];
        for path in self.topological() {
            let mut set = Set::new(self.sizes.len());
            set.insert(path);
            for &to in &self.references[path] {
                set.add(&below[to]);
            }
            below[path] = set;
        }
        below
    }

    /// Of each path: itself, and all that need it.
    pub(crate) fn above(&self) -> Vec<Set> {
        let mut above = vec![Set::new(self.sizes.len()); self.sizes.len()];
        for (path, set) in self.below().iter().enumerate() {
            for to in set.iter() {
                above[to].insert(path);
            }
        }
        above
    }
}
