//! Flights: one callout per key and worker, and everyone who waits for it.
//!
//! ```text
//!   Joined ──► new key? ──yes──► Call ──► Dispatched ──► Answered ─┬─ final: Store, Reply to all
//!                 │ no            ▲           └ NotDispatched      ├─ failed: Reply to all
//!                 └► wait with    │                                └─ building: Reply to those
//!                    the others   └────── Tick ◄─── rest ◄────────    whose hold is over, Call
//!                                                        too early     again for the others
//! ```
//!
//! A client that leaves takes nobody else's answer with it: the callout belongs to the flight.
//! A flight without anyone waiting ends with its callout; the build itself goes on at the builder.
//!
//! A builder is asked to answer "still building" only when its wait is over. One that does so at
//! once, because it is overloaded or not what it should be, must not be asked again in a loop: the
//! callouts of a flight are at least a *pause* apart, 1 s at first and twice as much after every
//! answer that came too early. Until then the flight rests, and the shell has it looked after by
//! [`Event::Tick`].

use std::collections::BTreeMap;

use super::answer::{Answer, Response, unreachable};
use super::{Exchange, Forward, Next, Reply, Want};
use crate::Seconds;
use crate::cache::{Entry, Key};
use crate::config::Config;
use crate::distribution::{Digest, Error, ErrorKind};
use crate::wire;

/// For how much longer than its wait a callout may take, in seconds: the builder answers within
/// the wait, and then the answer has to arrive.
const CALLOUT_MARGIN: Seconds = 5;
/// The shortest time between two callouts of one flight, in seconds.
const FIRST_PAUSE: Seconds = 1;

/// A request to the builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The flight that it is for.
    pub key: Key,
    /// The Envoy cluster.
    pub cluster: String,
    /// All headers, pseudo-headers first.
    pub headers: Vec<(&'static str, String)>,
    /// After how many seconds the host gives up.
    pub timeout: Seconds,
}

/// What happened.
#[derive(Debug)]
pub enum Event<S> {
    /// A stream waits for the answer to its exchange.
    Joined {
        /// How the shell finds it again.
        stream: S,
        /// What it wants.
        exchange: Box<Exchange>,
    },
    /// A stream is no more.
    Left {
        /// Which one.
        stream: S,
    },
    /// The callout of a flight is on its way under this token.
    Dispatched {
        /// Which flight.
        key: Key,
        /// The host's name for the callout.
        token: u32,
    },
    /// The host refused the callout: no such cluster, or no healthy host in it.
    NotDispatched {
        /// Which flight.
        key: Key,
    },
    /// The response to a callout.
    Answered {
        /// The host's name for the callout.
        token: u32,
        /// What it brought.
        response: Response,
    },
    /// The response to a callout came, and the host did not hand it over: nothing is known of what
    /// the builder said.
    NotRead {
        /// The host's name for the callout.
        token: u32,
    },
    /// Time has passed; due each second while [`Flights::is_any_resting`].
    Tick,
}

/// What the shell has to do, in this order.
#[derive(Debug, PartialEq)]
pub enum Command<S> {
    /// Answer a stream.
    Reply(S, Reply),
    /// Let a stream continue to the builder.
    Forward(S, Forward),
    /// Keep an answer.
    Store(Key, Entry),
    /// Dispatch a callout, and report [`Event::Dispatched`] or [`Event::NotDispatched`].
    Call(Call),
}

struct Waiting<S> {
    stream: S,
    exchange: Box<Exchange>,
    /// Another policy has come since it asked.
    is_outdated: bool,
}

impl<S> Waiting<S> {
    const fn new(stream: S, exchange: Box<Exchange>) -> Self {
        Self {
            stream,
            exchange,
            is_outdated: false,
        }
    }
}

/// Everyone who waits for one answer.
struct Flight<S> {
    waiting: Vec<Waiting<S>>,
    /// The next callout is sent no earlier.
    next_call: Seconds,
    /// The shortest time between that one and the one after it.
    pause: Seconds,
    /// There is no callout; the build ran for so long when the last one was answered, in seconds.
    resting: Option<Seconds>,
}

/// All flights of one root context.
pub struct Flights<S> {
    flights: BTreeMap<Key, Flight<S>>,
    callouts: BTreeMap<u32, Key>,
}

impl<S> Default for Flights<S> {
    fn default() -> Self {
        Self {
            flights: BTreeMap::new(),
            callouts: BTreeMap::new(),
        }
    }
}

