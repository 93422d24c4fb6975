//! What the edge is told of the images that a response belongs to (`Nixgate-Facts`), by the policy's rules that
//! the request brings (`Nixgate-Rules`), and by the packages that they deny (`Nixgate-Denied`).

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::slice;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderName};
use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::policy::{DeniedPatterns, FactRules, ImageFacts, PolicyError};
use nixgate_core::wire;
use parking_lot::Mutex;

use super::error::HttpError;
use super::headers::{max_age, remaining};
use super::images::Image;
use super::response::set_header;
use crate::builder::{OtherNames, Others, Patience};

const FACTS: HeaderName = HeaderName::from_static(wire::FACTS);
/// The longest header, in bytes: Envoy accepts 60 KiB of headers, and the edge caches this one with the
/// response. The first image is always in it, which has at most 100 tags and 128 packages.
const MAX_HEADER: usize = 16 << 10;
/// The most bytes of other names. An image with more has unknown ones.
const MAX_NAMES: usize = 12 << 10;
/// How many package sets are looked at for one request, those of the latest images: their indexes may have to be
/// fetched. Other images have unknown names.
const MAX_SETS: usize = 4;
/// How long an answer counts at most whose facts may change soon.
const UNSETTLED: Duration = Duration::from_secs(60);

/// What a policy wants to know of images.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) facts: FactRules,
    pub(super) denied: DeniedPatterns,
}

impl Rules {
    /// The rules of a request; none apply when it has none.
    ///
    /// # Errors
    /// When they can't be read: without them, the edge would let through what they refuse.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        Ok(Self {
            facts: read(headers, wire::RULES, FactRules::parse)?,
            denied: read(headers, wire::DENIED, DeniedPatterns::parse)?,
        })
    }
}

fn read<T: Default>(
    headers: &HeaderMap,
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, PolicyError>,
) -> Result<T, Error> {
    let invalid = |reason: &str| {
        let message = format!(
            "the header {name} can't be read: {reason}. Check that filter and builder have the same \
             version"
        );
        Error::new(ErrorKind::RulesInvalid, message)
    };
    let mut values = headers.get_all(name).into_iter();
    let Some(value) = values.next() else {
        return Ok(T::default());
    };
    if values.next().is_some() {
        return Err(invalid("it is there twice"));
    }
    let value = value.to_str();
    let value = value.map_err(|error| invalid(&error.to_string()))?;
    parse(value).map_err(|error| invalid(&error.to_string()))
}

/// The facts of images, for one request.
pub(super) struct Inquiry<'a> {
    other_names: &'a OtherNames,
    rules: &'a Rules,
    deadline: Instant,
    /// Whether a list of images is wanted, for which nothing else is to wait.
    is_list: bool,
    /// The package sets that were looked at.
    sets: Mutex<BTreeSet<String>>,
}

/// The facts of the images that a response belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) header: String,
    /// Whether they may be others soon.
    pub(super) is_unsettled: bool,
}

/// Other names are still being looked up, for so long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StillLooking(pub(super) Duration);

impl<'a> Inquiry<'a> {
    pub(super) fn new(other_names: &'a OtherNames, rules: &'a Rules, deadline: Instant) -> Self {
        Self {
            other_names,
            rules,
            deadline,
            is_list: false,
            sets: Mutex::default(),
        }
    }

    /// For a list of images. What is not known by the deadline is unknown.
    pub(super) fn for_list(self) -> Self {
        Self {
            is_list: true,
            ..self
        }
    }

    /// # Errors
    /// When something is not known by the deadline.
    pub(super) async fn facts(&self, mut images: Vec<Image>) -> Result<Facts, StillLooking> {
        images.sort_by_key(|image| Reverse(image.latest));
        let mut known = Vec::with_capacity(images.len());
        for image in images {
            match self.others(&image).await {
                Others::Pending(elapsed) if !self.is_list => return Err(StillLooking(elapsed)),
                others => known.push((image, others)),
            }
        }
        Ok(facts(known, &self.rules.facts))
    }

    async fn others(&self, image: &Image) -> Others {
        let denied = &self.rules.denied;
        if let Some(origin) = &image.record.origin
            && !denied.is_empty()
        {
            let mut sets = self.sets.lock();
            if sets.len() >= MAX_SETS && !sets.contains(&origin.revision) {
                return Others::Unknown;
            }
            sets.insert(origin.revision.clone());
        }
        let patience = Patience {
            wait: remaining(self.deadline),
            only_when_idle: self.is_list,
        };
        self.other_names.of(&image.record, denied, patience).await
    }
}

/// One item for each image, in their order. Images with the same facts share an item, and the last are left out
/// when the header has no room for them.
fn facts(images: Vec<(Image, Others)>, rules: &FactRules) -> Facts {
    let (mut items, mut length, mut is_unsettled) = (Vec::new(), 0, false);
    for (Image { record, tags, .. }, others) in images {
        let unsettled = matches!(others, Others::Known { may_grow: true, .. });
        let others = match others {
            Others::Known { names, may_grow } => {
                is_unsettled |= may_grow;
                let bytes = names
                    .iter()
                    .flat_map(|(name, others)| others.iter().chain([name]));
                // Quotes and commas, and what JSON escapes.
                let bytes: usize = bytes.map(|name| name.escape_default().count() + 4).sum();
                (bytes <= MAX_NAMES).then_some(names)
            }
            Others::Unknown | Others::Pending(_) => {
                is_unsettled = true;
                None
            }
        };
        let facts = ImageFacts {
            unsettled,
            ..record.facts(tags, rules, others)
        };
        if items.contains(&facts) {
            continue;
        }
        length += ImageFacts::header(slice::from_ref(&facts)).len();
        if length > MAX_HEADER && !items.is_empty() {
            break;
        }
        items.push(facts);
    }
    Facts {
        header: ImageFacts::header(&items),
        is_unsettled,
    }
}

impl Facts {
    /// Adds them to the headers of a response, which counts for a shorter time when they may be others soon.
    pub(super) fn add_to(self, headers: &mut HeaderMap) -> Result<(), HttpError> {
        let age = headers.get(CACHE_CONTROL).and_then(|age| age.to_str().ok());
        let age = age.and_then(|age| wire::max_age([age]));
        if self.is_unsettled && age.is_some_and(|age| age > UNSETTLED.as_secs()) {
            let (name, value) = max_age(UNSETTLED);
            set_header(headers, name, value)?;
        }
        set_header(headers, FACTS, self.header)
    }
}

#[cfg(test)]
mod tests;
