//! The builder's machine on its bad days: no image is ever wrong, and the next day is a good one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use http::header::RETRY_AFTER;
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

/// A small file system, unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, mebibytes: u32) -> Result<Self> {
        fs::create_dir_all(at)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
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
    let disk = scratch::folder("disk-")?;
    // The program that tries the sandbox is in the state folder, and takes 28 MiB.
    for (name, mebibytes, noisy) in [("state", 50, 36), ("storage", 4, 6)] {
        // The large one is seen to have no place, the other one to have none when it is packed: noise
        // is not compressed, as programs are.
        let noise = |name, mebibytes| {
            format!(
                r#"{name} = package "{name}" "mkdir $out; head -c {mebibytes}M /dev/urandom > $out/noise";"#
            )
        };
        let packages = [
            noise("large", 3 * mebibytes),
            noise("noisy", noisy),
            r#"small = package "small" "mkdir $out; echo small > $out/small";"#.to_owned(),
        ];
        let packages = &packages.concat();
        let folder = disk.path().join(name);
        let full = SmallDisk::mount(&folder, mebibytes)?;
        let variable = match name {
            "state" => "NIXGATE_STATE_DIR",
            _ => "STORAGE_PATH",
        };
        let served = ServedSet::start(packages, |settings| {
            let settings = settings.with("NIXGATE_MIN_FREE_BYTES", "0");
            settings.with(variable, &folder)
        })?;
        let port = served.builder.port();
        for _ in 0..2 {
            let answer = pull(port, "large")?;
            let text = answer.text();
            assert_eq!(
                answer.status,
                StatusCode::TOO_MANY_REQUESTS,
                "{name}: {text}"
            );
            assert!(
                text.contains(&format!("the disk of its {name} folder")),
                "{text}"
            );
            assert!(text.contains("MiB are needed"), "{name}: {text}");
        }
        let log = served.builder.log();
        assert!(!log.contains("No space left on device"), "{name}: {log}");

        for _ in 0..2 {
            let answer = pull(port, "noisy")?;
            let text = answer.text();
            assert_eq!(
                answer.status,
                StatusCode::SERVICE_UNAVAILABLE,
                "{name}: {text}"
            );
            assert!(answer.headers.contains_key(RETRY_AFTER), "{name}");
            let mut left = Vec::new();
            files(&folder.join("staging"), &mut left)?;
            files(&folder.join("layers"), &mut left)?;
            let size = |file: &std::path::PathBuf| fs::metadata(file).map_or(0, |meta| meta.len());
            assert!(
                left.iter().map(size).sum::<u64>() < 1 << 20,
                "{name}: {left:?}"
            );
        }
        let log = served.builder.log();
        assert!(log.contains("No space left on device"), "{name}: {log}");
        // What was begun is not in the way.
        let answer = pull(port, "small")?;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        drop(served);
        drop(full);
    }
    Ok(())
}

#[test]
fn a_disk_that_is_nearly_full_takes_no_new_image_and_serves_those_that_are_there() -> Result<()> {
    let set = UnbuiltSet::write()?;
    let settings = set.builder("one")?;
    let builder = Builder::start(&settings)?;
    assert_eq!(pull(builder.port(), "a")?.status, StatusCode::OK);
    drop(builder);

    let more_than_there_is = u64::MAX.to_string();
    let builder = Builder::start(&settings.with("NIXGATE_MIN_FREE_BYTES", more_than_there_is))?;
    let stored = pull(builder.port(), "a")?;
    assert_eq!(stored.status, StatusCode::OK, "{}", stored.text());
    let manifest: Value = serde_json::from_slice(&stored.body)?;
    let config = manifest["config"]["digest"].as_str().context("a digest")?;
    let blob = builder.get(&format!("/v2/a/blobs/{config}"))?;
    assert_eq!(blob.status, StatusCode::OK, "{}", blob.text());

    let before = builder.nix_processes()?;
    for image in ["b", "b", "a/b"] {
        let answer = pull(builder.port(), image)?;
        let text = answer.text();
        assert_eq!(
            answer.status,
            StatusCode::TOO_MANY_REQUESTS,
            "{image}: {text}"
        );
        assert!(answer.headers.contains_key(RETRY_AFTER), "{image}");
        for part in ["no new images", "NIXGATE_MIN_FREE_BYTES", "MiB free"] {
            assert!(text.contains(part), "{image}: {part}: {text}");
        }
        assert!(!text.contains(&*set.folder().to_string_lossy()), "{text}");
    }
    assert_eq!(builder.nix_processes()?, before, "nothing was begun");
    let unready = builder.unready()?;
    assert!(unready.contains("MiB free"), "{unready}");
    for place in ["state", "storage", "nix_store"] {
        let label = format!("place=\"{place}\"");
        let free = builder.counter("nixgate_free_bytes", &[&label])?;
        assert!(free > 0, "{place}");
    }
    Ok(())
}

#[test]
fn what_a_build_says_of_the_machine_has_it_built_once_and_no_more() -> Result<()> {
    let packages = r#"
        greedy = package "greedy" "mkdir $out; echo 'cp: error writing: No space left on device' >&2; exit 1";
        killed = package "killed" "mkdir $out; exit 137";
    "#;
    let served = ServedSet::start(packages, |settings| settings)?;
    for (name, status) in [
        // Its own words.
        ("greedy", StatusCode::FORBIDDEN),
        ("killed", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let mut asked = Vec::new();
        for _ in 0..3 {
            let answer = pull(served.builder.port(), name)?;
            let text = answer.text();
            assert_eq!(answer.status, status, "{name}: {text}");
            let is_transient = status == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(answer.headers.contains_key(RETRY_AFTER), is_transient);
            asked.push(served.builder.nix_processes()?);
        }
        assert!(
            asked.windows(2).all(|pair| pair[0] == pair[1]),
            "{name}: {asked:?}"
        );
    }
    Ok(())
}
