//! Who gets which answer: by name, by facts, from the cache and after a build.

use std::collections::BTreeSet;

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
    json!([{"tags": [tag], "system": "x86_64-linux", "names": {}, "matched": matched}]).to_string()
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
    // The builder's own answer without them is a failure, and never kept.
    let mut flights = Flights::default();
    play(
        &mut flights,
        &config,
        joined(1, ask_as(&config, "data", GIT)),
        0,
    );
    play(
        &mut flights,
        &config,
        dispatched(ask_as(&config, "data", GIT)),
        0,
    );
    let response = manifest(b"{}", 300);
    let commands = play(
        &mut flights,
        &config,
        Event::Answered { token: 7, response },
        0,
    );
    assert_eq!(statuses(&commands), [(1, 503)]);
    assert_eq!(commands.len(), 1);
}

fn joined(stream: u32, exchange: Box<Exchange>) -> Event<u32> {
    Event::Joined { stream, exchange }
}

fn dispatched(exchange: Box<Exchange>) -> Event<u32> {
    Event::Dispatched {
        key: exchange.key().clone(),
        token: 7,
    }
}

fn answered(facts: &str) -> Event<u32> {
    let mut response = manifest(b"{}", 300);
    let facts = (wire::FACTS.to_owned(), facts.to_owned());
    response.headers.push(facts);
    Event::Answered { token: 7, response }
}

#[test]
fn those_who_wait_for_one_answer_are_judged_one_by_one() {
    let config = guarded(json!({}));
    let mut flights = Flights::default();
    let calls = play(
        &mut flights,
        &config,
        joined(1, ask_as(&config, "data", GIT)),
        0,
    );
    let [Command::Call(call)] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    let rules = (
        wire::RULES,
        r#"{"free":{"licences":["unfree"]}}"#.to_owned(),
    );
    assert!(call.headers.contains(&rules), "{:?}", call.headers);
    play(
        &mut flights,
        &config,
        dispatched(ask_as(&config, "data", GIT)),
        0,
    );
    play(
        &mut flights,
        &config,
        joined(2, ask_as(&config, "ops", GIT)),
        0,
    );
    let commands = play(
        &mut flights,
        &config,
        answered(&facts("latest", &["free"])),
        1,
    );
    assert_eq!(statuses(&commands), [(1, 403), (2, 200)]);
}

#[test]
fn the_builder_is_told_by_which_rule_the_first_of_them_came_in() {
    let config = guarded(json!({}));
    let rule_of = |commands: Vec<Command<u32>>| match commands.as_slice() {
        [Command::Call(call)] => {
            let mut headers = call.headers.iter();
            let rule = headers.find(|(name, _)| *name == wire::RULE);
            rule.map(|(_, rule)| rule.clone())
        }
        other => panic!("{other:?}"),
    };
    let digest = Digest::of(b"");
    for (path, team, expected) in [
        (GIT.to_owned(), "data", Some("data")),
        (GIT.to_owned(), "ops", Some("ops")),
        (format!("/v2/git/blobs/{digest}"), "data", Some("data")),
        ("/v2/cacert/manifests/latest".to_owned(), "web", None),
    ] {
        let mut flights = Flights::default();
        let calls = play(
            &mut flights,
            &config,
            joined(1, ask_as(&config, team, &path)),
            0,
        );
        assert_eq!(rule_of(calls).as_deref(), expected, "{team} {path}");
    }
    let mut flights = Flights::default();
    play(
        &mut flights,
        &config,
        joined(1, ask_as(&config, "data", GIT)),
        0,
    );
    play(
        &mut flights,
        &config,
        dispatched(ask_as(&config, "data", GIT)),
        0,
    );
    play(
        &mut flights,
        &config,
        joined(2, ask_as(&config, "ops", GIT)),
        0,
    );
    let response = response(202, &[], b"");
    let again = play(
        &mut flights,
        &config,
        Event::Answered { token: 7, response },
        5,
    );
    assert_eq!(rule_of(again).as_deref(), Some("data"));

    let json = json!({"policy": {"default": "allow"}});
    for config in [guarded(json), super::config()] {
        let mut flights = Flights::default();
        let calls = play(
            &mut flights,
            &config,
            joined(1, ask_as(&config, "ops", GIT)),
            0,
        );
        assert_eq!(rule_of(calls), None);
    }
}

