//! What the edge does with one request, without doing it.
//!
//! The shell (the wasm filter) feeds facts in and carries out what comes back:
//!
//! ```text
//!   request ──► Exchange::begin ──► NotOurs ─────────────► let it pass
//!                     │  └────────► Reply ──────────────► local reply (errors, /v2/)
//!                     ▼
//!                    Ask: key ──► shared cache ──► Exchange::looked_up
//!                                                    ├─► Reply      known
//!                                                    ├─► Forward    a blob that the builder streams
//!                                                    └─► Join ──► Flights: one callout per key,
//!                                                                 answers for all who wait
//! ```
//!
//! What came from the cache can be [`Prepared`] for whoever asks the same next, and replies to it are kept
//! for a second ([`RecentReplies`]).
//!
//! A stream that waits is *held* for at most `hold` seconds, because current containerd and
//! Docker give up after 30. When its image is still being built by then, it is redirected to
//! itself with the time of its first request in the query (`nixgate-since`). Clients follow 9
//! redirects, so 8 of them keep a client for 8 × hold seconds. After that it is told to come
//! back later. The build goes on all the same.

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
mod want;

pub use answer::{Answer, Response};
pub use flights::{Call, Command, Event, Flights};
pub use prepared::Prepared;
pub use record::{Decision, Doubt, Judgement, Outcome, Record};
pub use replies::{Question, RecentReplies};
pub use reply::Reply;
pub use request::{Caller, Request};

use std::rc::Rc;

use serde_json::json;

use answer::unreachable;
use judge::{Case, Judged};
use reply::JSON;
use want::{Image, Want};

use crate::Seconds;
use crate::cache::{Content, Entry, Key};
use crate::config::Config;
use crate::distribution::{Error, ErrorKind, MediaType, Method, Reference, Route};
use crate::entity_tags::EntityTags;
use crate::policy::ImageFacts;
use crate::wire::Preferences;

const SINCE: &str = "nixgate-since";

/// What becomes of a request at first sight.
#[derive(Debug, PartialEq)]
pub enum Begin {
    /// It is not for the registry: let it pass.
    NotOurs,
    /// The answer needs nobody else.
    Reply(Reply),
    /// Look [`Exchange::key`] up, then call [`Exchange::looked_up`].
    Ask(Box<Exchange>),
}

/// What becomes of a request after the cache was asked.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The cache knew the answer.
    Reply(Reply),
    /// The request goes on to the builder.
    Forward(Forward),
    /// Join the flight of [`Exchange::key`].
    Join,
}

/// A request that continues to the builder, which streams the answer. The shell adds the token
/// and removes [`wire::CLIENT_ONLY`](crate::wire::CLIENT_ONLY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Replaces `:path`.
    pub path: String,
    /// What the client wrote, for the access log.
    pub original_path: String,
    /// What to note of it.
    pub record: Record,
}

/// One request on its way to an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    want: Want,
    /// The image that it is about; none for the catalog.
    image: Option<Image>,
    caller: Caller,
    key: Key,
    path: String,
    /// When this request came.
    began: Seconds,
    /// When the client first asked, before any redirect to itself.
    since: Seconds,
    /// Which manifests the client has already.
    if_none_match: EntityTags,
    /// Several parts of a blob are wanted. Stores answer that with the whole, the builder with the
    /// parts.
    several_ranges: bool,
    /// A document whose time is over, for when the builder can't be reached.
    stale: Option<Entry>,
}

impl Exchange {
    /// Decides what a request is.
    pub fn begin(config: &Config, request: &Request<'_>, now: Seconds) -> Begin {
        match Self::understand(config, request, now) {
            Ok(begin) => begin,
            Err(error) => Begin::Reply(Reply::error(&error)),
        }
    }

