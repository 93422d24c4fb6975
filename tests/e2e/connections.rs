//! More connections than the builder takes, and more than it may have files.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_core::wire::TOKEN as TOKEN_HEADER;
use nixgate_tests::live::builder::{Builder, Settings, TOKEN};
use nixgate_tests::live::envoy::Envoy;
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::process::run;
use nixgate_tests::live::raw::Stuck;
use nixgate_tests::live::{envoy, http2, poll, raw, scratch};
use serde_json::Value;

/// A builder that may have so many open files: the soft limit, and the hard one.
fn limited(settings: &Settings, files: &str) -> Result<Builder> {
    Builder::start_as(settings, |command| {
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--nofile={files}")).arg("--");
        limited.arg(command.get_program()).args(command.get_args());
        let variables = command.get_envs();
        limited.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            limited.current_dir(folder);
        }
        Ok(limited)
    })
}

/// Connections on which nobody says a word.
fn silent(port: u16, count: usize) -> Result<Vec<TcpStream>> {
    let open = |_| Ok(TcpStream::connect(("127.0.0.1", port))?);
    (0..count).map(open).collect()
}

fn health(builder: &Builder) -> Result<Response> {
    request(Method::GET, builder.port(), "/healthz", &[])
}

#[test]
fn the_builder_takes_all_files_that_it_may_have_and_what_it_starts_does_not() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let builder = limited(&Settings::new(state.path())?, "200:900")?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", builder.id()))?;
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.context("no limit")?.split_whitespace().collect();
    assert_eq!(files[3..5], ["900", "900"], "{limits}");
    assert!(
        builder.log().contains("the limit of 900 open files"),
        "{}",
        builder.log()
    );
    // With the soft limit, Nix builds as ever.
    let answer = builder.get("/v2/hello/manifests/latest")?;
    assert!(answer.status.is_success(), "{}", answer.text());
    Ok(())
}

#[test]
fn health_is_told_while_all_connections_are_in_use_and_pulls_recover() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let builder = limited(&Settings::new(state.path())?, "64:256")?;
    let envoy_state = scratch::folder("envoy-")?;
    let envoy = Envoy::start(
        envoy::Settings::default(),
        builder.port(),
        envoy_state.path(),
    )?;
    let pull = |path: &str| nixgate_tests::live::http::get(envoy.port(), path);
    let manifest = pull("/v2/hello/manifests/latest")?;
    assert_eq!(manifest.status, StatusCode::OK, "{}", manifest.text());
    let manifest: Value = serde_json::from_slice(&manifest.body)?;
    let config = manifest["config"]["digest"].as_str().context("a digest")?;
    let blob = format!("/v2/hello/blobs/{config}");
    assert_eq!(pull(&blob)?.status, StatusCode::OK);

    // More than there are places, and more than the builder may have files.
    let held = silent(builder.port(), 300)?;
    let health2 = http2::get_all(builder.port(), &["/healthz".to_owned()], &[])?;
    assert_eq!(health2[0].status, StatusCode::OK);
    for _ in 0..20 {
        let answer = poll::until("health is told", || health(&builder).ok())?;
        assert_eq!(answer.status, StatusCode::OK, "{}", builder.log());
        let refused = builder.get("/v2/hello/manifests/latest")?;
        if refused.status == StatusCode::OK {
            // They have been let go of.
            break;
        }
        let (code, message) = refused.error()?;
        assert_eq!(
            (refused.status.as_u16(), &code[..]),
            (429, "TOOMANYREQUESTS")
        );
        assert!(message.contains("connections"), "{message}");
        assert!(refused.headers.contains_key("retry-after"));
    }
    let log = builder.log();
    let told = log.matches("connections are in use").count();
    assert!((1..=2).contains(&told), "{told} times: {log}");
    assert!(
        log.contains("raise its limit of open files, which is 256"),
        "{log}"
    );
    assert!(!log.contains("can't accept"), "a reserve is left: {log}");

    // Whoever holds connections and says nothing is let go of.
    poll::until("pulls recover", || {
        let answer = pull(&blob).ok()?;
        (answer.status == StatusCode::OK).then_some(())
    })?;
    poll::until("new images are built again", || {
        let answer = pull("/v2/hello/figlet/manifests/latest").ok()?;
        (answer.status == StatusCode::OK).then_some(())
    })?;
    drop(held);
    Ok(())
}