#[test]
fn a_full_queue_is_told_to_those_of_the_rule_that_was_refused() {
    let config = guarded(json!({}));
    let mut flights = Flights::default();
    for (stream, team) in [(1, "data"), (2, "ops"), (3, "data")] {
        play(
            &mut flights,
            &config,
            joined(stream, ask_as(&config, team, GIT)),
            0,
        );
    }
    play(
        &mut flights,
        &config,
        dispatched(ask_as(&config, "data", GIT)),
        0,
    );
    let full = |token| Event::Answered {
        token,
        response: response(
            429,
            &[("retry-after", "7")],
            br#"{"errors": [{"code": "TOOMANYREQUESTS"}]}"#,
        ),
    };
    let mut commands = play(&mut flights, &config, full(7), 2);
    let Some(Command::Call(call)) = commands.pop() else {
        panic!("{commands:?}");
    };
    assert_eq!(statuses(&commands), [(1, 429), (3, 429)]);
    let ops = (wire::RULE, "ops".to_owned());
    assert!(call.headers.contains(&ops), "{:?}", call.headers);
    play(
        &mut flights,
        &config,
        dispatched(ask_as(&config, "ops", GIT)),
        2,
    );
    assert_eq!(
        statuses(&play(&mut flights, &config, full(7), 4)),
        [(2, 429)]
    );
    assert!(!flights.has_resting());
}

#[test]
fn under_a_policy_a_digests_facts_are_asked_for_again() {
    let json = br#"{"builder": {"cluster": "builder", "token_env": "T"}}"#;
    let free = Config::parse(json, |_| Some("s".to_owned())).unwrap();
    let path = format!("/v2/git/manifests/{}", Digest::of(b"{}"));
    for (config, expires) in [(guarded(json!({})), 301), (free, 31_536_001)] {
        let mut flights = Flights::default();
        play(
            &mut flights,
            &config,
            joined(1, ask_as(&config, "data", &path)),
            0,
        );
        play(
            &mut flights,
            &config,
            dispatched(ask_as(&config, "data", &path)),
            0,
        );
        let mut response = manifest(b"{}", 31_536_000);
        let facts = (wire::FACTS.to_owned(), facts("latest", &[]));
        response.headers.push(facts);
        let commands = play(
            &mut flights,
            &config,
            Event::Answered { token: 7, response },
            1,
        );
        let Some(Command::Store(_, entry)) = commands.first() else {
            panic!("{commands:?}");
        };
        assert_eq!(entry.expires, expires);
    }
}

#[test]
fn who_waited_while_the_policy_changed_is_sent_round_to_the_new_one() {
    let config = guarded(json!({}));
    let mut flights = Flights::default();
    play(
        &mut flights,
        &config,
        joined(1, ask_as(&config, "data", GIT)),
        0,
    );
    play(
        &mut flights,
        &config,
        dispatched(ask_as(&config, "data", GIT)),
        0,
    );
    flights.mark_outdated();
    play(
        &mut flights,
        &config,
        joined(2, ask_as(&config, "ops", GIT)),
        0,
    );
    let commands = play(&mut flights, &config, answered(&facts("latest", &[])), 1);
    assert_eq!(statuses(&commands), [(1, 307), (2, 200)]);
}

