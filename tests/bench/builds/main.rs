//! `make bench`, its second half: how long the builder takes from a name to a manifest, and how many
//! Nix processes that takes.
//!
//! ```text
//!   300 images, 50 of each kind, chosen by a seed ──► builder ──► files
//! ```
//!
//! With the argument `large`, the same on a set of 100,000 names, and on a real nixpkgs (`large.rs`).
//!
//! The packages are tiny, so that what is measured is what comes with every build: Nix's own start,
//! evaluation, database and store, or the records in place of them. Requests come one after the
//! other. Results go to stdout as a table, progress to stderr. Nothing here can fail for being slow.

mod images;
mod large;
mod scene;

use std::time::{Duration, Instant};

use anyhow::Result;
use nixgate_tests::live::builder::Builder;

use images::{Chance, EACH};
use scene::Scene;

fn main() -> Result<()> {
    // The index of a large set takes a while.
    match std::env::args().nth(1).as_deref() {
        Some("large") => large::run_all(),
        _ => small(),
    }
}

fn small() -> Result<()> {
    let scene = Scene::set()?;
    let mut chance = Chance::default();
    println!("| image | median | p95 | Nix processes | goal |");
    println!("| --- | ---: | ---: | ---: | --- |");

    eprintln!("building the packages");
    let grouping = scene.builder("grouping", "grouped", &[("NIXGATE_MAX_LAYERS", "6")])?;
    let builder = scene.builder("first", "shared", &[])?;
    for image in images::each_known() {
        scene::pull(&builder, &image)?;
        scene::pull(&grouping, &image)?;
    }
    let seen = chance.combinations();
    for image in &seen {
        scene::pull(&builder, image)?;
    }
    measure("(a) seen before", "", &builder, &seen)?;
    let what = "(b) a new combination, its layers packed";
    measure(what, "50 ms, 0", &builder, &chance.combinations())?;
    let what = "(b′) a new combination, layers to pack";
    measure(what, "0", &grouping, &chance.combinations())?;
    drop(grouping);
    let fresh = scene.builder("fresh", "elsewhere", &[])?;
    // It copies the package set into the store.
    scene::pull(&fresh, "cacert")?;
    for image in images::each_prepared() {
        scene::pull(&builder, &image)?;
    }
    let prepared: Vec<_> = images::each_prepared().collect();
    measure("(c) new, in the Nix store", "", &fresh, &prepared)?;
    let unbuilt: Vec<_> = images::each_unbuilt().collect();
    measure("(d) new, to be built by Nix", "", &fresh, &unbuilt)?;

    drop((builder, fresh));
    scene.empty_store()?;
    let second = scene.builder("second", "shared", &[])?;
    // The same.
    scene::pull(&second, "cacert")?;
    let what = "(b″) as (b), on another builder whose Nix store is empty";
    measure(what, "0", &second, &chance.combinations())
}

/// Pulls images and prints a line of the table.
fn measure(what: &str, goal: &str, builder: &Builder, images: &[String]) -> Result<()> {
    eprintln!("measuring: {what}");
    let before = builder.nix_processes()?;
    let mut times = Vec::with_capacity(EACH);
    for image in images {
        let start = Instant::now();
        scene::pull(builder, image)?;
        times.push(start.elapsed());
    }
    times.sort();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    let show = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let processes = builder.nix_processes()? - before;
    println!(
        "| {what} | {} | {} | {processes} | {goal} |",
        show(at(50)),
        show(at(95))
    );
    Ok(())
}
