//! Who may have what, by what the host knows of a caller.

use nixgate_core::policy;
use nixgate_tests::wasm_host::{Host, Outcome, Reply, Response, Root, Stream};
use serde_json::{Value, json};

use crate::support::*;

/// Has Envoy know the claim `groups` of the caller's token.
fn know(host: &mut Host, root: Root, groups: &Value) {
    let payload = json!({"jwt_payload": {"sub": "alice", "groups": groups}});
    let metadata = policy::metadata(&json!({"envoy.filters.http.jwt_authn": payload}));
    host.know(root, &["metadata"], Some(metadata));
}

fn configuration(revision: &str, rules: &Value) -> String {
    json!({
        "builder": {"cluster": "builder", "token_env": "TOKEN"},
        "policy": {"revision": revision, "default": "deny", "rules": rules},
    })
    .to_string()
}

fn guarded(rules: &Value) -> (Host, Root) {
    let mut host = Host::new(&[("TOKEN", TOKEN)]);
    let root = host.start(&configuration("r1", rules));
    (host, root)
}

fn only(subject: &Value) -> Value {
    json!([{"name": "team", "subject": subject, "allow": ["git"], "message": "Ask #platform."}])
}

fn ask(host: &mut Host, root: Root, headers: &[(&str, &str)]) -> Stream {
    let mut all = vec![
        (":method", "GET"),
        (":path", GIT),
        (":authority", "registry.corp:8443"),
        ("x-request-id", "d-1"),
    ];
    all.extend(headers);
    host.request(root, &all)
}

/// What came of a request: 200 stands for one that may be answered.
fn may(host: &mut Host, root: Root, headers: &[(&str, &str)]) -> bool {
    let stream = ask(host, root, headers);
    match host.outcome(stream) {
        Outcome::Paused => {
            host.leave(stream);
            for callout in host.callouts() {
                host.respond(&callout, envoys_own(503));
            }
            true
        }
        Outcome::Replied(Reply { status: 403, .. }) => false,
        other => panic!("{other:?}"),
    }
}

/// A manifest with facts.
fn judged(body: &[u8], tag: &str, matched: &[&str]) -> Response {
    let facts = json!([{"tags": [tag], "system": "x86_64-linux", "names": [], "matched": matched}]);
    let mut response = manifest(body);
    let facts = ("nixgate-facts".to_owned(), facts.to_string().into_bytes());
    response.headers.push(facts);
    response
}

#[test]
fn a_claim_is_of_the_kind_that_the_policy_names() {
    let claim = |kind: &str, glob: &str| {
        only(&json!({"jwt_claim": {"path": ["groups"], "type": kind, "glob": glob}}))
    };
    for (kind, glob, good, bad) in [
        (
            "list",
            "data-*",
            json!(["staff", "data-eng"]),
            [json!(["web"]), json!("data-eng"), json!({"data-eng": ""})],
        ),
        (
            "string",
            "*data*",
            json!("data-eng"),
            [json!("web"), json!(["data-eng"]), json!("data\0")],
        ),
    ] {
        let (mut host, root) = guarded(&claim(kind, glob));
        assert!(!may(&mut host, root, &[]), "nobody in particular");
        know(&mut host, root, &good);
        assert!(may(&mut host, root, &[]), "{good}");
        for bad in bad {
            know(&mut host, root, &bad);
            assert!(!may(&mut host, root, &[]), "{bad}");
        }
        for nothing in [&b""[..], b"\x0a", b"data-eng"] {
            host.know(root, &["metadata"], Some(nothing.to_vec()));
            assert!(!may(&mut host, root, &[]), "{nothing:?}");
        }
    }
}

