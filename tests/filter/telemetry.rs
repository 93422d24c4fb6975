//! Counters, and what access logs can say of a request.

use nixgate_tests::wasm_host::{Host, Stream};

use crate::support::*;

fn noted(host: &mut Host, stream: Stream) -> (String, String) {
    let mut fact = |name| host.property(stream, name).unwrap_or_default();
    (fact("nixgate.image"), fact("nixgate.outcome"))
}

fn as_noted(image: &str, outcome: &str) -> (String, String) {
    (image.to_owned(), outcome.to_owned())
}

#[test]
fn each_request_is_counted_once_and_noted_with_its_image() {
    const IMAGE: &str = "cacert/git/iana-etc";
    let (mut host, root) = edge();
    let first = [host.get(root, GIT), host.get(root, GIT)];
    let callout = host.callout();
    host.advance(3);
    host.respond(&callout, manifest(b"{}"));
    let hit = host.get(root, GIT);
    let refused = host.get(root, "/v2/Git/manifests/latest");
    for stream in first {
        assert_eq!(noted(&mut host, stream), as_noted(IMAGE, "miss"));
    }
    assert_eq!(noted(&mut host, hit), as_noted(IMAGE, "hit"));
    assert_eq!(noted(&mut host, refused), as_noted("", "refused"));
    for (route, outcome, count) in [
        ("manifest", "miss", 2),
        ("manifest", "hit", 1),
        ("other", "refused", 1),
    ] {
        let name = format!("nixgate_edge_requests_total.route.{route}.outcome.{outcome}");
        assert_eq!(host.metric(root, &name), vec![1; count], "{name}");
    }
    assert_eq!(host.metric(root, "nixgate_edge_callout_ms"), [3000]);
    // None at first, then the manifest's.
    assert_eq!(host.metric(root, "nixgate_edge_cache_slots"), [0, 1]);
}

#[test]
fn a_blob_that_is_let_through_is_noted_before_it_goes() {
    let (mut host, root) = edge();
    let digest = nixgate_core::distribution::Digest::of(b"layer");
    let stream = host.get(root, &format!("/v2/git/blobs/{digest}"));
    let callout = host.callout();
    host.respond(&callout, builder(204, &[], b""));
    let expected = as_noted("cacert/git/iana-etc", "forwarded");
    assert_eq!(noted(&mut host, stream), expected);
}

#[test]
fn requests_for_others_are_not_ours_to_count() {
    let (mut host, root) = edge();
    let stream = host.get(root, "/elsewhere");
    assert_eq!(noted(&mut host, stream), as_noted("", ""));
}
