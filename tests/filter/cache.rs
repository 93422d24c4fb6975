//! Hits: what was answered once is answered again without the builder, by every worker.

use nixgate_tests::wasm_host::{Host, Root};

use crate::support::*;

#[test]
fn a_hit_asks_nobody() {
    let (mut host, root) = edge();
    let first = host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    let second = host.get(root, "/v2/cacert/git/manifests/latest?ns=x");
    assert!(host.callouts().is_empty());
    assert_eq!(host.reply(second), host.reply(first));
}

#[test]
fn the_package_set_is_told_with_each_manifest() {
    let (mut host, root) = edge();
    let other = host.start(CONFIGURATION);
    let miss = host.get(root, GIT);
    let callout = host.callout();
    let mut answer = manifest(b"{}");
    let source = ("nixgate-source".to_owned(), b"git 5fbc4a8".to_vec());
    answer.headers.push(source);
    host.respond(&callout, answer);
    let hits = [root, root, other].map(|root| host.get(root, GIT));
    for stream in hits.into_iter().chain([miss]) {
        let reply = host.reply(stream);
        assert_eq!(reply.header("nixgate-source"), Some("git 5fbc4a8"));
    }
    assert!(host.callouts().is_empty());
}

/// A callout is answered with a manifest, and the manifest asked for once more.
fn warm() -> (Host, Root) {
    let (mut host, root) = edge();
    host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    host.get(root, GIT);
    (host, root)
}

#[test]
fn what_is_asked_often_costs_four_calls_of_the_host() {
    let (mut host, root) = warm();
    host.host_calls(root);
    host.get(root, GIT);
    assert_eq!(
        host.host_calls(root),
        [
            "proxy_get_header_map_pairs",
            "proxy_set_property",
            "proxy_set_property",
            "proxy_send_local_response"
        ]
    );
}

#[test]
fn a_workers_copy_follows_the_shared_cache_within_a_second() {
    let (mut host, root) = edge();
    let other = host.start(CONFIGURATION);
    host.get(root, GIT);
    host.get(other, GIT);
    let [first, second] = <[_; 2]>::try_from(host.callouts()).unwrap();
    host.respond(&first, manifest(b"{}"));
    let body = |host: &mut Host| {
        let stream = host.get(root, GIT);
        host.reply(stream).body
    };
    assert_eq!(body(&mut host), b"{}");
    // The other worker heard of a newer one.
    host.respond(&second, manifest(b"{ }"));
    host.advance(1);
    assert_eq!(body(&mut host), b"{ }");
}

#[test]
fn what_others_wrote_into_the_shared_cache_is_not_served() {
    let (mut host, root) = warm();
    host.spoil_shared_data(b"{}", b"[]");
    let copied = host.get(root, GIT);
    assert_eq!(
        host.reply(copied).body,
        b"{}",
        "the copy is the worker's own"
    );
    host.advance(1);
    let spoiled = host.get(root, GIT);
    assert!(is_paused(&mut host, spoiled), "the builder is asked again");
}

#[test]
fn head_is_answered_by_what_get_brought() {
    let (mut host, root) = edge();
    host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    let headers = [
        (":method", "HEAD"),
        (":path", GIT),
        (":authority", "registry"),
    ];
    let head = host.request(root, &headers);
    // Envoy takes the length from the body, and then leaves the body away.
    assert_eq!(host.reply(head).body, b"{}");
}

#[test]
fn all_workers_share_what_one_has_learned() {
    let (mut host, root) = edge();
    let other = host.start(CONFIGURATION);
    let stream = host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    let hit = host.get(other, GIT);
    assert_eq!(host.reply(hit), host.reply(stream));
    assert!(host.callouts().is_empty());
}

#[test]
fn each_worker_is_woken_for_its_own_streams() {
    let (mut host, root) = edge();
    let other = host.start(CONFIGURATION);
    let streams = [host.get(root, GIT), host.get(other, GIT)];
    let callouts = host.callouts();
    assert_eq!(callouts.len(), 2, "workers don't wait for each other");
    for callout in &callouts {
        host.respond(callout, manifest(b"{}"));
    }
    assert_eq!(statuses(&mut host, &streams), [200, 200]);
}

#[test]
fn an_answer_is_repeated_until_it_expires() {
    let (mut host, root) = edge();
    host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    host.advance(299);
    let fresh = host.get(root, GIT);
    assert_eq!(host.reply(fresh).status, 200);
    host.advance(1);
    let expired = host.get(root, GIT);
    assert!(is_paused(&mut host, expired));
}