    fn understand(config: &Config, request: &Request<'_>, now: Seconds) -> Result<Begin, Error> {
        let route = Route::parse_below(config.name_prefix.as_ref(), request.path);
        if matches!(route, Ok(Route::Elsewhere)) {
            return Ok(Begin::NotOurs);
        }
        let method = match request.method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            other => return Err(method_unsupported(other)),
        };
        let scope = &config.scope;
        let (repository, want) = match route? {
            Route::Elsewhere => return Ok(Begin::NotOurs),
            Route::Base => return Ok(Begin::Reply(Reply::base())),
            Route::Manifest {
                repository,
                reference,
            } => {
                let media_type = MediaType::negotiate(request.accept.iter().copied());
                let want = Want::Manifest {
                    reference,
                    media_type,
                };
                (Some(repository), want)
            }
            Route::Blob { repository, digest } => (Some(repository), Want::Blob { digest, method }),
            Route::Tags { repository } => (Some(repository), Want::Tags),
            Route::Catalog if config.catalog => (None, Want::Catalog),
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
        let key = want.key(scope, image.as_ref());
        let exchange = Self {
            want,
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

    /// What a caller asks of the policy; nothing when it is about no image.
    fn case<'a>(&'a self, caller: &'a Caller) -> Option<Case<'a>> {
        let Image { name, written } = self.image.as_ref()?;
        Some(Case {
            name,
            written: *written,
            tag: match &self.want {
                Want::Manifest {
                    reference: Reference::Tag(tag),
                    ..
                } => Some(tag),
                _ => None,
            },
            caller,
        })
    }

    /// The policy's rule that lets the caller in, which the builder is told.
    fn grantor<'a>(&self, config: &'a Config) -> Option<&'a str> {
        self.case(&self.caller)?.grantor(config)
    }

    fn judge(&self, config: &Config, facts: Option<Vec<ImageFacts>>) -> Judged {
        self.judge_for(&self.caller, config, facts.as_deref())
    }

    /// The catalog may be had by everybody: what is in it is judged name by name.
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

    /// Whether an answer belongs to images, so that it is judged by what is in them.
    const fn needs_facts(&self, content: &Content) -> bool {
        match (&self.want, content) {
            (_, Content::Refusal { .. }) | (Want::Tags | Want::Catalog, _) => false,
            (Want::Manifest { .. } | Want::Blob { .. }, _) => true,
        }
    }

    /// The facts by which an answer is judged. Those that can't be read allow nothing.
    fn facts_of(&self, content: &Content, facts: &str) -> Option<Vec<ImageFacts>> {
        self.needs_facts(content)
            .then(|| ImageFacts::parse(facts).unwrap_or_default())
    }

    /// The same; none as well when there is nothing that judges.
    fn facts_to_judge(
        &self,
        config: &Config,
        content: &Content,
        facts: &str,
    ) -> Option<Vec<ImageFacts>> {
        let is_judged = config.policy.is_some() || config.shadow.is_some();
        is_judged.then(|| self.facts_of(content, facts)).flatten()
    }

    /// Under what name the answer is kept, and which flight brings it.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// Decides by what the cache holds for the key. What has expired and is still of some use
    /// ([`Entry::is_of_use`]) is kept at hand: what a tag meant yesterday is better than no
    /// answer.
    pub fn looked_up(&mut self, config: &Config, entry: Option<Entry>, now: Seconds) -> Next {
        match entry {
            Some(entry) if entry.is_fresh(now) => {
                match self.deliver(config, &entry.content, &entry.facts) {
                    Next::Reply(reply) => Next::Reply(reply.hit()),
                    next => next,
                }
            }
            entry => {
                self.stale = entry.filter(|entry| entry.is_of_use(now));
                Next::Join
            }
        }
    }

    /// The answer when the builder has none: what is stale, or else what the builder's failure
    /// looks like to a client.
    fn without_answer(&self, config: &Config, failure: &Reply) -> Reply {
        self.stale.as_ref().map_or_else(
            || self.note(failure.clone()),
            |entry| match self.judge(config, self.facts_of(&entry.content, &entry.facts)) {
                Judged::Denied(reply) => reply,
                Judged::Allowed(judgement, warning) => {
                    let reply = self.present(config, &entry.content).stale();
                    reply.judged(judgement).warned(warning)
                }
            },
        )
    }