#[test]
fn what_can_not_be_read_of_a_caller_refuses_and_is_counted() {
    let staff = json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": "staff"}});
    let counted = |host: &mut Host, root, why: &str| {
        let name = format!("nixgate_edge_unknown_subjects_total.why.{why}");
        host.metric(root, &name).len()
    };
    for subject in [staff.clone(), json!({"not": staff})] {
        let (mut host, root) = guarded(&json!([
            {"name": "all", "allow": ["*"]},
            {"name": "hard", "subject": subject, "deny": ["git"]},
        ]));
        assert!(!may(&mut host, root, &[]), "nobody in particular");
        let odd = [
            json!("staff"),
            json!({"staff": 1}),
            json!(7),
            json!(["web", 7]),
        ];
        for (index, groups) in odd.into_iter().enumerate() {
            know(&mut host, root, &groups);
            assert!(!may(&mut host, root, &[]), "{subject} {groups}");
            assert_eq!(
                counted(&mut host, root, "unreadable"),
                index + 1,
                "{groups}"
            );
        }
        assert_eq!(counted(&mut host, root, "absent"), 1);
        // One item that can be read says as much as it would alone.
        know(&mut host, root, &json!([7, "staff"]));
        assert_eq!(may(&mut host, root, &[]), subject.get("not").is_some());
        assert_eq!(counted(&mut host, root, "unreadable"), 4);
    }
}

#[test]
fn a_header_that_is_no_text_is_nobodys_and_refuses() {
    let team = |glob: &str| json!({"header": {"name": "x-team", "glob": glob}});
    let (mut host, root) = guarded(&json!([
        {"name": "all", "allow": ["git"]},
        {"name": "hard", "subject": team("data"), "deny": ["git"]},
    ]));
    assert!(may(&mut host, root, &[("x-team", "web")]));
    // As bytes that are no UTF-8 are handed over.
    for odd in ["data\u{fffd}", "\u{fffd}", "web\u{fffd}"] {
        assert!(!may(&mut host, root, &[("x-team", odd)]), "{odd}");
    }
    assert!(!may(
        &mut host,
        root,
        &[("x-team", "web"), ("x-team", "\u{fffd}")]
    ));
    let (mut host, root) = guarded(&only(&team("*")));
    assert!(!may(&mut host, root, &[("x-team", "data\u{fffd}")]));
}

#[test]
fn all_claims_of_a_request_are_read_by_one_call() {
    let claim = |name: &str| json!({"jwt_claim": {"path": [name], "type": "string", "glob": "x"}});
    let subject = json!({"any": [claim("sub"), claim("groups"), claim("iss")]});
    let (mut host, root) = guarded(&only(&subject));
    know(&mut host, root, &json!("x"));
    host.host_calls(root);
    assert!(may(&mut host, root, &[]));
    let calls = host.host_calls(root);
    let reads = calls.iter().filter(|call| **call == "proxy_get_property");
    assert_eq!(reads.count(), 1, "{calls:?}");
}

#[test]
fn every_other_attribute_is_read_where_envoy_has_it() {
    let (san, address) = (
        ["connection", "uri_san_peer_certificate"],
        ["source", "address"],
    );
    for (subject, path, good, bad) in [
        (
            json!({"uri_san": {"glob": "spiffe://corp/ns/data/*"}}),
            &san[..],
            "spiffe://corp/ns/data/sa/ci",
            "spiffe://corp/ns/web/sa/ci",
        ),
        (
            json!({"address": {"ranges": ["10.1.0.0/16", "fd00::/8"]}}),
            &address,
            "10.1.2.3:50000",
            "10.2.2.3:50000",
        ),
        (
            json!({"address": {"ranges": ["fd00::/8"]}}),
            &address,
            "[fd00::1]:50000",
            "[fe80::1]:50000",
        ),
    ] {
        let (mut host, root) = guarded(&only(&subject));
        assert!(!may(&mut host, root, &[]), "{subject}");
        for (value, allowed) in [(good, true), (bad, false)] {
            host.know(root, path, Some(value.as_bytes().to_vec()));
            assert_eq!(may(&mut host, root, &[]), allowed, "{subject} {value}");
        }
    }
    let (mut host, root) = guarded(&only(&json!({"host": {"glob": "registry.*"}})));
    assert!(may(&mut host, root, &[]));
    let (mut host, root) = guarded(&only(&json!({"host": {"glob": "other.*"}})));
    assert!(!may(&mut host, root, &[]));
    let (mut host, root) = guarded(&only(
        &json!({"header": {"name": "X-Team", "glob": "data"}}),
    ));
    assert!(may(
        &mut host,
        root,
        &[("x-team", "web"), ("x-team", "data")]
    ));
    assert!(!may(&mut host, root, &[("x-team", "data, web")]));
}

