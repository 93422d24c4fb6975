//! What the edge does with one request, as a state machine without effects.
//!
//! The shell (the wasm filter) passes events in and executes the commands that come back:
//!
//! ```text
//!   request ──► Exchange::begin ──► PassThrough ─────────► let it pass
//!                     │  └────────► Reply ──────────────► local reply (errors, /v2/)
//!                     ▼
//!                    Ask: key ──► shared cache ──► Exchange::looked_up
//!                                                    ├─► Reply      cached
//!                                                    ├─► Forward    a blob that the builder streams
//!                                                    └─► Join ──► Flights: one callout per key,
//!                                                                 answers for all who wait
//! ```
//!
//! An answer from the cache is [`Prepared`] for the next callers with the same request, and each reply is
//! reused for a second ([`RecentReplies`]).
//!
//! A waiting stream is *held* for at most `hold` seconds, because current containerd and Docker give up
//! after 30. If its image is still being built by then, the client is redirected to the same path, with
//! the time of its first request in the query (`nixgate-since`). Clients follow 9 redirects, so 8 of them
//! keep a client for 8 × hold seconds. After that it gets an error with `Retry-After`. The build
//! continues.

mod answer;
mod by_stream;
mod catalog;
mod flights;
mod judge;
mod page;
mod prepared;
mod query;
mod record;
mod replies;
mod reply;
mod request;
mod tags;
mod target;

pub use answer::{Answer, Response};
pub use flights::{Call, Command, Event, Flights};
pub use prepared::Prepared;
pub use record::{Decision, Doubt, Judgement, Outcome, Record};
pub use replies::{Question, RecentReplies};
pub use reply::Reply;
pub use request::{Caller, Request};

use std::rc::Rc;

use serde_json::json;

use answer::malformed_list;
use judge::{Case, Judged};
use reply::JSON;
use target::{Image, Target};

use crate::Seconds;
use crate::cache::{Content, Entry, Key};
use crate::config::Config;
use crate::distribution::{Error, ErrorKind, MediaType, Method, Reference, Route};
use crate::entity_tags::EntityTags;
use crate::policy::ImageFacts;
use crate::wire::Preferences;

const SINCE: &str = "nixgate-since";

/// The first decision on a request.
#[derive(Debug, PartialEq)]
pub enum Begin {
    /// It is not for the registry.
    PassThrough,
    /// The edge answers alone.
    Reply(Reply),
    /// Look [`Exchange::key`] up, then call [`Exchange::looked_up`].
    Ask(Box<Exchange>),
}

/// The decision after the cache lookup.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The answer was cached.
    Reply(Reply),
    /// The request goes on to the builder.
    Forward(Forward),
    /// Join the flight of [`Exchange::key`].
    Join,
}

/// A request that continues to the builder, which streams the answer. The shell signs it
/// and removes [`wire::CLIENT_ONLY`](crate::wire::CLIENT_ONLY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The request's method.
    pub method: Method,
    /// Replaces `:path`.
    pub path: String,
    /// The client's own path, for the access log.
    pub original_path: String,
    /// For counters and the access log.
    pub record: Record,
}

/// One request on its way to an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    target: Target,
    /// The requested image; none for the catalog.
    image: Option<Image>,
    caller: Caller,
    key: Key,
    path: String,
    /// When this request arrived.
    began: Seconds,
    /// When the client first asked, before any redirect to itself.
    since: Seconds,
    /// The manifests that the client has already.
    if_none_match: EntityTags,
    /// The client requests several ranges of a blob. Object stores answer with the whole blob, the
    /// builder with the ranges.
    several_ranges: bool,
    /// An expired document, in case the builder is unavailable.
    stale: Option<Entry>,
}

impl Exchange {
    /// Starts an exchange.
    pub fn begin(config: &Config, request: &Request<'_>, now: Seconds) -> Begin {
        match Self::route(config, request, now) {
            Ok(begin) => begin,
            Err(error) => Begin::Reply(Reply::error(&error)),
        }
    }