#[test]
fn a_clock_that_is_set_back_prolongs_no_answers_life() {
    for seconds in [1, 86_400, 365 * 86_400] {
        let (mut host, root) = edge();
        host.get(root, GIT);
        let callout = host.callout();
        host.respond(&callout, manifest(b"old"));
        host.set_back(seconds);
        let asked = host.get(root, GIT);
        assert!(is_paused(&mut host, asked), "{seconds}");
        let callout = host.callout();
        host.respond(&callout, manifest(b"new"));
        assert_eq!(host.reply(asked).body, b"new", "{seconds}");
        // What was learnt since is kept as ever.
        let hit = host.get(root, GIT);
        assert_eq!(host.reply(hit).body, b"new", "{seconds}");
        assert!(host.callouts().is_empty(), "{seconds}");
    }
}

#[test]
fn an_expired_manifest_is_better_than_no_builder() {
    let (mut host, root) = edge();
    host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"old"));
    host.advance(300);
    let stream = host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, envoys_own(503));
    let reply = host.reply(stream);
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, b"old".as_slice())
    );
    let next = host.get(root, GIT);
    assert!(is_paused(&mut host, next), "the builder is asked again");
}

#[test]
fn a_refusal_is_repeated_only_as_long_as_the_builder_says() {
    let (mut host, root) = edge();
    let stream = host.get(root, GIT);
    let callout = host.callout();
    let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#;
    host.respond(
        &callout,
        builder(404, &[("cache-control", "max-age=30")], body),
    );
    let again = host.get(root, GIT);
    assert_eq!(host.reply(again), host.reply(stream));
    host.advance(30);
    let later = host.get(root, GIT);
    assert!(is_paused(&mut host, later));
}

#[test]
fn a_manifest_that_is_not_what_it_says_is_neither_served_nor_kept() {
    let (mut host, root) = edge();
    let stream = host.get(root, GIT);
    let callout = host.callout();
    let mut forged = manifest(b"{}");
    forged.body = b"{ }".to_vec();
    host.respond(&callout, forged);
    assert_eq!(host.reply(stream).status, 503);
    let again = host.get(root, GIT);
    assert!(is_paused(&mut host, again));
}

#[test]
fn the_cache_keeps_its_bound_and_what_is_newest() {
    const MAX_BYTES: usize = 1 << 20;
    let mut host = Host::new(&[("TOKEN", TOKEN)]);
    let configuration = format!(
        r#"{{"builder": {{"cluster": "b", "token_env": "TOKEN"}}, "cache": {{"max_bytes": {MAX_BYTES}}}}}"#
    );
    let root = host.start(&configuration);
    let body = vec![b'x'; 60_000];
    for number in 0..60 {
        let path = format!("/v2/p{number}/manifests/latest");
        host.get(root, &path);
        let callout = host.callout();
        host.respond(&callout, manifest(&body));
        let hit = host.get(root, &path);
        assert_eq!(host.reply(hit).body, body, "{path}");
    }
    // Directories come on top, and are small.
    assert!(
        host.shared_bytes() < MAX_BYTES + (8 << 10),
        "{}",
        host.shared_bytes()
    );
}

#[test]
fn a_builder_that_refuses_the_token_is_one_that_is_away() {
    let (mut host, root) = warm();
    let refuses = || {
        let refused = br#"{"errors":[{"code":"UNAVAILABLE","message":"another token"}]}"#;
        let headers = [
            ("nixgate-refuses", "token"),
            ("cache-control", "max-age=300"),
        ];
        builder(403, &headers, refused)
    };
    // The manifest's time is over; another image was never asked for.
    host.advance(301);
    let [old, new] = [GIT, "/v2/htop/manifests/latest"].map(|path| host.get(root, path));
    for callout in host.callouts() {
        host.respond(&callout, refuses());
    }
    let stale = host.reply(old);
    assert_eq!((stale.status, &stale.body[..]), (200, &b"{}"[..]));
    assert!(
        stale
            .header("warning")
            .is_some_and(|warning| warning.starts_with("110"))
    );
    let failed = host.reply(new);
    assert_eq!(failed.status, 503);
    assert!(String::from_utf8_lossy(&failed.body).contains("NIXGATE_TOKEN"));
    let log = host.log(root);
    let mut told = log.iter().map(|line| &line.message);
    assert!(told.any(|text| text.contains("refuses this Envoy's token")));
    // Once that works again, the next request is answered.
    let again = host.get(root, "/v2/htop/manifests/latest");
    let callout = host.callout();
    host.respond(&callout, manifest(b"{ }"));
    assert_eq!(host.reply(again).status, 200);
}
