//! Who gets which answer: by name, by facts, and from the cache.

mod flights;
mod prepared;

use serde_json::{Value, json};

use super::*;
use crate::policy::Known;

fn rules() -> Value {
    json!([
        {"name": "data", "allow": ["git", "htop"], "message": "Ask #platform.",
         "subject": {"header": {"name": "x-team", "glob": "data"}}},
        {"name": "free", "facts": {"licences": ["unfree"]},
         "subject": {"header": {"name": "x-team", "glob": "data"}}},
        {"name": "ops", "allow": ["git"], "tags": ["latest", "old"],
         "subject": {"header": {"name": "x-team", "glob": "ops"}}},
        {"name": "trial", "mode": "audit", "deny": ["git"],
         "subject": {"header": {"name": "x-team", "glob": "trial"}}},
    ])
}

fn guarded(more: Value) -> Config {
    let mut json = json!({
        "builder": {"cluster": "builder", "token_env": "T"},
        "policy": {"revision": "r1", "default": "deny", "rules": rules()},
    });
    for (key, value) in more.as_object().unwrap() {
        for (inner, value) in value.as_object().unwrap() {
            json[key][inner] = value.clone();
        }
    }
    Config::parse(json.to_string().as_bytes(), |_| Some("s".to_owned())).unwrap()
}

fn caller(team: Option<&str>) -> Caller {
    let known = team.map_or(Known::Unknown, |team| Known::Values(vec![team.to_owned()]));
    Caller {
        identity: vec![known.clone()],
        shadow: vec![known],
        decision: "d-1".to_owned(),
    }
}

fn begin_as(config: &Config, team: Option<&str>, path: &str) -> Begin {
    let request = Request {
        method: "GET",
        path,
        accept: Vec::new(),
        if_none_match: Vec::new(),
        several_ranges: false,
        caller: &caller(team),
    };
    Exchange::begin(config, &request, 0)
}

fn ask_as(config: &Config, team: &str, path: &str) -> Box<Exchange> {
    match begin_as(config, Some(team), path) {
        Begin::Ask(exchange) => exchange,
        other => panic!("{team} {path}: {other:?}"),
    }
}

fn facts(tag: &str, matched: &[&str]) -> String {
    json!([{"tags": [tag], "system": "x86_64-linux", "names": [], "matched": matched}]).to_string()
}

fn entry(facts: &str) -> Entry {
    Entry {
        facts: facts.to_owned(),
        ..old_document()
    }
}

