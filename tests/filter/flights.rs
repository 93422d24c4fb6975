//! Misses: one callout for all who wait, and an answer for each of them.

use nixgate_core::distribution::Digest;
use nixgate_tests::wasm_host::{Response, START};

use crate::support::*;

#[test]
fn a_miss_asks_the_builder_for_the_canonical_image() {
    let (mut host, root) = edge();
    let stream = host.request(
        root,
        &[
            (":method", "GET"),
            (":path", "/v2/htop/git/git/manifests/latest?ns=docker.io"),
            (":authority", "registry"),
            ("accept", "text/html"),
            ("accept", OCI),
            ("authorization", "Bearer x"),
            ("x-request-id", "5f0c2d1e"),
        ],
    );
    assert!(is_paused(&mut host, stream));

    let callout = host.callout();
    assert_eq!(callout.cluster, "builder");
    assert_eq!(callout.timeout_ms, 25_000);
    let signature = signed(
        "GET",
        "/v2/cacert/git/htop/iana-etc/manifests/latest",
        START,
    );
    for (name, value) in [
        (":method", Some("GET")),
        (
            ":path",
            Some("/v2/cacert/git/htop/iana-etc/manifests/latest"),
        ),
        ("nixgate-token", Some(signature.as_str())),
        ("prefer", Some("wait=20, similar-names")),
        ("accept", Some(OCI)),
        ("authorization", None),
        // The builder's log names the request by it.
        ("x-request-id", Some("5f0c2d1e")),
    ] {
        assert_eq!(callout.header(name), value, "{name}");
    }

    host.respond(&callout, manifest(b"{}"));
    let reply = host.reply(stream);
    let digest = Digest::of(b"{}").to_string();
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, b"{}".as_slice())
    );
    assert_eq!(reply.header("content-type"), Some(OCI));
    assert_eq!(reply.header("docker-content-digest"), Some(digest.as_str()));
}

#[test]
fn requests_for_one_image_share_a_callout() {
    let (mut host, root) = edge();
    let streams: Vec<_> = ["git", "cacert/git", "git/git", "git"]
        .iter()
        .map(|name| host.get(root, &format!("/v2/{name}/manifests/latest")))
        .collect();
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    assert_eq!(statuses(&mut host, &streams), [200; 4]);
}

#[test]
fn the_first_to_come_may_be_the_first_to_leave() {
    let (mut host, root) = edge();
    let first = host.get(root, GIT);
    let others = [host.get(root, GIT), host.get(root, GIT)];
    host.leave(first);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    assert_eq!(statuses(&mut host, &others), [200, 200]);
    assert!(is_paused(&mut host, first), "who has left is not answered");
}

#[test]
fn an_answer_that_nobody_waits_for_does_no_harm() {
    let (mut host, root) = edge();
    let stream = host.get(root, GIT);
    host.leave(stream);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    let next = host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    assert_eq!(host.reply(next).status, 200);
}

#[test]
fn a_long_build_redirects_the_client_to_itself_and_then_gives_up() {
    let (mut host, root) = edge();
    let (mut path, mut statuses) = (GIT.to_owned(), Vec::new());
    while statuses.last() != Some(&429) {
        let stream = host.get(root, &path);
        let callout = host.callout();
        host.advance(20);
        host.respond(&callout, building());
        let reply = host.reply(stream);
        statuses.push(reply.status);
        if let Some(location) = reply.header("location") {
            path = location.to_owned();
            assert!(path.starts_with(&format!("{GIT}?nixgate-since=")), "{path}");
        }
        assert!(statuses.len() <= 9, "clients follow 9 redirects");
    }
    assert_eq!(statuses, [307, 307, 307, 307, 307, 307, 307, 429]);
}

#[test]
fn who_comes_late_to_a_long_build_is_held_for_as_long() {
    let (mut host, root) = edge();
    let early = host.get(root, GIT);
    let callout = host.callout();
    host.advance(12);
    let late = host.get(root, GIT);
    host.advance(8);
    host.respond(&callout, building());
    assert_eq!(host.reply(early).status, 307);
    assert!(is_paused(&mut host, late));

    let callout = host.callout();
    assert_eq!(callout.header("prefer"), Some("wait=12, similar-names"));
    host.respond(&callout, manifest(b"{}"));
    assert_eq!(host.reply(late).status, 200);
}

