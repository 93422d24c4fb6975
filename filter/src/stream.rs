//! One HTTP request: answered, let through, or paused until the root has an answer.

use std::rc::Rc;

use nixgate_core::exchange::{Begin, Event, Exchange, Next, Question, Reply, Request};
use nixgate_core::wire;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

use crate::edge::{ActiveConfig, Inbox, StreamId};
use crate::header_map::HeaderMap;
use crate::respond::{answer, forward, internal_error, repeat, reply};
use crate::shared_cache::Found;
use crate::telemetry::Telemetry;
use crate::{caller, host};

/// The context of one HTTP request.
pub(crate) struct Stream {
    id: StreamId,
    /// The configuration in force when the request came; it stays the request's own.
    edge: Option<Rc<ActiveConfig>>,
    inbox: Rc<Inbox>,
    /// Whether the root knows of this stream.
    joined: bool,
}

impl Stream {
    pub(crate) const fn new(
        id: StreamId,
        edge: Option<Rc<ActiveConfig>>,
        inbox: Rc<Inbox>,
    ) -> Self {
        Self {
            id,
            edge,
            inbox,
            joined: false,
        }
    }

    fn handle(&mut self) -> host::Result<Action> {
        let Some(edge) = self.edge.clone() else {
            let failure = internal_error("the registry's edge is not configured");
            return reply(&Telemetry::default(), &failure);
        };
        let headers = host::request_headers()?;
        let first = |name| headers.all(name).next().unwrap_or_default();
        let (method, path) = (first(":method"), first(":path"));
        let accept: Vec<_> = headers.all("accept").collect();
        let if_none_match: Vec<_> = headers.all("if-none-match").collect();
        let mut ranges = headers.all("range");
        let caller = caller::of(&edge.config, &headers);
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
            .and_then(|one| known(&edge, one, &request))
        {
            return match known.status {
                // It has the id of its own decision, and is logged and counted each time.
                400.. => reply(&edge.telemetry, &known),
                _ => repeat(&edge.telemetry, &known),
            };
        }
        let now = host::now();
        let mut exchange = match Exchange::begin(&edge.config, &request, now) {
            Begin::NotOurs => return pass(&headers),
            Begin::Reply(known) => return reply(&edge.telemetry, &known),
            Begin::Ask(exchange) => exchange,
        };
        let found = edge.cache.get(exchange.key(), now);
        // For those who ask the same before the second is over.
        if edge.replies.borrow().has_room()
            && let (Some(question), Some(entry)) =
                (&question, found.as_ref().and_then(Found::copied))
            && let Some(prepared) = exchange.prepare(&edge.config, entry)
        {
            let mut replies = edge.replies.borrow_mut();
            replies.prepare(question, Rc::new(prepared));
        }
        match exchange.looked_up(&edge.config, found.map(|found| found.entry), now) {
            Next::Reply(known) => reply(&edge.telemetry, &known),
            Next::Forward(to) => {
                forward(&edge, &to)?;
                Ok(Action::Continue)
            }
            Next::Join => {
                host::wake(edge.queue)?;
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

/// The answer to a question that was asked in this second.
fn known(edge: &ActiveConfig, question: &Question, request: &Request<'_>) -> Option<Rc<Reply>> {
    let mut replies = edge.replies.borrow_mut();
    // What is under a condition is seldom asked again.
    let is_plain = request.if_none_match.is_empty();
    let caller = is_plain.then(|| request.caller.key());
    let repeated = caller
        .as_ref()
        .and_then(|caller| replies.get(question, caller));
    if repeated.is_some() {
        return repeated;
    }
    let prepared = replies.prepared(question)?;
    let reply = prepared.answer(&edge.config, request.caller, &request.if_none_match);
    let reply = Rc::new(reply);
    if let Some(caller) = caller.filter(|_| reply.status < 400) {
        replies.insert(question, caller, Rc::clone(&reply));
    }
    Some(reply)
}

/// Lets a request through that is not for the registry. The header is left alone where there is
/// none, since Envoy looks the route up again after any change.
fn pass(headers: &HeaderMap) -> host::Result<Action> {
    if headers.all(wire::TOKEN).next().is_some() {
        host::remove_request_header(wire::TOKEN)?;
    }
    Ok(Action::Continue)
}

/// The request has ended, however it did: the SDK lets go of its context in `proxy_on_delete`. The
/// ABI's earlier `proxy_on_done` is not exported, since it would be one more call for each request.
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
                // Nothing may pass that was not looked at. When not even this answer can be
                // given, the request stays paused until the route's idle timeout ends it.
                let failure = internal_error("the registry's edge failed; its log says why");
                let edge = self.edge.clone();
                let telemetry = edge.as_ref().map(|edge| &edge.telemetry);
                if let Err(error) = answer(telemetry.unwrap_or(&Telemetry::default()), &failure) {
                    host::log(LogLevel::Error, &format!("{error}"));
                }
                Action::Pause
            }
        }
    }
}
