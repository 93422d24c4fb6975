//! What the builder's response means.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Exchange, JSON, Reply, Want};
use crate::Seconds;
use crate::cache::{Content, Entry};
use crate::config::Config;
use crate::distribution::Method;
use crate::distribution::{Digest, Error, ErrorKind, MediaType, Reference};
use crate::policy::ImageFacts;
use crate::wire::{self, Catalog};

/// What a client is told to wait when the builder says "later" in a way that is not understood,
/// and the most that it is told, in seconds.
const RETRY_AFTER: Seconds = 10;
const RETRY_AFTER_LIMIT: Seconds = 3600;
/// For how long facts are believed under a policy, in seconds: for the while that a tag means one
/// package set, unless the builder is told otherwise.
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

    fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }
}

/// A response, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The answer for every waiting client, and, when the builder allows it, for later ones.
    Final {
        /// What to deliver.
        content: Content,
        /// What the builder said of the images that it belongs to.
        facts: String,
        /// For how long it may be repeated, in seconds.
        max_age: Option<Seconds>,
    },
    /// The builder can't say now, and says when to ask again: it has too much to do, or lacks
    /// something that it needs. For those who wait now, and never kept.
    Later(Reply),
    /// The build goes on.
    Building {
        /// For how long it has run, in seconds.
        for_seconds: Seconds,
    },
    /// No answer of a builder, or none that may be passed on. Never kept.
    Failed(Error),
}

impl Answer {
    /// Reads the response to the callout of `exchange`.
    pub(super) fn read(config: &Config, exchange: &Exchange, response: &Response) -> Self {
        if response.header(wire::BUILDER).is_none() {
            return Self::Failed(unreachable(&match response.status {
                504 => "it did not answer in time".to_owned(),
                503 => "no connection to it".to_owned(),
                0 => "the connection to it broke".to_owned(),
                status => format!("status {status} from something that is not a nixgate builder"),
            }));
        }
        if response.header(wire::REFUSES) == Some(wire::REFUSES_TOKEN) {
            return Self::Failed(unreachable(
                "it refuses the token of this Envoy: give both the same NIXGATE_TOKEN",
            ));
        }
        let content = match (response.status, &exchange.want) {
            (202, _) => {
                let seconds = response
                    .header(wire::BUILDING_FOR)
                    .and_then(|text| text.parse().ok());
                return Self::Building {
                    for_seconds: seconds.unwrap_or(0),
                };
            }
            (200, Want::Manifest { reference, .. }) => manifest(response, reference),
            (200, Want::Tags) => tags(response),
            (200, Want::Catalog) => catalog(response),
            (307, Want::Blob { .. }) => response
                .header("location")
                .filter(|location| is_absolute(location))
                .map(|location| Content::Redirect {
                    location: location.to_owned(),
                })
                .ok_or_else(|| unreachable("it redirected to nowhere")),
            (204, Want::Blob { .. }) => Ok(Content::Stream),
            (status @ 400..=599, want) if is_refusal(&response.body, want) => {
                let after = response.header("retry-after");
                if after.is_some() || status == 503 {
                    return Self::Later(later(status, after, &response.body));
                }
                Ok(Content::Refusal {
                    status,
                    body: response.body.as_slice().into(),
                })
            }
            (status, _) => Err(unreachable(&format!(
                "it answered with the status {status} and nothing that explains it"
            ))),
        };
        match content {
            Ok(content) => {
                let facts = response.header(wire::FACTS).unwrap_or_default().to_owned();
                let is_judged = config.policy.is_some() || config.shadow.is_some();
                let is_judged = is_judged && exchange.needs_facts(&content);
                let max_age = wire::max_age(response.all("cache-control"));
                if is_judged && ImageFacts::parse(&facts).is_none() {
                    return Self::Failed(unreachable(
                        "it does not say what is in the image, by which the policy judges: it is \
                         of another version than the edge",
                    ));
                }
                Self::Final {
                    content,
                    facts,
                    // A digest stands for the same bytes for ever; which tags lead to it changes.
                    max_age: max_age.map(|age| if is_judged { age.min(FACTS_FOR) } else { age }),
                }
            }
            Err(error) => Self::Failed(error),
        }
    }

    /// The entry to keep, if the answer may be kept.
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

/// Whether a body of a 4xx or 5xx is an error of the distribution spec, whole. Half an error, or
/// the page of something between edge and builder, says nothing about the image. The answer to
/// `HEAD` has no body that could be looked at.
fn is_refusal(body: &[u8], want: &Want) -> bool {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(rename = "code")]
        _code: String,
    }
    let head = matches!(
        want,
        Want::Blob {
            method: Method::Head,
            ..
        }
    );
    if head && body.is_empty() {
        return true;
    }
    serde_json::from_slice(body).is_ok_and(|Body { errors }| !errors.is_empty())
}

/// A refusal for now. Only seconds are understood of `Retry-After`: a date would be one of another
/// clock.
fn later(status: u16, after: Option<&str>, body: &[u8]) -> Reply {
    let after = after.and_then(|after| after.trim().parse().ok());
    let after: Seconds = after.unwrap_or(RETRY_AFTER);
    Reply::later(status, after.min(RETRY_AFTER_LIMIT), body)
}

/// A list of tags has no digest, so all that can be told is whether it is a whole list.
fn tags(response: &Response) -> Result<Content, Error> {
    #[derive(Deserialize)]
    struct List {
        #[serde(rename = "tags")]
        _tags: Vec<IgnoredAny>,
    }
    serde_json::from_slice::<List>(&response.body)
        .map_err(|_| unreachable("it sent a list of tags that is none"))?;
    Ok(list(response))
}

/// As [`tags`].
fn catalog(response: &Response) -> Result<Content, Error> {
    match Catalog::parse(&response.body) {
        Some(_) => Ok(list(response)),
        None => Err(unreachable("it sent a catalog that is none")),
    }
}

fn list(response: &Response) -> Content {
    Content::Document {
        media_type: JSON.to_owned(),
        digest: None,
        source: None,
        body: response.body.as_slice().into(),
    }
}

/// Storage has a host of its own: a client would look for anything less at the registry.
fn is_absolute(location: &str) -> bool {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| location.strip_prefix(scheme));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
}

/// A manifest is passed on only when it is what it says, byte for byte.
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
        return Err(unreachable(
            "it sent a manifest that does not match its digest",
        ));
    }
    let media_type = response
        .header("content-type")
        .filter(|name| MediaType::ALL.iter().any(|known| known.as_str() == *name))
        .ok_or_else(|| unreachable("it sent a manifest without the media type of one"))?;
    Ok(Content::Document {
        media_type: media_type.to_owned(),
        digest: Some(actual.to_string()),
        source: response.header(wire::SOURCE).map(str::to_owned),
        body: response.body.as_slice().into(),
    })
}

pub(super) fn unreachable(why: &str) -> Error {
    Error::new(
        ErrorKind::BuilderUnreachable,
        format!(
            "the image builder can't be reached ({why}). Images that are cached are still served; \
             for others try again later, or ask the registry's administrator to look at the builder"
        ),
    )
}
