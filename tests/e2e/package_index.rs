//! The index of a package set: what it knows needs no evaluation, and its images are the same.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use nixgate_tests::live::binary_cache::BinaryCache;
use nixgate_tests::live::builder::{Builder, Settings};
use nixgate_tests::live::install::{self, NixPrograms};
use nixgate_tests::live::poll;
use nixgate_tests::live::process::run;
use nixgate_tests::live::shaped_set::ShapedSet;
use nixgate_tests::live::unbuilt_set::pull;

use crate::each_nix::on_each_nix;

const COMPLETE: &str = "the index of the package set is complete";
/// To take an output from a cache, and to ask for its closure.
const WITHOUT_EVALUATION: u64 = 2;

/// A set, a cache with some of its packages that the store does not have, and settings for both.
struct Scene {
    set: ShapedSet,
    options: String,
    nix: NixPrograms,
    _cache: BinaryCache,
}

impl Scene {
    fn new(nix: &NixPrograms, cached: &[&str]) -> Result<Self> {
        let set = ShapedSet::write()?;
        let everywhere = ["cacert", "iana-etc"];
        let paths = set.build(nix, &[cached, &everywhere].concat())?;
        let cache = BinaryCache::start(&set.folder().join("cache"), nix, &paths)?;
        set.collect(&paths)?;
        let options = install::nix_options()?.replace("substituters=;", "");
        Ok(Self {
            set,
            options: format!("{options}{}", cache.options()),
            nix: nix.clone(),
            _cache: cache,
        })
    }

    fn settings(&self, name: &str) -> Result<Settings> {
        let settings = self.set.builder(name)?.with_nix(&self.nix);
        Ok(settings.with("NIXGATE_NIX_OPTIONS", &self.options))
    }
}

fn wait_for_index(builder: &Builder) -> Result<()> {
    let complete = poll::until("the index is complete", || {
        builder.log().contains(COMPLETE).then_some(())
    });
    complete.with_context(|| builder.log())
}

/// Pulls an image: its digest, and the processes of Nix that it took.
fn pulled(builder: &Builder, name: &str) -> Result<(String, u64)> {
    let before = builder.nix_processes()?;
    let answer = pull(builder.port(), name)?;
    let (status, text) = (answer.status, answer.text());
    ensure!(
        status == StatusCode::OK,
        "{name}: {text}\n{}",
        builder.log()
    );
    let digest = answer.header("docker-content-digest").to_owned();
    Ok((digest, builder.nix_processes()? - before))
}

#[test]
fn what_the_index_knows_needs_no_evaluation_and_makes_the_same_images() -> Result<()> {
    on_each_nix(|nix| {
        let cached = ["hello", "git", "curl", "python3Packages.requests"];
        let names = ["hello", "git.doc/curl", "python3packages.requests"];
        let scene = Scene::new(nix, &cached)?;
        let plain = scene.settings("plain")?.with("NIXGATE_NO_INDEX", "true");
        let plain = Builder::start(&plain)?;
        let expected: Vec<_> = names
            .iter()
            .map(|name| pulled(&plain, name))
            .collect::<Result<_>>()?;
        assert!(!plain.log().contains(COMPLETE));
        drop(plain);

        let settings = scene.settings("first")?;
        let first = Builder::start(&settings)?;
        wait_for_index(&first)?;
        for (name, (digest, evaluated)) in names.iter().zip(&expected) {
            let context = format!("{name} on {}", nix.version);
            let (same, processes) = pulled(&first, name).context(context.clone())?;
            assert_eq!(same, *digest, "{context}");
            assert_eq!(processes, WITHOUT_EVALUATION, "{context}");
            assert!(*evaluated > processes, "{context}: {evaluated}");
        }
        // What no cache has is built, and what a package passes on is evaluated.
        for name in ["jdk", "python3.pkgs.requests"] {
            pulled(&first, name)?;
        }
        drop(first);

        // Another builder finds the index in their storage.
        let other = scene.settings("other")?;
        let stored = |settings: &Settings| settings.state.join("storage");
        fs::create_dir_all(stored(&other))?;
        run(Command::new("cp")
            .arg("--recursive")
            .arg(stored(&settings).join("indexes"))
            .arg(stored(&other)))?;
        let other = Builder::start(&other)?;
        pulled(&other, "cacert")?;
        let (digest, processes) = pulled(&other, names[0])?;
        assert_eq!(
            (digest, processes),
            (expected[0].0.clone(), WITHOUT_EVALUATION)
        );
        let made = other.counter("nixgate_background_processes_total", &[])?;
        assert_eq!(made, 0, "{}", other.log());
        Ok(())
    })
}

#[test]
fn names_that_end_each_evaluation_are_told_and_hide_no_other() -> Result<()> {
    on_each_nix(|nix| {
        let scene = Scene::new(nix, &["hello"])?;
        let builder = Builder::start(&scene.settings("state")?)?;
        wait_for_index(&builder)?;
        let log = builder.log();
        let told = log
            .lines()
            .find(|line| line.contains("Nix cannot evaluate some names"))
            .context(log.clone())?;
        for name in ["wrong", "endless"] {
            assert!(told.contains(name), "{told}");
        }
        assert!(!told.contains("hello"), "{told}");
        pulled(&builder, "hello").map(drop)
    })
}

#[test]
fn an_index_goes_on_where_a_killed_builder_left_it() -> Result<()> {
    let nix = install::modern_nix()?;
    let scene = Scene::new(&nix, &["hello"])?;
    scene.set.scale(3000)?;
    let settings = scene.settings("state")?;
    let draft = || -> Option<PathBuf> {
        let folder = fs::read_dir(settings.state.join("builder/index")).ok()?;
        let files = folder.flatten().map(|entry| entry.path());
        files
            .filter(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0))
            .find(|path| path.extension().is_some_and(|end| end == "draft"))
    };
    let builder = Builder::start(&settings)?;
    poll::until("some names are known", || draft().map(drop))?;
    builder.kill()?;
    let draft = draft().context("the draft is left")?;
    // As if it had been killed while it wrote.
    let mut half = fs::read(&draft)?;
    half.truncate(half.len() - 10);
    fs::write(&draft, half)?;

    let builder = Builder::start(&settings)?;
    wait_for_index(&builder)?;
    let log = builder.log();
    let resumed = log
        .lines()
        .find(|line| line.contains("resumed="))
        .context(log.clone())?;
    assert!(!resumed.contains("resumed=0"), "{resumed}");
    assert!(!draft.exists());
    assert_eq!(pulled(&builder, "hello")?.1, WITHOUT_EVALUATION);
    Ok(())
}
