//! `nixgate explain`: what it tells of an image is what the image has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::http::get;
use nixgate_tests::live::process::run;
use nixgate_tests::live::{install, scratch};
use serde_json::Value;
use tempfile::TempDir;

use crate::shapes::odd_packages;
use crate::shared;

/// Where it is run, with a state and a storage of its own.
struct Scene {
    folder: TempDir,
    set: PathBuf,
}

impl Scene {
    fn new(set: PathBuf) -> Result<Self> {
        let folder = scratch::folder("explain-")?;
        Ok(Self { folder, set })
    }

    fn nixgate(&self, arguments: &[&str]) -> Result<String> {
        let path = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(install::builder()?);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("NIXERY_PKGS_PATH", &self.set)
            .env("NIXGATE_NIX_OPTIONS", install::nix_options()?)
            .env("NIXGATE_STATE_DIR", path("state"))
            .env("STORAGE_PATH", path("storage"));
        run(&mut command)
    }

    fn json(&self, image: &str) -> Result<Value> {
        let text = self.nixgate(&["explain", image, "--json"])?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Whatever a layer of links has down to two names, as `explain` writes it.
fn listed(layer: &Path) -> Result<BTreeSet<String>> {
    let listing = run(Command::new("tar").arg("tzf").arg(layer))?;
    let paths = listing.lines().map(|path| path.trim_end_matches('/'));
    let upper = paths.filter(|path| path.split('/').count() <= 2);
    Ok(upper.map(|path| format!("/{path}")).collect())
}

fn texts<'v>(list: &'v Value, key: &str) -> Vec<&'v str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|one| one[key].as_str()).collect()
}

#[test]
fn what_is_told_is_what_the_image_has() -> Result<()> {
    let scene = Scene::new(install::debian_set()?)?;
    // It builds what nobody has built.
    let told = scene.json("git/shell")?;
    assert_eq!(told["image"], "git/shell:latest");
    assert_eq!(
        told["canonical_name"],
        "bashinteractive/cacert/coreutils/git/iana-etc/moreutils/nano"
    );
    assert_eq!(
        (&told["name_length"], &told["cmd"]),
        (&9.into(), &serde_json::json!(["bash"]))
    );

    let copy = scene.folder.path().join("copy");
    skopeo::copy(&shared().image("shell/git"), &copy)?;
    let manifest: Value = serde_json::from_slice(&fs::read(copy.join("manifest.json"))?)?;
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        copy.join(digest.trim_start_matches("sha256:"))
    };
    let layers = manifest["layers"].as_array().context("layers")?;
    let links = listed(&blob(layers.last().context("a layer")?))?;
    let entries: BTreeSet<String> = texts(&told["entries"], "path")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(entries, links);

    let config: Value = serde_json::from_slice(&fs::read(blob(&manifest["config"]))?)?;
    let variables = told["variables"].as_array().context("variables")?;
    let variables: Vec<String> = variables
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap_or_default();
            format!("{}={}", text("name"), text("value"))
        })
        .collect();
    assert_eq!(serde_json::json!(variables), config["config"]["Env"]);

    let text = scene.nixgate(&["explain", "shell/git", "--all"])?;
    let has = |parts: &[&str]| {
        let mut lines = text.lines();
        let found = lines.any(|line| line.split_whitespace().collect::<Vec<_>>() == parts);
        assert!(found, "{parts:?} in {text}");
    };
    has(&["/bin/git", "git"]);
    has(&["/bin/bash", "bashinteractive"]);
    has(&["/etc/passwd", "the", "image's", "own"]);
    has(&["nano", "shell", "in", "the", "name"]);
    has(&["PATH=/bin:/sbin:/usr/bin", "every", "image"]);
    let cut = scene.nixgate(&["explain", "shell/git"])?;
    assert!(
        cut.contains("see all with --all") && cut.len() < text.len(),
        "{cut}"
    );
    Ok(())
}

