//! Flights: one callout per key and worker, and the streams that wait for it ("single flight").
//!
//! ```text
//!   Joined ──► new key? ──yes──► Call ──► Dispatched ──► Answered ─┬─ final: Store, Reply to all
//!                 │ no            ▲           └ NotDispatched      ├─ failed: Reply to all
//!                 └► wait with    │                                └─ building: Reply to those
//!                    the others   └────── Tick ◄─── rest ◄────────    whose hold is over, Call
//!                                                        too early     again for the others
//! ```
//!
//! The callout belongs to the flight, so a client that disconnects does not affect the others. A flight
//! without waiting streams ends with its callout; the build continues at the builder.
//!
//! A builder should answer "still building" only when its wait is over. One that answers at once, for
//! example when it is overloaded, must not be called in a loop: the callouts of a flight are at least a
//! *pause* apart, 1 s at first and twice as much after every early answer. Until then the flight rests,
//! and [`Event::Tick`] wakes it.
//!
//! # One command at a time
//!
//! Thousands of streams may wait for one answer, and a proxy-wasm host overflows the VM's stack when one
//! callback ends more than a few hundred. So an event only queues commands, and the shell takes them one
//! by one ([`Flights::next`]), as many as it can execute now:
//!
//! ```text
//!   on(event) ──► flights ──► due: Command, Resolve { waiting, resolution } ──► next() ──► one command
//! ```
//!
//! A reply is built when it is taken. So no callback builds thousands of them, and a policy that arrives
//! between answer and reply applies.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::answer::{Answer, Response, unavailable};
use super::by_stream::ByStream;
use super::{Exchange, Forward, Next, Reply, Target};
use crate::Seconds;
use crate::cache::{Content, Entry, Key};
use crate::config::Config;
use crate::distribution::{Digest, Error, ErrorKind, Method};
use crate::wire;

/// How much longer than the builder's wait a callout may take, in seconds.
const CALLOUT_MARGIN: Seconds = 5;
/// The shortest time between two callouts of one flight, in seconds.
const FIRST_PAUSE: Seconds = 1;

/// A request to the builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its flight.
    pub key: Key,
    /// The Envoy cluster.
    pub cluster: String,
    /// What the shell signs.
    pub method: Method,
    /// The same.
    pub path: String,
    /// All headers but the signature, pseudo-headers first.
    pub headers: Vec<(&'static str, String)>,
    /// The host's timeout, in seconds.
    pub timeout: Seconds,
}

/// What happened.
#[derive(Debug)]
pub enum Event<S> {
    /// A stream waits for the answer to its exchange.
    Joined {
        /// The shell's id of the stream.
        stream: S,
        /// Its request.
        exchange: Box<Exchange>,
    },
    /// A stream has ended, answered or not. Each that has joined ends with this.
    Left {
        /// The shell's id of the stream.
        stream: S,
    },
    /// The callout of a flight is on its way under this token.
    Dispatched {
        /// The flight.
        key: Key,
        /// The host's id of the callout.
        token: u32,
    },
    /// The host refused the callout: no such cluster, or no healthy host in it.
    NotDispatched {
        /// The flight.
        key: Key,
    },
    /// The response to a callout.
    Answered {
        /// The host's id of the callout.
        token: u32,
        /// The response.
        response: Response,
    },
    /// The response to a callout arrived, but the host did not hand it over.
    NotRead {
        /// The host's id of the callout.
        token: u32,
    },
    /// A second has passed.
    Tick,
}

/// An instruction for the shell.
#[derive(Debug, PartialEq)]
pub enum Command<S> {
    /// Answer a stream.
    Reply(S, Reply),
    /// Let a stream continue to the builder.
    Forward(S, Forward),
    /// Cache an answer.
    Store(Key, Entry),
    /// Dispatch a callout, and report [`Event::Dispatched`] or [`Event::NotDispatched`].
    Call(Call),
}

struct Waiting {
    exchange: Box<Exchange>,
    /// The policy has changed since it joined.
    is_outdated: bool,
}

/// The streams that wait for one answer.
struct Flight<S> {
    waiting: ByStream<S, Waiting>,
    /// The earliest time of the next callout.
    next_call: Seconds,
    /// The shortest time between the next callout and the one after it.
    pause: Seconds,
    /// Set while there is no callout: how long the build had run at the last answer, in seconds.
    resting: Option<Seconds>,
}

