//! A builder that is not root, before a Nix daemon.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::git_https::{GitHttps, PASSWORD};
use nixgate_tests::live::nix_daemon::{NixDaemon, USER};

use crate::pinned_sources::{Repository, nix_lock, pinned, set};

fn pulls(builder: &Builder, name: &str) -> Result<()> {
    let path = format!("/v2/{name}/manifests/latest");
    loop {
        let answer = builder.get(&path)?;
        if answer.status != StatusCode::TEMPORARY_REDIRECT {
            let (text, log) = (answer.text(), builder.log());
            assert_eq!(answer.status, StatusCode::OK, "{name}: {text}\n{log}");
            return Ok(());
        }
    }
}

/// A set with the package `fails` besides.
fn write_set(daemon: &NixDaemon) -> Result<()> {
    let folder = daemon.folder().join("set");
    fs::write(folder.join("good.nix"), set(&folder, "by a daemon"))?;
    let with_a_failure = r#"{ system ? "x86_64-linux" }:
import ./good.nix { inherit system; } // {
  fails = derivation {
    name = "fails";
    inherit system;
    builder = "/bin/sh";
    args = [ "-c" "echo the reason >&2; exit 3" ];
  };
}
"#;
    Ok(fs::write(folder.join("default.nix"), with_a_failure)?)
}

#[test]
fn who_is_not_root_builds_by_the_daemon_and_keeps_what_was_built() -> Result<()> {
    let daemon = NixDaemon::start("sandbox = true")?;
    write_set(&daemon)?;
    let builder = daemon.builder(&[])?;
    let status = fs::read_to_string(format!("/proc/{}/status", builder.id()))?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let mut users = users.context("its users")?.split_whitespace();
    assert!(users.all(|id| id != "0"), "{status}");
    pulls(&builder, "dated")?;

    let failed = builder.get("/v2/dated/fails/manifests/latest")?;
    let log = builder.log();
    assert_eq!(
        failed.status,
        StatusCode::FORBIDDEN,
        "{}\n{log}",
        failed.text()
    );
    assert!(failed.text().contains("the reason"), "{}", failed.text());

    let stray = daemon.folder().join("stray");
    fs::write(&stray, "of no use")?;
    let stray = daemon.nix("nix-store", &["--add", "/mnt/stray"])?;
    let stray = PathBuf::from(stray.trim());
    assert!(daemon.has(&stray));
    let (packages, sets) = (daemon.kept("kept")?, daemon.kept("sources")?);
    assert!(
        packages.len() >= 3 && sets.len() == 1,
        "{packages:?} {sets:?}"
    );
    daemon.collect_garbage()?;
    assert!(!daemon.has(&stray), "nothing was collected");
    for path in packages.iter().chain(&sets) {
        assert!(daemon.has(path), "{} was collected", path.display());
    }
    Ok(())
}

#[test]
fn a_daemon_that_does_without_a_sandbox_is_found_out() -> Result<()> {
    let daemon = NixDaemon::start("sandbox = false")?;
    write_set(&daemon)?;
    let refused = daemon.builder(&[]).err().context("it started")?;
    let refused = format!("{refused:#}");
    for words in ["saw this machine's /sys", "trusted-users", "sandbox = true"] {
        assert!(refused.contains(words), "no {words:?} in\n{refused}");
    }
    drop(daemon);
    // It takes that from a user whom it trusts.
    let daemon = NixDaemon::start(&format!("sandbox = false\ntrusted-users = {USER}"))?;
    write_set(&daemon)?;
    pulls(&daemon.builder(&[])?, "dated")
}

#[test]
fn a_daemon_s_network_is_not_the_one_with_the_proxy_alone() -> Result<()> {
    let proxied = [
        ("NIXGATE_PROXY", "http://127.0.0.1:9"),
        ("NIXGATE_PROXY_ONLY", "true"),
    ];
    // As where the daemon is denied this machine's loopback: its downloads call nobody here.
    let daemon = NixDaemon::start_without_network("sandbox = true")?;
    write_set(&daemon)?;
    daemon.builder_as_root(&[])?;
    let refused = daemon.builder_as_root(&proxied).err();
    let refused = format!("{:#}", refused.context("it started")?);
    for words in ["NIXGATE_PROXY_ONLY", "without nix-daemon"] {
        assert!(refused.contains(words), "no {words:?} in\n{refused}");
    }
    Ok(())
}

/// Asserts that a builder without a store is alive, not ready, and says why.
fn says(builder: &Builder, words: &[&str]) -> Result<()> {
    builder.unready()?;
    let log = builder.log();
    for words in words {
        assert!(log.contains(words), "no {words:?} in\n{log}");
    }
    Ok(())
}

#[test]
fn who_may_not_use_a_daemon_or_a_store_is_told_so() -> Result<()> {
    let daemon = NixDaemon::start("sandbox = true\nallowed-users = root")?;
    write_set(&daemon)?;
    let refused = daemon.builder(&[])?;
    says(&refused, &["Nix cannot reach its store", "allowed-users"])?;
    drop(refused);
    let without = daemon.builder(&[("NIX_REMOTE", "local")])?;
    says(
        &without,
        &["Nix cannot reach its store", "the owner of /nix"],
    )
}

#[test]
fn who_is_not_root_fetches_from_hosts_of_others() -> Result<()> {
    let repository = Repository::new()?;
    let first = repository.commit("first")?;
    let second = repository.commit("second")?;
    fs::write(
        repository.path().join("flake.nix"),
        "{ outputs = { self }: { legacyPackages.x86_64-linux = import ./. { }; }; }",
    )?;
    nix_lock(&format!("path:{}", repository.path().display()))?;
    let third = repository.commit("third")?;
    let host = GitHttps::start(&repository.path())?;
    let daemon = NixDaemon::start("sandbox = true")?;
    let netrc = fs::read_to_string(host.netrc(PASSWORD)?)?;
    fs::write(daemon.folder().join("netrc"), netrc)?;
    fs::copy(host.authority(), daemon.folder().join("ca.pem"))?;
    let url = host.repository(".git");
    let flake = format!("git+{url}");
    for (kind, source) in [
        ("git", ("NIXERY_PKGS_REPO", url.as_str())),
        ("flake", ("NIXGATE_FLAKE", &flake)),
    ] {
        let builder = daemon.builder(&[
            ("NIXERY_PKGS_PATH", ""),
            source,
            ("NIX_SSL_CERT_FILE", "/mnt/ca.pem"),
            ("NIXGATE_NETRC", "/mnt/netrc"),
        ])?;
        pinned(&builder, "latest", &format!("{kind} {third}"))?;
        if kind == "git" {
            // These are looked up in the builder's mirror.
            pinned(&builder, &second, &format!("git {second}"))?;
            pinned(&builder, &first, &format!("git {first}"))?;
        }
    }
    Ok(())
}
