//! Configurations: refused with words, and kept apart when they follow each other.

use nixgate_tests::wasm_host::{Callout, Host, Root, START};
use serde_json::json;

use crate::support::*;

const CRITICAL: u32 = 5;

/// What a client gets from a filter that has no valid configuration.
fn failure(host: &mut Host, root: Root) -> String {
    let stream = host.get(root, GIT);
    let reply = host.reply(stream);
    assert_eq!(reply.status, 500);
    String::from_utf8(reply.body).unwrap()
}

fn is_logged(host: &mut Host, root: Root, text: &str) -> bool {
    let log = host.log(root);
    log.iter()
        .any(|line| line.level == CRITICAL && line.message.contains(text))
}

#[test]
fn a_bad_configuration_is_taken_and_its_reason_told_to_log_and_clients() {
    let builder = json!({"cluster": "b", "token_env": "TOKEN"});
    let secret = json!([{"name": "project-x", "allow": ["a/"]}]);
    for (configuration, logged, told) in [
        (
            String::new(),
            "The configuration is a google.protobuf.StringValue",
            "an error at line 1 column 0",
        ),
        (
            "{}".to_owned(),
            "missing field `builder`",
            "missing field `builder`",
        ),
        (
            json!({"builder": {"cluster": "b", "token_env": "UNSET"}}).to_string(),
            "the variable UNSET holds no token",
            "the variable UNSET holds no token",
        ),
        (
            json!({"builder": builder, "hold_seconds": 30}).to_string(),
            "hold_seconds is 30",
            "hold_seconds is 30",
        ),
        (
            json!({"builder": builder, "hold_second": 3}).to_string(),
            "unknown field `hold_second`",
            "unknown field `hold_second`",
        ),
        (
            json!({"builder": builder, "policy": {"revision": "1", "default": "deny", "rules": secret}})
                .to_string(),
            "project-x",
            "policy is not valid",
        ),
    ] {
        let mut host = Host::new(&[("TOKEN", TOKEN)]);
        host.name_plugin("a");
        let root = host.start(&configuration);
        let log = host.log(root);
        assert!(is_logged(&mut host, root, logged), "{configuration}: {log:#?}");
        let failure = failure(&mut host, root);
        assert!(failure.contains(told), "{configuration}: {failure}");
        assert!(!failure.contains("project-x"), "{failure}");
        assert_eq!(host.metric(root, "nixgate_edge_configuration_refused.registry.a"), [1]);
        assert!(host.callouts().is_empty());

        // A valid one brings it to life.
        let root = host.update(root, CONFIGURATION);
        host.get(root, GIT);
        assert_eq!(host.callouts().len(), 1);
        assert_eq!(host.metric(root, "nixgate_edge_configuration_refused.registry.a"), [1, 0]);
    }
}

#[test]
fn the_last_valid_configuration_stays_in_force_also_for_vms_that_come_later() {
    let mut host = Host::new(&[("TOKEN", TOKEN)]);
    host.name_plugin("a");
    let old = host.start(&configured(json!({"builder": {"cluster": "other"}})));
    let bad = configured(json!({"hold_seconds": 99}));
    let updated = host.update(old, &bad);
    // As after the death of a VM.
    let replaced = host.start(&bad);
    for root in [updated, replaced] {
        assert!(is_logged(&mut host, root, "stays in force"));
        host.get(root, GIT);
        assert_eq!(host.callout().cluster, "other");
    }
    // Another plugin has nothing of it, and neither have two without a name.
    for name in ["b", ""] {
        host.name_plugin(name);
        let other = host.start(&bad);
        assert!(failure(&mut host, other).contains("hold_seconds is 99"));
    }
    host.name_plugin("");
    host.start(CONFIGURATION);
    let nameless = host.start(&bad);
    failure(&mut host, nameless);
}

