//! The builder's machine on its bad days: no image is ever wrong, and the next day is a good one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use nixgate_core::distribution::Digest;
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::poll;
use nixgate_tests::live::process::run;
use nixgate_tests::live::scratch;
use nixgate_tests::live::served_set::ServedSet;
use nixgate_tests::live::unbuilt_set::{UnbuiltSet, pull};
use serde_json::Value;

/// Checks all that every manifest in storage names.
fn everything_is_whole(storage: &Path) -> Result<usize> {
    let mut manifests = Vec::new();
    for folder in ["manifests", "links"] {
        files(&storage.join(folder), &mut manifests)?;
    }
    for file in &manifests {
        let manifest: Value = serde_json::from_slice(&fs::read(file)?)
            .with_context(|| format!("{} is no manifest", file.display()))?;
        let layers = manifest["layers"].as_array().context("layers")?;
        for blob in [&manifest["config"]].into_iter().chain(layers) {
            let digest: Digest = blob["digest"].as_str().context("a digest")?.parse()?;
            let content = fs::read(storage.join("layers").join(digest.hex()))
                .with_context(|| format!("{digest} of {} is missing", file.display()))?;
            ensure!(Digest::of(&content) == digest, "{digest} is damaged");
            assert_eq!(blob["size"].as_u64(), Some(content.len() as u64));
        }
    }
    Ok(manifests.len())
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files(&path, found)?,
            // What object_store has begun to write is called after its place, a `#` and a number.
            false if path.to_string_lossy().contains('#') => {}
            false => found.push(path),
        }
    }
    Ok(())
}

#[test]
fn a_builder_that_is_killed_at_any_step_leaves_no_wrong_image() -> Result<()> {
    // The last thing that each step leaves behind, in the builder's state and in storage.
    for step in [
        "one/builder/kept",
        "storage/packages",
        "storage/builds",
        "storage/layers",
        "storage/facts",
        "storage/links",
        "storage/manifests",
    ] {
        let set = UnbuiltSet::write()?;
        let settings = set.builder("one")?;
        let builder = Builder::start(&settings)?;
        let port = builder.port();
        let client = thread::spawn(move || pull(port, "a/b/c"));
        let reached = set.folder().join(step);
        poll::until(&format!("{step} is begun"), || {
            let mut entries = fs::read_dir(&reached).ok()?;
            entries.next().map(drop)
        })?;
        builder.kill()?;
        // Whether it was answered before is a race.
        _ = client.join();
        everything_is_whole(&set.storage()).context(step)?;

        let builder = Builder::start(&settings)?;
        let answer = pull(builder.port(), "a/b/c")?;
        assert_eq!(answer.status, StatusCode::OK, "{step}: {}", answer.text());
        assert!(everything_is_whole(&set.storage()).context(step)? >= 4);
    }
    Ok(())
}

#[test]
fn two_builders_make_one_image_at_the_same_time() -> Result<()> {
    let set = UnbuiltSet::write()?;
    let builders = [set.builder("one")?, set.builder("two")?];
    let builders = builders.map(|settings| Builder::start(&settings));
    let [one, two] = builders;
    let (one, two) = (one?, two?);
    let mut clients = Vec::new();
    for _ in 0..4 {
        for port in [one.port(), two.port()] {
            clients.push(thread::spawn(move || pull(port, "a/b/c/d")));
        }
    }
    let mut digests = Vec::new();
    for client in clients {
        let answer = client.join().expect("the client's thread ends")?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        digests.push(answer.header("docker-content-digest").to_owned());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    everything_is_whole(&set.storage())?;
    Ok(())
}

/// A file system of a few megabytes, unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(at))?;
        Ok(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        scratch::unmount(self.0);
    }
}

#[test]
fn a_full_disk_is_told_and_what_fits_is_built_after_it() -> Result<()> {
    let packages = r#"
        large = package "large" "mkdir $out; head -c 16777216 /dev/urandom > $out/noise";
        small = package "small" "mkdir $out; echo small > $out/small";
    "#;
    let disk = scratch::folder("disk-")?;
    for name in ["state", "storage"] {
        let folder = disk.path().join(name);
        let full = SmallDisk::mount(&folder)?;
        let variable = match name {
            "state" => "NIXGATE_STATE_DIR",
            _ => "STORAGE_PATH",
        };
        let served = ServedSet::start(packages, |settings| settings.with(variable, &folder))?;
        let answer = pull(served.builder.port(), "large")?;
        assert!(answer.status.is_server_error(), "{name}: {}", answer.text());
        let log = served.builder.log();
        assert!(log.contains("No space left on device"), "{name}: {log}");
        // What was begun is not in the way.
        let answer = pull(served.builder.port(), "small")?;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        drop(served);
        drop(full);
    }
    Ok(())
}