#[test]
fn a_stale_answer_is_judged_too() {
    let config = guarded(json!({}));
    for (team, expected) in [("data", 403), ("ops", 200)] {
        let mut exchange = ask_as(&config, team, GIT);
        let old = entry(&facts("latest", &["free"]));
        assert_eq!(exchange.looked_up(&config, Some(old), 500), Next::Join);
        let key = exchange.key().clone();
        let mut flights = Flights::default();
        play(&mut flights, &config, joined(1, exchange), 500);
        let commands = play(&mut flights, &config, Event::NotDispatched { key }, 500);
        assert_eq!(statuses(&commands), [(1, expected)]);
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

/// What is answered without a preparation.
fn unprepared(config: &Config, request: &Request<'_>, entry: &Entry) -> Reply {
    let mut exchange = match Exchange::begin(config, request, 0) {
        Begin::Reply(reply) => return reply,
        Begin::Ask(exchange) => exchange,
        other => panic!("{other:?}"),
    };
    match exchange.looked_up(config, Some(entry.clone()), 0) {
        Next::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_prepared_is_answered_as_without() {
    let document = |digest: Option<&str>| Content::Document {
        media_type: "application/json".to_owned(),
        digest: digest.map(str::to_owned),
        source: digest.map(|_| "git r".to_owned()),
        body: (*br#"{"name": "git", "tags": ["latest", "old"]}"#).into(),
    };
    let location = "https://s3".to_owned();
    let blob = format!("/v2/git/blobs/{}", Digest::of(b""));
    // Each with a team that may ask, for which it is prepared.
    let manifest = || document(Some("sha256:0"));
    let asked = [
        ("data", GIT, manifest()),
        ("ops", "/v2/git/manifests/old", manifest()),
        ("data", "/v2/git/htop/manifests/latest", manifest()),
        ("data", "/v2/git/tags/list?n=1", document(None)),
        ("data", &blob, Content::Redirect { location }),
    ];
    let configs = [
        config(),
        guarded(json!({})),
        guarded(json!({"shadow": {"revision": "r2", "default": "deny", "rules": rules()}})),
        guarded(json!({"policy": {"hide": true}})),
    ];
    let facts = [
        facts("latest", &[]),
        facts("old", &["free"]),
        facts("new", &["shadow:free"]),
        String::new(),
    ];
    let conditions = [vec![], vec![""], vec!["x", "\"sha256:0\""], vec!["*"]];
    let mut statuses = BTreeSet::new();
    for (config, (first, path, content)) in configs
        .iter()
        .flat_map(|config| asked.iter().map(move |one| (config, one)))
    {
        for facts in &facts {
            let entry = Entry {
                learnt: 0,
                expires: 10,
                content: content.clone(),
                facts: facts.clone(),
            };
            let first = ask_as(config, first, path);
            let prepared = first.prepare(config, &entry).unwrap();
            for team in [Some("data"), Some("ops"), Some("trial"), Some("web"), None] {
                for if_none_match in &conditions {
                    let request = Request {
                        method: "GET",
                        path,
                        accept: Vec::new(),
                        if_none_match: if_none_match.clone(),
                        several_ranges: false,
                        caller: &caller(team),
                    };
                    let expected = unprepared(config, &request, &entry);
                    statuses.insert(expected.status);
                    let answer = prepared.answer(config, request.caller, if_none_match);
                    assert_eq!(answer, expected, "{path} {team:?} {if_none_match:?}");
                }
            }
        }
    }
    assert_eq!(statuses, BTreeSet::from([200, 304, 307, 403, 404]));
}

#[test]
fn what_is_not_the_same_for_everybody_is_not_prepared() {
    let catalog = Config {
        catalog: true,
        ..config()
    };
    for (config, path, content) in [
        (&catalog, "/v2/_catalog", old_document().content),
        (&config(), GIT, Content::Stream),
        (
            &config(),
            GIT,
            Content::Refusal {
                status: 404,
                body: (*b"{}").into(),
            },
        ),
    ] {
        let entry = Entry {
            content,
            ..old_document()
        };
        let prepared = ask_as(config, "data", path).prepare(config, &entry);
        assert!(prepared.is_none(), "{path}");
    }
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
