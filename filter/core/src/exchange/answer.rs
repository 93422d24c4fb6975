//! Reads the builder's response.

use serde::Deserialize;

use super::{Exchange, JSON, Reply, Target, tags};
use crate::Seconds;
use crate::cache::{Content, Entry};
use crate::config::Config;
use crate::distribution::{Digest, Error, ErrorKind, MediaType, Method, Reference};
use crate::policy::ImageFacts;
use crate::wire::{self, Catalog};

/// `Retry-After` for a client when the builder's own is missing or malformed, and its limit, in seconds.
const RETRY_AFTER: Seconds = 10;
const RETRY_AFTER_LIMIT: Seconds = 3600;
/// How long facts are valid under a policy, in seconds: as long as a tag is pinned by default.
const FACTS_FOR: Seconds = 300;

/// A response to a callout, as the host hands it over.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// `:status`, or 0 when the connection broke before there was one.
    pub status: u16,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }
}

/// A response, parsed.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The answer for every waiting client, and, when the builder allows it, for later ones.
    Final {
        /// What to deliver.
        content: Content,
        /// The facts of the images that it belongs to ([`wire::FACTS`]).
        facts: String,
        /// How long it may be cached, in seconds.
        max_age: Option<Seconds>,
    },
    /// The builder is overloaded or not ready, and says when to ask again. Never cached.
    Later(Reply),
    /// The build goes on.
    Building {
        /// How long it has run, in seconds.
        for_seconds: Seconds,
    },
    /// No answer from a builder, or an invalid one. Never cached.
    Failed(Error),
}

impl Answer {
    /// Reads the response to the callout of `exchange`.
    pub(super) fn read(config: &Config, exchange: &Exchange, response: &Response) -> Self {
        if response.header(wire::BUILDER).is_none() {
            return Self::Failed(unavailable(&match response.status {
                504 => "it did not answer in time".to_owned(),
                503 => "no connection to it".to_owned(),
                0 => "the connection to it broke".to_owned(),
                status => {
                    format!("a server that is not a nixgate builder answered with status {status}")
                }
            }));
        }
        if response.header(wire::REFUSES) == Some(wire::REFUSES_TOKEN) {
            return Self::Failed(unavailable(
                "it refuses this Envoy's token; give both the same NIXGATE_TOKEN",
            ));
        }
        // The flight asks again, by the builder's time.
        if response.header(wire::REFUSES) == Some(wire::REFUSES_TIME) {
            return Self::Building { for_seconds: 0 };
        }
        let content = match (response.status, &exchange.target) {
            (202, _) => {
                let seconds = response
                    .header(wire::BUILDING_FOR)
                    .and_then(|text| text.parse().ok());
                return Self::Building {
                    for_seconds: seconds.unwrap_or(0),
                };
            }
            (200, Target::Manifest { reference, .. }) => manifest(response, reference),
            (200, Target::Tags) => list(response, tags::parse(&response.body).is_some()),
            (200, Target::Catalog) => list(response, Catalog::parse(&response.body).is_some()),
            (307, Target::Blob { .. }) => response
                .header("location")
                .filter(|location| is_absolute(location))
                .map(|location| Content::Redirect {
                    location: location.to_owned(),
                })
                .ok_or_else(|| unavailable("its redirect has no absolute URL")),
            (204, Target::Blob { .. }) => Ok(Content::Stream),
            (status @ 400..=599, target) if is_refusal(&response.body, target) => {
                let after = response.header("retry-after");
                if after.is_some() || status == 503 {
                    return Self::Later(later(status, after, &response.body));
                }
                Ok(Content::Refusal {
                    status,
                    body: response.body.as_slice().into(),
                })
            }
            (status, _) => Err(unavailable(&format!(
                "it answered with status {status} and no error body"
            ))),
        };
        match content {
            Ok(content) => {
                let facts = response.header(wire::FACTS).unwrap_or_default().to_owned();
                let is_judged = config.has_policy() && exchange.needs_facts(&content);
                let max_age = wire::max_age(response.all("cache-control"));
                if is_judged && ImageFacts::parse(&facts).is_none() {
                    return Self::Failed(unavailable(
                        "its answer lacks the facts that the policy needs; update builder and edge to \
                         one version",
                    ));
                }
                Self::Final {
                    content,
                    facts,
                    // A digest always means the same bytes, but the tags that lead to it change.
                    max_age: max_age.map(|age| if is_judged { age.min(FACTS_FOR) } else { age }),
                }
            }
            Err(error) => Self::Failed(error),
        }
    }

    /// The entry to cache, if the answer may be cached.
    pub(super) fn entry(&self, now: Seconds) -> Option<Entry> {
        match self {
            Self::Final {
                content,
                facts,
                max_age: Some(age @ 1..),
            } => Some(Entry {
                learnt: now,
                expires: now.saturating_add(*age),
                content: content.clone(),
                facts: facts.clone(),
            }),
            _ => None,
        }
    }
}

/// Whether the body of a 4xx or 5xx is a whole error of the distribution spec, and not one of a proxy
/// between edge and builder. The answer to `HEAD` has no body.
fn is_refusal(body: &[u8], target: &Target) -> bool {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(rename = "code")]
        _code: String,
    }
    let is_head = matches!(target, Target::Blob { method, .. } if *method == Method::Head);
    if is_head && body.is_empty() {
        return true;
    }
    serde_json::from_slice(body).is_ok_and(|Body { errors }| !errors.is_empty())
}

/// A temporary refusal. `Retry-After` is read in seconds only: a date would depend on another clock.
fn later(status: u16, after: Option<&str>, body: &[u8]) -> Reply {
    let after = after.and_then(|after| after.trim().parse().ok());
    let after: Seconds = after.unwrap_or(RETRY_AFTER);
    Reply::later(status, after.min(RETRY_AFTER_LIMIT), body)
}

pub(super) fn malformed_list() -> Error {
    unavailable("its list is malformed")
}

/// A list has no digest to check, only its form.
fn list(response: &Response, is_valid: bool) -> Result<Content, Error> {
    if !is_valid {
        return Err(malformed_list());
    }
    Ok(Content::Document {
        media_type: JSON.to_owned(),
        digest: None,
        source: None,
        body: response.body.as_slice().into(),
    })
}

/// A client would resolve a relative location against the registry, not against storage.
fn is_absolute(location: &str) -> bool {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| location.strip_prefix(scheme));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
}

/// A manifest is passed on only if its bytes match its digest.
fn manifest(response: &Response, reference: &Reference) -> Result<Content, Error> {
    let actual = Digest::of(&response.body);
    let claimed = response
        .header("docker-content-digest")
        .and_then(|text| text.parse().ok());
    let asked = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => None,
    };
    if claimed != Some(actual) || asked.is_some_and(|digest| digest != actual) {
        return Err(unavailable("its manifest does not match its digest"));
    }
    let media_type = response
        .header("content-type")
        .filter(|name| MediaType::ALL.iter().any(|known| known.as_str() == *name))
        .ok_or_else(|| unavailable("its manifest has an unknown media type"))?;
    Ok(Content::Document {
        media_type: media_type.to_owned(),
        digest: Some(actual.to_string()),
        source: response.header(wire::SOURCE).map(str::to_owned),
        body: response.body.as_slice().into(),
    })
}

pub(super) fn unavailable(why: &str) -> Error {
    Error::new(
        ErrorKind::BuilderUnreachable,
        format!(
            "the image builder is unavailable ({why}). Cached images are still served. Try again \
             later, or ask the registry's administrator to check the builder"
        ),
    )
}