#[test]
fn what_an_image_lacks_is_told_with_who_has_the_place() -> Result<()> {
    let folder = scratch::folder("explain-set-")?;
    let set = folder.path().join("set");
    odd_packages(&set)?;
    let scene = Scene::new(set)?;
    let told = scene.json("a-single-file/a-tmp-link/man-real/pymod/python3/shell")?;
    let left_out = told["left_out"].as_array().context("left out")?;
    for (path, package) in [
        ("/root", "a-tmp-link"),
        ("/tmp", "a-tmp-link"),
        ("/lib", "man-real"),
    ] {
        let is_it = |one: &&Value| one["path"] == path && one["package"] == package;
        let found = left_out.iter().find(is_it);
        let found = found.with_context(|| format!("{path} of {package} in {told}"))?;
        // A folder of another package is there, or the image's own.
        assert_eq!(found["kept"].is_null(), path != "/lib", "{found}");
    }
    let single = left_out
        .iter()
        .filter(|one| one["package"] == "a-single-file");
    assert_eq!(single.count(), 1, "{told}");
    let variables = told["variables"].as_array().context("variables")?;
    let python = variables.iter().find(|one| one["name"] == "PYTHONPATH");
    let because = python.context("PYTHONPATH")?["because"].as_str();
    let because = because.unwrap_or_default();
    assert!(because.ends_with("/site-packages of pymod"), "{because}");
    Ok(())
}

#[test]
fn a_build_s_page_tells_the_same_in_short() -> Result<()> {
    shared().digest("shell/git/htop")?;
    let port = shared().envoy.port();
    let all: Value = serde_json::from_slice(&get(port, "/builds")?.body)?;
    let builds = all["builds"].as_array().context("builds")?;
    let is_it = |build: &&Value| {
        let packages = build["packages"].as_array();
        packages.is_some_and(|all| all.iter().any(|one| one == "htop") && all.len() == 8)
    };
    let Some(build) = builds.iter().find(is_it) else {
        // Another test of this stack has built it, and many others since.
        return Ok(());
    };
    assert!(
        build.get("contents").is_none(),
        "only on its own page: {build}"
    );
    let id = build["id"].as_str().context("an id")?;
    let page: Value = serde_json::from_slice(&get(port, &format!("/builds/{id}"))?.body)?;
    let contents = &page["contents"];
    let bin = contents["folders"]["/bin"].as_array().context("/bin")?;
    let has_git = |one: &Value| one.as_str().is_some_and(|name| name.starts_with("git-"));
    assert!(bin.iter().any(has_git), "{contents}");
    assert_eq!(contents["folders"]["/proc"], serde_json::json!([]));
    Ok(())
}

/// Clients with this limit refuse a longer name before they ask anybody. The registry serves it.
#[test]
fn a_name_of_more_than_255_characters_with_its_host_is_refused_by_skopeo_alone() -> Result<()> {
    let port = shared().envoy.port();
    let host = format!("127.0.0.1:{port}/");
    // A name is a set: this is an image of one package.
    let name = |length: usize| "hello/".repeat(length / 6).trim_end_matches('/').to_owned();
    let fits = name(255 - host.len());
    assert!(host.len() + fits.len() <= 255);
    skopeo::inspect(&format!("{host}{fits}"))?;
    let long = format!("{fits}/hello/hello");
    assert!(host.len() + long.len() > 255);
    let error = skopeo::inspect(&format!("{host}{long}")).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("more than 255 characters"), "{error}");
    let served = get(port, &format!("/v2/{long}/manifests/latest"))?;
    assert_eq!(
        served.header("docker-content-digest"),
        shared().digest("hello")?
    );
    let too_long = format!("/v2/{}/manifests/latest", "hello/".repeat(700) + "hello");
    let (code, message) = get(port, &too_long)?.error()?;
    assert_eq!(code, "NAME_INVALID");
    assert!(
        message.contains("a recipe, which has a short name"),
        "{message}"
    );
    Ok(())
}
