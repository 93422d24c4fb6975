//! What a grouping costs: bytes that nodes pull, that storage keeps, that are compressed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;

use crate::closure::{Closure, StorePath};
use crate::universe::{Revision, Universe};
use crate::workload::{self, Chance};

/// Images of the workload, and the machines that pull them: each every tenth.
const IMAGES: usize = 300;
const NODES: usize = 10;
/// Revisions of the update series, and the images of its one machine.
const REVISIONS: usize = 10;
const KEPT: usize = 20;
/// A layer with fewer bytes costs a request more than it saves.
const SMALL: u64 = 256_000;

/// A closure, and what the index knows of its paths besides. Indices are those of the sorted paths.
pub(crate) struct Image {
    pub(crate) closure: Closure,
    pub(crate) paths: Vec<StorePath>,
    pub(crate) sizes: Vec<u64>,
    pub(crate) references: Vec<Vec<usize>>,
    pub(crate) roots: Vec<usize>,
    pub(crate) origins: Vec<String>,
    packed: Vec<u64>,
}

impl Image {
    fn new(universe: &Universe, revision: &Revision<'_>, roots: &[usize]) -> Result<Image> {
        let (closure, nodes) = revision.closure(roots)?;
        let index: HashMap<_, usize> = closure
            .paths()
            .keys()
            .enumerate()
            .map(|(at, path)| (path, at))
            .collect();
        let references = closure
            .paths()
            .values()
            .map(|info| info.references.iter().map(|to| index[to]).collect())
            .collect();
        let roots = closure.roots().iter().map(|root| index[root]).collect();
        let sizes = closure.paths().values().map(|info| info.nar_size).collect();
        let of = |node: &usize| &universe.nodes[*node];
        Ok(Image {
            paths: closure.paths().keys().cloned().collect(),
            sizes,
            references,
            roots,
            origins: nodes.iter().map(|node| of(node).source.clone()).collect(),
            packed: nodes.iter().map(|node| of(node).packed).collect(),
            closure,
        })
    }
}

/// Images of one corpus and one seed, at all revisions.
pub(crate) struct Scene {
    workload: Vec<Image>,
    /// The kept images at each revision.
    series: Vec<Vec<Image>>,
    /// The kept images after a change of libc.
    rebuilt: Vec<Image>,
}

/// Groups the paths of an image into at most so many layers, the lowest first.
pub(crate) type Group<'a> = dyn Fn(&Image, usize) -> Vec<Vec<usize>> + Sync + 'a;

#[derive(Debug, Default, Clone)]
pub(crate) struct Costs {
    /// Packed bytes that a machine pulls: the average over machines.
    pub(crate) pulled: u64,
    /// The same where a layer is reused only with all below it.
    pub(crate) chained: u64,
    /// Packed bytes that a machine pulls for an update: the average over revisions.
    pub(crate) updated: u64,
    /// Packed bytes that a machine pulls when libc has changed.
    pub(crate) rebuilt: u64,
    /// Packed bytes of all layers of workload and series.
    pub(crate) stored: u64,
    /// Bytes that were compressed for them.
    pub(crate) compressed: u64,
    /// Layers of an image, and those of them that are small: averages.
    pub(crate) layers: f64,
    pub(crate) small: f64,
}

struct Layer {
    id: u64,
    packed: u64,
    size: u64,
}

