//! Configurations: refused with words, and kept apart when they follow each other.

use nixgate_tests::wasm_host::Host;
use serde_json::json;

use crate::support::*;

const CRITICAL: u32 = 5;

#[test]
fn a_bad_configuration_is_refused_with_the_reason_in_the_log() {
    for (configuration, reason) in [
        ("", "The configuration is a google.protobuf.StringValue"),
        ("{}", "missing field `builder`"),
        (
            r#"{"builder": {"cluster": "b", "token_env": "UNSET"}}"#,
            "the variable UNSET holds no token",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "hold_seconds": 30}"#,
            "hold_seconds is 30",
        ),
    ] {
        let mut host = Host::new(&[("TOKEN", TOKEN)]);
        let log = host.start(configuration).unwrap_err();
        let told = log
            .iter()
            .any(|line| line.level == CRITICAL && line.message.contains(reason));
        assert!(told, "{configuration}: {log:#?}");
    }
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
fn a_request_keeps_the_configuration_with_which_it_came() {
    let (mut host, old) = edge();
    let before = host.get(old, GIT);
    let old_callout = host.callout();

    let other = configured(json!({"builder": {"cluster": "other"}}));
    let new = host.update(old, &other).unwrap();
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
