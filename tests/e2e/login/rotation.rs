//! Keys that are exchanged while clients log in and pull, by the commands of the documentation.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use nixgate_core::wire;
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::gateway::{Gateway, Settings};
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::issuer::Issuer;
use nixgate_tests::live::process::run;
use nixgate_tests::live::{install, poll, scratch};
use serde_json::{Value, json};

use super::tokens::builders;

/// Clients log in more often here than the shipped limit lets them.
fn without_limit() -> EnvoyConfig {
    EnvoyConfig::corporate_gateway()
        .login_limit(json!({"max_tokens": 100_000, "tokens_per_fill": 1000}))
}

/// The commands of a section of the page, one text for each of its steps.
fn steps<const N: usize>(section: &str) -> Result<[String; N]> {
    let page = fs::read_to_string(install::root().join("docs/src/rotation.md"))?;
    let (_, section) = page
        .split_once(&format!("## {section}\n"))
        .context("a section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    let steps: Vec<String> = blocks
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .collect();
    steps.try_into().ok().context("so many steps")
}

/// Does a step where the files of the page are in a folder.
fn paste(commands: &str, folder: &Path) -> Result<()> {
    let commands = commands.replace("/etc/nixgate", &folder.display().to_string());
    run(Command::new("bash").args(["-euo", "pipefail", "-c", &commands]))?;
    Ok(())
}

/// What a client does: it logs in, and pulls what it may have.
fn pull(gateway: &Gateway, user: &str) -> Result<()> {
    let is_good = |what: &str, answer: &Response| {
        let (status, text) = (answer.status, answer.text());
        ensure!(
            status == StatusCode::OK,
            "{what} of {user}: {status} {text}"
        );
        Ok(())
    };
    let answer = gateway.log_in(user, &gateway.password(user)?)?;
    is_good("login", &answer)?;
    let token: Value = serde_json::from_slice(&answer.body)?;
    let token = token["token"].as_str().context("a token")?;
    let answer = gateway.get("/v2/hello/manifests/latest", Some(token))?;
    is_good("manifest", &answer)?;
    let manifest: Value = serde_json::from_slice(&answer.body)?;
    let digest = manifest["config"]["digest"].as_str().context("a digest")?;
    let answer = gateway.get(&format!("/v2/hello/blobs/{digest}"), Some(token))?;
    is_good("blob", &answer)
}

/// Makes a change while clients pull. Every answer that they get has to be a good one.
fn under_load(gateway: &Gateway, change: impl FnOnce() -> Result<()>) -> Result<()> {
    gateway.manifest("hello", &gateway.token("alice")?)?;
    let (done, pulls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                for user in ["alice", "bob"] {
                    pull(gateway, user)?;
                }
                pulls.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let changed = change();
        let before = pulls.load(Ordering::Relaxed);
        let after = poll::until("clients have pulled since", || {
            let since = pulls.load(Ordering::Relaxed) - before;
            (client.is_finished() || since > 2).then_some(())
        });
        done.store(true, Ordering::Relaxed);
        let pulled = client.join().expect("the client's thread ends");
        changed.and(pulled).and(after)
    })
}

/// Whether the builder takes a token of the edge.
fn takes(gateway: &Gateway, token: &str) -> bool {
    let token = [(wire::TOKEN, token)];
    let answer = request(Method::GET, gateway.builder.port(), "/v2/", &token);
    answer.is_ok_and(|answer| answer.status == StatusCode::OK)
}

#[test]
fn the_edges_token_is_exchanged_without_an_outage() -> Result<()> {
    let [both, alone] = steps("The edge's token")?;
    let keys = scratch::folder("keys-")?;
    let file = keys.path().join("tokens");
    fs::write(&file, format!("{TOKEN}\n"))?;
    let gateway = Gateway::start(&Settings {
        environment: vec![
            ("NIXGATE_TOKEN", String::new()),
            ("NIXGATE_TOKEN_FILE", file.display().to_string()),
        ],
        config: without_limit(),
        can_be_replaced: true,
        ..Settings::default()
    })?;
    let mut second = None;
    under_load(&gateway, || {
        paste(&both, keys.path())?;
        let new = fs::read_to_string(keys.path().join("token.new"))?;
        poll::until("the builder takes both tokens", || {
            (takes(&gateway, TOKEN) && takes(&gateway, new.trim())).then_some(())
        })?;
        second = Some(gateway.replace_envoy(new.trim())?);
        paste(&alone, keys.path())?;
        poll::until("the builder takes the new token alone", || {
            (!takes(&gateway, TOKEN) && takes(&gateway, new.trim())).then_some(())
        })
    })?;
    drop(second);
    Ok(())
}

#[test]
fn the_signing_key_is_exchanged_without_an_outage() -> Result<()> {
    let [add, turn, alone] = steps("The signing key")?;
    let keys = scratch::folder("keys-")?;
    let file = keys.path().join("token-key.pem");
    run(Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
        .arg(&file))?;
    let old = Issuer::with_key(&file, None)?;
    let gateway = Gateway::start(&Settings {
        environment: vec![("NIXGATE_TOKEN_KEY", file.display().to_string())],
        // So that nobody waits for a minute.
        config: without_limit().builder_tokens(json!({"remote_jwks": {"cache_duration": "1s"}})),
        ..Settings::default()
    })?;
    // What Envoy says to a token that somebody with this key has signed.
    let says = |issuer: &Issuer| -> Result<StatusCode> {
        let token = issuer.sign(&builders(&json!({})))?;
        Ok(gateway.get("/v2/", Some(&token))?.status)
    };
    let published = || -> Option<usize> {
        let answer = gateway.builder.get("/.well-known/jwks.json").ok()?;
        let keys: Value = serde_json::from_slice(&answer.body).ok()?;
        Some(keys["keys"].as_array()?.len())
    };
    under_load(&gateway, || {
        assert_eq!(says(&old)?, StatusCode::OK);
        paste(&add, keys.path())?;
        let new = Issuer::with_key(&keys.path().join("new-key.pem"), None)?;
        poll::until("Envoy knows the new key", || {
            (says(&new).ok()? == StatusCode::OK).then_some(())
        })?;
        assert_eq!(published(), Some(2));
        assert_eq!(says(&old)?, StatusCode::OK);

        paste(&turn, keys.path())?;
        let kid: Value = serde_json::from_str(&new.keys())?;
        poll::until("the builder signs with the new key", || {
            let token = gateway.token("alice").ok()?;
            (header_of(&token)?["kid"] == kid["keys"][0]["kid"]).then_some(())
        })?;
        assert_eq!(says(&old)?, StatusCode::OK);

        paste(&alone, keys.path())?;
        poll::until("Envoy takes no token of the old key", || {
            (says(&old).ok()? == StatusCode::UNAUTHORIZED).then_some(())
        })?;
        assert_eq!(published(), Some(1));
        Ok(())
    })
}

fn header_of(token: &str) -> Option<Value> {
    let header = super::tokens::from_base64url(token.split('.').next()?)?;
    serde_json::from_slice(&header).ok()
}
