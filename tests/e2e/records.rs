//! What is known of packages is enough for new images of them: Nix is asked once for each package.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::poll;
use nixgate_tests::live::s3::S3;
use nixgate_tests::live::unbuilt_set::{UnbuiltSet, pull};
use serde_json::Value;

/// The digests of an image's layers. The last is that of the symlinks.
fn layers(builder: &Builder, packages: &str) -> Result<Vec<String>> {
    let answer = pull(builder.port(), packages)?;
    ensure!(
        answer.status == StatusCode::OK,
        "{packages}: {} {}",
        answer.status,
        answer.text()
    );
    let manifest: Value = serde_json::from_slice(&answer.body)?;
    let layers = manifest["layers"].as_array().context("layers")?;
    let digests = layers.iter().map(|layer| layer["digest"].as_str());
    let digests = digests.map(|digest| digest.map(str::to_owned));
    digests.collect::<Option<_>>().context("digests")
}

/// The same, and how many Nix processes it took.
fn processes_for(builder: &Builder, packages: &str) -> Result<(Vec<String>, u64)> {
    let before = builder.nix_processes()?;
    let layers = layers(builder, packages)?;
    Ok((layers, builder.nix_processes()? - before))
}

#[test]
fn packages_that_were_never_together_need_no_nix() -> Result<()> {
    let set = UnbuiltSet::write()?;
    let builder = Builder::start(&set.builder("one")?)?;
    let (both, processes) = processes_for(&builder, "a/b")?;
    assert!(processes > 0, "it was never asked for");
    let c = layers(&builder, "c")?;
    let (all, processes) = processes_for(&builder, "a/b/c")?;
    assert_eq!(processes, 0);
    let (_, known) = all.split_last().context("layers")?;
    for layer in known {
        assert!(both.contains(layer) || c.contains(layer), "{layer} is new");
    }

    // What is not known is all that Nix is asked for.
    let (_, processes) = processes_for(&builder, "a/b/d")?;
    assert!(processes > 0);
    assert_eq!(processes_for(&builder, "c/d")?.1, 0);
    Ok(())
}

#[test]
fn new_layers_are_packed_without_nix_and_after_a_restart() -> Result<()> {
    let set = UnbuiltSet::write()?;
    // All store paths of an image are one layer, which no other image has.
    let settings = set.builder("one")?.with("NIXGATE_MAX_LAYERS", "2");
    let builder = Builder::start(&settings)?;
    let a = layers(&builder, "a")?;
    layers(&builder, "b/c")?;
    let (both, processes) = processes_for(&builder, "a/b")?;
    assert_eq!(processes, 0);
    assert_ne!(a.first(), both.first());

    drop(builder);
    let builder = Builder::start(&settings)?;
    wait_for_pin(&builder)?;
    assert_eq!(processes_for(&builder, "a/c")?.1, 0);
    assert_eq!(processes_for(&builder, "a/b/c")?.1, 0);
    Ok(())
}

/// Waits until the package set is in the store, which takes processes, at the start and at most once in five
/// minutes.
fn wait_for_pin(builder: &Builder) -> Result<()> {
    poll::until("the package set is pinned", || {
        builder
            .log()
            .contains("pinned the package set")
            .then_some(())
    })
}

#[test]
fn another_builder_whose_store_is_empty_needs_no_nix_for_known_layers() -> Result<()> {
    for s3 in [false, true] {
        let set = UnbuiltSet::write()?;
        let objects = set.folder().join("objects");
        let s3 = s3.then(|| S3::start(&objects)).transpose()?;
        let start = |name: &str| -> Result<Builder> {
            let settings = set.builder(name)?;
            let settings = match &s3 {
                Some(s3) => s3.settings(settings),
                None => settings,
            };
            Builder::start(&settings)
        };
        let first = start("first")?;
        for image in ["a/b", "c", "d"] {
            layers(&first, image)?;
        }
        drop(first);
        fs::remove_dir_all(set.folder().join("first"))?;
        set.collect()?;

        let second = start("second")?;
        wait_for_pin(&second)?;
        assert_eq!(processes_for(&second, "a/b/c")?.1, 0);
        assert_eq!(processes_for(&second, "c/d")?.1, 0);
        assert_eq!(set.packages()?.len(), 0, "nothing was built again");
    }
    Ok(())
}

#[test]
fn store_paths_that_have_gone_are_made_again() -> Result<()> {
    let set = UnbuiltSet::write()?;
    let settings = set.builder("one")?.with("NIXGATE_MAX_LAYERS", "2");
    let builder = Builder::start(&settings)?;
    layers(&builder, "a")?;
    layers(&builder, "b")?;
    // Somebody made room on the disk.
    let kept = settings.state.join("builder/kept");
    let batches = || -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&kept)?.map(|entry| entry.map(|entry| entry.path()));
        Ok(entries.collect::<Result<_, _>>()?)
    };
    for batch in batches()? {
        fs::remove_dir_all(batch)?;
    }
    set.collect()?;
    let (_, processes) = processes_for(&builder, "a/b")?;
    assert!(processes > 0);
    assert!(!set.packages()?.is_empty());
    Ok(())
}

#[test]
fn a_builder_that_keeps_nothing_leaves_the_store_to_the_collector() -> Result<()> {
    let set = UnbuiltSet::write()?;
    let settings = set.builder("one")?.with("NIXGATE_KEEP_SECONDS", "0");
    let builder = Builder::start(&settings)?;
    layers(&builder, "a")?;
    drop(builder);
    // What was of use in the last build is let go of before the next, or at the start.
    let builder = Builder::start(&settings)?;
    assert_eq!(
        fs::read_dir(settings.state.join("builder/kept"))?.count(),
        0
    );
    set.collect()?;
    layers(&builder, "a/b")?;
    Ok(())
}

#[test]
fn damaged_records_are_made_again() -> Result<()> {
    let set = UnbuiltSet::write()?;
    let builder = Builder::start(&set.builder("one")?)?;
    layers(&builder, "a")?;
    layers(&builder, "b")?;
    let records = set.folder().join("storage/packages");
    for record in fs::read_dir(&records)? {
        let record = record?.path();
        let content = fs::read(&record)?;
        fs::write(&record, &content[..content.len() / 2])?;
    }
    let (_, processes) = processes_for(&builder, "a/b")?;
    assert!(processes > 0);
    assert_eq!(processes_for(&builder, "a/b/cacert")?.1, 0);
    Ok(())
}
