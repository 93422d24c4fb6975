//! A package set that has not changed is not fetched again, and one that is fetched for long can be
//! watched.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::live::archive_server::{Answers, ArchiveServer, Asked};
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::request;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::process::run;
use nixgate_tests::live::{poll, scratch};
use serde_json::Value;

use crate::pinned_sources::{builder, pull, set};

/// Seconds; the least.
const PIN: (&str, &str) = ("NIXGATE_PIN_SECONDS", "1");

/// An archive with a package set whose package `dated` says the text.
fn archive(folder: &Path, text: &str) -> Result<Vec<u8>> {
    let root = folder.join("nixpkgs-1");
    fs::create_dir_all(&root)?;
    fs::write(root.join("default.nix"), set(folder, text))?;
    let file = folder.join("archive.tar.gz");
    run(Command::new("tar")
        .args(["--create", "--gzip", "--file"])
        .arg(&file)
        .arg("--directory")
        .arg(folder)
        .arg("nixpkgs-1"))?;
    Ok(fs::read(file)?)
}

/// A builder that serves the server's archive as a channel.
fn of_channel(
    state: &Path,
    server: &ArchiveServer,
    more: &[(&'static str, &str)],
) -> Result<Builder> {
    let base = server.url();
    let channel = [
        ("NIXERY_CHANNEL", "stable"),
        ("NIXGATE_CHANNEL_BASE", &base),
        ("NIXGATE_PROXY", ""),
        ("no_proxy", "*"),
    ];
    builder(state, &[&channel, more].concat())
}

/// The pin that answers by tag have now.
fn source(builder: &Builder) -> Result<String> {
    let answer = pull(builder, "latest")?;
    anyhow::ensure!(
        answer.status == StatusCode::OK,
        "{}\n{}",
        answer.text(),
        builder.log()
    );
    Ok(answer.header("nixgate-source").to_owned())
}

/// Pulls until the server was asked again.
fn asked_again(builder: &Builder, server: &ArchiveServer) -> Result<(String, Vec<Asked>)> {
    let before = server.asked().len();
    poll::until("the pin was renewed", || {
        let source = source(builder).ok()?;
        let asked = server.asked().split_off(before);
        (!asked.is_empty()).then_some((source, asked))
    })
}

#[test]
fn an_unchanged_channel_is_asked_for_and_not_fetched() -> Result<()> {
    let state = scratch::folder("unchanged-")?;
    let server = ArchiveServer::start(Answers {
        body: archive(state.path(), "first")?,
        entity_tag: Some("\"first\"".to_owned()),
        ..Answers::default()
    })?;
    let builder = of_channel(state.path(), &server, &[PIN])?;
    let first = source(&builder)?;
    assert_eq!(server.sent(), 1);

    let processes = builder.nix_processes()?;
    let (same, asked) = asked_again(&builder, &server)?;
    assert_eq!(same, first);
    let unchanged = Asked {
        method: "HEAD".to_owned(),
        condition: Some("\"first\"".to_owned()),
        status: 304,
    };
    assert_eq!(asked, [unchanged]);
    assert_eq!(builder.nix_processes()?, processes, "{}", builder.log());

    let second = archive(state.path(), "second")?;
    server.change(|answers| {
        answers.body = second;
        answers.entity_tag = Some("\"second\"".to_owned());
    });
    let next = poll::until("the second set is served", || {
        source(&builder).ok().filter(|source| *source != first)
    })?;
    assert_eq!(server.sent(), 2);

    // Its link is gone, and with it what keeps it: nothing is there that could be unchanged.
    for link in fs::read_dir(state.path().join("builder/sources"))? {
        fs::remove_file(link?.path())?;
    }
    let (again, asked) = asked_again(&builder, &server)?;
    assert_eq!(again, next);
    assert_eq!(asked[0].condition, None, "{asked:?}");
    poll::until("it is fetched again", || (server.sent() == 3).then_some(()))?;

    // Without an entity tag, nobody can tell.
    server.change(|answers| answers.entity_tag = None);
    for sent in [4, 5] {
        poll::until("it is fetched for each pin", || {
            source(&builder).ok()?;
            (server.sent() >= sent).then_some(())
        })?;
    }
    assert_eq!(source(&builder)?, next);
    Ok(())
}

#[test]
fn a_server_that_says_unchanged_to_who_has_nothing_is_no_package_set() -> Result<()> {
    let state = scratch::folder("unchanged-")?;
    let server = ArchiveServer::start(Answers {
        body: archive(state.path(), "lied about")?,
        entity_tag: Some("\"lie\"".to_owned()),
        is_lying: true,
        ..Answers::default()
    })?;
    let builder = of_channel(state.path(), &server, &[])?;
    let answer = pull(&builder, "latest")?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let (_, message) = answer.error()?;
    assert!(message.contains("package source"), "{message}");
    let log = builder.log();
    assert!(
        log.contains("the archive of the package set is empty"),
        "{log}"
    );
    let conditions = server.asked();
    assert!(conditions.iter().all(|asked| asked.condition.is_none()));
    Ok(())
}

/// How many processes of Nix each of three renewals of the builder's only pin takes, while `pull` asks for images.
pub(crate) fn processes_of_renewals(
    builder: &Builder,
    state: &Path,
    pull: impl Fn() -> Result<()>,
) -> Result<Vec<u64>> {
    // Each renews the link, with or without a copy.
    let links = state.join("builder/sources");
    let renewed = || -> Option<SystemTime> {
        let link = fs::read_dir(&links).ok()?.next()?.ok()?;
        link.path().symlink_metadata().ok()?.modified().ok()
    };
    let mut renewals = Vec::new();
    for _ in 0..3 {
        let before = (renewed(), builder.nix_processes()?);
        poll::until("the pin was renewed", || {
            pull().ok()?;
            (renewed() > before.0).then_some(())
        })?;
        renewals.push(builder.nix_processes()? - before.1);
    }
    Ok(renewals)
}

#[test]
fn an_unchanged_folder_is_not_copied() -> Result<()> {
    let state = scratch::folder("unchanged-")?;
    let folder = state.path().join("set");
    fs::create_dir(&folder)?;
    let write = |text: &str| fs::write(folder.join("default.nix"), set(state.path(), text));
    write("first")?;
    let path = folder.display().to_string();
    let builder = builder(state.path(), &[("NIXERY_PKGS_PATH", &path), PIN])?;
    let first = source(&builder)?;
    let renewals = processes_of_renewals(&builder, state.path(), || source(&builder).map(drop))?;
    // The first may be too soon after the folder was written.
    assert_eq!(renewals[1..], [0, 0], "{}", builder.log());
    write("second")?;
    let processes = builder.nix_processes()?;
    poll::until("the second set is served", || {
        source(&builder).ok().filter(|source| *source != first)
    })?;
    assert!(builder.nix_processes()? > processes);
    Ok(())
}

#[test]
fn a_long_fetch_can_be_watched_and_clients_are_told_to_wait() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let state = scratch::folder("fetching-")?;
        let server = ArchiveServer::start(Answers {
            body: archive(state.path(), "slow")?,
            is_gated: true,
            ..Answers::default()
        })?;
        let builder = of_channel(state.path(), &server, &[])?;
        let config = envoy::Settings::default().config;
        let settings = envoy::Settings {
            version,
            config: config.settings(serde_json::json!({ "hold_seconds": 1 })),
            ..Default::default()
        };
        let envoy = Envoy::start(settings, builder.port(), state.path())?;
        let path = "/v2/dated/manifests/latest";
        let ask = |path: &str| request(Method::GET, envoy.port(), path, &[]);
        let held = ask(path)?;
        assert_eq!(
            held.status,
            StatusCode::TEMPORARY_REDIRECT,
            "{}",
            held.text()
        );
        assert!(held.header("location").contains("nixgate-since"));

        let fetch = poll::until("half of it has come", || {
            let page: Value = serde_json::from_slice(&builder.get("/builds").ok()?.body).ok()?;
            let fetch = page["builds"].as_array()?.first()?.clone();
            (fetch["bytes"]["done"].as_u64()? > 0).then_some(fetch)
        })?;
        assert_eq!(fetch["source"], "channel latest", "{fetch}");
        assert_eq!(fetch["phase"], "fetching", "{fetch}");
        assert!(fetch["bytes"]["expected"].as_u64() > fetch["bytes"]["done"].as_u64());

        // As one who has been redirected for three minutes.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let told = ask(&format!("{path}?nixgate-since={:x}", now - 180))?;
        assert_eq!(
            told.status,
            StatusCode::TOO_MANY_REQUESTS,
            "{}",
            told.text()
        );
        assert_ne!(told.header("retry-after"), "");
        let (code, message) = told.error()?;
        assert_eq!(code, "TOOMANYREQUESTS");
        assert!(message.contains("continues"), "{message}");

        server.change(|answers| answers.is_gated = false);
        let pulled = poll::until("it is served", || {
            let answer = ask(path).ok()?;
            (answer.status == StatusCode::OK).then_some(answer)
        })
        .with_context(|| builder.log())?;
        assert!(pulled.header("nixgate-source").starts_with("channel "));
        let page: Value = serde_json::from_slice(&builder.get("/builds")?.body)?;
        let builds = page["builds"].as_array().context("builds")?;
        let done = builds
            .iter()
            .find(|build| build["source"] == "channel latest");
        assert_eq!(done.context("the fetch")?["phase"], "done");
        assert!(builder.log().contains("fetching the package set"));
    }
    Ok(())
}
