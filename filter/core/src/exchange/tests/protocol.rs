//! What a client sees: every route, conditions, old answers, names below a prefix.

use serde_json::Value;

use super::*;
use crate::requests::{Answer as Expected, Case, requests};

fn code(reply: &Reply) -> Option<String> {
    let body: Value = serde_json::from_slice(&reply.body).ok()?;
    Some(body["errors"][0]["code"].as_str()?.to_owned())
}

#[test]
fn every_request_is_answered_as_the_table_says() {
    for Case {
        method,
        path,
        answer,
    } in requests()
    {
        let methods = if method == "GET" {
            &["GET", "HEAD"][..]
        } else {
            &[method]
        };
        for method in methods {
            match (begin(method, &path, 0), answer) {
                (Begin::PassThrough, Expected::Elsewhere) => {}
                (Begin::Ask(_), Expected::Builder(..)) => {}
                (Begin::Reply(reply), Expected::Edge(status, expected)) => {
                    let expected = expected.map(|code| code.as_str().to_owned());
                    assert_eq!((reply.status, code(&reply)), (status, expected), "{path}");
                    assert!(header(&reply, "content-type").unwrap().ends_with("json"));
                    assert_eq!(header(&reply, "allow").is_some(), status == 405);
                }
                (begin, expected) => panic!("{method} {path}: {begin:?}, not {expected:?}"),
            }
        }
    }
}

#[test]
fn a_list_of_referrers_is_an_empty_index() {
    let path = format!("/v2/git/referrers/{}", Digest::of(b""));
    let Begin::Reply(reply) = begin("GET", &path, 0) else {
        panic!()
    };
    let index: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(header(&reply, "content-type"), index["mediaType"].as_str());
    assert_eq!(index["manifests"], Value::Array(Vec::new()));
}

fn kept(digest: Option<Digest>, body: &[u8], expires: Seconds) -> Entry {
    let content = Content::Document {
        media_type: "application/json".to_owned(),
        digest: digest.map(|digest| digest.to_string()),
        source: None,
        body: body.into(),
    };
    Entry {
        learnt: 0,
        expires,
        content,
        facts: String::new(),
    }
}

