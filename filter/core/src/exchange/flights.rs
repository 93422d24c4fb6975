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
//!
//! # One command at a time
//!
//! Thousands may wait for one answer, and a proxy-wasm host can end only some hundred streams for
//! one callback before the VM's stack is used up. So an event only makes commands *due*, and the
//! shell takes them one by one ([`Flights::next`]), as many as it can carry out now:
//!
//! ```text
//!   on(event) ──► flights ──► due: Store, Call, Land { waiting, landing } ──► next() ──► one command
//! ```
//!
//! A reply is made when it is taken. So no callback makes thousands of them, and a policy that comes
//! between answer and reply is obeyed.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::answer::{Answer, Response, unreachable};
use super::by_stream::ByStream;
use super::{Exchange, Forward, Next, Reply, Want};
use crate::Seconds;
use crate::cache::{Content, Entry, Key};
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
    /// A stream is no more. Each that has joined leaves in the end, answered or not.
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
    /// A second has passed.
    Tick,
}

/// What the shell has to do.
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

struct Waiting {
    exchange: Box<Exchange>,
    /// Another policy has come since it asked.
    is_outdated: bool,
}

/// Everyone who waits for one answer.
struct Flight<S> {
    waiting: ByStream<S, Waiting>,
    /// The next callout is sent no earlier.
    next_call: Seconds,
    /// The shortest time between that one and the one after it.
    pause: Seconds,
    /// There is no callout; the build ran for so long when the last one was answered, in seconds.
    resting: Option<Seconds>,
}

/// What those get whose wait is over.
enum Landing {
    /// The builder's answer, and what it said of the images.
    Content { content: Content, facts: String },
    /// There is none: the failure, or what is stale instead.
    Failure(Reply),
    /// Their hold is over; the build has run for so long, in seconds.
    SendRound(Seconds),
}

impl Landing {
    /// The command for one who waited. None for content that does not answer what it wants.
    fn command<S>(
        &self,
        config: &Config,
        stream: S,
        one: &Waiting,
        now: Seconds,
    ) -> Option<Command<S>> {
        let exchange = &one.exchange;
        let reply = match self {
            Self::SendRound(building_for) => exchange.send_round(config, *building_for, now),
            _ if one.is_outdated => exchange.send_round(config, 0, now),
            Self::Failure(failure) => exchange.without_answer(config, failure),
            Self::Content { content, facts } => match exchange.deliver(config, content, facts) {
                Next::Reply(reply) => reply,
                Next::Forward(forward) => return Some(Command::Forward(stream, forward)),
                Next::Join => return None,
            },
        };
        Some(Command::Reply(stream, reply))
    }
}

/// What the shell has not taken yet.
enum Due<S> {
    Store(Key, Entry),
    Call(Call),
    Land {
        /// The first comes last.
        waiting: Vec<(S, Waiting)>,
        landing: Landing,
    },
}

/// All flights of one root context.
pub struct Flights<S> {
    flights: BTreeMap<Rc<Key>, Flight<S>>,
    callouts: BTreeMap<u32, Key>,
    /// The flight of each stream that waits, so that who leaves is found among thousands.
    streams: ByStream<S, Rc<Key>>,
    due: VecDeque<Due<S>>,
}

impl<S> Default for Flights<S> {
    fn default() -> Self {
        Self {
            flights: BTreeMap::new(),
            callouts: BTreeMap::new(),
            streams: ByStream::default(),
            due: VecDeque::new(),
        }
    }
}

impl<S: Copy + Ord> Flights<S> {
    /// Takes note of an event. What follows from it is due: [`Flights::next`].
    pub fn on(&mut self, config: &Config, event: Event<S>, now: Seconds) {
        match event {
            Event::Joined { stream, exchange } => self.join(config, stream, exchange, now),
            Event::Left { stream } => self.leave(stream),
            Event::Dispatched { key, token } => {
                self.callouts.insert(token, key);
            }
            Event::NotDispatched { key } => {
                self.fail(&key, &unreachable("no healthy builder is known"));
            }
            Event::Answered { token, response } => {
                if let Some(key) = self.callouts.remove(&token) {
                    self.answered(config, &key, &response, now);
                }
            }
            Event::NotRead { token } => {
                if let Some(key) = self.callouts.remove(&token) {
                    self.fail(&key, &not_read());
                }
            }
            Event::Tick => self.tick(config, now),
        }
    }

    /// The next command, if one is due. Each ends or continues one stream at most, and makes one
    /// callout at most.
    pub fn next(&mut self, config: &Config, now: Seconds) -> Option<Command<S>> {
        loop {
            match self.due.pop_front()? {
                Due::Store(key, entry) => return Some(Command::Store(key, entry)),
                Due::Call(call) => return Some(Command::Call(call)),
                Due::Land {
                    mut waiting,
                    landing,
                } => {
                    let Some((stream, one)) = waiting.pop() else {
                        continue;
                    };
                    let command = landing.command(config, stream, &one, now);
                    if !waiting.is_empty() {
                        self.due.push_front(Due::Land { waiting, landing });
                    }
                    if command.is_some() {
                        return command;
                    }
                }
            }
        }
    }

