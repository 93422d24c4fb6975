//! Images that people pull, chosen by a seed.

use std::collections::BTreeSet;

use crate::universe::Universe;

/// Packages that are asked for, the rest being seldom enough.
const KNOWN: usize = 1000;

/// Packages of one image, at most.
const PACKAGES: u64 = 8;

/// Of every image, and of those that have a shell: by Debian's names.
const EVERY: &[&str] = &["ca-certificates", "netbase"];
const SHELL: &[&str] = &["bash", "coreutils", "moreutils", "nano"];

/// SplitMix64.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `0..1`.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Puts a list into a random order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, (self.next() % (at as u64 + 1)) as usize);
        }
    }
}

/// `count` images of 1 to 8 packages each. Which packages are popular depends on the seed, and on how many
/// others need each; how popular is Zipf's law. Every second image has a shell.
pub(crate) fn images(universe: &Universe, count: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut chance = Chance::new(seed);
    let dependents = universe.dependents();
    // A weighted order: the largest of `share ^ (1 / weight)` comes first.
    let programs = universe
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| node.is_program);
    let mut ranked: Vec<(f64, usize)> = programs
        .map(|(at, _)| (chance.share().ln() / f64::from(1 + dependents[at]), at))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.truncate(KNOWN);
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for rank in 1..=ranked.len() {
        sum += 1.0 / rank as f64;
        sums.push(sum);
    }
    let named = |names: &[&str]| {
        names
            .iter()
            .filter_map(|name| universe.node(name))
            .collect::<Vec<_>>()
    };
    let (every, shell) = (named(EVERY), named(SHELL));
    let mut images = BTreeSet::new();
    let mut list = Vec::new();
    while list.len() < count {
        let wanted = 1 + chance.next() % PACKAGES;
        let mut roots: BTreeSet<usize> = every.iter().copied().collect();
        if chance.next().is_multiple_of(2) {
            roots.extend(&shell);
        }
        for _ in 0..wanted {
            let at = chance.share() * sum;
            roots.insert(
                ranked[sums
                    .partition_point(|&upto| upto < at)
                    .min(ranked.len() - 1)]
                .1,
            );
        }
        let roots: Vec<usize> = roots.into_iter().collect();
        if images.insert(roots.clone()) {
            list.push(roots);
        }
    }
    list
}