#[test]
fn a_stored_configuration_that_somebody_changed_is_not_used() {
    let mut host = Host::new(&[("TOKEN", TOKEN)]);
    host.name_plugin("a");
    let root = host.start(CONFIGURATION);
    host.spoil_shared_data(b"\"cluster\": \"builder\"", b"\"cluster\": \"another\"");
    let root = host.update(root, "{}");
    failure(&mut host, root);
}

#[test]
fn two_registries_are_counted_apart_and_odd_names_break_no_statistic() {
    let mut host = Host::new(&[("TOKEN", TOKEN)]);
    for (name, label) in [("one", "one"), ("two.x y/é", "two_x_y__")] {
        host.name_plugin(name);
        let root = host.start(CONFIGURATION);
        host.get(root, "/v2/Git/manifests/latest");
        let name =
            format!("nixgate_edge_requests_total.registry.{label}.route.other.outcome.refused");
        assert_eq!(host.metric(root, &name), [1], "{name}");
    }
    host.name_plugin(&"x".repeat(1000));
    let root = host.start(CONFIGURATION);
    let name = format!("nixgate_edge_cache_slots.registry.{}", "x".repeat(64));
    assert_eq!(host.metric(root, &name), [0]);
}

#[test]
fn the_token_is_never_logged() {
    let (mut host, root) = edge();
    host.get(root, GIT);
    let callout = host.callout();
    host.respond(&callout, envoys_own(503));
    let log = host.log(root);
    assert!(!log.is_empty());
    assert!(
        log.iter().all(|line| !line.message.contains(TOKEN)),
        "{log:#?}"
    );
}

#[test]
fn requests_are_signed_by_the_builders_clock() {
    let (mut host, root) = edge();
    let token = |callout: &Callout| callout.header("nixgate-token").unwrap().to_owned();
    let stream = host.get(root, GIT);
    let callout = host.callout();
    let path = callout.header(":path").unwrap().to_owned();
    assert_eq!(token(&callout), signed("GET", &path, START));
    // The builder's clock is an hour ahead, and it says so.
    let ahead = START + 3600;
    let outdated = [
        ("nixgate-refuses", "time"),
        ("nixgate-time", &*ahead.to_string()),
    ];
    host.respond(&callout, builder(503, &outdated, b""));
    assert!(is_paused(&mut host, stream));
    host.advance(1);
    let again = host.callout();
    assert_eq!(token(&again), signed("GET", &path, ahead + 1));
    host.respond(&again, manifest(b"{}"));
    assert_eq!(host.reply(stream).status, 200);
    // What is no time changes nothing.
    for text in ["-5", "soon", "99999999999999999999999"] {
        host.get(root, "/v2/htop/manifests/latest");
        let callout = host.callout();
        let path = callout.header(":path").unwrap().to_owned();
        assert_eq!(token(&callout), signed("GET", &path, ahead + 1));
        host.respond(&callout, builder(503, &[("nixgate-time", text)], b"{}"));
    }
}

#[test]
fn a_request_keeps_the_configuration_with_which_it_came() {
    let (mut host, old) = edge();
    let before = host.get(old, GIT);
    let old_callout = host.callout();

    let other = configured(json!({"builder": {"cluster": "other"}}));
    let new = host.update(old, &other);
    let after = host.get(new, GIT);
    let new_callout = host.callout();
    assert_eq!(
        (old_callout.cluster.as_str(), new_callout.cluster.as_str()),
        ("builder", "other")
    );

    host.respond(&new_callout, manifest(b"new"));
    assert!(
        is_paused(&mut host, before),
        "its own callout is still under way"
    );
    host.respond(&old_callout, manifest(b"old"));
    assert_eq!(host.reply(before).body, b"old");
    assert_eq!(host.reply(after).body, b"new");

    // What one cluster answered is not served for another.
    let (before, after) = (host.get(old, GIT), host.get(new, GIT));
    assert_eq!(host.reply(before).body, b"old");
    assert_eq!(host.reply(after).body, b"new");
}