/// The answer to streams whose wait is over.
enum Resolution {
    /// The builder's answer, with the facts of the images.
    Content { content: Content, facts: String },
    /// The failure; a stale answer is served instead if there is one.
    Failure(Reply),
    /// The hold is over; the build has run for this long, in seconds.
    Redirect(Seconds),
}

impl Resolution {
    /// The command for one stream; none for content that does not fit its request.
    fn command<S>(
        &self,
        config: &Config,
        stream: S,
        one: &Waiting,
        now: Seconds,
    ) -> Option<Command<S>> {
        let exchange = &one.exchange;
        let reply = match self {
            Self::Redirect(building_for) => exchange.redirect_to_self(config, *building_for, now),
            _ if one.is_outdated => exchange.redirect_to_self(config, 0, now),
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

/// Work that the shell has not taken yet.
enum Due<S> {
    Command(Command<S>),
    Resolve {
        /// In reverse order.
        waiting: Vec<(S, Waiting)>,
        resolution: Resolution,
    },
}

/// All flights of one root context.
pub struct Flights<S> {
    flights: BTreeMap<Rc<Key>, Flight<S>>,
    callouts: BTreeMap<u32, Key>,
    /// The flight of each waiting stream, to find a stream that leaves among thousands.
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
    /// Handles an event, and queues the commands that follow from it for [`Flights::next`].
    pub fn on(&mut self, config: &Config, event: Event<S>, now: Seconds) {
        match event {
            Event::Joined { stream, exchange } => self.join(config, stream, exchange, now),
            Event::Left { stream } => self.leave(stream),
            Event::Dispatched { key, token } => {
                self.callouts.insert(token, key);
            }
            Event::NotDispatched { key } => {
                self.fail(&key, &unavailable("no healthy builder in the cluster"));
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

    /// The next command. Each ends or continues at most one stream, or sends one callout.
    pub fn next(&mut self, config: &Config, now: Seconds) -> Option<Command<S>> {
        loop {
            match self.due.pop_front()? {
                Due::Command(command) => return Some(command),
                Due::Resolve {
                    mut waiting,
                    resolution,
                } => {
                    let Some((stream, one)) = waiting.pop() else {
                        continue;
                    };
                    let command = resolution.command(config, stream, &one, now);
                    if !waiting.is_empty() {
                        self.due.push_front(Due::Resolve {
                            waiting,
                            resolution,
                        });
                    }
                    if command.is_some() {
                        return command;
                    }
                }
            }
        }
    }

    /// Whether [`Flights::next`] has a command.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Marks everyone who waits as judged by an old policy. When the answer arrives, they are redirected
    /// to themselves and judged by the new one: one policy judges all of a request.
    pub fn mark_outdated(&mut self) {
        for flight in self.flights.values_mut() {
            for one in flight.waiting.values_mut() {
                one.is_outdated = true;
            }
        }
        for due in &mut self.due {
            if let Due::Resolve { waiting, .. } = due {
                for (_, one) in waiting {
                    one.is_outdated = true;
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn has_waiting(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Whether there are no streams and no commands.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.streams.is_empty() && self.due.is_empty()
    }

    #[cfg(test)]
    pub(super) fn has_resting(&self) -> bool {
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
        self.command(Command::Call(call(config, &one.exchange, wait)));
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

    /// A stream that leaves once its resolution is queued stays there: the shell finds it gone.
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

    fn command(&mut self, command: Command<S>) {
        self.due.push_back(Due::Command(command));
    }

    /// Answers everyone in `waiting`.
    fn resolve(&mut self, waiting: ByStream<S, Waiting>, resolution: Resolution) {
        if !waiting.is_empty() {
            let waiting = waiting.into_reversed();
            self.due.push_back(Due::Resolve {
                waiting,
                resolution,
            });
        }
    }

    fn answered(&mut self, config: &Config, key: &Key, response: &Response, now: Seconds) {
        let Some((key, mut flight)) = self.flights.remove_entry(key) else {
            return;
        };
        // All streams of a flight have the same target, so the first one stands for all.
        let Some(first) = flight.waiting.values().next() else {
            return;
        };
        let answer = Answer::read(config, &first.exchange, response);
        let entry = answer.entry(now);
        match answer {
            Answer::Building { for_seconds } => {
                self.continue_or_end(config, key, flight, for_seconds, now);
            }
            Answer::Failed(error) => {
                self.resolve(flight.waiting, Resolution::Failure(Reply::error(&error)));
            }
            Answer::Later(reply) if reply.status == 429 => {
                // The refusal is for one rule of the policy: others may have room in the queue.
                let refused = first.exchange.grantor(config);
                let (refused, others) = flight
                    .waiting
                    .partition(|one| one.exchange.grantor(config) == refused);
                self.resolve(refused, Resolution::Failure(reply));
                flight.waiting = others;
                self.continue_or_end(config, key, flight, 0, now);
            }
            Answer::Later(reply) => self.resolve(flight.waiting, Resolution::Failure(reply)),
            Answer::Final { content, facts, .. } => {
                if let Some(entry) = entry {
                    self.command(Command::Store(Key::clone(&key), entry));
                }
                self.resolve(flight.waiting, Resolution::Content { content, facts });
            }
        }
    }

    /// Answers the streams whose hold is over, and calls the builder again for the others: now, or
    /// after the pause.
    fn continue_or_end(
        &mut self,
        config: &Config,
        key: Rc<Key>,
        mut flight: Flight<S>,
        building_for: Seconds,
        now: Seconds,
    ) {
        let (over, rest) = flight
            .waiting
            .partition(|one| one.exchange.hold_is_over(config, now));
        self.resolve(over, Resolution::Redirect(building_for));
        let deadlines = rest.values().map(|one| one.exchange.deadline(config));
        let (first, deadline) = (rest.values().next(), deadlines.min());
        if let (Some(first), Some(deadline)) = (first, deadline) {
            // A pause that seems longer than a hold began before the clock was set back.
            if (1..=config.hold).contains(&flight.next_call.saturating_sub(now)) {
                flight.resting = Some(building_for);
            } else {
                let wait = wait(config, deadline, now);
                self.command(Command::Call(call(config, &first.exchange, wait)));
                if flight.resting.take().is_none() {
                    // This answer was not early, so the next pause starts small again.
                    flight.pause = FIRST_PAUSE;
                }
                // An answer that takes its whole wait is never early.
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
            self.continue_or_end(config, key, flight, building_for, now);
        }
    }

    fn fail(&mut self, key: &Key, error: &Error) {
        if let Some(flight) = self.flights.remove(key) {
            self.resolve(flight.waiting, Resolution::Failure(Reply::error(error)));
        }
    }
}

fn not_read() -> Error {
    Error::new(
        ErrorKind::Internal,
        "cannot read the builder's answer. Pull again; the log of the registry's edge has the reason",
    )
}

/// How long the builder may wait to answer by the deadline.
fn wait(config: &Config, deadline: Seconds, now: Seconds) -> Seconds {
    deadline.saturating_sub(now).clamp(1, config.hold)
}

fn call(config: &Config, exchange: &Exchange, wait: Seconds) -> Call {
    let (method, path) = (exchange.target.method(), exchange.upstream_path());
    let mut headers = vec![
        (":method", method.as_str().to_owned()),
        (":path", path.clone()),
        (":authority", affinity(exchange)),
        (wire::PREFER, exchange.preferences(config, wait).header()),
    ];
    if let Some(rules) = config.fact_rules.header() {
        headers.push((wire::RULES, rules.to_owned()));
    }
    if let Some(denied) = config.denied_names.header() {
        headers.push((wire::DENIED, denied.to_owned()));
    }
    if let Some(rule) = exchange.grantor(config) {
        headers.push((wire::RULE, rule.to_owned()));
    }
    if !exchange.caller.decision.is_empty() {
        headers.push((wire::REQUEST_ID, exchange.caller.decision.clone()));
    }
    headers.push((wire::STATUS, wire::STATUS_ACCEPTED.to_owned()));
    if let Target::Manifest { media_type, .. } = &exchange.target {
        headers.push(("accept", media_type.as_str().to_owned()));
    }
    Call {
        key: exchange.key().clone(),
        cluster: config.cluster.clone(),
        method,
        path,
        headers,
        timeout: wait.saturating_add(CALLOUT_MARGIN),
    }
}

/// The callout's `:authority`, by which Envoy's ring-hash clusters choose the builder: all requests for
/// one image go to the same builder, which builds it once.
fn affinity(exchange: &Exchange) -> String {
    let mut name = Digest::of(exchange.image().as_bytes()).hex();
    name.truncate(32);
    name.push_str(".image");
    name
}