impl<S: Copy + PartialEq> Flights<S> {
    /// Takes note of an event and says what follows from it.
    pub fn on(&mut self, config: &Config, event: Event<S>, now: Seconds) -> Vec<Command<S>> {
        match event {
            Event::Joined { stream, exchange } => self.join(config, stream, exchange, now),
            Event::Left { stream } => {
                self.leave(stream);
                Vec::new()
            }
            Event::Dispatched { key, token } => {
                self.callouts.insert(token, key);
                Vec::new()
            }
            Event::NotDispatched { key } => self.fail(
                config,
                &key,
                &unreachable("no healthy builder is known"),
                now,
            ),
            Event::Answered { token, response } => match self.callouts.remove(&token) {
                Some(key) => self.answered(config, key, &response, now),
                None => Vec::new(),
            },
            Event::NotRead { token } => match self.callouts.remove(&token) {
                Some(key) => self.fail(config, &key, &not_read(), now),
                None => Vec::new(),
            },
            Event::Tick => self.tick(config, now),
        }
    }

    /// Another policy has come. Everyone who waits now is sent round again when the answer is
    /// there, to be judged by it: a request is judged wholly by one policy, and by none that is no
    /// longer in force.
    pub fn outdate(&mut self) {
        for flight in self.flights.values_mut() {
            for one in &mut flight.waiting {
                one.is_outdated = true;
            }
        }
    }

    /// Whether [`Event::Tick`] is needed.
    pub fn is_any_resting(&self) -> bool {
        self.flights.values().any(|flight| flight.resting.is_some())
    }

    fn join(
        &mut self,
        config: &Config,
        stream: S,
        exchange: Box<Exchange>,
        now: Seconds,
    ) -> Vec<Command<S>> {
        let key = exchange.key().clone();
        if let Some(flight) = self.flights.get_mut(&key) {
            flight.waiting.push(Waiting::new(stream, exchange));
            return Vec::new();
        }
        let wait = wait(config, exchange.deadline(config), now);
        let call = call(config, &exchange, wait);
        let flight = Flight {
            waiting: vec![Waiting::new(stream, exchange)],
            next_call: now.saturating_add(FIRST_PAUSE),
            pause: FIRST_PAUSE.saturating_mul(2),
            resting: None,
        };
        self.flights.insert(key, flight);
        vec![Command::Call(call)]
    }

    fn leave(&mut self, stream: S) {
        self.flights.retain(|_, flight| {
            flight.waiting.retain(|one| one.stream != stream);
            flight.resting.is_none() || !flight.waiting.is_empty()
        });
    }

    fn answered(
        &mut self,
        config: &Config,
        key: Key,
        response: &Response,
        now: Seconds,
    ) -> Vec<Command<S>> {
        // Everyone on a flight wants the same; without anyone there is nothing to judge it by.
        let Some(mut flight) = self.flights.remove(&key) else {
            return Vec::new();
        };
        let Some(first) = flight.waiting.first() else {
            return Vec::new();
        };
        match Answer::read(config, &first.exchange, response) {
            Answer::Building { for_seconds } => self.go_on(config, key, flight, for_seconds, now),
            Answer::Failed(error) => {
                end_without_answer(flight.waiting, config, &Reply::error(&error), now)
            }
            Answer::Later(reply) if reply.status == 429 => {
                // It is said to one rule of the policy: others may have a place in the queue.
                let refused = first.exchange.grantor(config);
                let (refused, others) = flight
                    .waiting
                    .into_iter()
                    .partition(|one| one.exchange.grantor(config) == refused);
                let mut commands = end_without_answer(refused, config, &reply, now);
                flight.waiting = others;
                commands.extend(self.go_on(config, key, flight, 0, now));
                commands
            }
            Answer::Later(reply) => end_without_answer(flight.waiting, config, &reply, now),
            ref answer @ Answer::Final {
                ref content,
                ref facts,
                ..
            } => {
                let mut commands: Vec<_> = answer
                    .entry(now)
                    .map(|entry| Command::Store(key, entry))
                    .into_iter()
                    .collect();
                commands.extend(flight.waiting.iter().filter_map(|one| {
                    if one.is_outdated {
                        let reply = one.exchange.send_round(config, 0, now);
                        return Some(Command::Reply(one.stream, reply));
                    }
                    match one.exchange.deliver(config, content, facts) {
                        Next::Reply(reply) => Some(Command::Reply(one.stream, reply)),
                        Next::Forward(forward) => Some(Command::Forward(one.stream, forward)),
                        Next::Join => None,
                    }
                }));
                commands
            }
        }
    }