#[test]
fn what_a_stranger_sends_has_an_end() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let builder = Builder::start(&Settings::new(state.path())?)?;
    let port = builder.port();
    // A head beyond its bound, and more headers than there are.
    for head in [
        format!("x: {}", "a".repeat(200_000)),
        "x: a\r\n".repeat(1000) + "y: z",
    ] {
        let answer = raw::http1(
            port,
            &format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n"),
        )?;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    // As large as podman's.
    let head = format!("range: bytes={}0-1", "1000000000-1000000001,".repeat(1023));
    let answer = raw::http1(
        port,
        &format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n"),
    )?;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // A body that nobody reads keeps nobody waiting for it.
    for body in ["content-length: 1000000000", "transfer-encoding: chunked"] {
        let answer = raw::until_closed(
            port,
            &format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{body}\r\n\r\n"),
        )?;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    }
    // Requests that are sent ahead are answered in their order.
    let ahead = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(999)
        + "GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = raw::until_closed(port, &ahead)?;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 999);
    assert_eq!(answer.matches("HTTP/1.1 403 ").count(), 1);
    Ok(())
}

#[test]
fn one_connection_over_http2_takes_no_more_than_many_others() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let set = GatedSet::write(state.path())?;
    // Its files allow 88 connections.
    let builder = limited(&set.settings(state.path())?, "64:256")?;
    let mut paths = vec!["/v2/gated/manifests/latest".to_owned(); 100];
    paths.push("/healthz".to_owned());
    let headers = [(TOKEN_HEADER, TOKEN), ("prefer", "wait=3")];
    let answers = http2::get_all(builder.port(), &paths, &headers)?;
    let with = |status| {
        let status = move |answer: &&Response| answer.status == status;
        answers.iter().filter(status).collect::<Vec<_>>()
    };
    // The first request has the place of its connection.
    let (held, refused) = (
        with(StatusCode::ACCEPTED),
        with(StatusCode::TOO_MANY_REQUESTS),
    );
    assert_eq!((held.len(), refused.len()), (88, 12));
    assert_eq!(with(StatusCode::OK).len(), 1, "health is told");
    for answer in refused {
        let (code, message) = answer.error()?;
        assert_eq!(code, "TOOMANYREQUESTS");
        assert!(message.contains("connections"), "{message}");
    }
    let log = builder.log();
    assert!(log.contains("all 88 connections are in use"), "{log}");
    set.open()?;
    // Their places are free again.
    let paths = vec!["/v2/gated/tags/list".to_owned(); 80];
    for answer in http2::get_all(builder.port(), &paths, &headers)? {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    Ok(())
}

#[test]
fn what_a_stranger_sends_over_http2_has_an_end() -> Result<()> {
    const NO_ERROR: u32 = 0;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let state = scratch::folder("builder-")?;
    let builder = Builder::start(&Settings::new(state.path())?)?;
    let port = builder.port();
    // Headers beyond their bound, and headers within it.
    for (length, status) in [(200_000, 431), (100_000, 200)] {
        let long = "a".repeat(length);
        let answer = http2::get_all(port, &["/healthz".to_owned()], &[("x", &long)])?;
        assert_eq!(answer[0].status.as_u16(), status);
    }
    let stuck: Vec<_> = [
        (Stuck::InThePreface, None),
        (Stuck::Idle, Some(NO_ERROR)),
        (Stuck::InTheHead, Some(NO_ERROR)),
        (Stuck::Resetting(10_000), Some(ENHANCE_YOUR_CALM)),
    ]
    .map(|(how, reason)| {
        let ended = thread::spawn(move || raw::stuck_http2(port, how));
        (how, reason, ended)
    })
    .into();
    for (how, reason, ended) in stuck {
        let ended = ended.join().expect("the client's thread ends");
        assert_eq!(ended?, reason, "{how:?}");
    }
    assert_eq!(health(&builder)?.status, StatusCode::OK);
    Ok(())
}

#[test]
fn both_versions_of_http_are_on_one_port() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let set = GatedSet::write(state.path())?;
    let builder = Builder::start(&set.settings(state.path())?)?;
    let curl = |more: &[&str], path: &str| {
        let mut curl = Command::new("curl");
        let url = format!("http://127.0.0.1:{}{path}", builder.port());
        curl.args(["--silent", "--show-error", "--header"]);
        curl.arg(format!("{TOKEN_HEADER}: {TOKEN}")).args(more);
        let format = "\n%{http_version} %{response_code} %header{location}";
        run(curl.args(["--write-out", format]).arg(url))
    };
    let http2 = "--http2-prior-knowledge";
    for (more, version) in [(&[][..], "1.1"), (&[http2][..], "2")] {
        let answer = curl(more, "/healthz")?;
        assert_eq!(answer, format!("{{\"status\":\"live\"}}\n{version} 200 "));
        // HEAD has the length of a body that is not sent.
        let head = curl(&[more, &["--head"]].concat(), "/v2/")?;
        assert!(head.to_lowercase().contains("content-length: 2"), "{head}");
    }
    // A client is sent to a path, whatever the builder is called.
    for more in [&[][..], &[http2][..]] {
        let answer = curl(more, "/v2/gated/manifests/latest")?;
        let end = "307 /v2/gated/manifests/latest";
        assert!(answer.ends_with(end), "{answer}");
    }
    set.open()
}