impl Scene {
    pub(crate) fn new(universe: &Universe, seed: u64) -> Result<Scene> {
        let images = workload::images(universe, IMAGES, seed);
        let kept = &images[..KEPT];
        let at = |revision: &Revision<'_>, images: &[Vec<usize>]| -> Result<Vec<Image>> {
            images
                .iter()
                .map(|roots| Image::new(universe, revision, roots))
                .collect()
        };
        let first = universe.revision(&BTreeSet::new(), "")?;
        let mut changes: Vec<&str> = universe.changed_sources().into_iter().collect();
        Chance::new(seed).shuffle(&mut changes);
        let mut series = vec![at(&first, kept)?];
        for revision in 1..=REVISIONS {
            let updated = changes[..changes.len() * revision / REVISIONS]
                .iter()
                .copied()
                .collect();
            series.push(at(&universe.revision(&updated, "")?, kept)?);
        }
        Ok(Scene {
            workload: at(&first, &images)?,
            series,
            rebuilt: at(&universe.revision(&BTreeSet::new(), "rebuilt")?, kept)?,
        })
    }

    /// Paths of an image: the median, and the most.
    pub(crate) fn paths(&self) -> (usize, usize) {
        let mut counts: Vec<usize> = self
            .workload
            .iter()
            .map(|image| image.sizes.len())
            .collect();
        counts.sort_unstable();
        (counts[counts.len() / 2], counts[counts.len() - 1])
    }

    pub(crate) fn measure(&self, group: &Group<'_>, budget: usize) -> Costs {
        let layers = |image: &Image| layers(image, group(image, budget));
        let all = |images: &[Image]| images.iter().map(layers).collect::<Vec<_>>();
        let (workload, rebuilt) = (all(&self.workload), all(&self.rebuilt));
        let series: Vec<Vec<Vec<Layer>>> = self.series.iter().map(|images| all(images)).collect();

        let mut costs = Costs::default();
        for node in 0..NODES {
            let images: Vec<&Vec<Layer>> = workload.iter().skip(node).step_by(NODES).collect();
            costs.pulled += pull(&mut HashSet::new(), &images) / NODES as u64;
            costs.chained += pull_chains(&images) / NODES as u64;
        }
        let mut present = HashSet::new();
        for (revision, images) in series.iter().enumerate() {
            let bytes = pull(&mut present, &images.iter().collect::<Vec<_>>());
            if revision > 0 {
                costs.updated += bytes / REVISIONS as u64;
            }
            // What no image has any more is removed.
            present = images.iter().flatten().map(|layer| layer.id).collect();
        }
        costs.rebuilt = pull(&mut HashSet::new(), &rebuilt.iter().collect::<Vec<_>>());
        let mut stored = HashSet::new();
        for layer in workload.iter().chain(series.iter().flatten()).flatten() {
            if stored.insert(layer.id) {
                costs.stored += layer.packed;
                costs.compressed += layer.size;
            }
        }
        let count = workload.iter().flatten().count();
        let small = workload
            .iter()
            .flatten()
            .filter(|layer| layer.packed < SMALL)
            .count();
        costs.layers = count as f64 / workload.len() as f64;
        costs.small = small as f64 / workload.len() as f64;
        costs
    }
}

fn layers(image: &Image, groups: Vec<Vec<usize>>) -> Vec<Layer> {
    let paths: Vec<_> = image.closure.paths().keys().collect();
    let mut placed = 0;
    let layers = groups
        .into_iter()
        .filter(|group| !group.is_empty())
        .map(|mut group| {
            group.sort_unstable();
            placed += group.len();
            let mut hasher = DefaultHasher::new();
            for &path in &group {
                paths[path].hash(&mut hasher);
            }
            Layer {
                id: hasher.finish(),
                packed: group.iter().map(|&path| image.packed[path]).sum(),
                size: group.iter().map(|&path| image.sizes[path]).sum(),
            }
        })
        .collect();
    assert_eq!(
        placed,
        paths.len(),
        "a grouping lost paths, or has some twice"
    );
    layers
}

fn pull(present: &mut HashSet<u64>, images: &[&Vec<Layer>]) -> u64 {
    let missing = images
        .iter()
        .copied()
        .flatten()
        .filter(|layer| present.insert(layer.id));
    missing.map(|layer| layer.packed).sum()
}

/// With Docker's graph drivers, a layer is named by itself and all below it.
fn pull_chains(images: &[&Vec<Layer>]) -> u64 {
    let mut present = HashSet::new();
    let mut bytes = 0;
    for image in images {
        let mut chain = DefaultHasher::new();
        for layer in *image {
            layer.id.hash(&mut chain);
            if present.insert(chain.finish()) {
                bytes += layer.packed;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layers: &[(u64, u64)]) -> Vec<Layer> {
        layers
            .iter()
            .map(|&(id, packed)| Layer {
                id,
                packed,
                size: 0,
            })
            .collect()
    }

    #[test]
    fn a_chain_is_pulled_again_from_its_first_new_layer() {
        let (one, two) = (
            image(&[(1, 10), (2, 20), (3, 40)]),
            image(&[(1, 10), (4, 100), (3, 40)]),
        );
        assert_eq!(pull(&mut HashSet::new(), &[&one, &two]), 170);
        assert_eq!(pull_chains(&[&one, &two]), 210);
    }
}
