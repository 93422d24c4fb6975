//! What a client gets of a blob that is there, by its conditions and ranges: RFC 9110, 13.2.2, in
//! that order.
//!
//! ```text
//!   If-Match ──────── another ──► 412
//!      │
//!   If-None-Match ─── this one ─► 304
//!      │
//!   Range ─── of GET alone, and with If-Range only when it is this one ──► 206, 416
//!      │ no, or not understood
//!      └──► 200
//! ```
//!
//! A blob's entity tag is its digest, a strong one. It has no date of modification, since the bytes of a
//! digest never change: so `If-Modified-Since` and `If-Unmodified-Since` are ignored, as the RFC has it
//! for what has none, and an `If-Range` with a date is never true.

use http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderValue, Method};
use nixgate_core::distribution::Digest;
use nixgate_core::entity_tags::EntityTags;

use super::range::{self, Selection};

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The client wants another blob than this: 412.
    Failed,
    /// The client has it already: 304.
    NotModified,
    /// What it selects of the blob.
    Selected(Selection),
}

/// The entity tag of a blob.
pub(super) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Decides about a request for a blob of `size` bytes.
pub(super) fn evaluate(
    method: &Method,
    headers: &HeaderMap,
    digest: &Digest,
    size: u64,
) -> Outcome {
    let tags = |name: HeaderName| {
        let given = headers.contains_key(&name);
        let values = headers.get_all(name).into_iter().filter_map(text);
        given.then(|| EntityTags::parse(values))
    };
    let this = digest.to_string();
    if tags(IF_MATCH).is_some_and(|wanted| !wanted.has_strong(&this)) {
        return Outcome::Failed;
    }
    if tags(IF_NONE_MATCH).is_some_and(|known| known.has(&this)) {
        return Outcome::NotModified;
    }
    // Strong comparison: what is not this tag, letter by letter, is another one.
    let this = entity_tag(digest);
    let mut same = headers.get_all(IF_RANGE).into_iter();
    let mut ranges = headers.get_all(RANGE).into_iter();
    let range = match (ranges.next().and_then(text), ranges.next()) {
        (Some(range), None) if *method == Method::GET => range,
        // What is given twice is not understood.
        _ => return Outcome::Selected(Selection::Whole),
    };
    Outcome::Selected(match same.all(|tag| *tag == *this) {
        true => range::select(range, digest, size),
        false => Selection::Whole,
    })
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
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
        let whole = || Outcome::Selected(Selection::Whole);
        let part = || Outcome::Selected(Selection::Part(0..10));
        let gone = || Outcome::Selected(Selection::NotSatisfiable);
        let (range, other) = (("range", "bytes=0-9"), "\"sha256:0\"");
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let beyond = ("range", "bytes=1000-");
        for (headers, expected) in [
            (&[][..], whole()),
            (&[range], part()),
            (&[beyond], gone()),
            (&[range, range], whole()),
            (&[("if-match", "THIS")], whole()),
            (&[("if-match", "*"), range], part()),
            (&[("if-match", "\"x\", THIS"), range], part()),
            (&[("if-match", other), range], Outcome::Failed),
            // Compared strongly.
            (&[("if-match", "W/THIS")], Outcome::Failed),
            (&[("if-match", "")], Outcome::Failed),
            (&[("if-match", other), ("if-match", "THIS")], whole()),
            (&[("if-none-match", "THIS"), range], Outcome::NotModified),
            (&[("if-none-match", "W/THIS")], Outcome::NotModified),
            (&[("if-none-match", "*"), beyond], Outcome::NotModified),
            (&[("if-none-match", other), range], part()),
            // In this order.
            (
                &[("if-none-match", "THIS"), ("if-match", other)],
                Outcome::Failed,
            ),
            (
                &[("if-match", "THIS"), ("if-none-match", "THIS")],
                Outcome::NotModified,
            ),
            (&[("if-range", "THIS"), range], part()),
            (&[("if-range", "THIS"), beyond], gone()),
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
            let selected = matches!(expected, Outcome::Selected(_));
            let of_head = if selected { whole() } else { expected };
            assert_eq!(answer(&Method::HEAD, headers), of_head, "HEAD {headers:?}");
        }
    }
}
