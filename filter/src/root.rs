//! The root context: one configuration of the filter in one VM, and everything that outlives a request.
//!
//! A callout belongs to the context that sent it, and its response is lost when that context ends. Several
//! streams wait for one answer, and any of them may end, so the root sends all callouts. A stream can't
//! call the root, so it leaves an event in the [`Inbox`] and wakes the root by a queue of the host:
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
//! Envoy defers replies, continuations and callouts that fail at once to the end of the callback, in one
//! list for the whole VM. Each of them calls back into the VM, and the end of that callback continues with
//! the list, so they nest. A callback that answers 311 streams overflows the stack, and the VM dies with
//! every stream in it ("Maximum call stack size exceeded" in Envoy 1.36 and 1.40; other filters in the
//! chain use the stack as well). Therefore
//!
//! - all commands go through [`Root::run_commands`], which executes [`COMMANDS`] of them and wakes the
//!   root for the rest, and
//! - it runs only in callbacks that the host makes from its event loop: by queue and by timer. Responses
//!   don't count, since that of a callout that fails at once comes from the list.
//!
//! The name of the queue is random: Envoy has one set of queues for all workers, and a message wakes
//! whoever registered the name last.

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

use crate::active_config::{Active, ActiveConfig, Inactive, Inbox, Refusal, StreamId, parse};
use crate::host::{self, Status};
use crate::shared_cache::SharedCache;
use crate::stream::Stream;
use crate::telemetry::Telemetry;
use crate::{last_good, respond};

/// A worker's own copies take at most this part of the shared cache's limit: few entries are requested many
/// times a second.
const COPIES_SHARE: u64 = 16;
/// A worker's recent replies, whose bodies are those of the copies, take at most this part.
const REPLIES_SHARE: u64 = 64;

/// How many commands one callback executes: a twentieth of what the stack allows, see above. The event
/// loop comes round in well under a millisecond.
const COMMANDS: usize = 16;

thread_local! {
    /// How many configurations with a policy this VM has seen. By it, a replaced root, which serves the
    /// requests that it holds to the end, notices a new policy.
    static POLICIES: Cell<u32> = const { Cell::new(0) };
}

