//! Clients by the thousand ask for one image that nobody has built yet, and wait.
//!
//! `NIXGATE_TEST_CLIENTS` says how many, 10,000 if unset. Each test prints who got what, and how long
//! after the first the last was answered.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::gated_set::{BROKEN_LOG, GatedSet};
use nixgate_tests::live::http::get;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::storm::{Answers, Storm};

fn clients() -> Result<usize> {
    let text = std::env::var("NIXGATE_TEST_CLIENTS");
    let clients = text.map_or(Ok(10_000), |text| text.parse());
    clients.context("NIXGATE_TEST_CLIENTS is not a number")
}

/// All clients, waiting for a package of the gated set.
fn wait_for(version: &'static str, package: &str) -> Result<(Stack, GatedSet, Storm)> {
    let settings = envoy::Settings {
        version,
        ..Default::default()
    };
    let clients = clients()?;
    Storm::allow(clients)?;
    let (stack, set) = Stack::gated(settings, &[])?;
    let path = format!("/v2/{package}/manifests/latest");
    let storm = Storm::start(stack.envoy.port(), &path, clients);
    set.wait_for_start()?;
    stack.envoy.wait_until_it_holds(clients as u64)?;
    Ok((stack, set, storm))
}

/// All got the same, and the edge goes on.
fn all_got(envoy: &Envoy, answers: &Answers, status: StatusCode) -> Result<String> {
    println!("{answers}");
    assert_eq!(answers.statuses(), BTreeMap::from([(status, clients()?)]));
    ensure!(answers.answers.len() == 1, "not all got the same body");
    let log = envoy.log();
    for death in [
        "proxy_on_delete failed",
        "Maximum call stack",
        "RuntimeError",
    ] {
        assert!(!log.contains(death), "{death}");
    }
    assert_eq!(
        envoy.stat("wasm.nixgate.vm_reload_success")?,
        0,
        "a VM was lost"
    );
    assert_eq!(get(envoy.port(), "/v2/")?.status, StatusCode::OK);
    let ((_, body), _) = answers.answers.iter().next().context("an answer")?;
    Ok(String::from_utf8_lossy(body).into_owned())
}

fn all_get_the_image(version: &'static str) -> Result<()> {
    let (stack, set, storm) = wait_for(version, "gated")?;
    set.open()?;
    let answers = storm.end()?;
    all_got(&stack.envoy, &answers, StatusCode::OK)?;
    let log = stack.builder.log();
    let builds = log
        .lines()
        .filter(|line| line.contains(" building"))
        .count();
    assert_eq!(builds, 1, "{log}");
    Ok(())
}

#[test]
fn all_get_the_image_on_the_newest_envoy() -> Result<()> {
    all_get_the_image(ENVOY_VERSIONS[0])
}

#[test]
fn all_get_the_image_on_the_oldest_envoy() -> Result<()> {
    all_get_the_image(ENVOY_VERSIONS[1])
}

#[test]
fn all_are_told_that_the_build_failed() -> Result<()> {
    let (stack, set, storm) = wait_for(ENVOY_VERSIONS[0], "doomed")?;
    set.open()?;
    let body = all_got(&stack.envoy, &storm.end()?, StatusCode::FORBIDDEN)?;
    assert!(body.contains(BROKEN_LOG), "{body}");
    Ok(())
}

#[test]
fn all_are_told_that_the_builder_died() -> Result<()> {
    let (stack, _set, storm) = wait_for(ENVOY_VERSIONS[0], "gated")?;
    let (envoy, _state) = stack.without_builder();
    let body = all_got(&envoy, &storm.end()?, StatusCode::SERVICE_UNAVAILABLE)?;
    assert!(body.contains("is unavailable"), "{body}");
    Ok(())
}