#[test]
fn a_builder_that_is_not_reached_is_a_passing_failure() {
    for response in [envoys_own(503), envoys_own(504), Response::default()] {
        let (mut host, root) = edge();
        let stream = host.get(root, GIT);
        let callout = host.callout();
        host.respond(&callout, response);
        let reply = host.reply(stream);
        assert_eq!(reply.status, 503);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.header("retry-after").is_some());
        let again = host.get(root, GIT);
        assert!(is_paused(&mut host, again), "the failure is not kept");
    }
}

#[test]
fn an_answer_that_is_not_one_is_a_failing_builder_and_is_not_kept() {
    const AGE: (&str, &str) = ("cache-control", "max-age=300");
    let digest = Digest::of(b"{}").to_string();
    let half = [
        ("docker-content-digest", digest.as_str()),
        ("content-type", OCI),
        AGE,
    ];
    for response in [
        builder(200, &half, b"{"),
        builder(404, &[AGE], br#"{"errors":[{"code":"MANIF"#),
        builder(500, &[AGE], b"<html>"),
        builder(418, &[AGE], b""),
    ] {
        let (mut host, root) = edge();
        let stream = host.get(root, GIT);
        let callout = host.callout();
        host.respond(&callout, response);
        let reply = host.reply(stream);
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(reply.status, 503, "{body}");
        assert!(body.contains(r#""code":"UNAVAILABLE""#), "{body}");
        let again = host.get(root, GIT);
        assert!(is_paused(&mut host, again), "it is not kept");
    }
}

#[test]
fn a_body_that_the_host_withholds_is_the_edges_failure_and_no_ones_digest() {
    let (mut host, root) = edge();
    let stream = host.get(root, GIT);
    let callout = host.callout();
    host.withhold_bodies(root);
    host.respond(&callout, manifest(b"{}"));
    assert_eq!(host.reply(stream).status, 500);
    let log = host.log(root);
    let told = log
        .iter()
        .any(|line| line.message.contains("proxy_get_buffer_bytes failed"));
    assert!(told, "{log:#?}");
}

#[test]
fn a_full_queue_is_told_with_its_time_and_not_kept() {
    let (mut host, root) = edge();
    let stream = host.get(root, GIT);
    let callout = host.callout();
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#;
    host.respond(&callout, builder(429, &[("retry-after", "7")], body));
    let reply = host.reply(stream);
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("7"))
    );
    assert_eq!(reply.body, body);
    let again = host.get(root, GIT);
    assert!(is_paused(&mut host, again));
}

#[test]
fn a_builder_that_does_not_wait_is_not_asked_in_a_loop() {
    let (mut host, root) = edge();
    let stream = host.get(root, GIT);
    let mut calls = 0;
    for _ in 0..20 {
        for callout in host.callouts() {
            calls += 1;
            host.respond(&callout, building());
        }
        assert!(host.callouts().is_empty(), "at most one callout a second");
        host.advance(1);
    }
    assert_eq!(host.reply(stream).status, 307);
    assert!((2..=6).contains(&calls), "{calls} calls in 20 s");

    let stream = host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, building());
    host.advance(1);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    assert_eq!(host.reply(stream).status, 200);
}

#[test]
fn a_callout_that_the_host_refuses_answers_everyone() {
    for unknown_cluster in [true, false] {
        let (mut host, root) = edge();
        host.refuse_callouts(root, unknown_cluster);
        let streams = [host.get(root, GIT), host.get(root, GIT)];
        assert_eq!(statuses(&mut host, &streams), [503, 503]);
        let log = host.log(root);
        let told = log
            .iter()
            .any(|line| line.message.contains("the cluster builder"));
        assert!(told, "the log names the cluster: {log:#?}");
    }
}

#[test]
fn a_request_that_could_not_be_answered_later_is_refused_at_once() {
    let (mut host, root) = edge();
    host.refuse_messages(root);
    let stream = host.get(root, GIT);
    assert_eq!(host.reply(stream).status, 500);
    assert!(host.callouts().is_empty());
}
