//! Overlays of an administrator: what they add and change is served, and what is wrong with them is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::builder::{Builder, Settings};
use nixgate_tests::live::install::{self, NixPrograms};
use nixgate_tests::live::process::run;
use nixgate_tests::live::shaped_set::ShapedSet;
use nixgate_tests::live::unbuilt_set::pull;
use serde_json::{Value, json};

use crate::each_nix::{links, on_each_nix};
use crate::pinned_sources::Repository;

/// Adds `corp-tool`; its version is in another file.
const ADDS: &str = r#"final: prev: {
  corp-tool = final.stdenv.mkDerivation {
    pname = "corp-tool";
    version = import ./version.nix;
    installPhase = "mkdir $out/bin; echo tool > $out/bin/corp-tool";
  };
}
"#;
/// Changes `hello` of the set, and `corp-tool` of the overlay before it.
const CHANGES: &str = r#"final: prev: {
  hello = prev.hello.overrideAttrs { version = "99-corp"; };
  corp-tool = prev.corp-tool.overrideAttrs { version = "2-corp"; };
}
"#;

/// Overlays in a repository and an archive, and a set to apply them to.
struct Overlaid {
    set: ShapedSet,
    repository: Repository,
    /// Not the tip of any branch.
    commit: String,
}

impl Overlaid {
    fn write() -> Result<Self> {
        let (set, repository) = (ShapedSet::write()?, Repository::new()?);
        let folder = repository.path();
        fs::write(folder.join("default.nix"), ADDS)?;
        // As the set's: never built before.
        let version = format!("{:?}", format!("1-{}", std::process::id()));
        fs::write(folder.join("version.nix"), version)?;
        let commit = |message| {
            repository.git(&["add", "--all"])?;
            repository.git(&["commit", "--quiet", "--message", message])?;
            repository.git(&["rev-parse", "HEAD"])
        };
        let first = commit("adds")?;
        fs::write(
            folder.join("default.nix"),
            "throw \"the branch has moved on\"",
        )?;
        commit("moves on")?;
        Ok(Self {
            set,
            repository,
            commit: first,
        })
    }

    fn git(&self) -> Result<Value> {
        Ok(json!({"git": self.repository.url()?, "commit": self.commit}))
    }

