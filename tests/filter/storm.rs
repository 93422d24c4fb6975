//! Thousands who wait for one answer. The host dies of too many that are answered by one callback.

use nixgate_core::cache::TICK;
use nixgate_tests::wasm_host::{Host, Response, Root, Stream};
use serde_json::json;

use crate::support::*;

/// More than the stack of any host has room for.
const CLIENTS: usize = 1000;

fn all(host: &mut Host, root: Root, path: &str) -> Vec<Stream> {
    (0..CLIENTS).map(|_| host.get(root, path)).collect()
}

fn answered(response: Response) -> Vec<u32> {
    let (mut host, root) = edge();
    let streams = all(&mut host, root, GIT);
    let callout = host.callout();
    host.respond(&callout, response);
    assert!(host.callouts().is_empty(), "one build for all");
    statuses(&mut host, &streams)
}

#[test]
fn all_get_the_image() {
    assert_eq!(answered(manifest(b"{}")), [200; CLIENTS]);
}

#[test]
fn all_are_told_that_the_build_failed() {
    let body = br#"{"errors":[{"code":"UNKNOWN","message":"no"}]}"#;
    let failed = builder(500, &[("cache-control", "max-age=30")], body);
    assert_eq!(answered(failed), [500; CLIENTS]);
}

#[test]
fn all_are_told_that_the_builder_died() {
    for response in [Response::default(), envoys_own(503), envoys_own(504)] {
        assert_eq!(answered(response), [503; CLIENTS]);
    }
}

#[test]
fn all_are_told_that_the_queue_is_full() {
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"later"}]}"#;
    let full = builder(429, &[("retry-after", "7")], body);
    assert_eq!(answered(full), [429; CLIENTS]);
}

#[test]
fn all_are_sent_round_when_their_hold_is_over() {
    let (mut host, root) = edge();
    let streams = all(&mut host, root, GIT);
    let callout = host.callout();
    host.advance(20);
    host.respond(&callout, building());
    assert_eq!(statuses(&mut host, &streams), [307; CLIENTS]);
}

#[test]
fn all_are_sent_round_by_a_tick() {
    let (mut host, root) = edge();
    let streams = all(&mut host, root, GIT);
    // Each answer comes too early, so that the pauses grow longer than the hold.
    for _ in 0..20 {
        for callout in host.callouts() {
            host.respond(&callout, building());
        }
        host.advance(TICK);
    }
    assert_eq!(statuses(&mut host, &streams), [307; CLIENTS]);
}

#[test]
fn all_are_judged_by_the_policy_that_came() {
    let (mut host, root) = edge();
    let streams = all(&mut host, root, GIT);
    let callout = host.callout();
    let policy = json!({"revision": "1", "default": "allow", "rules": []});
    let judged = configured(json!({"policy": policy}));
    host.update(root, &judged);
    host.respond(&callout, manifest(b"{}"));
    assert_eq!(statuses(&mut host, &streams), [307; CLIENTS]);
}

#[test]
fn all_go_on_to_the_builder_which_is_gone() {
    let (mut host, root) = edge();
    let digest = format!("sha256:{}", "a".repeat(64));
    let streams = all(&mut host, root, &format!("/v2/git/blobs/{digest}"));
    host.refuse_upstream(root);
    let callout = host.callout();
    host.respond(
        &callout,
        builder(204, &[("cache-control", "max-age=300")], b""),
    );
    let gone_on = streams
        .iter()
        .filter(|&&stream| !is_paused(&mut host, stream));
    assert_eq!(gone_on.count(), CLIENTS);
}

#[test]
fn all_ask_for_an_image_of_their_own_and_no_callout_can_be_sent() {
    let (mut host, root) = edge();
    host.refuse_callouts(root, false);
    let streams: Vec<_> = (0..CLIENTS)
        .map(|number| host.get(root, &format!("/v2/package{number}/manifests/latest")))
        .collect();
    assert_eq!(statuses(&mut host, &streams), [503; CLIENTS]);
}

#[test]
fn who_comes_first_is_answered_first() {
    let (mut host, root) = edge();
    let streams = all(&mut host, root, GIT);
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    assert_eq!(host.answered_in_order(root), streams);
}

#[test]
fn who_leaves_while_others_are_answered_keeps_nobody_waiting() {
    let (mut host, root) = edge();
    let streams = all(&mut host, root, GIT);
    for stream in streams.iter().step_by(2) {
        host.leave(*stream);
    }
    let callout = host.callout();
    host.respond(&callout, manifest(b"{}"));
    for pair in streams.chunks(2) {
        assert!(
            is_paused(&mut host, pair[0]),
            "who has left is not answered"
        );
        assert_eq!(host.reply(pair[1]).status, 200);
    }
}

#[test]
fn without_a_queue_the_timer_answers_a_few_each_second() {
    let (mut host, root) = edge();
    let streams = all(&mut host, root, GIT);
    let callout = host.callout();
    host.refuse_messages(root);
    host.respond(&callout, manifest(b"{}"));
    assert!(is_paused(&mut host, streams[0]));
    host.advance(TICK);
    assert_eq!(host.reply(streams[0]).status, 200);
    assert!(is_paused(&mut host, streams[CLIENTS - 1]));
}
