//! What storage has lost is made again.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::live::builder::{Builder, TOKEN};
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::http::{ask, request};
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{envoy, scratch};
use serde_json::{Value, json};

/// The digests of an image's config and layers.
fn blobs(stack: &Stack, packages: &str) -> Result<Vec<String>> {
    let manifest = stack.get(&format!("/v2/{packages}/manifests/latest"))?;
    let manifest: Value = serde_json::from_slice(&manifest.body)?;
    let layers = manifest["layers"].as_array().context("no layers")?;
    let digest = |blob: &Value| blob["digest"].as_str().map(str::to_owned);
    let blobs = [&manifest["config"]].into_iter().chain(layers).map(digest);
    blobs.collect::<Option<_>>().context("no digest")
}

#[test]
fn blobs_that_storage_has_lost_or_damaged_are_made_again() -> Result<()> {
    let stack = Stack::start()?;
    let image = stack.image("shell/hello");
    let copy = || -> Result<()> {
        let folder = scratch::folder("copy-")?;
        skopeo::copy(&image, folder.path())
    };
    copy()?;
    let blobs = blobs(&stack, "shell/hello")?;
    let file = |blob: &String| layer(&stack, blob);
    let before = blobs.iter().map(|blob| fs::read(file(blob)));
    let before = before.collect::<Result<Vec<_>, _>>()?;
    assert!(blobs.len() > 3, "{blobs:?}");

    // The edge still remembers that the builder has them.
    for (number, blob) in blobs.iter().enumerate() {
        match number {
            1 => fs::write(file(blob), "half")?,
            _ => fs::remove_file(file(blob))?,
        }
    }
    copy()?;
    for (blob, before) in blobs.iter().zip(before) {
        assert!(fs::read(file(blob))? == before, "{blob} differs");
    }
    Ok(())
}

const IMAGE: &str = "cacert";

/// A registry with a blob of [`IMAGE`], which it takes Nix to make again. One image is built at a time, so that the one at the gate
/// keeps all others waiting.
fn gate_and_blob() -> Result<(Stack, GatedSet, String)> {
    let (stack, set) = Stack::gated(envoy::Settings::default(), &[("NIXGATE_MAX_BUILDS", "1")])?;
    let blob = blobs(&stack, IMAGE)?.remove(0);
    // With what is known of its packages it would be put together without.
    fs::remove_dir_all(stack.state().join("storage/packages"))?;
    Ok((stack, set, blob))
}

/// Where storage has a blob.
fn layer(stack: &Stack, blob: &str) -> PathBuf {
    let layers = stack.state().join("storage/layers");
    layers.join(blob.trim_start_matches("sha256:"))
}

#[test]
fn who_wants_a_lost_blob_is_held_as_for_a_manifest() -> Result<()> {
    let (stack, set, blob) = gate_and_blob()?;
    fs::remove_file(layer(&stack, &blob))?;
    let gated = ask(stack.envoy.port(), "/v2/gated/manifests/latest")?;
    set.wait_for_start()?;

    let path = format!("/v2/{IMAGE}/blobs/{blob}");
    let headers = [
        (nixgate_core::wire::TOKEN, TOKEN),
        ("prefer", "wait=0, return=minimal"),
    ];
    let answer = request(Method::GET, stack.builder.port(), &path, &headers)?;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());

    assert!(stack.envoy.deliver(json!({"hold_seconds": 1}))?);
    let held = request(Method::GET, stack.envoy.port(), &path, &[])?;
    assert_eq!(held.status, StatusCode::TEMPORARY_REDIRECT);
    let next = held.header("location").to_owned();
    assert!(
        next.starts_with(&format!("{path}?nixgate-since=")),
        "{next}"
    );
    set.open()?;
    let answer = stack.get(&next)?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    drop(gated);
    Ok(())
}

#[test]
fn a_client_that_was_let_through_is_sent_round_again() -> Result<()> {
    let (stack, set, blob) = gate_and_blob()?;
    let path = format!("/v2/{IMAGE}/blobs/{blob}");
    // From now on the edge knows that the builder streams this blob.
    assert_eq!(stack.get(&path)?.status, StatusCode::OK);
    fs::remove_file(layer(&stack, &blob))?;
    let gated = ask(stack.envoy.port(), "/v2/gated/manifests/latest")?;
    set.wait_for_start()?;
    let path = format!("/v2/iana-etc/blobs/{blob}?ns=x");
    let answer = request(Method::GET, stack.envoy.port(), &path, &[])?;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.header("location"), path, "as the client wrote it");
    set.open()?;
    let answer = stack.get(&path)?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    drop(gated);
    Ok(())
}

#[test]
fn a_blob_that_no_present_image_has_is_said_to_be_lost() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let set = GatedSet::write(state.path())?;
    let settings = set.settings(state.path())?;
    let (tag, old) = ("/v2/cacert/manifests/latest", Builder::start(&settings)?);
    let manifest: Value = serde_json::from_slice(&old.get(tag)?.body)?;
    // The config names the revision of the package set.
    let config = manifest["config"]["digest"].as_str().context("a digest")?;
    drop(old);
    let mut expression = OpenOptions::new()
        .append(true)
        .open(set.folder().join("default.nix"))?;
    writeln!(expression, "# another revision")?;
    let layers = state.path().join("storage/layers");
    fs::remove_file(layers.join(config.trim_start_matches("sha256:")))?;

    let new = Builder::start(&settings)?;
    let lost = format!("/v2/cacert/blobs/{config}");
    // Before and after the image of the new revision was built.
    for _ in 0..2 {
        let answer = new.get(&lost)?;
        let (code, message) = answer.error()?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{message}");
        assert_eq!(code, "BLOB_UNKNOWN");
        assert!(message.contains("by its tag"), "{message}");
    }
    assert_eq!(new.get(tag)?.status, StatusCode::OK);
    Ok(())
}
