//! Answers that are prepared for all callers.

use std::collections::BTreeSet;

use super::*;

/// The answer without a preparation.
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