    /// An archive with this overlay, pinned by what Nix's program prints.
    fn archive(&self, overlay: &str) -> Result<Value> {
        let folder = self.set.folder().join("archived");
        fs::create_dir_all(folder.join("overlays"))?;
        fs::write(folder.join("overlays/corp.nix"), overlay)?;
        let archive = self.set.folder().join("archived.tar.gz");
        run(Command::new("tar")
            .args(["--create", "--gzip", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(self.set.folder())
            .arg("archived"))?;
        let url = format!("file://{}", archive.canonicalize()?.display());
        let mut prefetch = install::nix("nix-prefetch-url")?;
        let hash = run(prefetch.args(["--unpack", "--name", "source", &url]))?;
        Ok(json!({"archive": url, "sha256": hash.trim(), "file": "overlays/corp.nix"}))
    }

    /// A builder of this state folder with these overlays.
    fn settings(&self, state: &str, nix: &NixPrograms, overlays: &[Value]) -> Result<Settings> {
        let file = self.set.folder().join("nixpkgs.json");
        fs::write(&file, json!({ "overlays": overlays }).to_string())?;
        let settings = self.set.builder(state)?.with_nix(nix);
        let settings = settings.with("NIXGATE_NIX_OPTIONS", install::nix_options()?);
        Ok(settings.with("NIXGATE_NIXPKGS_CONFIG", file))
    }

    fn state(&self, name: &str) -> PathBuf {
        self.set.folder().join(name).join("builder")
    }
}

/// Asserts that an image is served, and returns its digest.
fn digest(builder: &Builder, name: &str) -> Result<String> {
    let answer = pull(builder.port(), name)?;
    let log = builder.log();
    assert_eq!(answer.status, StatusCode::OK, "{}\n{log}", answer.text());
    Ok(answer.header("docker-content-digest").to_owned())
}

#[test]
fn overlays_add_and_change_packages_in_their_order() -> Result<()> {
    on_each_nix(|nix| {
        let overlaid = Overlaid::write()?;
        let overlays = [overlaid.git()?, overlaid.archive(CHANGES)?];
        let settings = overlaid.settings("state", nix, &overlays)?;
        let builder = Builder::start(&settings)?;
        let changed = digest(&builder, "corp-tool/hello")?;
        let hello = digest(&builder, "hello")?;
        let served = links(&overlaid.state("state").join("kept"))?;
        for package in ["-corp-tool-2-corp", "-hello-99-corp"] {
            let is_served = served.iter().any(|path| path.ends_with(package));
            assert!(is_served, "no {package} in {served:?}");
        }
        drop(builder);

        // What they bring is kept, so that the next builder needs neither of them.
        let kept = links(&overlaid.state("state").join("overlays"))?;
        assert_eq!(kept.len(), 2, "{kept:?}");
        for path in &kept {
            let deleted = run(install::nix("nix-store")?.arg("--delete").arg(path));
            let refused = format!("{:#}", deleted.err().context("it was collected")?);
            assert!(refused.contains("alive"), "{refused}");
        }
        fs::remove_dir_all(overlaid.repository.path())?;
        fs::remove_file(overlaid.set.folder().join("archived.tar.gz"))?;
        let builder = Builder::start(&settings)?;
        assert_eq!(digest(&builder, "corp-tool/hello")?, changed);
        digest(&builder, "bashinteractive/corp-tool")?;
        drop(builder);

        // Without them the same storage has other images.
        let plain = settings.with("NIXGATE_NIXPKGS_CONFIG", "");
        let plain = Builder::start(&plain)?;
        assert_ne!(digest(&plain, "hello")?, hello);
        let answer = pull(plain.port(), "corp-tool/hello")?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
        Ok(())
    })
}

#[test]
fn what_is_wrong_with_an_overlay_is_told_and_lasts() -> Result<()> {
    on_each_nix(|nix| {
        let overlaid = Overlaid::write()?;
        let with = |overlay: &Value, field: &str, value: &str| {
            let mut overlay = overlay.clone();
            overlay[field] = json!(value);
            overlay
        };
        let (git, archive) = (overlaid.git()?, overlaid.archive("{ }")?);
        let missing = format!("/nix/store/{}-overlay", "0".repeat(32));
        for (state, overlay, words) in [
            (
                "hash",
                with(&archive, "sha256", &"0".repeat(64)),
                "another hash",
            ),
            (
                "commit",
                with(&git, "commit", &"f".repeat(40)),
                "has no such commit",
            ),
            ("file", with(&git, "file", "none.nix"), "no file none.nix"),
            (
                "path",
                json!({ "path": missing }),
                "nor a binary cache has it",
            ),
            ("function", archive, "is not a function"),
        ] {
            let settings = overlaid.settings(state, nix, &[overlay])?;
            let builder = Builder::start(&settings)?;
            let answer = pull(builder.port(), "hello")?;
            let text = answer.text();
            assert_eq!(
                answer.status,
                StatusCode::SERVICE_UNAVAILABLE,
                "{state}: {text}"
            );
            let unready = builder.unready().context(state)?;
            for text in [text, unready, builder.log()] {
                assert!(text.contains(words), "no {words:?} in\n{text}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_host_that_is_down_makes_no_builder_unready() -> Result<()> {
    on_each_nix(|nix| {
        let overlaid = Overlaid::write()?;
        let url = "http://127.0.0.1:9/overlay.tar.gz";
        let down = json!({"archive": url, "sha256": "0".repeat(64)});
        let settings = overlaid.settings("state", nix, &[down])?;
        let builder = Builder::start(&settings.with("no_proxy", "*"))?;
        let answer = pull(builder.port(), "hello")?;
        let text = answer.text();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        // The reason is for the administrator, as that of any other source.
        assert!(!text.contains(url), "{text}");
        let log = builder.log();
        assert!(
            log.contains(&format!("cannot use the overlay {url}")),
            "{log}"
        );
        let ready = builder.get("/readyz")?;
        assert_eq!(ready.status, StatusCode::OK, "{}", ready.text());
        Ok(())
    })
}

#[test]
fn a_set_that_takes_no_overlays_is_served_and_the_log_says_so() -> Result<()> {
    let overlaid = Overlaid::write()?;
    let file = overlaid.set.folder().join("nixpkgs.json");
    fs::write(&file, json!({"overlays": [overlaid.git()?]}).to_string())?;
    let repository = Repository::new()?;
    repository.commit("a set")?;
    let builder = served(&repository, &file)?;
    digest(&builder, "dated")?;
    digest(&builder, "dated/cacert")?;
    let log = builder.log();
    let told = log.matches("takes no overlays").count();
    assert_eq!(told, 1, "{log}");
    Ok(())
}

fn served(repository: &Repository, file: &Path) -> Result<Builder> {
    repository.builder(&[
        ("NIXERY_PKGS_REPO", &repository.url()?),
        ("NIXGATE_NIXPKGS_CONFIG", &file.to_string_lossy()),
    ])
}
