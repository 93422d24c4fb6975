//! What the edge is told of the images that an answer belongs to (`Nixgate-Facts`), by the rules
//! that came with the question (`Nixgate-Rules`).

use http::{HeaderValue, Request, Response};
use nixgate_core::distribution::{Error, ErrorKind};
use nixgate_core::policy::{FactRules, ImageFacts};
use nixgate_core::wire;

use super::images::Image;

/// What the header takes, in bytes: Envoy lets 60 KiB of headers pass, and the edge keeps it with
/// the answer. The first image is told of in any case; it has 100 tags and 128 packages at most.
const MAX_HEADER: usize = 16 << 10;

/// The rules of a request; none apply when it has none.
///
/// # Errors
/// When they can't be understood: to leave them out would let pass what they refuse.
pub(super) fn rules_of<T>(request: &Request<T>) -> Result<FactRules, Error> {
    let invalid = |reason: &str| {
        let message = format!(
            "the header {} can't be understood ({reason}): do filter and builder have the same \
             version?",
            wire::RULES
        );
        Error::new(ErrorKind::RulesInvalid, message)
    };
    let mut headers = request.headers().get_all(wire::RULES).into_iter();
    let Some(rules) = headers.next() else {
        return Ok(FactRules::default());
    };
    if headers.next().is_some() {
        return Err(invalid("it is there twice"));
    }
    let rules = rules
        .to_str()
        .map_err(|error| invalid(&error.to_string()))?;
    FactRules::parse(rules).map_err(|error| invalid(&error.to_string()))
}

/// Puts onto an answer what is known of the images that it belongs to.
pub(super) fn add_facts<T>(response: &mut Response<T>, images: Vec<Image>, rules: &FactRules) {
    if let Ok(facts) = HeaderValue::try_from(header(images, rules)) {
        response.headers_mut().insert(wire::FACTS, facts);
    }
}

/// One item for each image, without those that say the same. The latest come first, and the oldest
/// are left out when the header has no place for them.
pub(super) fn header(mut images: Vec<Image>, rules: &FactRules) -> String {
    images.sort_by_key(|image| std::cmp::Reverse(image.latest));
    let (mut items, mut length) = (Vec::new(), 0);
    for Image { record, tags, .. } in images {
        let facts = record.facts(tags, rules);
        if items.contains(&facts) {
            continue;
        }
        length += ImageFacts::header(std::slice::from_ref(&facts)).len();
        if length > MAX_HEADER && !items.is_empty() {
            break;
        }
        items.push(facts);
    }
    ImageFacts::header(&items)
}

#[cfg(test)]
mod tests;