#[test]
fn a_refusal_is_told_logged_and_counted_and_nobody_is_asked() {
    let (mut host, root) = guarded(&only(&json!({"host": {"glob": "other.*"}})));
    let stream = ask(&mut host, root, &[]);
    let reply = host.reply(stream);
    assert_eq!(reply.status, 403);
    let body = String::from_utf8_lossy(&reply.body);
    for part in ["DENIED", "git (no rule allows it for you)", "d-1", "r1"] {
        assert!(body.contains(part), "{body}");
    }
    assert!(host.callouts().is_empty());
    let noted = |host: &mut Host, name| host.property(stream, name);
    assert_eq!(
        noted(&mut host, "nixgate.outcome").as_deref(),
        Some("denied")
    );
    assert_eq!(noted(&mut host, "nixgate.policy").as_deref(), Some("r1"));
    assert_eq!(
        noted(&mut host, "nixgate.image").as_deref(),
        Some("cacert/git/iana-etc")
    );
    for name in [
        "nixgate_edge_requests_total.route.manifest.outcome.denied",
        "nixgate_edge_judged_total.decision.denied.shadow.agrees",
    ] {
        assert_eq!(host.metric(root, name), [1], "{name}");
    }
}

#[test]
fn what_one_caller_was_answered_another_is_not() {
    let subject = json!({"header": {"name": "x-team", "glob": "data"}});
    let (mut host, root) = guarded(&only(&subject));
    let data = [("x-team", "data")];
    let first = ask(&mut host, root, &data);
    let callout = host.callout();
    host.respond(&callout, judged(b"{}", "latest", &[]));
    assert_eq!(host.reply(first).status, 200);
    for _ in 0..3 {
        let again = ask(&mut host, root, &data);
        assert_eq!(host.reply(again).status, 200);
        for other in [&[][..], &[("x-team", "web")]] {
            assert!(!may(&mut host, root, other));
        }
    }
    assert!(host.callouts().is_empty());
}

#[test]
fn a_hit_under_a_policy_costs_one_call_more_than_one_under_none() {
    let subject = json!({"header": {"name": "x-team", "glob": "data"}});
    let (mut host, root) = guarded(&only(&subject));
    let data = [("x-team", "data")];
    ask(&mut host, root, &data);
    let callout = host.callout();
    host.respond(&callout, judged(b"{}", "latest", &[]));
    ask(&mut host, root, &data);
    host.host_calls(root);
    ask(&mut host, root, &data);
    assert_eq!(
        host.host_calls(root),
        [
            "proxy_get_header_map_pairs",
            "proxy_set_property",
            "proxy_set_property",
            "proxy_set_property",
            "proxy_send_local_response"
        ]
    );
}

#[test]
fn another_caller_is_judged_without_the_shared_cache() {
    let subject = json!({"header": {"name": "x-team", "glob": "*a*"}});
    let (mut host, root) = guarded(&only(&subject));
    ask(&mut host, root, &[("x-team", "data")]);
    let callout = host.callout();
    host.respond(&callout, judged(b"{}", "latest", &[]));
    ask(&mut host, root, &[("x-team", "data")]);
    host.host_calls(root);
    for (headers, status) in [
        (&[("x-team", "analysis")][..], 200),
        (
            &[("x-team", "finance"), ("if-none-match", "\"sha256:0\"")],
            200,
        ),
        (&[("x-team", "finance"), ("if-none-match", "*")], 304),
    ] {
        let other = ask(&mut host, root, headers);
        assert_eq!(host.reply(other).status, status);
        assert_eq!(
            host.host_calls(root),
            [
                "proxy_get_header_map_pairs",
                "proxy_set_property",
                "proxy_set_property",
                "proxy_set_property",
                "proxy_send_local_response"
            ]
        );
    }
    for nobody in [&[][..], &[("x-team", "ops")]] {
        assert!(!may(&mut host, root, nobody));
    }
}