fn status(next: Next) -> (u16, Outcome, String) {
    match next {
        Next::Reply(reply) => {
            let warning = header(&reply, "warning").unwrap_or_default().to_owned();
            (reply.status, reply.record.outcome, warning)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_name_forbids_is_refused_on_every_route_before_anything_is_asked() {
    let digest = Digest::of(b"");
    for route in [
        "manifests/latest".to_owned(),
        format!("manifests/{digest}"),
        format!("blobs/{digest}"),
        format!("referrers/{digest}"),
        "tags/list".to_owned(),
    ] {
        for (team, name) in [
            (None, "git"),
            (Some("web"), "git"),
            (Some("data"), "git/vim"),
            (Some("data"), "vim/git"),
            (Some("data"), "shell/git"),
            (Some("ops"), "htop"),
        ] {
            let config = guarded(json!({}));
            let path = format!("/v2/{name}/{route}");
            let Begin::Reply(reply) = begin_as(&config, team, &path) else {
                panic!("{team:?} may ask for {path}");
            };
            assert_eq!((reply.status, reply.record.outcome), (403, Outcome::Denied));
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            assert!(body.contains("DENIED") && body.contains("d-1"), "{body}");

            let hiding = guarded(json!({"policy": {"hide": true}}));
            let Begin::Reply(hidden) = begin_as(&hiding, team, &path) else {
                panic!("{team:?} may ask for {path}");
            };
            let body = String::from_utf8_lossy(&hidden.body).into_owned();
            assert_eq!(hidden.status, 404);
            assert!(body.contains("the package set has no"), "{body}");
            for word in ["d-1", "r1", "policy", "allowed", "data", "cacert"] {
                assert!(!body.contains(word), "{body}");
            }
        }
    }
}

#[test]
fn an_entry_that_one_caller_may_have_is_judged_again_for_the_next() {
    let config = guarded(json!({}));
    let unfree = entry(&facts("latest", &["free"]));
    for (team, name, expected) in [
        ("data", "git", 403),
        ("ops", "git", 200),
        ("trial", "git", 200),
    ] {
        let mut exchange = ask_as(&config, team, &format!("/v2/{name}/manifests/latest"));
        let (code, _, warning) = status(exchange.looked_up(&config, Some(unfree.clone()), 0));
        assert_eq!(code, expected, "{team}");
        assert_eq!(
            warning.contains("299 - \"will be refused"),
            team == "trial",
            "{warning}"
        );
    }
    let mut exchange = ask_as(&config, "data", GIT);
    let free = entry(&facts("latest", &[]));
    let (code, outcome, _) = status(exchange.looked_up(&config, Some(free), 0));
    assert_eq!((code, outcome), (200, Outcome::Hit));
}

#[test]
fn a_digest_is_judged_by_the_tags_that_lead_to_it() {
    let config = guarded(json!({}));
    let path = format!("/v2/git/manifests/{}", Digest::of(b"old"));
    for (team, tag, expected) in [
        ("data", "latest", 200),
        ("data", "old", 403),
        ("ops", "old", 200),
        ("ops", "older", 403),
    ] {
        let mut exchange = ask_as(&config, team, &path);
        let next = exchange.looked_up(&config, Some(entry(&facts(tag, &[]))), 0);
        assert_eq!(status(next).0, expected, "{team} {tag}");
    }
}

#[test]
fn without_facts_nothing_of_an_image_is_served() {
    let config = guarded(json!({}));
    for bad in ["", "[]", "x"] {
        let mut exchange = ask_as(&config, "data", GIT);
        let next = exchange.looked_up(&config, Some(entry(bad)), 0);
        assert_eq!(status(next).0, 403, "{bad}");
    }
}

#[test]
fn a_policy_on_trial_changes_no_answer_and_is_compared() {
    let shadow = json!({"shadow": {"revision": "r2", "default": "deny", "rules": [
        {"name": "data", "allow": ["git", "htop"]},
        {"name": "free", "facts": {"licences": ["unfree"]}},
    ]}});
    let config = guarded(shadow);
    assert_eq!(
        config.fact_rules.header(),
        Some(r#"{"free":{"licences":["unfree"]},"shadow:free":{"licences":["unfree"]}}"#)
    );
    let differs = |team: &str, matched: &[&str]| {
        let mut exchange = ask_as(&config, team, GIT);
        match exchange.looked_up(&config, Some(entry(&facts("latest", matched))), 0) {
            Next::Reply(reply) => {
                let judgement = reply.record.judgement.unwrap();
                (reply.status, judgement.shadow_differs)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(differs("data", &[]), (200, false));
    assert_eq!(differs("data", &["free", "shadow:free"]), (403, false));
    assert_eq!(differs("ops", &["free", "shadow:free"]), (200, true));
    assert_eq!(differs("ops", &["free"]), (200, false));
    let Begin::Reply(refused) = begin_as(&config, Some("web"), GIT) else {
        panic!("web may not have git");
    };
    assert!(refused.record.judgement.unwrap().shadow_differs);
}

#[test]
fn two_callers_are_never_one() {
    let values = |values: &[&str]| {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        Caller {
            identity: vec![Known::Values(values)],
            ..Caller::default()
        }
    };
    let callers = [
        Caller::default(),
        Caller {
            identity: vec![Known::Unknown],
            ..Caller::default()
        },
        values(&[]),
        values(&["a"]),
        values(&["a", "b"]),
        values(&["a 1 b"]),
        values(&["?"]),
        Caller {
            identity: vec![Known::UNREADABLE],
            ..Caller::default()
        },
        Caller {
            identity: vec![Known::Partly(vec!["a".to_owned()])],
            ..Caller::default()
        },
    ];
    for (index, one) in callers.iter().enumerate() {
        for other in callers.iter().skip(index + 1) {
            assert_ne!(one.key(), other.key(), "{one:?} {other:?}");
        }
    }
    // Another decision is no other caller.
    let mut again = values(&["a"]);
    again.decision = "d-2".to_owned();
    assert_eq!(again.key(), values(&["a"]).key());
}

#[test]
fn who_may_know_of_other_packages_is_not_for_the_builder_to_say() {
    let prefers = |config: &Config, path: &str| {
        let exchange = ask_as(config, "data", path);
        exchange.preferences(config, 20).header()
    };
    let path = "/v2/git/manifests/latest";
    assert_eq!(prefers(&guarded(json!({})), path), "wait=20");
    assert_eq!(prefers(&config(), path), "wait=20, similar-names");
    assert_eq!(prefers(&config(), "/v2/git/tags/list"), "wait=20");
}
