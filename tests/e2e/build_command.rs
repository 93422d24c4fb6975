//! `nixgate build`: the real binary with real Nix, and clients that read what it wrote.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use nixgate_tests::live::builder::{self, Builder};
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::gated_set::{BROKEN_LOG, GatedSet};
use nixgate_tests::live::process::{Process, run};
use nixgate_tests::live::s3::S3;
use nixgate_tests::live::{install, poll, scratch};
use serde_json::Value;
use tempfile::TempDir;

use crate::shared;

/// A folder in which `nixgate build` is run, with a state and a storage of its own.
struct Scene {
    folder: TempDir,
    package_set: PathBuf,
    nix_options: OsString,
}

/// What it printed and how it ended.
struct Ended {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Scene {
    fn debian() -> Result<Self> {
        Ok(Self {
            folder: scratch::folder("build-")?,
            package_set: install::debian_set()?,
            nix_options: install::nix_options()?.into(),
        })
    }

    fn gated() -> Result<(Self, GatedSet)> {
        let folder = scratch::folder("build-")?;
        let set = GatedSet::write(folder.path())?;
        let scene = Self {
            package_set: set.folder().to_owned(),
            nix_options: GatedSet::nix_options_for(folder.path())?,
            folder,
        };
        Ok((scene, set))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(&self.folder)
            .env("NIXERY_PKGS_PATH", &self.package_set)
            .env("NIXGATE_NIX_OPTIONS", &self.nix_options)
            .env("NIXGATE_STATE_DIR", self.path("state"))
            .env("STORAGE_PATH", self.path("storage"));
        command
    }

    fn build(&self, arguments: &[&str]) -> Result<Ended> {
        let mut command = self.command(install::builder()?);
        let Output {
            status,
            stdout,
            stderr,
        } = command.arg("build").args(arguments).output()?;
        Ok(Ended {
            status: status.code().context("it ends by itself")?,
            stdout: String::from_utf8(stdout)?,
            stderr: String::from_utf8(stderr)?,
        })
    }