pub(crate) struct Root {
    id: u32,
    /// Set once the host has configured the filter.
    active: Active,
    inbox: Rc<Inbox>,
    flights: Flights<StreamId>,
    /// When each pending callout was sent, since the epoch.
    sent: BTreeMap<u32, Duration>,
    /// The last seen value of [`POLICIES`].
    policies: u32,
}

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            active: Err(Rc::default()),
            inbox: Rc::default(),
            flights: Flights::default(),
            sent: BTreeMap::new(),
            policies: POLICIES.get(),
        }
    }

    /// Puts the delivered configuration in force if it is valid, and else the last valid one.
    fn configure(&mut self, size: usize) {
        let plugin = host::plugin_name();
        let delivered = self.delivered(size, &plugin);
        let telemetry = Telemetry::new(&plugin);
        telemetry.configuration_refused(delivered.is_err());
        self.active = match delivered {
            Ok(active) => Ok(Rc::new(active)),
            Err(refusal) => self.instead(refusal, &plugin, telemetry),
        };
        let Ok(active) = &self.active else {
            return;
        };
        let config = &active.config;
        host::log(
            LogLevel::Info,
            &format!(
                "nixgate {}: builder cluster {}, cache {} MiB, policy {}",
                crate::VERSION,
                config.cluster,
                config.cache_max_bytes >> 20,
                config.policy.as_ref().map_or("none", Policy::revision)
            ),
        );
        // The removal of a policy counts as well.
        if config.policy.is_some() || POLICIES.get() > 0 {
            self.policies = POLICIES.get().wrapping_add(1);
            POLICIES.set(self.policies);
        }
    }

    fn delivered(&self, size: usize, plugin: &str) -> Result<ActiveConfig, Refusal> {
        let json = host::plugin_configuration(size)?;
        let active = self.activate(parse(&json)?, plugin)?;
        if let Err(error) = last_good::store(plugin, &json, &active.config) {
            let message = format!("cannot keep this configuration for later: {error}");
            host::log(LogLevel::Warn, &message);
        }
        Ok(active)
    }

    /// What is in force instead of a configuration that is not valid.
    fn instead(&self, refusal: Refusal, plugin: &str, telemetry: Telemetry) -> Active {
        let last = last_good::load(plugin).and_then(|config| self.activate(config, plugin).ok());
        let consequence = match last {
            Some(_) => "The former configuration stays in force",
            None => "The registry answers 500 until it gets a valid configuration",
        };
        let message = format!("{}. {consequence}", refusal.message);
        host::log(LogLevel::Critical, &message);
        let inactive = || Inactive {
            reason: refusal.public,
            telemetry,
        };
        last.map(Rc::new).ok_or_else(|| Rc::new(inactive()))
    }

    /// Makes what a configuration needs of the host.
    fn activate(&self, config: Config, plugin: &str) -> Result<ActiveConfig, Refusal> {
        let share =
            |part: u64| usize::try_from(config.cache_max_bytes / part).unwrap_or(usize::MAX);
        let geometry = Geometry::new(config.cache_max_bytes);
        let cache = SharedCache::create(geometry, config.seal.clone(), share(COPIES_SHARE));
        let queue = match &self.active {
            Ok(active) => Ok(active.queue),
            Err(_) => register_queue(),
        };
        let (cache, slots) = cache?;
        let telemetry = Telemetry::new(plugin);
        telemetry.slots_used(slots);
        host::set_tick_period(TICK)?;
        Ok(ActiveConfig {
            replies: RefCell::new(RecentReplies::new(share(REPLIES_SHARE))),
            config,
            cache,
            telemetry,
            queue: queue?,
            builder_ahead: Cell::default(),
        })
    }

    /// Passes the events of the streams to the flights, in order.
    fn read_inbox(&mut self) {
        for event in self.inbox.take() {
            self.on(event);
        }
    }

    fn on(&mut self, event: Event<StreamId>) {
        let Ok(active) = self.active.clone() else {
            return;
        };
        self.flights.on(&active.config, event, host::now());
    }

    /// Executes as many commands as one callback may.
    fn run_commands(&mut self) {
        let Ok(active) = self.active.clone() else {
            return;
        };
        let policies = POLICIES.get();
        if policies != self.policies {
            self.policies = policies;
            self.flights.mark_outdated();
        }
        let now = host::now();
        for _ in 0..COMMANDS {
            let Some(command) = self.flights.next(&active.config, now) else {
                return;
            };
            self.execute(&active, command);
        }
        self.wake_if_due();
    }

    /// Has the host call the root again if there are commands.
    fn wake_if_due(&self) {
        let (Ok(active), true) = (&self.active, self.flights.has_due()) else {
            return;
        };
        if let Err(error) = host::wake(active.queue) {
            let message = format!("answers are delayed to {COMMANDS} a second: {error}");
            host::log(LogLevel::Error, &message);
        }
    }

    fn log_response(&self, token: u32, response: &Response) {
        let has = |wanted: &str| response.headers.iter().any(|(name, _)| name == wanted);
        let refuses = |what: &str| {
            let headers = &mut response.headers.iter();
            headers.any(|(name, value)| name == wire::REFUSES && value == what)
        };
        if refuses(wire::REFUSES_TIME) {
            host::log(
                LogLevel::Warn,
                "this Envoy's clock and the builder's differ by minutes: the builder's counts. Set \
                 both clocks by NTP",
            );
        } else if refuses(wire::REFUSES_TOKEN) {
            host::log(
                LogLevel::Warn,
                "the builder refuses this Envoy's token: give both the same NIXGATE_TOKEN",
            );
        } else if has(wire::BUILDER) {
            host::log(
                LogLevel::Debug,
                &format!("callout {token} returned status {}", response.status),
            );
        } else if let Ok(active) = &self.active {
            host::log(
                LogLevel::Warn,
                &format!(
                    "no builder answers in the cluster {} (status {}): start one, or correct the \
                     cluster's address",
                    active.config.cluster, response.status
                ),
            );
        }
    }

    /// The response of the present callback. It must be read before any change of the context. Without
    /// headers the connection broke, which an empty response stands for.
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

    fn execute(&mut self, active: &ActiveConfig, command: Command<StreamId>) {
        match command {
            Command::Reply(stream, reply) => {
                on_behalf_of(stream, || respond::answer(&active.telemetry, &reply));
            }
            Command::Forward(stream, forward) => on_behalf_of(stream, || {
                respond::forward(active, &forward)?;
                host::continue_request()
            }),
            Command::Store(key, entry) => {
                let change = active.cache.insert(&key, &entry, host::now());
                active.telemetry.slots_changed(change);
            }
            Command::Call(call) => {
                let outcome = self.dispatch(active, call);
                self.on(outcome);
            }
        }
    }

    fn dispatch(&mut self, active: &ActiveConfig, call: Call) -> Event<StreamId> {
        let signature = active.sign(call.method, &call.path);
        match host::dispatch(self.id, &call, &signature) {
            Ok(token) => {
                self.sent.insert(token, host::since_epoch());
                Event::Dispatched {
                    key: call.key,
                    token,
                }
            }
            Err(error) => {
                let message = format!(
                    "cannot call the builder in the cluster {}: {error}. Check that the cluster exists \
                     and that its builder is healthy",
                    call.cluster
                );
                host::log(LogLevel::Warn, &message);
                Event::NotDispatched { key: call.key }
            }
        }
    }
}

