//! Requests and flights, played through with a clock of our own.

mod answers;
mod catalog;
mod held;
mod policy;
mod protocol;

use super::*;
use crate::distribution::Digest;
use crate::wire;

fn config() -> Config {
    let json = br#"{"builder": {"cluster": "builder", "token_env": "T"}, "hold_seconds": 20}"#;
    Config::parse(json, |_| Some("secret".to_owned())).unwrap()
}

fn begin(method: &str, path: &str, now: Seconds) -> Begin {
    let request = Request {
        method,
        path,
        accept: vec!["*/*"],
        if_none_match: Vec::new(),
        caller: &Caller::default(),
    };
    Exchange::begin(&config(), &request, now)
}

fn ask(path: &str, now: Seconds) -> Box<Exchange> {
    match begin("GET", path, now) {
        Begin::Ask(exchange) => exchange,
        other => panic!("{path}: {other:?}"),
    }
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply
        .headers
        .iter()
        .find(|(header, _)| *header == name)
        .map(|(_, value)| value.as_str())
}

fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let headers = [(wire::BUILDER, "0.1.0")].iter().chain(headers);
    Response {
        status,
        headers: headers
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: body.to_vec(),
    }
}

fn manifest(body: &[u8], max_age: u64) -> Response {
    let (digest, age) = (Digest::of(body).to_string(), format!("max-age={max_age}"));
    let headers = [
        ("docker-content-digest", digest.as_str()),
        ("content-type", "application/vnd.oci.image.manifest.v1+json"),
        ("cache-control", age.as_str()),
    ];
    response(200, &headers, body)
}

/// Flights with the config and an answer to every call at hand.
#[derive(Default)]
struct Sky {
    flights: Flights<u32>,
    calls: u32,
}

impl Sky {
    fn on(&mut self, event: Event<u32>, now: Seconds) -> Vec<Command<u32>> {
        let commands = self.flights.on(&config(), event, now);
        for command in &commands {
            if let Command::Call(call) = command {
                self.calls += 1;
                let dispatched = Event::Dispatched {
                    key: call.key.clone(),
                    token: self.calls,
                };
                assert_eq!(self.flights.on(&config(), dispatched, now), []);
            }
        }
        commands
    }

    fn join(&mut self, stream: u32, path: &str, now: Seconds) -> Vec<Command<u32>> {
        self.on(
            Event::Joined {
                stream,
                exchange: ask(path, now),
            },
            now,
        )
    }

    fn answer(&mut self, response: Response, now: Seconds) -> Vec<Command<u32>> {
        self.on(
            Event::Answered {
                token: self.calls,
                response,
            },
            now,
        )
    }
}

fn statuses(commands: &[Command<u32>]) -> Vec<(u32, u16)> {
    commands
        .iter()
        .filter_map(|command| match command {
            Command::Reply(stream, reply) => Some((*stream, reply.status)),
            _ => None,
        })
        .collect()
}

const GIT: &str = "/v2/git/manifests/latest";
const GONE: &str = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"gone"}]}"#;
const REFUSAL: &[u8] = GONE.as_bytes();

