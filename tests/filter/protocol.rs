//! What a client sees: every route, conditions, old answers, names below a prefix.

use nixgate_core::distribution::{Code, Digest};
use nixgate_core::requests::{Answer, Case, requests};
use nixgate_tests::wasm_host::{Host, Outcome, Reply, Root, Stream};
use serde_json::json;

use crate::support::*;

fn request(host: &mut Host, root: Root, method: &str, path: &str) -> Stream {
    let headers = [
        (":method", method),
        (":path", path),
        (":authority", "registry"),
    ];
    host.request(root, &headers)
}

fn conditional(host: &mut Host, root: Root, tags: &[&str]) -> Stream {
    let mut headers = vec![
        (":method", "GET"),
        (":path", GIT),
        (":authority", "registry"),
    ];
    headers.extend(tags.iter().map(|tag| ("if-none-match", *tag)));
    host.request(root, &headers)
}

fn is_error(reply: &Reply, status: u16, code: Option<Code>) -> bool {
    let body = String::from_utf8_lossy(&reply.body);
    reply.status == u32::from(status)
        && code.is_none_or(|code| body.contains(&format!("{{\"code\":\"{}\"", code.as_str())))
}

#[test]
fn every_request_is_answered_as_the_table_says() {
    let (mut host, root) = edge();
    for Case {
        method,
        path,
        answer,
    } in requests()
    {
        let stream = request(&mut host, root, method, &path);
        match (host.outcome(stream), answer) {
            (Outcome::Continued(_), Answer::Elsewhere) => {}
            (Outcome::Paused, Answer::Builder(..)) => {}
            (Outcome::Replied(reply), Answer::Edge(status, code)) => {
                assert!(is_error(&reply, status, code), "{method} {path}: {reply:?}");
            }
            (outcome, _) => panic!("{method} {path}: {outcome:?}, not {answer:?}"),
        }
        // The next request is to miss as well.
        host.leave(stream);
        for callout in host.callouts() {
            host.respond(&callout, envoys_own(503));
        }
    }
}

#[test]
fn who_has_the_manifest_is_told_so() {
    let etag = format!("\"{}\"", Digest::of(b"{}"));
    let (mut host, root) = edge();
    let held = conditional(&mut host, root, &["\"x\"", &format!("W/{etag}")]);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    let hit = conditional(&mut host, root, &["*"]);
    for stream in [held, hit] {
        let reply = host.reply(stream);
        assert_eq!((reply.status, reply.body.len()), (304, 0));
        assert_eq!(reply.header("etag"), Some(etag.as_str()));
    }
    let other = conditional(&mut host, root, &["\"x\""]);
    assert_eq!(host.reply(other).body, b"{}");
}

#[test]
fn an_old_manifest_is_served_for_a_day_and_says_so() {
    const DAY: u64 = 24 * 60 * 60;
    let (mut host, root) = edge();
    host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"old"));
    let ask_in_vain = |host: &mut Host| {
        let stream = host.get(root, GIT);
        let callout = host.callout();
        host.respond(&callout, envoys_own(503));
        host.reply(stream)
    };
    host.advance(300);
    let first = ask_in_vain(&mut host);
    assert_eq!((first.status, first.body.as_slice()), (200, &b"old"[..]));
    assert_eq!(first.header("warning"), Some("110 - \"Response is Stale\""));
    host.advance(DAY - 1);
    assert_eq!(ask_in_vain(&mut host), first);
    host.advance(1);
    let late = ask_in_vain(&mut host);
    assert_eq!((late.status, late.header("warning")), (503, None));
}

#[test]
fn an_old_manifest_outlasts_old_refusals() {
    let mut host = Host::new(&[("TOKEN", TOKEN)]);
    // The least there is: four sets of 16 ways.
    let small = configured(json!({"cache": {"max_bytes": 1 << 20}}));
    let root = host.start(&small);
    host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"old"));
    host.advance(300);
    // Each is over before the next comes, so there is always one to give way.
    for number in 0..200 {
        host.get(root, &format!("/v2/f{number}/manifests/latest"));
        let callout = host.callout();
        host.respond(
            &callout,
            builder(404, &[("cache-control", "max-age=30")], b"{}"),
        );
        host.advance(30);
    }
    let stream = host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, envoys_own(503));
    assert_eq!(host.reply(stream).body, b"old");
}

#[test]
fn a_list_of_tags_is_kept_once_and_cut_for_each_client() {
    let (mut host, root) = edge();
    let first = host.get(root, "/v2/git/tags/list?n=1");
    let callout = host.callout();
    let path = callout.header(":path");
    assert_eq!(path, Some("/v2/cacert/git/iana-etc/tags/list"));
    let list = br#"{"name":"cacert/git/iana-etc","tags":["latest","a"]}"#;
    host.respond(
        &callout,
        builder(200, &[("cache-control", "max-age=300")], list),
    );
    let first = host.reply(first);
    assert_eq!(first.body, br#"{"name":"git","tags":["a"]}"#);
    let next = "/v2/git/tags/list?n=1&last=a";
    let link = format!("<{next}>; rel=\"next\"");
    assert_eq!(first.header("link"), Some(link.as_str()));
    let second = host.get(root, next);
    let second = host.reply(second);
    assert_eq!(second.body, br#"{"name":"git","tags":["latest"]}"#);
    assert_eq!(second.header("link"), None);
    assert!(host.callouts().is_empty());
}

#[test]
fn below_a_prefix_only_those_names_are_nixgates() {
    let mut host = Host::new(&[("TOKEN", TOKEN)]);
    let prefixed = configured(json!({"name_prefix": "nix"}));
    let root = host.start(&prefixed);

    let path = "/v2/nix/git/manifests/latest";
    let stream = host.get(root, path);
    let callout = host.callout();
    let asked = callout.header(":path");
    assert_eq!(asked, Some("/v2/cacert/git/iana-etc/manifests/latest"));
    host.advance(20);
    host.respond(&callout, building());
    let reply = host.reply(stream);
    let location = reply.header("location").unwrap();
    assert!(location.starts_with(&format!("{path}?nixgate-since=")));

    for (method, path) in [
        ("GET", GIT),
        ("GET", "/v2/_catalog"),
        ("POST", "/v2/other/blobs/uploads/"),
    ] {
        let headers = [
            (":method", method),
            (":path", path),
            (":authority", "registry"),
            ("authorization", "Basic dXNlcg=="),
            ("nixgate-token", TOKEN),
        ];
        let stream = host.request(root, &headers);
        let expected = headers[..4].iter();
        let expected = expected
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        assert_eq!(host.outcome(stream), Outcome::Continued(expected), "{path}");
    }
    for (method, path, status) in [
        ("GET", "/v2/", 200),
        ("GET", "/v2/nix/Git/tags/list", 400),
        ("PUT", "/v2/nix/git/manifests/latest", 405),
        ("GET", "/v2/nix/manifests/latest", 404),
    ] {
        let stream = request(&mut host, root, method, path);
        assert_eq!(host.reply(stream).status, status, "{method} {path}");
    }
    assert!(host.callouts().is_empty());
}
