//! Blobs: a location that is passed on, or a request that goes on to the builder.

use nixgate_core::distribution::Digest;
use nixgate_tests::wasm_host::{Headers, Host, Outcome, START, Stream};

use crate::support::*;

const LOCATION: &str = "https://storage.example/layers/x?signature=y";
const AGE: (&str, &str) = ("cache-control", "max-age=60");

fn blob(name: &str) -> String {
    format!("/v2/{name}/blobs/{}", Digest::of(b"layer"))
}

/// A request with everything that must not reach the builder, and something that must.
fn headers(path: &str) -> [(&str, &str); 12] {
    [
        (":method", "GET"),
        (":path", path),
        (":authority", "registry"),
        ("authorization", "Basic dXNlcg=="),
        ("cookie", "session=1"),
        ("proxy-authorization", "Basic dXNlcg=="),
        ("x-forwarded-client-cert", "By=x"),
        ("prefer", "return=minimal"),
        ("nixgate-token", "forged"),
        ("nixgate-token", "again"),
        ("range", "bytes=10-"),
        ("accept-encoding", "zstd"),
    ]
}

fn continued(host: &mut Host, stream: Stream) -> Headers {
    match host.outcome(stream) {
        Outcome::Continued(mut headers) => {
            headers.sort();
            headers
        }
        other => panic!("not forwarded, but {other:?}"),
    }
}

#[test]
fn a_location_is_passed_on_and_kept_for_its_method() {
    let (mut host, root) = edge();
    let stream = host.get(root, &blob("git"));
    let callout = host.callout();
    assert_eq!(callout.header(":method"), Some("GET"));
    assert_eq!(callout.header("prefer"), Some("wait=20, return=minimal"));
    host.respond(&callout, builder(307, &[("location", LOCATION), AGE], b""));
    let reply = host.reply(stream);
    assert_eq!(
        (reply.status, reply.header("location")),
        (307, Some(LOCATION))
    );

    let again = host.get(root, &blob("git"));
    assert_eq!(host.reply(again), reply);
    assert!(host.callouts().is_empty());

    let path = blob("git");
    host.request(
        root,
        &[
            (":method", "HEAD"),
            (":path", &path),
            (":authority", "registry"),
        ],
    );
    assert_eq!(host.callout().header(":method"), Some("HEAD"));
}

#[test]
fn a_blob_that_the_builder_streams_is_forwarded_as_the_edges_own_request() {
    let (mut host, root) = edge();
    let path = format!("{}?ns=x", blob("htop/git"));
    let stream = host.request(root, &headers(&path));
    let callout = host.callout();
    host.respond(&callout, builder(204, &[AGE], b""));

    let upstream = blob("cacert/git/htop/iana-etc");
    let signature = signed("GET", &upstream, START);
    let expected: Vec<_> = [
        (":authority", "registry"),
        (":method", "GET"),
        (":path", upstream.as_str()),
        ("accept-encoding", "zstd"),
        ("nixgate-token", signature.as_str()),
        ("range", "bytes=10-"),
        ("x-envoy-original-path", path.as_str()),
    ]
    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    .into();
    assert_eq!(continued(&mut host, stream), expected);

    let warm = host.request(root, &headers(&path));
    assert!(host.callouts().is_empty());
    assert_eq!(continued(&mut host, warm), expected);
}

#[test]
fn a_blob_of_another_name_is_asked_for_anew() {
    let (mut host, root) = edge();
    host.get(root, &blob("git"));
    let callout = host.callout();
    host.respond(&callout, builder(204, &[AGE], b""));
    let other = host.get(root, &blob("htop"));
    let callout = host.callout();
    let refusal = br#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#;
    host.respond(&callout, builder(404, &[AGE], refusal));
    assert_eq!(host.reply(other).status, 404);
}

#[test]
fn who_asks_for_several_ranges_is_not_sent_to_a_store_that_sends_the_whole() {
    let (mut host, root) = edge();
    let path = blob("git");
    let mut several = headers(&path);
    several[10] = ("range", "bytes=0-9,20-29");
    let stream = host.request(root, &several);
    let callout = host.callout();
    host.respond(&callout, builder(307, &[("location", LOCATION), AGE], b""));
    let sent = continued(&mut host, stream);
    let range = sent.iter().find(|(name, _)| name == "range");
    assert_eq!(range.unwrap().1, b"bytes=0-9,20-29");

    // What is kept, and what was answered in this second, is for others.
    let one = host.request(root, &headers(&path));
    assert_eq!(host.reply(one).status, 307);
    let one = host.request(root, &headers(&path));
    assert_eq!(host.reply(one).status, 307);
    let again = host.request(root, &several);
    assert_eq!(continued(&mut host, again), sent);
    assert!(host.callouts().is_empty());
}
