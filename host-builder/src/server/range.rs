//! The part of a blob that a `Range` header selects (RFC 9110, 14).
//!
//! ```text
//!   bytes=0-9,5-19,90-  ──► 0..20, 90..100    overlapping ranges are one part, in the place of the first
//! ```
//!
//! A request for parts costs no more than one for the whole blob: overlapping ranges are sent once. The
//! whole blob is sent if the parts with their framing are longer than it, if there are more than
//! [`MAX_RANGES`], or if the header is not understood. RFC 9110, 14.2 allows all of this.
//!
//! Ranges that only touch stay apart: podman counts the parts, and reads them in the order of its ranges.
//!
//! The crate `http-range-header` parses. Crates that also answer (`tower-http`, `axum-range`, `headers`) send
//! one range, or don't merge and bound several, so they can't serve podman's partial pulls.

use std::num::NonZeroUsize;
use std::ops::Range;

use http_range_header::{SyntacticallyCorrectRange as Spec, parse_range_header_with_max_ranges};
use nixgate_core::distribution::Digest;

use super::multipart::Multipart;

/// The most ranges of a request. podman's partial pulls send up to this many.
const MAX_RANGES: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not 0");

/// What to answer to a request for a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Whole,
    Part(Range<u64>),
    Parts(Multipart),
    /// No byte of the blob is in the ranges: 416.
    NotSatisfiable,
    /// The client has the blob already: 304.
    NotModified,
    /// The client wants another blob than this: 412.
    PreconditionFailed,
}

/// Reads the header of a request for a blob of `size` bytes.
pub(super) fn select(header: &str, digest: &Digest, size: u64) -> Outcome {
    let Ok(specs) = parse_range_header_with_max_ranges(header.trim(), MAX_RANGES) else {
        return Outcome::Whole;
    };
    let specs = specs.into_ranges().into_iter();
    let mut parts = merge_overlapping(specs.filter_map(|spec| satisfy(spec, size)));
    match parts.len() {
        // An empty blob has no ranges.
        0 if size == 0 => Outcome::Whole,
        0 => Outcome::NotSatisfiable,
        1 => Outcome::Part(parts.remove(0)),
        _ => {
            let parts = Multipart::new(digest, size, parts);
            match parts.length() < size {
                true => Outcome::Parts(parts),
                false => Outcome::Whole,
            }
        }
    }
}

/// The bytes that one range selects, if any.
fn satisfy(spec: Spec, size: u64) -> Option<Range<u64>> {
    let part = match spec {
        Spec::FromStart(first) => first..size,
        Spec::FromLast(count) => size.saturating_sub(count)..size,
        Spec::Indexed(first, last) => first..last.saturating_add(1).min(size),
    };
    (!part.is_empty()).then_some(part)
}

