//! Repositories and flakes, and what of them is served.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::live::builder::{Builder, Settings};
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::nginx::Nginx;
use nixgate_tests::live::process::run;
use nixgate_tests::live::{install, scratch};
use serde_json::Value;
use tempfile::TempDir;

/// A repository with a package set, and a builder's folder.
pub(crate) struct Repository {
    folder: TempDir,
}

impl Repository {
    pub(crate) fn new() -> Result<Self> {
        let folder = scratch::folder("repository-")?;
        let repository = Self { folder };
        fs::create_dir(repository.path())?;
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        // As forges do, which serve any commit to whoever knows its id.
        repository.git(&["config", "uploadpack.allowFilter", "true"])?;
        repository.git(&["config", "uploadpack.allowAnySHA1InWant", "true"])?;
        Ok(repository)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub(crate) fn url(&self) -> Result<String> {
        Ok(format!("file://{}", self.path().canonicalize()?.display()))
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> Result<String> {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.path());
        git.args(["-c", "user.name=n", "-c", "user.email=e@example.org"]);
        Ok(run(git.args(arguments))?.trim().to_owned())
    }

    /// Commits a package set whose package `dated` says the text.
    pub(crate) fn commit(&self, text: &str) -> Result<String> {
        fs::write(self.path().join("default.nix"), set(&self.path(), text))?;
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", text])?;
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn builder(&self, environment: &[(&'static str, &str)]) -> Result<Builder> {
        builder(self.folder.path(), environment)
    }
}

pub(crate) fn builder(state: &Path, environment: &[(&'static str, &str)]) -> Result<Builder> {
    let settings = Settings {
        package_set: PathBuf::new(),
        state: state.to_path_buf(),
        environment: Vec::new(),
    };
    let mut settings = settings.with("NIXERY_PKGS_PATH", "");
    for (name, value) in environment {
        settings = settings.with(name, value);
    }
    settings = settings.with("NIXGATE_NIX_OPTIONS", install::nix_options()?);
    Builder::start(&settings)
}

pub(crate) fn set(unique: &Path, text: &str) -> String {
    format!(
        r#"{{ system ? "x86_64-linux" }}:
let package = name: derivation {{
  inherit name system;
  builder = "/bin/sh";
  PATH = "/usr/bin:/bin";
  unique = "{} {text}";
  args = [ "-c" "mkdir -p $out/share; echo '{text}' > $out/share/${{name}}" ];
}};
in {{ dated = package "dated"; cacert = package "cacert"; iana-etc = package "iana-etc"; }}
"#,
        unique.display()
    )
}

pub(crate) fn pull(builder: &Builder, tag: &str) -> Result<Response> {
    loop {
        let answer = builder.get(&format!("/v2/dated/manifests/{tag}"))?;
        if answer.status != StatusCode::TEMPORARY_REDIRECT {
            return Ok(answer);
        }
    }
}

/// Asserts that a tag is pinned to this, by the header and in the image.
pub(crate) fn pinned(builder: &Builder, tag: &str, source: &str) -> Result<()> {
    let answer = pull(builder, tag)?;
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "{tag}: {}\n{}",
        answer.text(),
        builder.log()
    );
    assert_eq!(answer.header("nixgate-source"), source, "{tag}");
    let manifest: Value = serde_json::from_slice(&answer.body)?;
    let revision = manifest["annotations"]["org.opencontainers.image.revision"].as_str();
    assert_eq!(
        revision,
        source.split_once(' ').map(|(_, revision)| revision)
    );
    Ok(())
}

#[test]
fn a_commit_is_served_when_a_branch_or_tag_holds_it_and_no_other() -> Result<()> {
    let repository = Repository::new()?;
    let first = repository.commit("first")?;
    repository.git(&["tag", "v1"])?;
    let second = repository.commit("second")?;
    let third = repository.commit("third")?;
    repository.git(&["checkout", "--quiet", "-b", "next"])?;
    let next = repository.commit("next")?;
    // A merge request, which somebody else wrote.
    repository.git(&["checkout", "--quiet", "-b", "theirs", &first])?;
    let request = repository.commit("their request")?;
    repository.git(&["update-ref", "refs/pull/1/head", &request])?;
    // One that was pushed over, which the repository still has.
    let lost = repository.commit("lost")?;
    repository.git(&["checkout", "--quiet", "main"])?;
    repository.git(&["branch", "--quiet", "-D", "theirs"])?;

    let builder = repository.builder(&[("NIXERY_PKGS_REPO", &repository.url()?)])?;
    for (tag, commit) in [
        ("latest", &third),
        ("main", &third),
        ("next", &next),
        ("v1", &first),
        // Held, and the tip of nothing.
        (second.as_str(), &second),
        (next.as_str(), &next),
    ] {
        pinned(&builder, tag, &format!("git {commit}"))?;
    }
    let before = builder.nix_processes()?;
    let unknown = "d".repeat(40);
    for commit in [&request, &lost, &unknown] {
        let answer = pull(&builder, commit)?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
        let (code, message) = answer.error()?;
        assert_eq!(code, "MANIFEST_UNKNOWN");
        assert!(
            message.contains(commit.as_str()) && message.contains("NIXGATE_GIT_REFS"),
            "{message}"
        );
    }
    assert_eq!(
        builder.nix_processes()?,
        before,
        "it was looked up with Nix"
    );
    Ok(())
}

#[test]
fn clients_are_told_the_package_set_by_the_edge_too() -> Result<()> {
    let repository = Repository::new()?;
    let commit = repository.commit("only")?;
    let builder = repository.builder(&[("NIXERY_PKGS_REPO", &repository.url()?)])?;
    for version in ENVOY_VERSIONS {
        let state = scratch::folder("envoy-")?;
        let settings = envoy::Settings {
            version,
            ..Default::default()
        };
        let envoy = Envoy::start(settings, builder.port(), state.path())?;
        let ask = |method, path: &str| request(method, envoy.port(), path, &[]);
        let path = "/v2/dated/manifests/latest";
        let mut answer = ask(Method::GET, path)?;
        while answer.status == StatusCode::TEMPORARY_REDIRECT {
            answer = ask(Method::GET, answer.header("location"))?;
        }
        let before = builder.manifest_requests()?;
        let (again, head) = (ask(Method::GET, path)?, ask(Method::HEAD, path)?);
        assert_eq!(builder.manifest_requests()?, before, "they were cached");
        for answer in [answer, again, head] {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert_eq!(answer.header("nixgate-source"), format!("git {commit}"));
        }
        let refused = ask(Method::GET, "/v2/unknown/manifests/latest")?;
        assert_eq!(refused.status, StatusCode::NOT_FOUND);
        assert!(!refused.headers.contains_key("nixgate-source"));
    }
    Ok(())
}

#[test]
fn a_repository_with_a_password_is_fetched_by_the_netrc() -> Result<()> {
    let repository = Repository::new()?;
    repository.commit("first")?;
    let second = repository.commit("second")?;
    repository.git(&["checkout", "--quiet", "-b", "next"])?;
    let next = repository.commit("next")?;
    repository.git(&["checkout", "--quiet", "main"])?;
    // What a server of files needs to serve it.
    repository.git(&["update-server-info"])?;
    let state = repository.folder.path();
    let nginx = Nginx::with_password(&repository.path(), state, "alice", "s3cret password")?;
    let url = format!("http://127.0.0.1:{}/.git", nginx.port());
    let netrc = state.join("netrc");
    let builder = |password: &str| {
        let line = format!("machine 127.0.0.1 login alice password \"{password}\"\n");
        fs::write(&netrc, line)?;
        repository.builder(&[
            ("NIXERY_PKGS_REPO", &url),
            ("NIXGATE_NETRC", &netrc.display().to_string()),
            ("no_proxy", "*"),
        ])
    };
    let refused = builder("guessed password")?;
    let answer = pull(&refused, "latest")?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!refused.log().contains("guessed"), "{}", refused.log());
    drop(refused);

    let builder = builder("s3cret password")?;
    for (tag, commit) in [("latest", &second), ("next", &next)] {
        pinned(&builder, tag, &format!("git {commit}"))?;
    }
    assert!(!builder.log().contains("s3cret"), "{}", builder.log());
    Ok(())
}

#[test]
fn only_refs_that_are_allowed_are_served() -> Result<()> {
    let repository = Repository::new()?;
    let before = repository.commit("before")?;
    let first = repository.commit("first")?;
    repository.git(&["branch", "release-1"])?;
    repository.git(&["tag", "v1"])?;
    let second = repository.commit("second")?;
    let builder = repository.builder(&[
        ("NIXERY_PKGS_REPO", &repository.url()?),
        (
            "NIXGATE_GIT_REFS",
            "refs/heads/release-* refs/heads/not-there",
        ),
    ])?;
    pinned(&builder, "release-1", &format!("git {first}"))?;
    pinned(&builder, &first, &format!("git {first}"))?;
    pinned(&builder, &before, &format!("git {before}"))?;
    for tag in ["main", "v1", "latest", &second] {
        let answer = pull(&builder, tag)?;
        assert_eq!(
            answer.status,
            StatusCode::NOT_FOUND,
            "{tag}: {}",
            answer.text()
        );
    }
    Ok(())
}

/// A folder in `state` to be served, with the archive of the channel `stable`.
pub(crate) fn channel(state: &Path) -> Result<PathBuf> {
    let (served, archive) = (state.join("served"), state.join("nixpkgs-1"));
    fs::create_dir(&served)?;
    fs::create_dir(&archive)?;
    fs::write(archive.join("default.nix"), set(&archive, "archived"))?;
    run(Command::new("tar")
        .args(["--create", "--gzip", "--file"])
        .arg(served.join("stable.tar.gz"))
        .arg("--directory")
        .arg(state)
        .arg("nixpkgs-1"))?;
    Ok(served)
}

#[test]
fn a_channel_is_fetched_from_a_mirror_by_the_proxy_and_named_by_its_hash() -> Result<()> {
    let state = scratch::folder("channel-")?;
    let files = channel(state.path())?;
    let nginx = Nginx::start(&files, state.path())?;
    let proxy = format!("http://127.0.0.1:{}", nginx.port());
    // The one host is nginx itself; the other one is nowhere, but for the proxy.
    for (base, proxy) in [(&proxy[..], ""), ("http://mirror.invalid", &proxy)] {
        let builder = builder(
            state.path(),
            &[
                ("NIXERY_CHANNEL", "stable"),
                ("NIXGATE_CHANNEL_BASE", base),
                ("NIXGATE_PROXY", proxy),
                ("no_proxy", ""),
                ("NO_PROXY", ""),
            ],
        )?;
        let answer = pull(&builder, "stable")?;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{}\n{}",
            answer.text(),
            builder.log()
        );
        let source = answer.header("nixgate-source").to_owned();
        assert!(source.starts_with("channel "), "{source}");
        pinned(&builder, "latest", &source)?;
        assert_eq!(pull(&builder, "other")?.status, StatusCode::NOT_FOUND);
    }
    Ok(())
}

pub(crate) fn nix_lock(flake: &str) -> Result<()> {
    run(install::nix("nix")?
        .args(["--extra-experimental-features", "nix-command flakes"])
        .args(["flake", "lock", flake]))
    .map(drop)
}

/// A flake whose packages come from an input of its own.
pub(crate) fn write_flake(folder: &Path, input: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(input)?;
    fs::write(input.join("default.nix"), set(folder, text))?;
    fs::write(
        input.join("flake.nix"),
        r#"{ outputs = { self }: { set = system: import self { inherit system; }; }; }"#,
    )?;
    fs::create_dir_all(folder)?;
    Ok(fs::write(
        folder.join("flake.nix"),
        format!(
            r#"{{
  inputs.set.url = "path:{}";
  outputs = {{ self, set }}: {{
    legacyPackages.x86_64-linux = set.set "x86_64-linux";
    legacyPackages.aarch64-linux = {{ }};
  }};
}}
"#,
            input.display()
        ),
    )?)
}

#[test]
fn a_flake_in_a_folder_is_taken_by_its_lock() -> Result<()> {
    let state = scratch::folder("flake-")?;
    let state_path = state.path().canonicalize()?;
    let (flake, input) = (state_path.join("flake"), state_path.join("input"));
    write_flake(&flake, &input, "locked")?;
    let url = format!("path:{}", flake.display());
    // Without a lock nothing says which packages those are.
    let unlocked = builder(state.path(), &[("NIXGATE_FLAKE", &url)])?;
    let answer = pull(&unlocked, "latest")?;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.text()
    );
    assert!(unlocked.log().contains("lock file"), "{}", unlocked.log());
    drop(unlocked);