fn register_queue() -> host::Result<u32> {
    let name = u128::from_ne_bytes(host::random()?);
    host::register_queue(&format!("nixgate-{name:032x}"))
}

/// Runs host calls in the context of a stream, if it still exists.
fn on_behalf_of(stream: StreamId, calls: impl FnOnce() -> host::Result<()>) {
    match host::set_effective_context(stream).and_then(|()| calls()) {
        Ok(()) => {}
        Err(error) if error.status == Status::BadArgument => host::log(
            LogLevel::Debug,
            &format!("stream {stream} ended before its answer"),
        ),
        Err(error) => host::log(
            LogLevel::Error,
            &format!("cannot answer stream {stream}: {error}"),
        ),
    }
}

impl RootContext for Root {
    /// Takes any configuration, see [`last_good`].
    fn on_configure(&mut self, size: usize) -> bool {
        self.configure(size);
        true
    }

    fn on_queue_ready(&mut self, queue: u32) {
        // The messages are empty, and one run reads the whole inbox.
        while host::dequeue(queue) == Ok(true) {}
        self.read_inbox();
        self.run_commands();
    }

    fn on_tick(&mut self) {
        if let Ok(active) = &self.active {
            active.replies.borrow_mut().tick();
            active.cache.tick();
            active.telemetry.tick();
        }
        self.read_inbox();
        self.on(Event::Tick);
        self.run_commands();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(
            id,
            self.active.clone(),
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
                if let Ok(active) = &self.active {
                    active.read_clock(&response);
                }
                Event::Answered { token, response }
            }
            Err(error) => {
                host::log(
                    LogLevel::Error,
                    &format!("cannot read the response to callout {token}: {error}"),
                );
                Event::NotRead { token }
            }
        };
        if let (Some(sent), Ok(active)) = (self.sent.remove(&token), &self.active) {
            let took = host::since_epoch().saturating_sub(sent);
            let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            active.telemetry.callout(milliseconds);
        }
        // Streams that have just left get no answer, and those that have just joined get this one.
        self.read_inbox();
        self.on(event);
        self.wake_if_due();
    }
}
