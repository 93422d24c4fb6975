//! An answer of the cache with all that is the same for everybody who asks for it, so that what is
//! left for each is to judge.
//!
//! ```text
//!   method, media type, path ──► route, packages, key, entry, facts, reply     once
//!   caller, condition ─────────► judged by name, judged by facts               for each
//! ```
//!
//! It is good as long as the entry that it was made of, by the configuration that made it.
//!
//! A caller who is refused by the name is so a few microseconds sooner when others have just had the
//! answer: less than the refusal's own line in the log varies by, and all that it could tell is that.

use super::judge::Judged;
use super::record::Outcome;
use super::want::Want;
use super::{Caller, Exchange, Reply};
use crate::cache::{Content, Entry};
use crate::config::Config;
use crate::entity_tags::EntityTags;
use crate::policy::ImageFacts;

/// An answer that nobody was judged for yet.
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
    /// What the cache holds for the key, for everybody who asks for the same; none when callers get
    /// different answers, or the request itself is needed.
    pub fn prepare(&self, config: &Config, entry: &Entry) -> Option<Prepared> {
        let digest = match (&self.want, &entry.content) {
            (Want::Catalog, _) | (_, Content::Stream | Content::Refusal { .. }) => return None,
            (_, Content::Document { digest, .. }) => digest.clone(),
            (_, Content::Redirect { .. }) => None,
        };
        let exchange = Self {
            caller: Caller::default(),
            if_none_match: EntityTags::default(),
            stale: None,
            ..self.clone()
        };
        let facts = exchange.facts_to_judge(config, &entry.content, &entry.facts);
        let reply = exchange.present(config, &entry.content);
        // Path, key and packages are about the same texts.
        let texts = self.path.len().saturating_add(self.key.as_bytes().len());
        // Others share the body with the entry.
        let page = match &self.want {
            Want::Tags => reply.body.len(),
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
    /// The answer to one caller, who has set these conditions (`If-None-Match`). As without the
    /// preparation, the name is judged first.
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

    /// About how many bytes it takes without the body, which is the entry's.
    pub const fn bytes_of_its_own(&self) -> usize {
        self.bytes
    }
}

impl Reply {
    /// Marks what came from the cache as such.
    pub(super) fn hit(self) -> Self {
        if self.record.outcome == Outcome::Miss {
            return self.with_outcome(Outcome::Hit);
        }
        self
    }
}
