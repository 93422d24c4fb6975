//! A cached answer with everything that is the same for all callers, so that only the policy's judgement
//! is left for each.
//!
//! ```text
//!   method, media type, path ──► route, packages, key, entry, facts, reply     once
//!   caller, condition ─────────► judged by name, judged by facts               for each
//! ```
//!
//! It is valid as long as its entry, under the configuration that made it.
//!
//! A caller who is denied by the name gets the denial a few microseconds sooner if others have just got
//! the answer. That is less than the variation of writing the log line, and reveals nothing else.

use super::judge::Judged;
use super::record::Outcome;
use super::target::Target;
use super::{Caller, Exchange, Reply};
use crate::cache::{Content, Entry};
use crate::config::Config;
use crate::entity_tags::EntityTags;
use crate::policy::ImageFacts;

/// An answer before the policy's judgement.
#[derive(Debug)]
pub struct Prepared {
    exchange: Exchange,
    facts: Option<Vec<ImageFacts>>,
    digest: Option<String>,
    /// For a request without a condition.
    reply: Reply,
    bytes: usize,
}

impl Exchange {
    /// Prepares the cached entry for all callers; none if their answers differ by more than the policy, or
    /// depend on the rest of the request.
    pub fn prepare(&self, config: &Config, entry: &Entry) -> Option<Prepared> {
        let digest = match (&self.target, &entry.content) {
            (Target::Catalog, _) | (_, Content::Stream | Content::Refusal { .. }) => return None,
            (_, Content::Document { digest, .. }) => digest.clone(),
            (_, Content::Redirect { .. }) => None,
        };
        let exchange = Self {
            caller: Caller::default(),
            if_none_match: EntityTags::default(),
            stale: None,
            ..self.clone()
        };
        let facts = exchange.facts(config, &entry.content, &entry.facts);
        let reply = exchange.render(config, &entry.content);
        // Path, key and packages have about the same length.
        let texts = self.path.len().saturating_add(self.key.as_bytes().len());
        // Other bodies are shared with the entry.
        let page = match &self.target {
            Target::Tags => reply.body.len(),
            _ => 0,
        };
        let bytes = reply
            .bytes_of_its_own()
            .saturating_add(page)
            .saturating_add(texts.saturating_mul(3))
            .saturating_add(entry.facts.len().saturating_mul(3))
            .saturating_add(size_of::<Prepared>());
        Some(Prepared {
            reply: reply.hit(),
            exchange,
            facts,
            digest,
            bytes,
        })
    }
}

impl Prepared {
    /// The answer to one caller with these `If-None-Match` headers. The name is judged first, as without
    /// preparation.
    pub fn answer(&self, config: &Config, caller: &Caller, if_none_match: &[&str]) -> Reply {
        let by_name = self.exchange.judge_for(caller, config, None);
        let judged = match (by_name, &self.facts) {
            (Judged::Allowed(..), Some(facts)) => {
                self.exchange.judge_for(caller, config, Some(facts))
            }
            (by_name, _) => by_name,
        };
        let (judgement, warning) = match judged {
            Judged::Denied(reply) => return reply,
            Judged::Allowed(judgement, warning) => (judgement, warning),
        };
        let has_it = |digest: &&String| {
            let conditions = if_none_match.iter().copied();
            !if_none_match.is_empty() && EntityTags::parse(conditions).has(digest)
        };
        let reply = match self.digest.as_ref().filter(has_it) {
            Some(digest) => Reply {
                record: self.reply.record.clone(),
                ..Reply::not_modified(digest)
            },
            None => self.reply.clone(),
        };
        reply.judged(judgement).warned(warning)
    }

    /// Approximate size in bytes, without the entry's body.
    pub const fn bytes_of_its_own(&self) -> usize {
        self.bytes
    }
}

impl Reply {
    /// Marks the reply as a cache hit.
    pub(super) fn hit(self) -> Self {
        if self.record.outcome == Outcome::Miss {
            return self.with_outcome(Outcome::Hit);
        }
        self
    }
}
