//! Conditions of a request for a blob (RFC 9110, 13.2.2), in the order that the RFC demands.
//!
//! ```text
//!   If-Match ─────── another blob ──► 412
//!      │
//!   If-None-Match ── this blob ─────► 304
//!      │
//!   Range ── only of GET, and with If-Range only if that is this blob ──► 206, 416
//!      │ none, or not understood
//!      └──► 200
//! ```
//!
//! A blob's entity tag is its digest, a strong one. A blob has no date of modification because the bytes of
//! a digest never change. So `If-Modified-Since` and `If-Unmodified-Since` are ignored, as the RFC demands,
//! and an `If-Range` with a date is never true.
//!
//! The crate `headers` would replace little of this: it refuses entity tags without quotes, which Docker's
//! registry accepts, and the edge needs [`EntityTags`] without it.

use http::Method;
use http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use nixgate_core::distribution::Digest;
use nixgate_core::entity_tags::EntityTags;

use super::headers::{entity_tag, texts};
use super::range::{self, Outcome};

/// Evaluates the headers of a request for a blob of `size` bytes.
pub(super) fn evaluate(
    method: &Method,
    headers: &HeaderMap,
    digest: &Digest,
    size: u64,
) -> Outcome {
    let tags = |name: HeaderName| {
        let is_given = headers.contains_key(&name);
        is_given.then(|| EntityTags::parse(texts(headers, name)))
    };
    let text = digest.to_string();
    if tags(IF_MATCH).is_some_and(|wanted| !wanted.has_strong(&text)) {
        return Outcome::PreconditionFailed;
    }
    if tags(IF_NONE_MATCH).is_some_and(|known| known.has(&text)) {
        return Outcome::NotModified;
    }
    // Strong comparison: a tag that differs in any letter is another one.
    let tag = entity_tag(digest);
    let is_same = headers.get_all(IF_RANGE).iter().all(|given| *given == *tag);
    let mut ranges = headers.get_all(RANGE).into_iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) if *method == Method::GET && is_same => {
            // A range that is not text is not understood.
            range::select(range.to_str().unwrap_or_default(), digest, size)
        }
        _ => Outcome::Whole,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const SIZE: u64 = 1000;

    fn answer(method: &Method, headers: &[(&'static str, &str)]) -> Outcome {
        let digest = Digest::of(b"blob");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = value.replace("THIS", &entity_tag(&digest));
            map.append(*name, HeaderValue::try_from(value).unwrap());
        }
        evaluate(method, &map, &digest, SIZE)
    }

    #[test]
    fn conditions_are_evaluated_as_the_rfc_says() {
        let whole = || Outcome::Whole;
        let part = || Outcome::Part(0..10);
        let not_satisfiable = || Outcome::NotSatisfiable;
        let (range, other) = (("range", "bytes=0-9"), "\"sha256:0\"");
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let beyond = ("range", "bytes=1000-");
        for (headers, expected) in [
            (&[][..], whole()),
            (&[range], part()),
            (&[beyond], not_satisfiable()),
            (&[range, range], whole()),
            (&[("if-match", "THIS")], whole()),
            (&[("if-match", "*"), range], part()),
            (&[("if-match", "\"x\", THIS"), range], part()),
            (&[("if-match", other), range], Outcome::PreconditionFailed),
            // Compared strongly.
            (&[("if-match", "W/THIS")], Outcome::PreconditionFailed),
            (&[("if-match", "")], Outcome::PreconditionFailed),
            (&[("if-match", other), ("if-match", "THIS")], whole()),
            (&[("if-none-match", "THIS"), range], Outcome::NotModified),
            (&[("if-none-match", "W/THIS")], Outcome::NotModified),
            (&[("if-none-match", "*"), beyond], Outcome::NotModified),
            (&[("if-none-match", other), range], part()),
            // In this order.
            (
                &[("if-none-match", "THIS"), ("if-match", other)],
                Outcome::PreconditionFailed,
            ),
            (
                &[("if-match", "THIS"), ("if-none-match", "THIS")],
                Outcome::NotModified,
            ),
            (&[("if-range", "THIS"), range], part()),
            (&[("if-range", "THIS"), beyond], not_satisfiable()),
            (&[("if-range", "THIS")], whole()),
            (&[("if-range", "W/THIS"), range], whole()),
            (&[("if-range", other), range], whole()),
            (&[("if-range", other), beyond], whole()),
            (&[("if-range", date), range], whole()),
            (&[("if-range", "THIS"), ("if-range", other), range], whole()),
            // There is no date to compare with.
            (&[("if-modified-since", date), range], part()),
            (&[("if-unmodified-since", date), range], part()),
        ] {
            assert_eq!(answer(&Method::GET, headers), expected, "{headers:?}");
            // HEAD has no ranges.
            let of_head = match expected {
                Outcome::Part(_) | Outcome::NotSatisfiable => Outcome::Whole,
                other => other,
            };
            assert_eq!(answer(&Method::HEAD, headers), of_head, "HEAD {headers:?}");
        }
    }
}
