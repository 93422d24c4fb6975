//! One HTTP request: answered, passed on, or paused until the root has an answer.

use std::rc::Rc;

use nixgate_core::exchange::{Begin, Event, Exchange, Next, Question, Reply, Request};
use nixgate_core::wire;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

use crate::active_config::{Active, ActiveConfig, Inbox, StreamId};
use crate::header_map::HeaderMap;
use crate::respond::{answer, forward, internal_error, repeat, reply};
use crate::shared_cache::Found;
use crate::{caller, host};

pub(crate) struct Stream {
    id: StreamId,
    /// The configuration in force when the request arrived.
    active: Active,
    inbox: Rc<Inbox>,
    /// Whether the root knows this stream.
    joined: bool,
}

impl Stream {
    pub(crate) const fn new(id: StreamId, active: Active, inbox: Rc<Inbox>) -> Self {
        Self {
            id,
            active,
            inbox,
            joined: false,
        }
    }

    fn handle(&mut self) -> host::Result<Action> {
        let active = match &self.active {
            Ok(active) => Rc::clone(active),
            Err(inactive) => {
                let failure = internal_error(&format!(
                    "the registry's edge has no valid configuration: {}",
                    inactive.reason
                ));
                return reply(&inactive.telemetry, &failure);
            }
        };
        let headers = host::request_headers()?;
        let first = |name| headers.all(name).next().unwrap_or_default();
        let (method, path) = (first(":method"), first(":path"));
        let accept: Vec<_> = headers.all("accept").collect();
        let if_none_match: Vec<_> = headers.all("if-none-match").collect();
        let mut ranges = headers.all("range");
        let caller = caller::of(&active.config, &headers);
        let request = Request {
            method: &method,
            path: &path,
            accept: accept.iter().map(AsRef::as_ref).collect(),
            if_none_match: if_none_match.iter().map(AsRef::as_ref).collect(),
            several_ranges: ranges.any(|range| wire::is_of_several_ranges(&range)),
            caller: &caller,
        };
        let question = Question::of(&request);
        if let Some(known) = question
            .as_ref()
            .and_then(|one| known(&active, one, &request))
        {
            return match known.status {
                // A refusal has its own decision id, and is logged and counted each time.
                400.. => reply(&active.telemetry, &known),
                _ => repeat(&active.telemetry, &known),
            };
        }
        let now = host::now();
        let mut exchange = match Exchange::begin(&active.config, &request, now) {
            Begin::PassThrough => return pass(&headers),
            Begin::Reply(known) => return reply(&active.telemetry, &known),
            Begin::Ask(exchange) => exchange,
        };
        let found = active.cache.get(exchange.key(), now);
        // For the same question within this second.
        if active.replies.borrow().has_room()
            && let (Some(question), Some(entry)) =
                (&question, found.as_ref().and_then(Found::copied))
            && let Some(prepared) = exchange.prepare(&active.config, entry)
        {
            let mut replies = active.replies.borrow_mut();
            replies.prepare(question, Rc::new(prepared));
        }
        match exchange.looked_up(&active.config, found.map(|found| found.entry), now) {
            Next::Reply(known) => reply(&active.telemetry, &known),
            Next::Forward(to) => {
                forward(&active, &to)?;
                Ok(Action::Continue)
            }
            Next::Join => {
                host::wake(active.queue)?;
                self.joined = true;
                self.inbox.push(Event::Joined {
                    stream: self.id,
                    exchange,
                });
                Ok(Action::Pause)
            }
        }
    }
}

/// The answer to a question that was asked before in this second.
fn known(active: &ActiveConfig, question: &Question, request: &Request<'_>) -> Option<Rc<Reply>> {
    let mut replies = active.replies.borrow_mut();
    // Conditional requests rarely repeat.
    let is_plain = request.if_none_match.is_empty();
    let caller = is_plain.then(|| request.caller.key());
    let repeated = caller
        .as_ref()
        .and_then(|caller| replies.get(question, caller));
    if repeated.is_some() {
        return repeated;
    }
    let prepared = replies.prepared(question)?;
    let reply = prepared.answer(&active.config, request.caller, &request.if_none_match);
    let reply = Rc::new(reply);
    if let Some(caller) = caller.filter(|_| reply.status < 400) {
        replies.insert(question, caller, Rc::clone(&reply));
    }
    Some(reply)
}

/// Passes on a request that is not for the registry. The header is only removed if present, since Envoy
/// looks the route up again after any change.
fn pass(headers: &HeaderMap) -> host::Result<Action> {
    if headers.all(wire::TOKEN).next().is_some() {
        host::remove_request_header(wire::TOKEN)?;
    }
    Ok(Action::Continue)
}

/// The SDK drops the context in `proxy_on_delete`, at the end of every request. The ABI's earlier
/// `proxy_on_done` is not exported, which saves a call for each request.
impl Drop for Stream {
    fn drop(&mut self) {
        if self.joined {
            self.inbox.push(Event::Left { stream: self.id });
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        match self.handle() {
            Ok(action) => action,
            Err(error) => {
                host::log(LogLevel::Error, &format!("{error}"));
                // No request may pass unchecked. If even this answer fails, the request stays paused
                // until the route's idle timeout.
                let failure = internal_error("the registry's edge failed: its log has the reason");
                let telemetry = match &self.active {
                    Ok(active) => &active.telemetry,
                    Err(inactive) => &inactive.telemetry,
                };
                if let Err(error) = answer(telemetry, &failure) {
                    host::log(LogLevel::Error, &format!("{error}"));
                }
                Action::Pause
            }
        }
    }
}