    /// A content as this client asked for it.
    fn present(&self, config: &Config, content: &Content) -> Reply {
        self.note(match (&self.want, content) {
            (Want::Tags, Content::Document { body, .. }) => tags::page(&self.path, body)
                .unwrap_or_else(|| Reply::error(&unreachable("it sent no list of tags"))),
            (Want::Catalog, Content::Document { body, .. }) => {
                catalog::page(config, &self.caller, &self.path, body)
                    .unwrap_or_else(|| Reply::error(&unreachable("it sent no catalog")))
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
        let facts = self.facts_to_judge(config, content, facts);
        let (judgement, warning) = match self.judge(config, facts) {
            Judged::Denied(reply) => return Next::Reply(reply),
            Judged::Allowed(judgement, warning) => (judgement, warning),
        };
        let is_the_builders = match content {
            Content::Stream => true,
            Content::Redirect { .. } => self.several_ranges,
            Content::Document { .. } | Content::Refusal { .. } => false,
        };
        if is_the_builders {
            let mut record = self.record(Outcome::Forwarded);
            record.judgement = judgement.map(Rc::new);
            return Next::Forward(Forward {
                path: self.upstream_path(),
                original_path: self.path.clone(),
                record,
            });
        }
        let reply = self.present(config, content);
        Next::Reply(reply.judged(judgement).warned(warning))
    }

    fn record(&self, outcome: Outcome) -> Record {
        Record {
            route: self.want.route(),
            image: self.image().into(),
            outcome,
            judgement: None,
        }
    }

    /// Writes into a reply for what it is one.
    fn note(&self, reply: Reply) -> Reply {
        let record = self.record(reply.record.outcome);
        Reply { record, ..reply }
    }

    /// The canonical name of the image; empty for the catalog.
    fn image(&self) -> String {
        let image = self.image.as_ref();
        image.map_or_else(String::new, |image| image.name.to_string())
    }

    fn upstream_path(&self) -> String {
        self.want.upstream_path(&self.image())
    }

    /// The last second of the hold, at which the client must be answered one way or another.
    const fn deadline(&self, config: &Config) -> Seconds {
        self.began.saturating_add(config.hold)
    }

    /// Whether the hold is over. When the clock was set back nobody knows how long it has been.
    const fn is_over(&self, config: &Config, now: Seconds) -> bool {
        now < self.began || self.deadline(config) <= now
    }

    /// Sends a client round again: its hold is used up while the build goes on, or it has to be
    /// judged anew. When it has been kept for too long already, it is told to come back later.
    fn send_round(&self, config: &Config, building_for: Seconds, now: Seconds) -> Reply {
        if now.saturating_sub(self.since) < config.budget {
            let since = format!("{:x}", self.since);
            let location = query::with(&self.path, &[(SINCE, &since)]);
            return self.note(Reply::redirect_to_self(&location));
        }
        let error = Error::new(
            ErrorKind::StillBuilding,
            format!(
                "the image is still being built, for {building_for} s so far. The build goes on: \
                 pull again in a while"
            ),
        );
        let error = error.with_detail(json!({ "building_for_seconds": building_for }));
        self.note(Reply::error(&error))
    }

    fn preferences(&self, config: &Config, wait: Seconds) -> Preferences {
        Preferences {
            wait: Some(wait),
            minimal: matches!(self.want, Want::Blob { .. }),
            similar: matches!(self.want, Want::Manifest { .. }) && config.policy.is_none(),
        }
    }
}

fn no_catalog() -> Error {
    Error::new(
        ErrorKind::CatalogUnsupported,
        "there is no catalog: every list of packages is a repository, so all of them can't be \
         listed. Look packages up in the package set",
    )
}

fn method_unsupported(method: &str) -> Error {
    Error::new(
        ErrorKind::MethodUnsupported,
        format!(
            "{} is not supported: images come from package lists and can't be pushed or deleted",
            method.escape_debug()
        ),
    )
}

/// The time of the first request, in hexadecimal seconds. It comes from the client, so it is only
/// ever used to give up earlier: it counts as no later than now, and a time long past is a budget
/// that is used up.
fn since(path: &str) -> Option<Seconds> {
    Seconds::from_str_radix(query::value(path, SINCE)?, 16).ok()
}

#[cfg(test)]
mod tests;