    /// Answers those whose hold is over, and has the builder asked again for the others: now, or
    /// after the pause.
    fn go_on(
        &mut self,
        config: &Config,
        key: Key,
        mut flight: Flight<S>,
        building_for: Seconds,
        now: Seconds,
    ) -> Vec<Command<S>> {
        let (over, rest): (Vec<_>, Vec<_>) = flight
            .waiting
            .into_iter()
            .partition(|one| one.exchange.is_over(config, now));
        flight.waiting = rest;
        let mut commands: Vec<_> = over
            .iter()
            .map(|one| {
                Command::Reply(
                    one.stream,
                    one.exchange.send_round(config, building_for, now),
                )
            })
            .collect();
        let waiting = &flight.waiting;
        let deadline = waiting.iter().map(|one| one.exchange.deadline(config));
        if let (Some(first), Some(deadline)) = (waiting.first(), deadline.min()) {
            // No pause is longer than a hold: one that seems so began before the clock was set back.
            if (1..=config.hold).contains(&flight.next_call.saturating_sub(now)) {
                flight.resting = Some(building_for);
            } else {
                let wait = wait(config, deadline, now);
                commands.push(Command::Call(call(config, &first.exchange, wait)));
                if flight.resting.take().is_none() {
                    // This answer came in time, so the next one may again.
                    flight.pause = FIRST_PAUSE;
                }
                // An answer that takes all of its wait is never too early.
                flight.next_call = now.saturating_add(flight.pause.min(wait));
                flight.pause = flight.pause.saturating_mul(2);
            }
            self.flights.insert(key, flight);
        }
        commands
    }

    fn tick(&mut self, config: &Config, now: Seconds) -> Vec<Command<S>> {
        let resting: Vec<_> = self
            .flights
            .extract_if(.., |_, flight| flight.resting.is_some())
            .collect();
        let mut commands = Vec::new();
        for (key, flight) in resting {
            let building_for = flight.resting.unwrap_or(0);
            commands.extend(self.go_on(config, key, flight, building_for, now));
        }
        commands
    }

    fn fail(&mut self, config: &Config, key: &Key, error: &Error, now: Seconds) -> Vec<Command<S>> {
        let flight = self.flights.remove(key);
        flight.map_or_else(Vec::new, |flight| {
            end_without_answer(flight.waiting, config, &Reply::error(error), now)
        })
    }
}

fn end_without_answer<S: Copy>(
    waiting: Vec<Waiting<S>>,
    config: &Config,
    failure: &Reply,
    now: Seconds,
) -> Vec<Command<S>> {
    waiting
        .into_iter()
        .map(|one| {
            let reply = if one.is_outdated {
                one.exchange.send_round(config, 0, now)
            } else {
                one.exchange.without_answer(config, failure)
            };
            Command::Reply(one.stream, reply)
        })
        .collect()
}

fn not_read() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the builder's answer could not be read; the log of the registry's edge says why. Pull again",
    )
}

/// For how long the builder is to wait, so that it answers by the deadline.
fn wait(config: &Config, deadline: Seconds, now: Seconds) -> Seconds {
    deadline.saturating_sub(now).clamp(1, config.hold)
}

fn call(config: &Config, exchange: &Exchange, wait: Seconds) -> Call {
    let method = match &exchange.want {
        // A manifest's bytes are needed whatever the client asks: HEAD is answered with their length.
        Want::Manifest { .. } | Want::Tags | Want::Catalog => "GET",
        Want::Blob { method, .. } => method.as_str(),
    };
    let mut headers = vec![
        (":method", method.to_owned()),
        (":path", exchange.upstream_path()),
        (":authority", affinity(exchange)),
        (wire::TOKEN, config.token.clone()),
        (wire::PREFER, exchange.preferences(config, wait).header()),
    ];
    if let Some(rules) = config.fact_rules.header() {
        headers.push((wire::RULES, rules.to_owned()));
    }
    if let Some(rule) = exchange.grantor(config) {
        headers.push((wire::RULE, rule.to_owned()));
    }
    if let Want::Manifest { media_type, .. } = &exchange.want {
        headers.push(("accept", media_type.as_str().to_owned()));
    }
    Call {
        key: exchange.key().clone(),
        cluster: config.cluster.clone(),
        headers,
        timeout: wait.saturating_add(CALLOUT_MARGIN),
    }
}

/// The callout's `:authority`, by which Envoy's ring-hash clusters choose the builder: all
/// requests for one image go to one builder, where its build is shared.
fn affinity(exchange: &Exchange) -> String {
    let mut name = Digest::of(exchange.image().as_bytes()).hex();
    name.truncate(32);
    name.push_str(".image");
    name
}