    nix_lock(&url)?;
    let locked = builder(state.path(), &[("NIXGATE_FLAKE", &url)])?;
    let answer = pull(&locked, "latest")?;
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "{}\n{}",
        answer.text(),
        locked.log()
    );
    let source = answer.header("nixgate-source").to_owned();
    assert!(source.starts_with("flake "), "{source}");
    // What is edited beside the lock changes nothing, nor does the next pin.
    fs::write(input.join("default.nix"), "throw \"edited\"")?;
    drop(locked);
    let again = builder(state.path(), &[("NIXGATE_FLAKE", &url)])?;
    let (link, kept) = root(state.path())?;
    let delete = run(install::nix("nix-store")?.arg("--delete").arg(&kept));
    assert!(delete.is_err() && link.exists(), "the flake was collected");
    pinned(&again, "latest", &source)
}

fn root(state: &Path) -> Result<(PathBuf, PathBuf)> {
    let mut links = fs::read_dir(state.join("builder/sources"))?;
    let link = links.next().context("a link")??.path();
    let path = fs::read_link(&link)?;
    Ok((link, path))
}

#[test]
fn a_flake_in_a_repository_has_branches_tags_and_commits() -> Result<()> {
    let repository = Repository::new()?;
    let input = repository.folder.path().canonicalize()?.join("input");
    let flake = repository.path().canonicalize()?.join("sub");
    let mut commits = Vec::new();
    for text in ["first", "second", "third"] {
        write_flake(&flake, &input, text)?;
        // Another input is another lock.
        let _ = fs::remove_file(flake.join("flake.lock"));
        nix_lock(&format!("path:{}", flake.display()))?;
        commits.push(repository.commit(text)?);
    }
    repository.git(&["tag", "v1", &commits[0]])?;
    repository.git(&["update-ref", "refs/pull/1/head", &commits[2]])?;
    repository.git(&["reset", "--quiet", "--hard", &commits[1]])?;
    // Somebody who may push branches tries to have another commit taken for that of the default one.
    let trick = format!("!x&rev={}", commits[0]);
    repository.git(&["branch", &trick, &commits[1]])?;
    repository.git(&["branch", &commits[1], &commits[0]])?;
    let url = format!("git+{}?dir=sub", repository.url()?);
    let builder = repository.builder(&[("NIXGATE_FLAKE", &url)])?;
    pinned(&builder, "latest", &format!("flake {}", commits[1]))?;
    pinned(&builder, &commits[1], &format!("flake {}", commits[1]))?;
    let request = pull(&builder, &commits[2])?;
    assert_eq!(request.status, StatusCode::NOT_FOUND, "{}", request.text());
    let request = pull(&builder, "nope")?;
    assert_eq!(request.status, StatusCode::NOT_FOUND, "{}", request.text());
    Ok(())
}

