//! The root context: one configuration of the filter in one VM, and everything that outlives a
//! single request.
//!
//! A callout belongs to the context that sent it, and its answer is lost when that context has
//! gone. Since several streams wait for one answer, and any of them may leave, the root sends all
//! callouts. A stream can't make the root run, so it leaves its wish in the root's [`Inbox`] and
//! wakes the root by a queue of the host's:
//!
//! ```text
//!   stream: inbox ← Joined, wake(queue), pause
//!                                │
//!   root:   on_queue_ready ◄─────┤   inbox → flights → a few commands, wake(queue) for the rest
//!           on_http_call_response┤   response → flights, wake(queue)
//!           on_tick              ┘   each second: flights that rest, copies, counters
//!
//!   command: callout (root's own) | effective context := stream → reply or continue
//! ```
//!
//! # A few commands for each callback
//!
//! Envoy carries out replies, continuations and callouts that fail at once when the callback that
//! asked for them is over, from one list for the whole VM. Each ends a stream or brings an answer,
//! which calls back into the VM, and the end of that callback goes on with the list: so each is
//! nested in the one before. Where a callback answers 311 streams, the stack is used up and the VM
//! dies, with every stream in it ("Maximum call stack size exceeded" in Envoy 1.36 and 1.40; other
//! filters in the chain take their part of the stack). Therefore
//!
//! - all commands go through [`Root::work`], which carries out [`COMMANDS`] of them and wakes the root
//!   for the rest, and
//! - it runs in callbacks that the host makes from its event loop, never within another callback: by
//!   queue and by timer. A response is not one of them, since that of a callout that fails at once
//!   comes from the list.
//!
//! The name of the queue is random: Envoy has one set of queues for all workers, and a message
//! wakes whoever registered the name last.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nixgate_core::cache::{Geometry, TICK};
use nixgate_core::config::Config;
use nixgate_core::exchange::{Call, Command, Event, Flights, RecentReplies, Response};
use nixgate_core::policy::Policy;
use nixgate_core::wire;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use crate::edge::{ActiveConfig, Inbox, StreamId};
use crate::host::{self, Status};
use crate::respond;
use crate::shared_cache::SharedCache;
use crate::stream::Stream;
use crate::telemetry::Telemetry;

/// A worker's own copies take up to this part of what the shared cache may take. They are what is
/// asked for many times a second, which are few.
const COPIES_SHARE: u64 = 16;
/// And its answers of the present second, whose bodies are those of the copies, up to this part.
const REPLIES_SHARE: u64 = 64;

/// How many commands one callback carries out: a twentieth of what the stack bears, see above. The
/// loop of events comes round in well under a millisecond, so nobody waits for it.
const COMMANDS: usize = 16;

thread_local! {
    /// How many configurations with a policy this VM has seen. It tells a root whose configuration
    /// has been replaced, and which serves what it holds to the end, that a policy has come.
    static POLICIES: Cell<u32> = const { Cell::new(0) };
}

