//! Watching builds: how far they are, and what they print.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::{get, request};
use nixgate_tests::live::poll;
use nixgate_tests::live::stack::Stack;
use serde_json::Value;

fn page(port: u16, path: &str) -> Result<Value> {
    let answer = get(port, path)?;
    anyhow::ensure!(answer.status == StatusCode::OK, "{path}: {}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    Ok(serde_json::from_slice(&answer.body)?)
}

#[test]
fn a_build_can_be_watched_through_envoy_while_it_goes_on_and_afterwards() -> Result<()> {
    let (stack, set) = Stack::gated(envoy::Settings::default(), &[])?;
    let port = stack.envoy.port();
    let client = thread::spawn(move || get(port, "/v2/gated/manifests/latest"));
    set.wait_for_start()?;
    let build = poll::until("the build is listed", || {
        let all = page(port, "/builds").ok()?;
        // Others may still be in the list though they are done.
        let gated = |running: &Value| running["derivation"] == "gated-1";
        let is_it = |build: &&Value| {
            let running = build["running"].as_array();
            build["phase"] == "building" && running.is_some_and(|all| all.iter().any(gated))
        };
        all["builds"].as_array()?.iter().find(is_it).cloned()
    })?;
    assert_eq!(
        build["packages"],
        serde_json::json!(["cacert", "gated", "iana-etc"])
    );
    let percent = build["percent"].as_u64().context("a percentage")?;
    assert!((5..70).contains(&percent), "{build}");
    let id = build["id"].as_str().context("an id")?;

    // Its log, from now on until the end.
    let mut log = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        log,
        "GET /builds/{id}/log HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    )?;
    let mut lines = BufReader::new(log).lines();
    let begins = lines.find(|line| {
        let line = line.as_deref().unwrap_or_default();
        line.starts_with("data: building /nix/store/") && line.ends_with("-gated-1.drv")
    });
    begins.context("the log says what is built")??;
    set.open()?;
    let end = lines.skip_while(|line| !line.as_deref().is_ok_and(|line| line == "event: end"));
    let end = end.take(2).collect::<std::io::Result<Vec<_>>>()?;
    let end: Value = serde_json::from_str(end[1].trim_start_matches("data: "))?;
    assert_eq!(
        (&end["phase"], &end["percent"]),
        (&"done".into(), &100.into())
    );

    let answer = client.join().expect("the client's thread ends")?;
    assert_eq!(answer.status, StatusCode::OK);
    let after = page(port, &format!("/builds/{id}"))?;
    assert_eq!(
        (&after["phase"], &after["running"]),
        (&"done".into(), &serde_json::json!([]))
    );
    Ok(())
}

#[test]
fn builds_that_fail_say_why_and_unknown_ones_are_unknown() -> Result<()> {
    let (stack, _set) = Stack::gated(envoy::Settings::default(), &[])?;
    let port = stack.envoy.port();
    let failed = get(port, "/v2/broken/manifests/latest")?;
    assert_eq!(failed.status, StatusCode::FORBIDDEN);
    let all = page(port, "/builds")?;
    let build = &all["builds"][0];
    assert_eq!(build["phase"], "failed");
    let id = build["id"].as_str().context("an id")?;
    let error = build["error"].as_str().context("an error")?;
    assert!(error.contains("broken"), "{error}");
    let log = get(port, &format!("/builds/{id}/log"))?;
    assert_eq!(log.header("content-type"), "text/event-stream");
    assert!(log.text().contains("data: broken-1> "), "{}", log.text());
    assert!(log.text().contains("event: end\ndata: {"), "{}", log.text());
    let lines = build["lines"].to_string();
    let path = format!("/builds/{id}/log");
    let rest = request(Method::GET, port, &path, &[("last-event-id", &lines)])?.text();
    assert!(rest.starts_with("event: end\n"), "{rest}");

    for path in [
        "/builds/nope",
        "/builds/nope/log",
        "/builds/a/b/c",
        "/buildsx",
    ] {
        assert_eq!(get(port, path)?.status, StatusCode::NOT_FOUND, "{path}");
    }
    Ok(())
}

#[test]
fn without_the_edge_s_token_nobody_watches() -> Result<()> {
    let (stack, _set) = Stack::gated(envoy::Settings::default(), &[])?;
    for path in ["/builds", "/builds/x", "/builds/x/log"] {
        let direct = request(Method::GET, stack.builder.port(), path, &[])?;
        assert_eq!(direct.status, StatusCode::FORBIDDEN, "{path}");
    }
    Ok(())
}