#[test]
fn who_asks_for_tag_after_tag_fills_no_disk_and_drives_out_no_default_branch() -> Result<()> {
    let repository = Repository::new()?;
    let mut commits = Vec::new();
    for number in 0..9 {
        commits.push(repository.commit(&format!("v{number}"))?);
        repository.git(&["tag", &format!("v{number}")])?;
    }
    let last = repository.commit("last")?;
    let builder = repository.builder(&[
        ("NIXERY_PKGS_REPO", &repository.url()?),
        ("NIXGATE_MAX_REFS", "2"),
    ])?;
    let links = || -> Result<Vec<PathBuf>> {
        let links = fs::read_dir(repository.folder.path().join("builder/sources"))?;
        let links = links.map(|link| Ok(fs::read_link(link?.path())?));
        links.collect()
    };
    let delete = |path: &Path| run(install::nix("nix-store")?.arg("--delete").arg(path));
    pinned(&builder, "latest", &format!("git {last}"))?;
    let default = links()?;
    pinned(&builder, "v0", &format!("git {}", commits[0]))?;
    let first = links()?.into_iter().find(|path| !default.contains(path));
    let first = first.context("no link of v0")?;
    assert!(delete(&first).is_err(), "it is pinned");
    // Twice as many in an hour as are pinned at once, and no more.
    for (number, commit) in commits.iter().enumerate().skip(1) {
        let tag = format!("v{number}");
        if number < 4 {
            pinned(&builder, &tag, &format!("git {commit}"))?;
        } else {
            let answer = pull(&builder, &tag)?;
            assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{tag}");
            let (_, message) = answer.error()?;
            assert!(message.contains("NIXGATE_MAX_REFS"), "{message}");
        }
        // The default branch, two tags, and one that is let go of when the next one comes.
        assert!(links()?.len() <= 4, "{:?}", links()?);
    }
    let kept = links()?;
    assert!(!kept.contains(&first) && default.iter().all(|path| kept.contains(path)));
    delete(&first)?;
    for (tag, commit) in [("latest", &last), ("v2", &commits[2]), ("v3", &commits[3])] {
        pinned(&builder, tag, &format!("git {commit}"))?;
    }
    Ok(())
}
