//! The builder on package sets as large as nixpkgs: where each evaluation takes a second.
//!
//! ```text
//!   a set ──► outputs of 40 known, 30 prepared and 30 fetched packages ──► a binary cache
//!    │                                            │ prepared
//!    └──► builder, its index complete             └──► the Nix store
//! ```
//!
//! What the packages have in them is made up, so that nothing is built: what is measured is what comes with
//! every build.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nixgate_tests::live::binary_cache::BinaryCache;
use nixgate_tests::live::builder::{Builder, Settings};
use nixgate_tests::live::described::{Package, outputs};
use nixgate_tests::live::install::{self, NixPrograms};
use nixgate_tests::live::poll;
use nixgate_tests::live::process::run;
use nixgate_tests::live::scratch;
use nixgate_tests::live::shaped_set::ShapedSet;

use crate::images::Chance;
use crate::{measure, scene};

/// Names of the generated set.
const NAMES: usize = 100_000;
const KNOWN: usize = 40;
const EACH: usize = 30;
/// What every image has.
const BASE: [&str; 2] = ["cacert", "iana-etc"];
/// How long an index may take.
const INDEX: Duration = Duration::from_secs(4 * 3600);

pub(crate) fn run_all() -> Result<()> {
    let nix = install::modern_nix()?;
    let set = ShapedSet::write()?;
    set.scale(NAMES)?;
    // Those that need no other one.
    let names = (0..NAMES * 4 / 10).filter(|number| number % 1000 >= 400 && number % 10 == 0);
    let names: Vec<_> = names.map(|number| format!("scaled-{number:06}")).collect();
    println!("\nA set shaped like nixpkgs with {NAMES} names:\n");
    run_on(&nix, &set.path(), names)?;
    let Some(nixpkgs) = install::real_nixpkgs() else {
        return Ok(());
    };
    let mut names = Vec::new();
    for folder in nixpkgs.join("pkgs/by-name").read_dir()?.flatten() {
        if let Ok(packages) = folder.path().read_dir() {
            let packages = packages.flatten().map(|one| one.file_name());
            names.extend(packages.map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    println!("\nnixpkgs, {}:\n", nixpkgs.display());
    run_on(&nix, &nixpkgs, names)
}

fn run_on(nix: &NixPrograms, set: &Path, mut names: Vec<String>) -> Result<()> {
    let folder = scratch::folder("large-")?;
    let mut chance = Chance::default();
    chance.shuffle(&mut names);
    eprintln!("choosing packages");
    let base = BASE.map(str::to_owned).to_vec();
    let base = outputs(nix, set, base, BASE.len())?;
    let mut packages = outputs(nix, set, names, KNOWN + 3 * EACH)?;
    let all = base
        .iter()
        .chain(&packages)
        .flat_map(|(_, paths)| paths.clone());
    let all: Vec<_> = all.collect();
    let cache = BinaryCache::made_up(&folder.path().join("cache"), nix, &all)?;
    let options = install::nix_options()?.replace("substituters=;", "");
    let options = format!("{options}{}", cache.options());
    let settings = |name: &str| -> Result<Settings> {
        let state = folder.path().join(name);
        std::fs::create_dir_all(&state)?;
        let settings = Settings::new(&state)?.with_nix(nix);
        let settings = Settings {
            package_set: set.to_owned(),
            ..settings
        };
        Ok(settings.with("NIXGATE_NIX_OPTIONS", &options))
    };
    let mut take = |count: usize| -> Vec<Package> { packages.drain(..count).collect() };
    let (known, prepared, fetched, evaluated) = (take(KNOWN), take(EACH), take(EACH), take(EACH));
    let images = |packages: &[Package]| -> Vec<String> {
        packages
            .iter()
            .map(|(name, _)| name.to_lowercase())
            .collect()
    };
    let store = |packages: &[Package]| -> Result<()> {
        let paths = packages.iter().flat_map(|(_, paths)| paths);
        let mut realise = Command::new("nix-store");
        realise.arg("--realise").args(paths);
        for option in options.split(';').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').context("an option")?;
            realise.args(["--option", name, value]);
        }
        run(&mut realise).map(drop)
    };
    store(&prepared)?;

    let plain = settings("plain")?.with("NIXGATE_NO_INDEX", "true");
    let plain = Builder::start(&plain)?;
    first(&plain)?;
    println!("| image | median | p95 | Nix processes | goal |");
    println!("| --- | ---: | ---: | ---: | --- |");
    measure("(d) without an index", "", &plain, &images(&evaluated))?;
    drop(plain);

    let builder = Builder::start(&settings("indexed")?)?;
    let started = Instant::now();
    eprintln!("waiting for the index");
    poll::within(INDEX, "the index is complete", || {
        let log = builder.log();
        log.contains("the index of the package set is complete")
            .then_some(())
    })?;
    let seconds = started.elapsed().as_secs();
    let log = builder.log();
    let complete = log.lines().find(|line| line.contains("is complete"));
    let known = images(&known);
    first(&builder)?;
    for image in &known {
        scene::pull(&builder, image)?;
    }
    let mut combinations = || -> Vec<String> {
        let combinations = (0..EACH).map(|_| chance.some_of(&known).join("/"));
        combinations.collect()
    };
    let seen = combinations();
    for image in &seen {
        scene::pull(&builder, image)?;
    }
    measure("(a) seen before", "", &builder, &seen)?;
    measure(
        "(b) a new combination",
        "50 ms, 0",
        &builder,
        &combinations(),
    )?;
    measure(
        "(c) new, in the Nix store",
        "150 ms",
        &builder,
        &images(&prepared),
    )?;
    measure(
        "(d) new, in a binary cache",
        "400 ms",
        &builder,
        &images(&fetched),
    )?;
    println!(
        "\nThe index took {seconds} s: {}",
        complete.unwrap_or_default()
    );
    println!("The builder takes {} MiB.", resident(builder.id())?);
    Ok(())
}

/// Pulls the image that has nothing more than all have, as soon as the package set is in the store.
fn first(builder: &Builder) -> Result<()> {
    poll::within(INDEX, "the package set is in the store", || {
        scene::pull(builder, "cacert").ok()
    })
}

/// The resident memory of a process, in MiB.
fn resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("its memory")?.parse::<u64>()? / 1024)
}