fn ask_with(config: &Config, path: &str, if_none_match: &str, now: Seconds) -> Box<Exchange> {
    let request = Request {
        method: "GET",
        path,
        accept: Vec::new(),
        if_none_match: vec![if_none_match],
        several_ranges: false,
        caller: &Caller::default(),
    };
    match Exchange::begin(config, &request, now) {
        Begin::Ask(exchange) => exchange,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn who_has_the_manifest_is_told_so_on_a_hit_and_after_a_build() {
    let digest = Digest::of(b"{}");
    let etag = format!("\"{digest}\"");
    for (condition, status) in [
        (etag.as_str(), 304),
        ("*", 304),
        (&format!("\"x\", W/{etag}"), 304),
        ("\"x\"", 200),
    ] {
        let exchange = || ask_with(&config(), GIT, condition, 100);
        let hit = exchange().looked_up(&config(), Some(kept(Some(digest), b"{}", 400)), 100);
        let Next::Reply(hit) = hit else {
            panic!("{hit:?}")
        };

        let mut simulation = Simulation::default();
        let exchange = exchange();
        simulation.on(
            Event::Joined {
                stream: 1,
                exchange,
            },
            100,
        );
        let commands = simulation.answer(manifest(b"{}", 300), 101);
        let Some(Command::Reply(1, built)) = commands.last() else {
            panic!("{commands:?}")
        };

        for reply in [&hit, built] {
            assert_eq!(reply.status, status, "{condition}");
            assert_eq!(reply.body.is_empty(), status == 304);
            assert_eq!(header(reply, "etag"), Some(etag.as_str()));
            let identity = digest.to_string();
            assert_eq!(
                header(reply, "docker-content-digest"),
                Some(identity.as_str())
            );
        }
    }
}

#[test]
fn a_condition_says_nothing_of_what_is_no_manifest() {
    let mut exchange = ask_with(&config(), "/v2/git/tags/list", "*", 0);
    let list = kept(None, br#"{"tags":["latest"]}"#, 400);
    assert!(matches!(
        exchange.looked_up(&config(), Some(list), 0),
        Next::Reply(reply) if reply.status == 200
    ));
    let mut exchange = ask_with(&config(), GIT, "*", 0);
    let refusal = Entry {
        learnt: 0,
        expires: 400,
        content: Content::Refusal {
            status: 404,
            body: (*b"{}").into(),
        },
        facts: String::new(),
    };
    assert!(matches!(
        exchange.looked_up(&config(), Some(refusal), 0),
        Next::Reply(reply) if reply.status == 404
    ));
}

const DAY: Seconds = 24 * 60 * 60;

#[test]
fn an_old_manifest_is_marked_and_served_for_a_day() {
    let digest = Digest::of(b"{}");
    for (age, condition, status, warned) in [
        (0, "", 200, true),
        (DAY - 1, "", 200, true),
        (DAY - 1, "*", 304, true),
        (DAY, "", 503, false),
        (10 * DAY, "*", 503, false),
    ] {
        let now = 400 + age;
        let mut exchange = ask_with(&config(), GIT, condition, now);
        let entry = kept(Some(digest), b"{}", 400);
        assert_eq!(exchange.looked_up(&config(), Some(entry), now), Next::Join);
        let mut simulation = Simulation::default();
        simulation.on(
            Event::Joined {
                stream: 1,
                exchange,
            },
            now,
        );
        let commands = simulation.answer(Response::default(), now + 1);
        let [Command::Reply(1, reply)] = commands.as_slice() else {
            panic!("{commands:?}")
        };
        assert_eq!(reply.status, status, "{age}");
        let warning = header(reply, "warning");
        assert_eq!(warning == Some("110 - \"Response is Stale\""), warned);
    }
}

#[test]
fn a_list_of_tags_is_kept_whole_and_cut_for_each_client() {
    let list = br#"{"name":"x","tags":["v1","latest","v2"]}"#;
    let mut simulation = Simulation::default();
    let paths = ["/v2/git/tags/list?n=1", "/v2/git/cacert/tags/list?last=v1"];
    for (stream, path) in (1..).zip(paths) {
        simulation.join(stream, path, 0);
    }
    let age = ("cache-control", "max-age=300");
    let commands = simulation.answer(response(200, &[age], list), 1);
    let [
        Command::Store(key, entry),
        Command::Reply(1, first),
        Command::Reply(2, second),
    ] = commands.as_slice()
    else {
        panic!("{commands:?}")
    };
    assert_eq!(*first.body, *br#"{"name":"git","tags":["latest"]}"#);
    assert_eq!(
        header(first, "link"),
        Some("</v2/git/tags/list?n=1&last=latest>; rel=\"next\"")
    );
    assert_eq!(*second.body, *br#"{"name":"git/cacert","tags":["v2"]}"#);

    let mut later = ask("/v2/git/tags/list?last=v2", 2);
    assert_eq!(later.key(), key);
    let hit = later.looked_up(&config(), Some(entry.clone()), 2);
    assert!(
        matches!(&hit, Next::Reply(reply) if *reply.body == *br#"{"name":"git","tags":[]}"#),
        "{hit:?}"
    );
}

#[test]
fn below_a_prefix_clients_keep_their_names_and_the_builder_its_own() {
    let json =
        br#"{"builder": {"cluster": "builder", "token_env": "T"}, "name_prefix": "corp/nix"}"#;
    let config = Config::parse(json, |_| Some("secret".to_owned())).unwrap();
    let path = "/v2/corp/nix/git/manifests/latest?ns=x";
    let exchange = ask_with(&config, path, "", 100);
    // Configurations share nothing, even with one builder.
    assert_ne!(exchange.key(), ask(GIT, 100).key());

    let mut flights = Flights::default();
    let joined = Event::Joined {
        stream: 1,
        exchange,
    };
    let commands = play(&mut flights, &config, joined, 100);
    let [Command::Call(call)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    let canonical = "/v2/cacert/git/iana-etc/manifests/latest".to_owned();
    assert!(call.headers.contains(&(":path", canonical)), "{call:?}");

    let key = call.key.clone();
    play(
        &mut flights,
        &config,
        Event::Dispatched { key, token: 1 },
        100,
    );
    let response = response(202, &[], b"");
    let commands = play(
        &mut flights,
        &config,
        Event::Answered { token: 1, response },
        120,
    );
    let [Command::Reply(1, reply)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!(
        header(reply, "location"),
        Some("/v2/corp/nix/git/manifests/latest?ns=x&nixgate-since=64")
    );

    for (method, path) in [
        ("GET", "/v2/git/manifests/latest"),
        ("GET", "/v2/_catalog"),
        ("POST", "/v2/corp/nixos/blobs/uploads/"),
        ("PUT", "/v2/other/manifests/latest"),
    ] {
        let request = Request {
            method,
            path,
            accept: Vec::new(),
            if_none_match: Vec::new(),
            several_ranges: false,
            caller: &Caller::default(),
        };
        assert_eq!(Exchange::begin(&config, &request, 0), Begin::PassThrough);
    }
}