    /// Builds an image, which must succeed; returns its digest.
    fn digest(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.build(arguments)?;
        assert_eq!(ended.status, 0, "{arguments:?}: {}", ended.stderr);
        let digest = ended.stdout.strip_suffix('\n').context("a line")?;
        assert!(!digest.contains('\n'), "the digest alone: {digest}");
        Ok(digest.to_owned())
    }
}

#[test]
fn a_folder_has_the_image_that_the_registry_serves() -> Result<()> {
    let scene = Scene::debian()?;
    let layout = scene.path("layout");
    let digest = scene.digest(&["shell/hello", "--output", "layout"])?;
    assert_eq!(digest, shared().digest("hello/shell")?);
    let other = scene.digest(&["arm64/hello:latest", "--output", "other"])?;
    assert_ne!(digest, other);

    skopeo::copy_layout(&layout, "latest", &scene.path("copy"))?;
    let manifest = fs::read(scene.path("copy/manifest.json"))?;
    assert_eq!(
        nixgate_core::distribution::Digest::of(&manifest).to_string(),
        digest
    );
    skopeo::copy_layout(&scene.path("other"), "latest", &scene.path("copy-of-other"))?;

    let podman = Podman::new()?;
    let image = podman.pull_layout(scene.folder.path(), "layout", "latest")?;
    let said = podman.run(&image, &["bash", "-c", "hello && test -x /bin/nano"])?;
    assert_eq!(said.trim(), "Hello, world!");
    Ok(())
}

#[test]
fn a_server_with_the_same_storage_has_the_image() -> Result<()> {
    let (scene, _set) = Scene::gated()?;
    let digest = scene.digest(&["large"])?;
    let settings = builder::Settings {
        package_set: scene.package_set.clone(),
        state: scene.folder.path().to_path_buf(),
        environment: Vec::new(),
    };
    let builder = Builder::start(&settings.with("NIXGATE_NIX_OPTIONS", &scene.nix_options))?;
    let answer = builder.get("/v2/large/manifests/latest")?;
    assert_eq!(answer.header("docker-content-digest"), digest);
    // The counters are not there before the first layer.
    let layers = builder.counter("nixgate_layers_total", &[]);
    assert_eq!(layers.unwrap_or_default(), 0, "{}", builder.log());
    Ok(())
}

#[test]
fn a_folder_is_filled_from_a_bucket() -> Result<()> {
    let (scene, _set) = Scene::gated()?;
    let s3 = S3::start(&scene.path("s3"))?;
    let settings = s3.settings(builder::Settings {
        package_set: scene.package_set.clone(),
        state: scene.folder.path().to_path_buf(),
        environment: Vec::new(),
    });
    let mut command = scene.command(install::builder()?);
    command.args(["build", "large", "--output", "layout"]);
    run(command.envs(settings.environment))?;
    skopeo::copy_layout(&scene.path("layout"), "latest", &scene.path("copy"))?;
    assert!(!scene.path("storage").exists());
    Ok(())
}

#[test]
fn what_storage_has_lost_is_made_again() -> Result<()> {
    let (scene, _set) = Scene::gated()?;
    let digest = scene.digest(&["large"])?;
    let mut layers = Vec::new();
    for entry in fs::read_dir(scene.path("storage/layers"))? {
        let entry = entry?;
        layers.push((entry.metadata()?.len(), entry.path()));
    }
    let (size, largest) = layers.into_iter().max().context("a layer")?;
    assert!(
        size > 40 << 20,
        "the layer of `large` has only {size} bytes"
    );
    fs::remove_file(largest)?;
    assert_eq!(scene.digest(&["large", "--output", "layout"])?, digest);
    skopeo::copy_layout(&scene.path("layout"), "latest", &scene.path("copy"))
}

#[test]
fn images_of_other_tags_stay_in_the_folder() -> Result<()> {
    let (scene, _set) = Scene::gated()?;
    fs::create_dir(scene.path("layout"))?;
    let build = |image: &str| {
        let mut command = scene.command(install::builder()?);
        let arguments = ["build", image, "--any-tag", "--output", "layout"];
        let output = command.args(arguments).output()?;
        assert!(output.status.success(), "{output:?}");
        anyhow::Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let (one, two) = (build("cacert:one")?, build("large:two")?);
    assert_ne!(one, two);
    let index: Value = serde_json::from_slice(&fs::read(scene.path("layout/index.json"))?)?;
    let images = index["manifests"].as_array().context("a list")?;
    let digests: Vec<_> = images.iter().map(|image| &image["digest"]).collect();
    assert_eq!(digests, [&one[..], &two[..]]);
    for tag in ["one", "two"] {
        skopeo::copy_layout(&scene.path("layout"), tag, &scene.path(tag))?;
    }
    Ok(())
}

#[test]
fn what_goes_wrong_is_told_as_the_registry_tells_it() -> Result<()> {
    let (scene, _set) = Scene::gated()?;
    fs::create_dir(scene.path("notes"))?;
    fs::write(scene.path("notes/mine.txt"), "mine")?;
    for (arguments, status, parts) in [
        (&["nosuch/large/neither"][..], 1, &["nosuch", "neither"][..]),
        (&["broken"], 1, &["broken", BROKEN_LOG]),
        (&["large:nosuchtag"], 1, &["nosuchtag"]),
        (&["large", "--output", "notes"], 1, &["notes", "not empty"]),
        (&["Large"], 2, &["Large", "lowercase"]),
        (&["large:a:b"], 2, &["a:b"]),
        (&[], 2, &["<IMAGE>"]),
    ] {
        let ended = scene.build(arguments)?;
        assert_eq!(ended.status, status, "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
        for part in parts {
            assert!(
                ended.stderr.contains(part),
                "{arguments:?}: {}",
                ended.stderr
            );
        }
    }
    assert!(!scene.path("storage/manifests").exists());
    assert_eq!(fs::read_dir(scene.path("notes"))?.count(), 1);
    Ok(())
}

/// `script` runs a command on a terminal of its own.
#[test]
fn a_terminal_has_a_bar_and_a_log_has_lines() -> Result<()> {
    let (scene, _set) = Scene::gated()?;
    let nixgate = install::builder()?;
    let on_terminal = |image: &str| {
        let command = format!("'{}' build {image}", nixgate.display());
        let mut script = scene.command("script");
        let arguments = ["--quiet", "--return", "--command", &command, "/dev/null"];
        let output = script.args(arguments).env("TERM", "xterm").output()?;
        assert!(output.status.success(), "{output:?}");
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let shown = on_terminal("large")?;
    for part in [
        "%",
        "looking up the package set",
        "large:latest is built",
        "sha256:",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    let ended = scene.build(&["large"])?;
    assert!(
        !ended.stderr.contains(['%', '\r', '\u{1b}']),
        "{}",
        ended.stderr
    );
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(
        lines,
        [
            "looking up the package set",
            "large:latest is stored already"
        ]
    );
    Ok(())
}

#[test]
fn a_build_that_is_stopped_says_so_and_goes_on_the_next_time() -> Result<()> {
    let (scene, set) = Scene::gated()?;
    let mut command = scene.command(install::builder()?);
    command.args(["build", "gated"]);
    let mut first = Process::start(&command, &scene.path("log"))?;
    set.wait_for_start()?;
    first.until("it says what is built", |first| {
        first.log().contains("gated-1").then_some(())
    })?;
    first.signal("INT")?;
    let status = poll::until("it stops", || first.ended().ok().flatten())?;
    let text = first.log();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("stopped"), "{text}");
    assert!(!text.contains("sha256:"), "{text}");

    set.open()?;
    assert!(scene.digest(&["gated"])?.starts_with("sha256:"));
    Ok(())
}