/// Merges overlapping ranges, and keeps the order of the header.
fn merge_overlapping(parts: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut parts: Vec<_> = parts.enumerate().collect();
    parts.sort_by_key(|(_, part)| part.start);
    let mut merged: Vec<(usize, Range<u64>)> = Vec::with_capacity(parts.len());
    for (place, part) in parts {
        match merged.last_mut() {
            Some((first, last)) if part.start < last.end => {
                *first = place.min(*first);
                last.end = part.end.max(last.end);
            }
            _ => merged.push((place, part)),
        }
    }
    merged.sort_by_key(|(place, _)| *place);
    merged.into_iter().map(|(_, part)| part).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// So large that two parts with their framing are shorter.
    const SIZE: u64 = 100_000;

    fn selected(header: &str, size: u64) -> Outcome {
        select(header, &Digest::of(b""), size)
    }

    /// The parts; `None` for the whole blob.
    fn parts(header: &str, size: u64) -> Option<Vec<Range<u64>>> {
        match selected(header, size) {
            Outcome::Part(part) => Some(vec![part]),
            Outcome::Parts(parts) => Some(parts.ranges().to_vec()),
            Outcome::NotSatisfiable => Some(Vec::new()),
            _ => None,
        }
    }

    #[test]
    fn one_part() {
        for (header, expected) in [
            ("bytes=0-", Outcome::Part(0..100)),
            ("bytes=0-0", Outcome::Part(0..1)),
            ("BYTES=10-19", Outcome::Part(10..20)),
            ("bytes=90-1000", Outcome::Part(90..100)),
            ("bytes=-10", Outcome::Part(90..100)),
            ("bytes=-1000", Outcome::Part(0..100)),
            ("bytes=99-", Outcome::Part(99..100)),
            ("bytes=5-99999999999999999999", Outcome::Part(5..100)),
            ("bytes=100-", Outcome::NotSatisfiable),
            ("bytes=-0", Outcome::NotSatisfiable),
            ("bytes=100-200,-0", Outcome::NotSatisfiable),
            ("bytes=5-4", Outcome::Whole),
            ("lines=0-1", Outcome::Whole),
            ("bytes=a-b", Outcome::Whole),
            ("bytes=0-1,x", Outcome::Whole),
            ("bytes=", Outcome::Whole),
            ("", Outcome::Whole),
        ] {
            assert_eq!(selected(header, 100), expected, "{header}");
        }
        for header in ["bytes=0-", "bytes=-1"] {
            assert_eq!(selected(header, 0), Outcome::Whole);
        }
    }

    #[test]
    fn several_parts() {
        for (header, expected) in [
            ("bytes=0-1,5-6", &[0..2, 5..7][..]),
            ("bytes= 0-1 ,\t5-6, ,", &[0..2, 5..7]),
            // Adjacent, and out of order.
            ("bytes=10-19,0-9,20-29", &[10..20, 0..10, 20..30]),
            ("bytes=50-59,0-9,5-19,15-15", &[50..60, 0..20]),
            ("bytes=5-19,50-59,0-9", &[0..20, 50..60]),
            ("bytes=-5,0-4,200000-", &[99_995..100_000, 0..5]),
        ] {
            assert_eq!(parts(header, SIZE).as_deref(), Some(expected), "{header}");
        }
        // One is left.
        for (header, part) in [("bytes=0-4,200000-", 0..5), ("bytes=0-4,3-9", 0..10)] {
            assert_eq!(selected(header, SIZE), Outcome::Part(part), "{header}");
        }
    }

    #[test]
    fn no_more_ranges_than_podman_asks_for_and_no_more_bytes_than_the_whole() {
        let ranges = |count: u64| {
            let each: Vec<_> = (0..count)
                .map(|n| format!("{}-{}", n * 9, n * 9 + 1))
                .collect();
            format!("bytes={}", each.join(","))
        };
        let size = 10_000_000;
        assert_eq!(
            parts(&ranges(1024), size).map(|parts| parts.len()),
            Some(1024)
        );
        assert_eq!(parts(&ranges(1025), size), None);
        assert_eq!(parts(&ranges(1024), 10_000), None);
        assert_eq!(parts("bytes=0-1,5-6", 100), None);
    }

    /// RFC 9110, 14.1.2 for one range, byte by byte.
    fn oracle(spec: &(Option<u64>, Option<u64>), size: u64) -> BTreeSet<u64> {
        (0..size)
            .filter(|byte| match *spec {
                (Some(first), Some(last)) => first <= *byte && *byte <= last,
                (Some(first), None) => first <= *byte,
                (None, Some(count)) => size - byte <= count,
                (None, None) => false,
            })
            .collect()
    }

    fn specs() -> impl Strategy<Value = Vec<(Option<u64>, Option<u64>)>> {
        let one = prop_oneof![
            (0..1100_u64, 0..1100_u64)
                .prop_map(|(one, other)| (Some(one.min(other)), Some(one.max(other)))),
            (0..1100_u64, 0..20_u64).prop_map(|(first, more)| (Some(first), Some(first + more))),
            (0..1100_u64).prop_map(|first| (Some(first), None)),
            (0..1100_u64).prop_map(|count| (None, Some(count))),
        ];
        prop::collection::vec(one, 1..12)
    }

    proptest! {
        #[test]
        fn every_byte_that_is_asked_for_is_sent_once_and_no_other(specs in specs(), size in 0..1000_u64) {
            let number = |number: &Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
            let texts: Vec<_> = specs
                .iter()
                .map(|(first, last)| format!("{}-{}", number(first), number(last)))
                .collect();
            let header = format!("bytes={}", texts.join(","));
            let asked: Vec<_> = specs.iter().map(|spec| oracle(spec, size)).collect();
            let wanted: BTreeSet<u64> = asked.iter().flatten().copied().collect();
            let sent = merge_overlapping(
                parse_range_header_with_max_ranges(&header, MAX_RANGES)
                    .unwrap()
                    .into_ranges()
                    .into_iter()
                    .filter_map(|spec| satisfy(spec, size)),
            );
            let bytes: Vec<u64> = sent.iter().cloned().flatten().collect();
            let once: BTreeSet<u64> = bytes.iter().copied().collect();
            prop_assert_eq!(bytes.len(), once.len(), "{}", header);
            prop_assert_eq!(&once, &wanted, "{}", header);
            // Without overlaps, each range is sent as requested.
            let some = asked.iter().filter(|bytes| !bytes.is_empty());
            if some.clone().map(BTreeSet::len).sum::<usize>() == wanted.len() {
                let as_asked: Vec<BTreeSet<u64>> = some.cloned().collect();
                let as_sent: Vec<BTreeSet<u64>> = sent.iter().map(|part| part.clone().collect()).collect();
                prop_assert_eq!(as_sent, as_asked, "{}", header);
            }
            match selected(&header, size) {
                Outcome::NotSatisfiable => prop_assert!(wanted.is_empty()),
                Outcome::Part(part) => prop_assert_eq!(vec![part], sent),
                Outcome::Parts(parts) => prop_assert_eq!(parts.ranges(), sent),
                whole => prop_assert_eq!(whole, Outcome::Whole),
            }
        }

        #[test]
        fn no_header_is_too_much(header in ".{0,60}", size in any::<u64>()) {
            selected(&header, size);
            selected(&format!("bytes={header}"), size);
        }
    }
}
