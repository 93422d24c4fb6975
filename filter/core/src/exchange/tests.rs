//! Requests and flights, played through with a clock of our own.

mod answers;
mod blobs;
mod calls;
mod catalog;
mod due;
mod held;
mod kept;
mod noted;
mod opaque;
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
        several_ranges: false,
        caller: &Caller::default(),
    };
    Exchange::begin(&config(), &request, now)
}

/// A plain `GET` of somebody, by a configuration, at the beginning of time.
fn begin_by(config: &Config, path: &str) -> Begin {
    let request = Request {
        method: "GET",
        path,
        accept: Vec::new(),
        if_none_match: Vec::new(),
        several_ranges: false,
        caller: &Caller::default(),
    };
    Exchange::begin(config, &request, 0)
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

/// Everything that follows from an event.
fn play(
    flights: &mut Flights<u32>,
    config: &Config,
    event: Event<u32>,
    now: Seconds,
) -> Vec<Command<u32>> {
    flights.on(config, event, now);
    std::iter::from_fn(|| flights.next(config, now)).collect()
}

/// Flights with the config and an answer to every call at hand.
#[derive(Default)]
struct Simulation {
    flights: Flights<u32>,
    calls: u32,
}

impl Simulation {
    fn on(&mut self, event: Event<u32>, now: Seconds) -> Vec<Command<u32>> {
        let commands = play(&mut self.flights, &config(), event, now);
        for command in &commands {
            if let Command::Call(call) = command {
                self.calls += 1;
                let dispatched = Event::Dispatched {
                    key: call.key.clone(),
                    token: self.calls,
                };
                assert_eq!(play(&mut self.flights, &config(), dispatched, now), []);
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

/// What is of no use but in place of no answer, from second 400 on.
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

/// A stream joins that has found this entry, at the end of its time.
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
