//! `make study`: which store paths should share a layer?
//!
//! ```text
//!   Debian's package index ──► closures of images ──► groupings ──► bytes pulled, stored, compressed
//! ```
//!
//! Nothing is built, packed or pulled. What a grouping does follows from the graph of packages and their
//! sizes, which are real; which images people pull is chosen by seeds.
//!
//! ```text
//!   STUDY_SEEDS=4,5 STUDY_BUDGETS=64 make study      other seeds, fewer tables
//! ```

mod baselines;
mod debian;
mod measure;
mod universe;
mod workload;

// The builder's own, so that what is measured is what it does. They are pure, and private there.
#[allow(dead_code, unused_imports)]
#[path = "../../host-builder/src/closure/mod.rs"]
mod closure;
#[allow(dead_code)]
#[path = "../../host-builder/src/layering/mod.rs"]
mod layering;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use layering::{Layering, Popularity};
use measure::{Costs, Group, Image, Scene};
use universe::Universe;

const BUDGETS: [usize; 5] = [10, 20, 40, 64, 94];

/// The parameters of `layering/sharing.rs` were chosen on seed 1.
const SEEDS: [u64; 2] = [2, 3];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |name: &str| {
        arguments.is_empty()
            || arguments
                .iter()
                .any(|argument| name.contains(argument.as_str()))
    };
    let seeds: Vec<u64> = match std::env::var("STUDY_SEEDS") {
        Ok(seeds) => seeds.split(',').map(str::parse).collect::<Result<_, _>>()?,
        Err(_) => SEEDS.to_vec(),
    };
    let budgets: Vec<usize> = match std::env::var("STUDY_BUDGETS") {
        Ok(budgets) => budgets
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?,
        Err(_) => BUDGETS.to_vec(),
    };
    eprintln!(
        "study: no closures of nixpkgs: what a package of it references is known only when it is built, and \
         this study builds nothing"
    );
    let state = std::env::var("STATE_DIR").unwrap_or_else(|_| ".nixgate".to_owned());
    let state = Path::new(&state);
    let lists = lists(state)?;
    let corpora = [
        ("Debian, whole", debian::whole(&lists)?),
        (
            "Debian, the embedded set",
            debian::embedded(&lists, &state.join("debian/index-amd64.json"))?,
        ),
    ];
    for (name, universe) in &corpora {
        for &seed in &seeds {
            let scene = Scene::new(universe, seed)?;
            let (median, most) = scene.paths();
            println!(
                "\n{name}, seed {seed}: {} packages, images of {median} store paths (median), {most} at most, {} sources change\n",
                universe.nodes.len(),
                universe.changed_sources().len()
            );
            table(universe, &scene, &budgets, &chosen)?;
        }
    }
    Ok(())
}

/// apt's lists: those that scripts/package-set.sh fetched, or the machine's.
fn lists(state: &Path) -> Result<PathBuf> {
    let candidates = [
        state.join("apt/apt-amd64/lists"),
        PathBuf::from("/var/lib/apt/lists"),
    ];
    let has_lists = |folder: &&PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .into_iter()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    };
    match candidates.iter().find(has_lists) {
        Some(folder) => Ok(folder.clone()),
        None => bail!(
            "no package lists in {} or {}. Fetch them: scripts/package-set.sh amd64",
            candidates[0].display(),
            candidates[1].display()
        ),
    }
}

fn table(
    universe: &Universe,
    scene: &Scene,
    budgets: &[usize],
    chosen: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let counts = universe.counts(&universe.revision(&BTreeSet::new(), "")?);
    for &budget in budgets {
        println!(
            "| {budget} layers | pulled | chained | update | rebuild | stored | compressed | layers | small |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        let strategies = strategies(&counts);
        let strategies: Vec<_> = strategies.iter().filter(|(name, _)| chosen(name)).collect();
        let costs: Vec<Costs> = std::thread::scope(|scope| {
            let (left, right) = strategies.split_at(strategies.len() / 2);
            let run = |part: &[&(&str, Box<Group<'_>>)]| {
                part.iter()
                    .map(|(_, group)| scene.measure(group, budget))
                    .collect::<Vec<_>>()
            };
            let other = scope.spawn(move || run(right));
            let mut costs = run(left);
            costs.extend(other.join().expect("measuring does not panic"));
            costs
        });
        for ((name, _), costs) in strategies.iter().zip(costs) {
            let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
            println!(
                "| {name} | {} | {} | {} | {} | {} | {} | {:.1} | {:.1} |",
                mb(costs.pulled),
                mb(costs.chained),
                mb(costs.updated),
                mb(costs.rebuilt),
                mb(costs.stored),
                mb(costs.compressed),
                costs.layers,
                costs.small
            );
        }
        println!();
    }
    Ok(())
}

fn strategies<'a>(counts: &'a BTreeMap<String, u64>) -> Vec<(&'static str, Box<Group<'a>>)> {
    vec![
        ("each path (no budget)", Box::new(baselines::each_path)),
        ("one layer", Box::new(baselines::one_layer)),
        (
            "dockerTools, by popularity",
            Box::new(baselines::by_popularity),
        ),
        ("dockerTools, auto-layer", Box::new(baselines::auto_layer)),
        ("chunkah", Box::new(baselines::chunkah)),
        ("apko", Box::new(baselines::apko)),
        (
            "Nixery",
            Box::new(move |image, budget| baselines::nixery(image, budget, counts)),
        ),
        (
            "nixgate, dominators",
            Box::new(|image, budget| nixgate(Layering::Dominators, image, budget)),
        ),
        (
            "nixgate, sharing",
            Box::new(|image, budget| nixgate(Layering::Sharing, image, budget)),
        ),
    ]
}

/// The builder's own, without counts of popularity.
fn nixgate(layering: Layering, image: &Image, budget: usize) -> Vec<Vec<usize>> {
    let budget = NonZeroUsize::new(budget).unwrap_or(NonZeroUsize::MIN);
    let plan = layering.plan(&image.closure, &Popularity::default(), budget);
    let index = |path| {
        image
            .paths
            .binary_search(path)
            .expect("a path of the closure")
    };
    plan.iter()
        .map(|group| group.paths.iter().map(index).collect())
        .collect()
}