    fn route(config: &Config, request: &Request<'_>, now: Seconds) -> Result<Begin, Error> {
        let route = Route::parse_below(config.name_prefix.as_ref(), request.path);
        if matches!(route, Ok(Route::Elsewhere)) {
            return Ok(Begin::PassThrough);
        }
        let method = match request.method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            other => return Err(method_unsupported(other)),
        };
        let scope = &config.scope;
        let (repository, target) = match route? {
            Route::Elsewhere => return Ok(Begin::PassThrough),
            Route::Base => return Ok(Begin::Reply(Reply::base())),
            Route::Manifest {
                repository,
                reference,
            } => {
                let media_type = MediaType::negotiate(request.accept.iter().copied());
                let target = Target::Manifest {
                    reference,
                    media_type,
                };
                (Some(repository), target)
            }
            Route::Blob { repository, digest } => {
                (Some(repository), Target::Blob { digest, method })
            }
            Route::Tags { repository } => (Some(repository), Target::Tags),
            Route::Catalog if config.catalog => (None, Target::Catalog),
            Route::Catalog => return Err(no_catalog()),
            Route::Referrers { repository, .. } => {
                let Image { name, written } = Image::of(&repository, &config.opaque_namespaces)?;
                let case = Case {
                    name: &name,
                    written,
                    tag: None,
                    caller: request.caller,
                };
                return Ok(Begin::Reply(match case.judge(config, None) {
                    Judged::Denied(reply) => reply,
                    Judged::Allowed(judgement, _) => Reply::no_referrers().judged(judgement),
                }));
            }
        };
        let image = repository
            .map(|repository| Image::of(&repository, &config.opaque_namespaces))
            .transpose()?;
        let key = target.key(scope, image.as_ref());
        let exchange = Self {
            target,
            image,
            caller: request.caller.clone(),
            key,
            path: request.path.to_owned(),
            began: now,
            since: since(request.path).map_or(now, |since| since.min(now)),
            if_none_match: EntityTags::parse(request.if_none_match.iter().copied()),
            // A range of HEAD means nothing (RFC 9110, 14.2).
            several_ranges: request.several_ranges && method == Method::Get,
            stale: None,
        };
        Ok(match exchange.judge(config, None) {
            Judged::Denied(reply) => Begin::Reply(reply),
            Judged::Allowed(..) => Begin::Ask(Box::new(exchange)),
        })
    }

    /// The request as the policy judges it; none without an image.
    fn case<'a>(&'a self, caller: &'a Caller) -> Option<Case<'a>> {
        let Image { name, written } = self.image.as_ref()?;
        Some(Case {
            name,
            written: *written,
            tag: match &self.target {
                Target::Manifest {
                    reference: Reference::Tag(tag),
                    ..
                } => Some(tag),
                _ => None,
            },
            caller,
        })
    }

    /// The policy's rule that grants access, for [`wire::RULE`](crate::wire::RULE).
    fn grantor<'a>(&self, config: &'a Config) -> Option<&'a str> {
        self.case(&self.caller)?.grantor(config)
    }

    fn judge(&self, config: &Config, facts: Option<Vec<ImageFacts>>) -> Judged {
        self.judge_for(&self.caller, config, facts.as_deref())
    }

    /// The catalog itself is allowed: its names are judged one by one.
    fn judge_for(&self, caller: &Caller, config: &Config, facts: Option<&[ImageFacts]>) -> Judged {
        let Some(case) = self.case(caller) else {
            return Judged::Allowed(None, None);
        };
        match case.judge(config, facts) {
            Judged::Denied(reply) => {
                let mut record = self.record(Outcome::Denied);
                record.judgement.clone_from(&reply.record.judgement);
                Judged::Denied(Reply { record, ..reply })
            }
            allowed => allowed,
        }
    }

    /// Whether the policy judges an answer by the facts of its images.
    const fn needs_facts(&self, content: &Content) -> bool {
        match (&self.target, content) {
            (_, Content::Refusal { .. }) | (Target::Tags | Target::Catalog, _) => false,
            (Target::Manifest { .. } | Target::Blob { .. }, _) => true,
        }
    }

    /// The facts that an answer is judged by, if it is. Malformed facts allow nothing.
    fn facts(&self, config: &Config, content: &Content, facts: &str) -> Option<Vec<ImageFacts>> {
        (config.has_policy() && self.needs_facts(content))
            .then(|| ImageFacts::parse(facts).unwrap_or_default())
    }

    /// The key in the cache, and of the flight.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// Decides by the cache entry of the key. An expired entry that is still usable is the fallback if
    /// the builder fails: yesterday's image of a tag is better than no answer.
    pub fn looked_up(&mut self, config: &Config, entry: Option<Entry>, now: Seconds) -> Next {
        match entry {
            Some(entry) if entry.is_fresh(now) => {
                match self.deliver(config, &entry.content, &entry.facts) {
                    Next::Reply(reply) => Next::Reply(reply.hit()),
                    next => next,
                }
            }
            entry => {
                let is_settled = |facts: &str| {
                    let mut facts = ImageFacts::parse(facts).into_iter().flatten();
                    !facts.any(|facts| facts.unsettled)
                };
                self.stale = entry.filter(|entry| entry.is_usable(now) && is_settled(&entry.facts));
                Next::Join
            }
        }
    }

    /// The answer when the builder has none: a stale one, or else the failure.
    fn without_answer(&self, config: &Config, failure: &Reply) -> Reply {
        self.stale.as_ref().map_or_else(
            || self.recorded(failure.clone()),
            |entry| match self.judge(config, self.facts(config, &entry.content, &entry.facts)) {
                Judged::Denied(reply) => reply,
                Judged::Allowed(judgement, warning) => {
                    let reply = self.render(config, &entry.content).stale();
                    reply.judged(judgement).warned(warning)
                }
            },
        )
    }

    /// A content in the form that this client requested.
    fn render(&self, config: &Config, content: &Content) -> Reply {
        self.recorded(match (&self.target, content) {
            (Target::Tags, Content::Document { body, .. }) => {
                tags::page(&self.path, body).unwrap_or_else(|| Reply::error(&malformed_list()))
            }
            (Target::Catalog, Content::Document { body, .. }) => {
                catalog::page(config, &self.caller, &self.path, body)
                    .unwrap_or_else(|| Reply::error(&malformed_list()))
            }
            (
                _,
                Content::Document {
                    digest: Some(digest),
                    ..
                },
            ) if self.if_none_match.has(digest) => Reply::not_modified(digest),
            (_, content) => Reply::content(content),
        })
    }

    fn deliver(&self, config: &Config, content: &Content, facts: &str) -> Next {
        let facts = self.facts(config, content, facts);
        let (judgement, warning) = match self.judge(config, facts) {
            Judged::Denied(reply) => return Next::Reply(reply),
            Judged::Allowed(judgement, warning) => (judgement, warning),
        };
        let is_forwarded = match content {
            Content::Stream => true,
            Content::Redirect { .. } => self.several_ranges,
            Content::Document { .. } | Content::Refusal { .. } => false,
        };
        if is_forwarded {
            let mut record = self.record(Outcome::Forwarded);
            record.judgement = judgement.map(Rc::new);
            return Next::Forward(Forward {
                method: self.target.method(),
                path: self.upstream_path(),
                original_path: self.path.clone(),
                record,
            });
        }
        let reply = self.render(config, content);
        Next::Reply(reply.judged(judgement).warned(warning))
    }

    fn record(&self, outcome: Outcome) -> Record {
        Record {
            route: self.target.route(),
            image: self.image().into(),
            outcome,
            judgement: None,
        }
    }

    /// The reply with the record of this exchange.
    fn recorded(&self, reply: Reply) -> Reply {
        let record = self.record(reply.record.outcome);
        Reply { record, ..reply }
    }

    /// The canonical name of the image; empty for the catalog.
    fn image(&self) -> String {
        let image = self.image.as_ref();
        image.map_or_else(String::new, |image| image.name.to_string())
    }

    fn upstream_path(&self) -> String {
        self.target.upstream_path(&self.image())
    }

    /// The end of the hold, when the client must get some answer.
    const fn deadline(&self, config: &Config) -> Seconds {
        self.began.saturating_add(config.hold)
    }

    /// Whether the hold is over. After the clock was set back, it is: its length is unknown.
    const fn hold_is_over(&self, config: &Config, now: Seconds) -> bool {
        now < self.began || self.deadline(config) <= now
    }

    /// Redirects a client to the same path: its hold is used up while the build continues, or the policy
    /// has changed. Once its redirects are used up, it gets an error.
    fn redirect_to_self(&self, config: &Config, building_for: Seconds, now: Seconds) -> Reply {
        if now.saturating_sub(self.since) < config.budget {
            let since = format!("{:x}", self.since);
            let location = query::with(&self.path, &[(SINCE, &since)]);
            return self.recorded(Reply::redirect_to_self(&location));
        }
        let error = Error::new(
            ErrorKind::StillBuilding,
            format!(
                "the image is still being built ({building_for} s so far). The build continues: \
                 pull again later"
            ),
        );
        let error = error.with_detail(json!({ "building_for_seconds": building_for }));
        self.recorded(Reply::error(&error))
    }

    fn preferences(&self, config: &Config, wait: Seconds) -> Preferences {
        Preferences {
            wait: Some(wait),
            minimal: matches!(self.target, Target::Blob { .. }),
            similar: matches!(self.target, Target::Manifest { .. }) && config.policy.is_none(),
        }
    }
}

fn no_catalog() -> Error {
    Error::new(
        ErrorKind::CatalogUnsupported,
        "the catalog is turned off: every list of packages is a repository, so no list is complete. \
         Look packages up in the package set",
    )
}

fn method_unsupported(method: &str) -> Error {
    Error::new(
        ErrorKind::MethodUnsupported,
        format!(
            "{} is not supported: images are built from package lists and can't be pushed or deleted",
            method.escape_debug()
        ),
    )
}

/// The time of the first request, in hexadecimal seconds. Clients can change it, so it only ever
/// shortens their wait: it counts as no later than now, and a time long past is a budget used up.
fn since(path: &str) -> Option<Seconds> {
    Seconds::from_str_radix(query::value(path, SINCE)?, 16).ok()
}

#[cfg(test)]
mod tests;