    /// Whether [`Flights::next`] has something.
    pub fn is_any_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Another policy has come. Everyone who waits now is sent round again when the answer is
    /// there, to be judged by it: a request is judged wholly by one policy, and by none that is no
    /// longer in force.
    pub fn outdate(&mut self) {
        for flight in self.flights.values_mut() {
            for one in flight.waiting.values_mut() {
                one.is_outdated = true;
            }
        }
        for due in &mut self.due {
            if let Due::Land { waiting, .. } = due {
                for (_, one) in waiting {
                    one.is_outdated = true;
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_any_waiting(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Whether nothing is known of any stream, and nothing is due.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.streams.is_empty() && self.due.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_any_resting(&self) -> bool {
        self.flights.values().any(|flight| flight.resting.is_some())
    }

    fn join(&mut self, config: &Config, stream: S, exchange: Box<Exchange>, now: Seconds) {
        let one = Waiting {
            exchange,
            is_outdated: false,
        };
        let known = self.flights.get_key_value(one.exchange.key());
        let key = known.map_or_else(
            || Rc::new(one.exchange.key().clone()),
            |(key, _)| Rc::clone(key),
        );
        self.streams.insert(stream, Rc::clone(&key));
        if let Some(flight) = self.flights.get_mut(&key) {
            flight.waiting.insert(stream, one);
            return;
        }
        let wait = wait(config, one.exchange.deadline(config), now);
        self.due
            .push_back(Due::Call(call(config, &one.exchange, wait)));
        let mut waiting = ByStream::default();
        waiting.insert(stream, one);
        let flight = Flight {
            waiting,
            next_call: now.saturating_add(FIRST_PAUSE),
            pause: FIRST_PAUSE.saturating_mul(2),
            resting: None,
        };
        self.flights.insert(key, flight);
    }

    /// Who has left after the landing began is told nothing by the shell, which notices.
    fn leave(&mut self, stream: S) {
        let Some(key) = self.streams.remove(stream) else {
            return;
        };
        let Some(flight) = self.flights.get_mut(&key) else {
            return;
        };
        flight.waiting.remove(stream);
        if flight.resting.is_some() && flight.waiting.is_empty() {
            self.flights.remove(&key);
        }
    }

    /// Everyone in `waiting` gets this.
    fn land(&mut self, waiting: ByStream<S, Waiting>, landing: Landing) {
        if !waiting.is_empty() {
            let waiting = waiting.into_reversed();
            self.due.push_back(Due::Land { waiting, landing });
        }
    }

    fn answered(&mut self, config: &Config, key: &Key, response: &Response, now: Seconds) {
        let Some((key, mut flight)) = self.flights.remove_entry(key) else {
            return;
        };
        // Everyone on a flight wants the same; without anyone there is nothing to judge it by.
        let Some(first) = flight.waiting.values().next() else {
            return;
        };
        let answer = Answer::read(config, &first.exchange, response);
        let entry = answer.entry(now);
        match answer {
            Answer::Building { for_seconds } => self.go_on(config, key, flight, for_seconds, now),
            Answer::Failed(error) => {
                self.land(flight.waiting, Landing::Failure(Reply::error(&error)));
            }
            Answer::Later(reply) if reply.status == 429 => {
                // It is said to one rule of the policy: others may have a place in the queue.
                let refused = first.exchange.grantor(config);
                let (refused, others) = flight
                    .waiting
                    .partition(|one| one.exchange.grantor(config) == refused);
                self.land(refused, Landing::Failure(reply));
                flight.waiting = others;
                self.go_on(config, key, flight, 0, now);
            }
            Answer::Later(reply) => self.land(flight.waiting, Landing::Failure(reply)),
            Answer::Final { content, facts, .. } => {
                if let Some(entry) = entry {
                    self.due.push_back(Due::Store(Key::clone(&key), entry));
                }
                self.land(flight.waiting, Landing::Content { content, facts });
            }
        }
    }

    /// Answers those whose hold is over, and has the builder asked again for the others: now, or
    /// after the pause.
    fn go_on(
        &mut self,
        config: &Config,
        key: Rc<Key>,
        mut flight: Flight<S>,
        building_for: Seconds,
        now: Seconds,
    ) {
        let (over, rest) = flight
            .waiting
            .partition(|one| one.exchange.is_over(config, now));
        self.land(over, Landing::SendRound(building_for));
        let deadlines = rest.values().map(|one| one.exchange.deadline(config));
        let (first, deadline) = (rest.values().next(), deadlines.min());
        if let (Some(first), Some(deadline)) = (first, deadline) {
            // No pause is longer than a hold: one that seems so began before the clock was set back.
            if (1..=config.hold).contains(&flight.next_call.saturating_sub(now)) {
                flight.resting = Some(building_for);
            } else {
                let wait = wait(config, deadline, now);
                self.due
                    .push_back(Due::Call(call(config, &first.exchange, wait)));
                if flight.resting.take().is_none() {
                    // This answer came in time, so the next one may again.
                    flight.pause = FIRST_PAUSE;
                }
                // An answer that takes all of its wait is never too early.
                flight.next_call = now.saturating_add(flight.pause.min(wait));
                flight.pause = flight.pause.saturating_mul(2);
            }
            flight.waiting = rest;
            self.flights.insert(key, flight);
        }
    }

    fn tick(&mut self, config: &Config, now: Seconds) {
        let resting: Vec<_> = self
            .flights
            .extract_if(.., |_, flight| flight.resting.is_some())
            .collect();
        for (key, flight) in resting {
            let building_for = flight.resting.unwrap_or(0);
            self.go_on(config, key, flight, building_for, now);
        }
    }

    fn fail(&mut self, key: &Key, error: &Error) {
        if let Some(flight) = self.flights.remove(key) {
            self.land(flight.waiting, Landing::Failure(Reply::error(error)));
        }
    }
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
    if !exchange.caller.decision.is_empty() {
        headers.push((wire::REQUEST_ID, exchange.caller.decision.clone()));
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
