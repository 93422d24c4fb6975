//! What the edge is told of the images that a response belongs to (`Nixgate-Facts`), by the policy's
//! rules that the request brings (`Nixgate-Rules`).

use std::cmp::Reverse;
use std::slice;

use http::HeaderMap;
use http::header::HeaderName;
use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::policy::{FactRules, ImageFacts};
use nixgate_core::wire;

use super::error::HttpError;
use super::images::Image;
use super::response::set_header;

const FACTS: HeaderName = HeaderName::from_static(wire::FACTS);
/// The longest header, in bytes: Envoy accepts 60 KiB of headers, and the edge caches this one with the
/// response. The first image is always in it, which has at most 100 tags and 128 packages.
const MAX_HEADER: usize = 16 << 10;

/// The rules of a request; none apply when it has none.
///
/// # Errors
/// When they can't be read: without them, the edge would let through what they refuse.
pub(super) fn rules_of(headers: &HeaderMap) -> Result<FactRules, Error> {
    let invalid = |reason: &str| {
        let message = format!(
            "the header {} can't be read: {reason}. Check that filter and builder have the same \
             version",
            wire::RULES
        );
        Error::new(ErrorKind::RulesInvalid, message)
    };
    let mut values = headers.get_all(wire::RULES).into_iter();
    let Some(rules) = values.next() else {
        return Ok(FactRules::default());
    };
    if values.next().is_some() {
        return Err(invalid("it is there twice"));
    }
    let rules = rules.to_str();
    let rules = rules.map_err(|error| invalid(&error.to_string()))?;
    FactRules::parse(rules).map_err(|error| invalid(&error.to_string()))
}

/// Adds the facts of the images that a response belongs to.
pub(super) fn add_facts(
    headers: &mut HeaderMap,
    images: Vec<Image>,
    rules: &FactRules,
) -> Result<(), HttpError> {
    set_header(headers, FACTS, header(images, rules))
}

/// One item for each image, the latest first. Images with the same facts share an item, and the oldest
/// are left out when the header has no room for them.
pub(super) fn header(mut images: Vec<Image>, rules: &FactRules) -> String {
    images.sort_by_key(|image| Reverse(image.latest));
    let (mut items, mut length) = (Vec::new(), 0);
    for Image { record, tags, .. } in images {
        let facts = record.facts(tags, rules);
        if items.contains(&facts) {
            continue;
        }
        length += ImageFacts::header(slice::from_ref(&facts)).len();
        if length > MAX_HEADER && !items.is_empty() {
            break;
        }
        items.push(facts);
    }
    ImageFacts::header(&items)
}

#[cfg(test)]
mod tests;