#[test]
fn a_miss_becomes_one_call_with_everything_the_builder_needs() {
    let mut sky = Sky::default();
    let commands = sky.join(1, "/v2/shell/git/manifests/latest?ns=x", 100);
    let [Command::Call(call)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    let value = |name| {
        call.headers
            .iter()
            .find(|(header, _)| *header == name)
            .unwrap()
            .1
            .as_str()
    };
    assert_eq!(call.cluster, "builder");
    assert_eq!(call.timeout, 25);
    assert_eq!(
        value(":path"),
        "/v2/bashinteractive/cacert/coreutils/git/iana-etc/moreutils/nano/manifests/latest"
    );
    assert_eq!(value("nixgate-token"), "secret");
    assert_eq!(value("prefer"), "wait=20, similar-names");
    assert_eq!(value("accept"), MediaType::Oci.as_str());
}

#[test]
fn everyone_is_answered_by_one_call() {
    let mut sky = Sky::default();
    sky.join(1, GIT, 100);
    assert_eq!(sky.join(2, "/v2/git/cacert/manifests/latest", 101), []);
    let commands = sky.answer(manifest(b"{}", 300), 102);
    assert_eq!(statuses(&commands), [(1, 200), (2, 200)]);
    let Command::Store(key, entry) = &commands[0] else {
        panic!("{commands:?}")
    };
    assert_eq!((key, entry.expires), (ask(GIT, 0).key(), 402));
    assert_eq!(sky.calls, 1);
}

#[test]
fn what_was_stored_is_served_until_it_expires() {
    let mut sky = Sky::default();
    sky.join(1, GIT, 100);
    let mut commands = sky.answer(manifest(b"{}", 300), 100);
    let Command::Store(_, entry) = commands.remove(0) else {
        panic!()
    };
    let digest = Digest::of(b"{}").to_string();
    match ask(GIT, 399).looked_up(&config(), Some(entry.clone()), 399) {
        Next::Reply(reply) => {
            assert_eq!((reply.status, &*reply.body), (200, b"{}".as_slice()));
            assert_eq!(
                header(&reply, "docker-content-digest"),
                Some(digest.as_str())
            );
            assert_eq!(
                header(&reply, "etag"),
                Some(format!("\"{digest}\"").as_str())
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        ask(GIT, 400).looked_up(&config(), Some(entry), 400),
        Next::Join
    );
    assert_eq!(ask(GIT, 0).looked_up(&config(), None, 0), Next::Join);
}

fn old_document() -> Entry {
    Entry {
        learnt: 0,
        expires: 400,
        content: Content::Document {
            media_type: "application/json".to_owned(),
            digest: None,
            source: None,
            body: (*b"old").into(),
        },
        facts: String::new(),
    }
}

fn joined_after_expiry(entry: Entry) -> Event<u32> {
    let mut exchange = ask(GIT, entry.expires);
    assert_eq!(
        exchange.looked_up(&config(), Some(entry.clone()), entry.expires),
        Next::Join
    );
    Event::Joined {
        stream: 1,
        exchange,
    }
}

#[test]
fn an_old_document_is_served_when_the_builder_is_gone_and_only_then() {
    let document = old_document();
    for (answer, status, body) in [
        (Response::default(), 200, "old"),
        (manifest(b"new", 300), 200, "new"),
        (response(404, &[], REFUSAL), 404, GONE),
        (response(500, &[], REFUSAL), 500, GONE),
        (response(503, &[], REFUSAL), 200, "old"),
        (response(429, &[("retry-after", "7")], REFUSAL), 200, "old"),
    ] {
        let mut sky = Sky::default();
        sky.on(joined_after_expiry(document.clone()), 400);
        let commands = sky.answer(answer, 401);
        let Some(Command::Reply(1, reply)) = commands.last() else {
            panic!("{commands:?}")
        };
        assert_eq!((reply.status, &*reply.body), (status, body.as_bytes()));
    }

    let mut flights = Flights::default();
    flights.on(&config(), joined_after_expiry(document), 400);
    let key = ask(GIT, 0).key().clone();
    let commands = flights.on(&config(), Event::NotDispatched { key }, 400);
    assert_eq!(statuses(&commands), [(1, 200)]);
}

#[test]
fn what_is_no_document_is_never_served_after_its_time() {
    for content in [
        Content::Stream,
        Content::Redirect {
            location: "http://localhost/x".to_owned(),
        },
        Content::Refusal {
            status: 404,
            body: [].into(),
        },
    ] {
        let mut sky = Sky::default();
        let expires = 400;
        sky.on(
            joined_after_expiry(Entry {
                learnt: 0,
                expires,
                content,
                facts: String::new(),
            }),
            400,
        );
        assert_eq!(statuses(&sky.answer(Response::default(), 401)), [(1, 503)]);
    }
}

#[test]
fn a_blob_is_redirected_or_forwarded_as_the_builder_says() {
    let digest = Digest::of(b"layer");
    let path = format!("/v2/git/blobs/{digest}");
    let mut sky = Sky::default();
    let commands = sky.join(1, &path, 0);
    let [Command::Call(call)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert!(
        call.headers
            .contains(&(wire::PREFER, "wait=20, return=minimal".to_owned()))
    );
    let headers = [
        ("location", "http://localhost:9000/x?sig"),
        ("cache-control", "max-age=60"),
    ];
    let commands = sky.answer(response(307, &headers, b""), 1);
    assert!(
        matches!(commands.as_slice(), [Command::Store(..), Command::Reply(1, reply)]
        if header(reply, "location") == Some("http://localhost:9000/x?sig"))
    );

    let mut sky = Sky::default();
    sky.join(1, &path, 0);
    let commands = sky.answer(response(204, &[("cache-control", "max-age=60")], b""), 1);
    let forward = Forward {
        path: format!("/v2/cacert/git/iana-etc/blobs/{digest}"),
        original_path: path.clone(),
        record: Record {
            route: "blob",
            image: "cacert/git/iana-etc".into(),
            outcome: Outcome::Forwarded,
            judgement: None,
        },
    };
    assert!(
        matches!(commands.as_slice(), [Command::Store(..), Command::Forward(1, f)] if *f == forward)
    );
}

#[test]
fn a_presigned_location_serves_its_own_method_only() {
    let path = format!("/v2/git/blobs/{}", Digest::of(b""));
    let (Begin::Ask(get), Begin::Ask(head)) = (begin("GET", &path, 0), begin("HEAD", &path, 0))
    else {
        panic!()
    };
    assert_ne!(get.key(), head.key());
}

#[test]
fn what_was_done_is_noted() {
    let note = |commands: &[Command<u32>]| match commands.last() {
        Some(Command::Reply(_, reply)) => {
            let Record {
                route,
                image,
                outcome,
                judgement: None,
            } = &reply.record
            else {
                panic!("{reply:?}")
            };
            format!("{route} {image} {}", outcome.as_str())
        }
        other => panic!("{other:?}"),
    };
    let answered = |answer, now| {
        let mut sky = Sky::default();
        sky.join(1, GIT, 0);
        note(&sky.answer(answer, now))
    };
    for (answer, now, outcome) in [
        (manifest(b"{}", 300), 1, "miss"),
        (response(404, &[], REFUSAL), 1, "refused"),
        (
            response(429, &[("retry-after", "1")], REFUSAL),
            1,
            "refused",
        ),
        (Response::default(), 1, "failed"),
        (response(202, &[], b""), 20, "redirected"),
        (response(202, &[], b""), 200, "refused"),
    ] {
        let expected = format!("manifest cacert/git/iana-etc {outcome}");
        assert_eq!(answered(answer, now), expected);
    }

    let document = old_document();
    let mut sky = Sky::default();
    sky.on(joined_after_expiry(document.clone()), 400);
    let stale = note(&sky.answer(Response::default(), 401));
    assert_eq!(stale, "manifest cacert/git/iana-etc stale");

    let refusal = Entry {
        learnt: 0,
        expires: 400,
        content: Content::Refusal {
            status: 404,
            body: REFUSAL.into(),
        },
        facts: String::new(),
    };
    for (entry, outcome) in [(document, Outcome::Hit), (refusal, Outcome::Refused)] {
        match ask(GIT, 0).looked_up(&config(), Some(entry), 0) {
            Next::Reply(reply) => {
                let Record { route, image, .. } = &reply.record;
                assert_eq!((*route, &**image), ("manifest", "cacert/git/iana-etc"));
                assert_eq!(reply.record.outcome, outcome);
            }
            other => panic!("{other:?}"),
        }
    }
    for (path, outcome) in [("/v2/", Outcome::Answered), ("/v2/x", Outcome::Refused)] {
        match begin("GET", path, 0) {
            Begin::Reply(reply) => assert_eq!(reply.record, Record::other(outcome)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_call_that_the_host_refuses_answers_everyone() {
    let mut flights = Flights::default();
    for stream in [1, 2] {
        let exchange = ask(GIT, 0);
        flights.on(&config(), Event::Joined { stream, exchange }, 0);
    }
    let key = ask(GIT, 0).key().clone();
    let commands = flights.on(&config(), Event::NotDispatched { key }, 0);
    assert_eq!(statuses(&commands), [(1, 503), (2, 503)]);
}