/// The root context.
pub(crate) struct Root {
    id: u32,
    /// None until the host has configured the filter.
    edge: Option<Rc<ActiveConfig>>,
    inbox: Rc<Inbox>,
    flights: Flights<StreamId>,
    /// When each callout that is under way was sent, since the epoch.
    sent: BTreeMap<u32, Duration>,
    /// [`POLICIES`] when it was last looked at.
    policies: u32,
}

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            edge: None,
            inbox: Rc::default(),
            flights: Flights::default(),
            sent: BTreeMap::new(),
            policies: POLICIES.get(),
        }
    }

    fn configure(&self, size: usize) -> Result<ActiveConfig, String> {
        let json = host::plugin_configuration(size).map_err(|error| error.to_string())?;
        let config = Config::parse(&json, |name| std::env::var(name).ok())
            .map_err(|error| error.to_string())?;
        let share =
            |part: u64| usize::try_from(config.cache_max_bytes / part).unwrap_or(usize::MAX);
        let geometry = Geometry::new(config.cache_max_bytes);
        let cache = SharedCache::create(geometry, config.seal.clone(), share(COPIES_SHARE));
        let queue = match &self.edge {
            Some(edge) => Ok(edge.queue),
            None => register_queue(),
        };
        let (cache, slots) = cache.map_err(|error| error.to_string())?;
        let telemetry = Telemetry::default();
        telemetry.slots_used(slots);
        host::set_tick_period(TICK).map_err(|error| error.to_string())?;
        Ok(ActiveConfig {
            replies: RefCell::new(RecentReplies::new(share(REPLIES_SHARE))),
            config,
            cache,
            telemetry,
            queue: queue.map_err(|error| error.to_string())?,
        })
    }

    /// Tells the flights what the streams have left, in their order.
    fn read_inbox(&mut self) {
        for event in self.inbox.take() {
            self.on(event);
        }
    }

    fn on(&mut self, event: Event<StreamId>) {
        let Some(edge) = self.edge.clone() else {
            return;
        };
        self.flights.on(&edge.config, event, host::now());
    }

    /// Carries out what is due, as much as one callback may.
    fn work(&mut self) {
        let Some(edge) = self.edge.clone() else {
            return;
        };
        let policies = POLICIES.get();
        if policies != self.policies {
            self.policies = policies;
            self.flights.outdate();
        }
        let now = host::now();
        for _ in 0..COMMANDS {
            let Some(command) = self.flights.next(&edge.config, now) else {
                return;
            };
            self.carry_out(&edge, command);
        }
        self.wake_if_due();
    }

    /// Has the host call the root again when there is something to do.
    fn wake_if_due(&self) {
        let Some(edge) = self.edge.as_ref().filter(|_| self.flights.is_any_due()) else {
            return;
        };
        if let Err(error) = host::wake(edge.queue) {
            // Slower, but it goes on.
            let message = format!("answers wait for the timer, {COMMANDS} a second: {error}");
            host::log(LogLevel::Error, &message);
        }
    }

    fn log_response(&self, token: u32, response: &Response) {
        let has = |wanted: &str| response.headers.iter().any(|(name, _)| name == wanted);
        if has(wire::REFUSES) {
            host::log(
                LogLevel::Warn,
                "the builder refuses the token of this Envoy: give both the same NIXGATE_TOKEN",
            );
        } else if has(wire::BUILDER) {
            host::log(
                LogLevel::Debug,
                &format!("callout {token} brought status {}", response.status),
            );
        } else if let Some(edge) = &self.edge {
            host::log(
                LogLevel::Warn,
                &format!(
                    "no builder answers in the cluster {} (status {}): start one, or mend the \
                     cluster's address",
                    edge.config.cluster, response.status
                ),
            );
        }
    }

    /// The response that is being handed over. It can be read in the callback that announces it
    /// only, and before any change of the context. Without headers the connection broke, which is
    /// what an empty response stands for.
    fn read_response(headers: usize, body_size: usize) -> host::Result<Response> {
        if headers == 0 {
            return Ok(Response::default());
        }
        let headers = host::callout_headers()?.to_headers();
        let status = headers
            .iter()
            .find(|(name, _)| name == ":status")
            .and_then(|(_, value)| value.parse().ok());
        Ok(Response {
            status: status.unwrap_or(0),
            headers,
            body: host::callout_body(body_size)?,
        })
    }

    fn carry_out(&mut self, edge: &ActiveConfig, command: Command<StreamId>) {
        match command {
            Command::Reply(stream, reply) => {
                on_behalf_of(stream, || respond::answer(&edge.telemetry, &reply));
            }
            Command::Forward(stream, forward) => on_behalf_of(stream, || {
                respond::forward(edge, &forward)?;
                host::continue_request()
            }),
            Command::Store(key, entry) => {
                let change = edge.cache.insert(&key, &entry, host::now());
                edge.telemetry.slots_changed(change);
            }
            Command::Call(call) => {
                let outcome = self.dispatch(call);
                self.on(outcome);
            }
        }
    }

    fn dispatch(&mut self, call: Call) -> Event<StreamId> {
        match host::dispatch(self.id, &call) {
            Ok(token) => {
                self.sent.insert(token, host::since_epoch());
                Event::Dispatched {
                    key: call.key,
                    token,
                }
            }
            Err(error) => {
                let message = format!(
                    "no callout to the cluster {}: {error}. Is the cluster configured, and a builder \
                     in it healthy?",
                    call.cluster
                );
                host::log(LogLevel::Warn, &message);
                Event::NotDispatched { key: call.key }
            }
        }
    }
}

/// A queue that nobody else has.
fn register_queue() -> host::Result<u32> {
    let name = u128::from_ne_bytes(host::random()?);
    host::register_queue(&format!("nixgate-{name:032x}"))
}

/// Runs host calls as if a stream's callback made them. A stream that has gone meanwhile needs
/// none of them.
fn on_behalf_of(stream: StreamId, calls: impl FnOnce() -> host::Result<()>) {
    match host::set_effective_context(stream).and_then(|()| calls()) {
        Ok(()) => {}
        Err(error) if error.status == Status::BadArgument => host::log(
            LogLevel::Debug,
            &format!("stream {stream} left before its answer came"),
        ),
        Err(error) => host::log(
            LogLevel::Error,
            &format!("stream {stream} gets no answer: {error}"),
        ),
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        match self.configure(size) {
            Ok(edge) => {
                let config = &edge.config;
                host::log(
                    LogLevel::Info,
                    &format!(
                        "nixgate {}: images come from the cluster {}; up to {} MiB of \
                         answers are cached; policy: {}",
                        crate::VERSION,
                        config.cluster,
                        config.cache_max_bytes >> 20,
                        config.policy.as_ref().map_or("none", Policy::revision)
                    ),
                );
                // To have no policy any more is one as well.
                if config.policy.is_some() || POLICIES.get() > 0 {
                    self.policies = POLICIES.get().wrapping_add(1);
                    POLICIES.set(self.policies);
                }
                self.edge = Some(Rc::new(edge));
                true
            }
            Err(message) => {
                host::log(LogLevel::Critical, &message);
                false
            }
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        // The messages say nothing but that there is something in the inbox, and the first of
        // several wakes reads all of it.
        while host::dequeue(queue) == Ok(true) {}
        self.read_inbox();
        self.work();
    }

    fn on_tick(&mut self) {
        if let Some(edge) = &self.edge {
            edge.replies.borrow_mut().tick();
            edge.cache.tick();
            edge.telemetry.tick();
        }
        self.read_inbox();
        self.on(Event::Tick);
        self.work();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(
            id,
            self.edge.clone(),
            Rc::clone(&self.inbox),
        )))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        let event = match Self::read_response(headers, body_size) {
            Ok(response) => {
                self.log_response(token, &response);
                Event::Answered { token, response }
            }
            Err(error) => {
                host::log(
                    LogLevel::Error,
                    &format!("the response to callout {token} can't be read: {error}"),
                );
                Event::NotRead { token }
            }
        };
        if let (Some(sent), Some(edge)) = (self.sent.remove(&token), &self.edge) {
            let took = host::since_epoch().saturating_sub(sent);
            let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            edge.telemetry.callout(milliseconds);
        }
        // Who has left gets no answer, and who has just come takes part in this one.
        self.read_inbox();
        self.on(event);
        self.wake_if_due();
    }
}
