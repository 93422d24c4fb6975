//! What can't be answered is refused with a status and an error of the distribution spec, and
//! with a log line for whoever runs the registry.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_core::wire;
use nixgate_tests::live::builder::{Builder, Settings, TOKEN};
use nixgate_tests::live::clients::docker::Docker;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::gated_set::{BROKEN_LOG, GatedSet};
use nixgate_tests::live::http::{Response, get, request};
use nixgate_tests::live::process::run;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{poll, ports, scratch};
use serde_json::Value;

use crate::shared;

/// Asserts status and code, and returns the message.
fn refused(answer: &Response, status: StatusCode, code: &str) -> Result<String> {
    let (seen, message) = answer.error()?;
    assert_eq!((answer.status, seen.as_str()), (status, code), "{message}");
    Ok(message)
}

/// Waits for a line of the log, which may be written after the answer, that holds all of `words`.
fn logged(log: impl Fn() -> String, words: &[&str]) -> Result<()> {
    poll::until(&format!("a line of the log holds {words:?}"), || {
        log()
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
            .then_some(())
    })
}

#[test]
fn unknown_packages_are_all_named() -> Result<()> {
    let answer = shared().get("/v2/shell/no-such/git/nor-this/manifests/latest")?;
    let message = refused(&answer, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN")?;
    assert!(
        message.contains("no-such") && message.contains("nor-this"),
        "{message}"
    );
    assert!(!message.contains("git"), "{message}");
    let answer = shared().get("/v2/shell/hotp/manifests/latest")?;
    let message = refused(&answer, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN")?;
    assert!(message.contains("Did you mean htop"), "{message}");
    logged(|| shared().builder.log(), &["no-such", "nor-this"])
}

#[test]
fn malformed_names_and_digests_are_refused_at_the_edge() -> Result<()> {
    for (path, code) in [
        ("/v2/Shell/manifests/latest", "NAME_INVALID"),
        ("/v2/git/manifests/-", "MANIFEST_INVALID"),
        ("/v2/git/manifests/sha256:0", "DIGEST_INVALID"),
        ("/v2/git/blobs/sha256:0", "DIGEST_INVALID"),
    ] {
        refused(&shared().get(path)?, StatusCode::BAD_REQUEST, code)?;
        // Envoy's access log: the path with its status.
        logged(|| shared().envoy.log(), &[path, "400"])?;
    }
    Ok(())
}

#[test]
fn a_missing_blob_is_unknown() -> Result<()> {
    let path = format!("/v2/shell/git/blobs/sha256:{}", "0".repeat(64));
    refused(&shared().get(&path)?, StatusCode::NOT_FOUND, "BLOB_UNKNOWN")?;
    logged(|| shared().envoy.log(), &[&path, "404"])
}

#[test]
fn pushing_is_not_supported() -> Result<()> {
    let answer = request(
        Method::PUT,
        shared().envoy.port(),
        "/v2/git/manifests/latest",
        &[],
    )?;
    refused(&answer, StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED")?;
    assert_ne!(answer.header("allow"), "");
    Ok(())
}

#[test]
fn without_a_builder_the_edge_says_so() -> Result<()> {
    let state = scratch::folder("envoy-")?;
    let envoy = Envoy::start(envoy::Settings::default(), ports::free()?, state.path())?;
    let answer = get(envoy.port(), "/v2/git/manifests/latest")?;
    refused(&answer, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")?;
    logged(|| envoy.log(), &["no builder answers", "nixgate_builder"])
}

/// The edge has learned that the builder streams the blob, and lets the next request through.
#[test]
fn a_blob_whose_builder_has_gone_is_unavailable_in_a_registrys_words() -> Result<()> {
    let stack = Stack::start()?;
    let manifest: Value = serde_json::from_slice(&stack.get("/v2/hello/manifests/latest")?.body)?;
    let config = manifest["config"]["digest"].as_str().context("no config")?;
    let path = format!("/v2/hello/blobs/{config}");
    assert_eq!(stack.get(&path)?.status, StatusCode::OK);
    let (envoy, _state) = stack.without_builder();
    let answer = get(envoy.port(), &path)?;
    assert_eq!(answer.header("content-type"), "application/json");
    refused(&answer, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")?;
    Ok(())
}

#[test]
fn without_nix_the_builder_says_so() -> Result<()> {
    let stack = Stack::with(envoy::Settings::default(), |state| {
        Ok(Settings::new(state)?.with("PATH", "/nonexistent"))
    })?;
    let answer = stack.get("/v2/git/manifests/latest")?;
    refused(&answer, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")?;
    logged(|| stack.builder.log(), &["ERROR", "Install Nix"])?;
    stack.builder.unready()?;
    Ok(())
}

#[test]
fn without_its_daemon_nix_is_not_ready() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let socket = state.path().join("no-such-socket");
    let settings = Settings::new(state.path())?
        .with("NIX_REMOTE", "daemon")
        .with("NIX_DAEMON_SOCKET_PATH", &socket);
    let builder = Builder::start(&settings)?;
    for path in ["/readyz", "/v2/git/manifests/latest"] {
        let answer = builder.get(path)?;
        let message = refused(&answer, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")?;
        assert!(!message.contains("no-such-socket"), "{message}");
        logged(|| builder.log(), &[path, "BuilderUnready"])?;
    }
    logged(|| builder.log(), &["ERROR", "Start nix-daemon"])
}

#[test]
fn a_second_builder_on_a_state_folder_is_refused() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let settings = Settings::new(state.path())?;
    let first = Builder::start(&settings)?;
    let second = scratch::folder("builder-")?;
    // The harness's log is beside the state, and each has its own.
    let mut other = settings.with("NIXGATE_STATE_DIR", state.path().join("builder"));
    other.state = second.path().to_path_buf();
    let error = format!("{:#}", Builder::start(&other).err().context("it runs")?);
    assert!(
        error.contains("another builder is using the state folder"),
        "{error}"
    );
    assert_eq!(first.get("/readyz")?.status, StatusCode::OK);
    Ok(())
}

#[test]
fn an_empty_variable_is_none() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let mut settings = Settings::new(state.path())?;
    for name in [
        "NIXERY_CHANNEL",
        "NIXERY_PKGS_REPO",
        "NIXGATE_MAX_LAYERS",
        "NIXGATE_ANY_TAG",
    ] {
        settings = settings.with(name, "");
    }
    Builder::start(&settings)?;
    Ok(())
}

#[test]
fn a_nix_too_old_for_the_package_set_is_refused_at_start() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let set = state.path().join("set");
    fs::create_dir_all(set.join("lib"))?;
    fs::write(set.join("default.nix"), "{ }: { }\n")?;
    // Where nixpkgs says it.
    fs::write(set.join("lib/minver.nix"), "\"99.1\"\n")?;
    let mut settings = Settings::new(state.path())?.with("RUST_BACKTRACE", "1");
    settings.package_set = set;
    let error = format!("{:#}", Builder::start(&settings).err().context("it runs")?);
    let found = run(Command::new("nix").arg("--version"))?;
    let found = found.trim().rsplit(' ').next().unwrap_or_default();
    let short = found.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    for part in ["exit status: 1", "99.1", &short, "Install a newer Nix"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("backtrace"), "{error}");
    Ok(())
}

#[test]
fn a_failed_build_is_told_with_its_log() -> Result<()> {
    let stack = Stack::with(envoy::Settings::default(), |state| {
        GatedSet::write(state)?.settings(state)
    })?;
    let answer = stack.get("/v2/broken/manifests/latest")?;
    let message = refused(&answer, StatusCode::FORBIDDEN, "UNKNOWN")?;
    assert!(answer.text().contains(BROKEN_LOG), "{}", answer.text());
    assert!(message.contains("broken"), "{message}");
    logged(|| stack.builder.log(), &["broken"])
}

#[test]
fn every_client_shows_its_user_why_a_build_failed() -> Result<()> {
    let (stack, _set) = Stack::gated(envoy::Settings::default(), &[])?;
    let image = stack.image("broken");
    let copied = skopeo::copy(&image, scratch::folder("copy-")?.path());
    let docker = Docker::start()?.command(&["pull", &image]);
    for (client, pulled) in [
        ("skopeo", copied),
        ("podman", Podman::new()?.pull(&image)),
        ("docker", docker.map(drop)),
    ] {
        let error = pulled.expect_err("the build failed");
        let error = format!("{error:#}");
        assert!(error.contains(BROKEN_LOG), "{client}: {error}");
    }
    Ok(())
}

#[test]
fn the_builder_answers_only_who_has_the_token() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let builder = Builder::start(&Settings::new(state.path())?)?;
    let path = "/v2/git/tags/list";
    // Who has no token is no edge; an edge that has another is told that nothing is said of the image.
    let ask = |headers: &[(&str, &str)]| request(Method::GET, builder.port(), path, headers);
    let nobody = ask(&[])?;
    let message = refused(&nobody, StatusCode::FORBIDDEN, "DENIED")?;
    assert!(!message.contains(TOKEN) && nobody.header(wire::REFUSES).is_empty());
    let other = ask(&[(wire::TOKEN, "another")])?;
    let message = refused(&other, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")?;
    assert!(!message.contains(TOKEN) && !message.contains("another "));
    assert_eq!(other.header(wire::REFUSES), wire::REFUSES_TOKEN);
    logged(|| builder.log(), &[path, "NIXGATE_TOKEN"])?;
    assert_eq!(builder.get(path)?.status, StatusCode::OK);
    Ok(())
}

#[test]
fn a_builder_that_refuses_the_edges_token_is_one_that_is_away() -> Result<()> {
    let tokens = |stack: &Stack, text: &str| -> Result<()> {
        let (file, new) = (stack.state().join("tokens"), stack.state().join("new"));
        fs::write(&new, text)?;
        fs::rename(&new, &file)?;
        // It is looked at when somebody asks.
        let before = stack
            .builder
            .log()
            .matches("reloaded the changed file")
            .count();
        poll::until("the builder reads its tokens again", || {
            _ = stack.builder.get("/v2/").ok()?;
            let now = stack
                .builder
                .log()
                .matches("reloaded the changed file")
                .count();
            (now > before).then_some(())
        })
    };
    let stack = Stack::with(envoy::Settings::default(), |state| {
        let file = state.join("tokens");
        fs::write(&file, format!("{TOKEN}\n"))?;
        let settings = Settings::new(state)?.with("NIXGATE_TOKEN", "");
        let settings = settings.with("NIXGATE_TOKEN_FILE", file);
        // So that the edge has to ask again soon.
        Ok(settings.with("NIXGATE_PIN_SECONDS", "1"))
    })?;
    let (warm, new) = ("/v2/hello/manifests/latest", "/v2/tree/manifests/latest");
    let manifest = |path: &str| {
        poll::until(&format!("{path} is there"), || {
            let answer = stack.get(path).ok()?;
            (answer.status == StatusCode::OK).then_some(answer)
        })
    };
    let before = manifest(warm)?;
    let config: Value = serde_json::from_slice(&before.body)?;
    let config = config["config"]["digest"].as_str().context("a digest")?;
    let blob = format!("/v2/hello/blobs/{config}");
    assert_eq!(stack.get(&blob)?.status, StatusCode::OK);

    tokens(&stack, "another\n")?;
    // What is warm goes on, also after its time.
    poll::until("the manifest is stale", || {
        let answer = stack.get(warm).ok()?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.body, before.body);
        answer.header("warning").contains("110").then_some(())
    })?;
    // What is not there, and what only the builder has, is away for now.
    for path in [new, "/v2/hello/tags/list", &blob] {
        let answer = stack.get(path)?;
        let message = refused(&answer, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")?;
        assert!(message.contains("NIXGATE_TOKEN"), "{path}: {message}");
    }
    logged(|| stack.envoy.log(), &["refuses this Envoy's token"])?;
    logged(
        || stack.builder.log(),
        &["tree/manifests/latest", "NIXGATE_TOKEN"],
    )?;

    // None of it was kept.
    tokens(&stack, &format!("{TOKEN}\nanother\n"))?;
    for path in ["/v2/hello/tags/list", &blob, new] {
        let answer = stack.get(path)?;
        let is_built = answer.status == StatusCode::TEMPORARY_REDIRECT && path == new;
        assert!(
            is_built || answer.status == StatusCode::OK,
            "{path}: {}",
            answer.text()
        );
    }
    let answer = manifest(warm)?;
    assert_eq!(answer.header("warning"), "");
    Ok(())
}