#[test]
fn facts_that_others_wrote_into_the_shared_cache_are_not_believed() {
    let rules = json!([
        {"name": "all", "allow": ["git"]},
        {"name": "free", "facts": {"licences": ["unfree"]}},
    ]);
    let (mut host, root) = guarded(&rules);
    let first = ask(&mut host, root, &[]);
    let callout = host.callout();
    assert_eq!(
        callout.header("nixgate-rules"),
        Some(r#"{"free":{"licences":["unfree"]}}"#)
    );
    host.respond(&callout, judged(b"{}", "latest", &["free"]));
    assert_eq!(host.reply(first).status, 403);
    assert!(
        !may(&mut host, root, &[]),
        "the cache knows that it is refused"
    );
    host.spoil_shared_data(br#"["free"]"#, br#"["flee"]"#);
    assert!(!may(&mut host, root, &[]), "the copy is the worker's own");
    host.advance(1);
    let spoiled = ask(&mut host, root, &[]);
    assert!(is_paused(&mut host, spoiled), "the builder is asked again");
}

#[test]
fn who_is_held_while_the_policy_changes_is_judged_by_the_new_one() {
    let subject = json!({"header": {"name": "x-team", "glob": "data"}});
    let (mut host, root) = guarded(&only(&subject));
    let data = [("x-team", "data")];
    let held = ask(&mut host, root, &data);
    let callout = host.callout();
    let stricter = configuration("r2", &json!([{"name": "none", "deny": ["git"]}]));
    let new = host.update(root, &stricter);
    host.respond(&callout, judged(b"{}", "latest", &[]));
    let reply = host.reply(held);
    assert_eq!(reply.status, 307);
    assert!(reply.header("location").unwrap().starts_with(GIT));
    assert!(!may(&mut host, new, &data));

    // The next change meets those who are held under the new one, and nobody twice.
    let back = host.update(new, &configuration("r3", &only(&subject)));
    let held = ask(&mut host, back, &data);
    let callout = host.callout();
    host.respond(&callout, judged(b"{}", "latest", &[]));
    assert_eq!(host.reply(held).status, 200);
}

#[test]
fn what_a_client_says_of_rules_reaches_no_builder() {
    let here = json!({"host": {"glob": "registry"}});
    let (mut host, root) = guarded(&json!([{"name": "all", "subject": here, "allow": ["git"]}]));
    let path = format!(
        "/v2/git/blobs/{}",
        nixgate_core::distribution::Digest::of(b"")
    );
    let headers = [
        (":method", "GET"),
        (":path", path.as_str()),
        (":authority", "registry"),
        ("nixgate-rules", "{}"),
        ("nixgate-denied", "git"),
        ("nixgate-rule", "another"),
    ];
    let stream = host.request(root, &headers);
    let callout = host.callout();
    assert_eq!(callout.header("nixgate-rules"), None);
    assert_eq!(callout.header("nixgate-denied"), None);
    assert_eq!(callout.header("nixgate-rule"), Some("all"));
    let facts = r#"[{"tags":["latest"],"system":"x86_64-linux","names":[],"matched":[]}]"#;
    host.respond(&callout, builder(204, &[("nixgate-facts", facts)], b""));
    let Outcome::Continued(headers) = host.outcome(stream) else {
        panic!("a blob that the builder streams is forwarded");
    };
    for name in ["nixgate-rules", "nixgate-denied", "nixgate-rule"] {
        assert!(!headers.iter().any(|(sent, _)| sent == name), "{name}");
    }
}
