//! Which bytes of a blob a `Range` header selects (RFC 9110, 14).
//!
//! ```text
//!   bytes=0-9,5-19,90-  ──► 0..20, 90..100    what overlaps is one part, in the place of the first
//! ```
//!
//! Who asks for a part gets no more than who asks for the whole: what overlaps is sent once, and
//! several parts whose framing makes them longer than the whole are answered with the whole, as are
//! more than [`MAX_RANGES`], and what is not understood (RFC 9110, 14.2 allows each).
//!
//! Parts that only touch stay apart: podman counts them, and reads them in the order in which it asked.

use std::num::NonZeroUsize;
use std::ops::Range;

use http_range_header::SyntacticallyCorrectRange as Spec;
use http_range_header::parse_range_header_with_max_ranges;
use nixgate_core::distribution::Digest;

use super::multipart::Multipart;

/// Ranges of one request. podman's partial pulls ask for so many at most.
const MAX_RANGES: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not 0");

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// Everything.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Several parts.
    Parts(Multipart),
    /// There is no such part: 416.
    NotSatisfiable,
}

/// Reads the header of a request for a blob of `size` bytes.
pub(super) fn select(header: &str, digest: &Digest, size: u64) -> Selection {
    let Ok(specs) = parse_range_header_with_max_ranges(header.trim(), MAX_RANGES) else {
        return Selection::Whole;
    };
    let specs = specs.into_ranges().into_iter();
    let mut parts = coalesce(specs.filter_map(|spec| satisfy(spec, size)));
    match parts.len() {
        // Of nothing, there is nothing to select from.
        0 if size == 0 => Selection::Whole,
        0 => Selection::NotSatisfiable,
        1 => Selection::Part(parts.remove(0)),
        _ => {
            let several = Multipart::new(digest, size, parts);
            if several.length() < size {
                Selection::Parts(several)
            } else {
                Selection::Whole
            }
        }
    }
}

/// The bytes that one range selects, if there are any.
fn satisfy(spec: Spec, size: u64) -> Option<Range<u64>> {
    let part = match spec {
        Spec::FromStart(first) => first..size,
        Spec::FromLast(count) => size.saturating_sub(count)..size,
        Spec::Indexed(first, last) => first..last.saturating_add(1).min(size),
    };
    (!part.is_empty()).then_some(part)
}

/// Makes one part of those that overlap. They stay in the order in which they were asked for.
fn coalesce(parts: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut parts: Vec<_> = parts.enumerate().collect();
    parts.sort_by_key(|(_, part)| part.start);
    let mut apart: Vec<(usize, Range<u64>)> = Vec::with_capacity(parts.len());
    for (place, part) in parts {
        match apart.last_mut() {
            Some((first, last)) if part.start < last.end => {
                *first = place.min(*first);
                last.end = part.end.max(last.end);
            }
            _ => apart.push((place, part)),
        }
    }
    apart.sort_by_key(|(place, _)| *place);
    apart.into_iter().map(|(_, part)| part).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Large enough that framing makes no two parts longer than the whole.
    const SIZE: u64 = 100_000;

    fn selected(header: &str, size: u64) -> Selection {
        select(header, &Digest::of(b""), size)
    }

    /// The parts, none when they are the whole.
    fn parts(header: &str, size: u64) -> Option<Vec<Range<u64>>> {
        match selected(header, size) {
            Selection::Whole => None,
            Selection::Part(part) => Some(vec![part]),
            Selection::Parts(several) => Some(several.ranges().to_vec()),
            Selection::NotSatisfiable => Some(Vec::new()),
        }
    }

    #[test]
    fn one_part() {
        for (header, expected) in [
            ("bytes=0-", Selection::Part(0..100)),
            ("bytes=0-0", Selection::Part(0..1)),
            ("BYTES=10-19", Selection::Part(10..20)),
            ("bytes=90-1000", Selection::Part(90..100)),
            ("bytes=-10", Selection::Part(90..100)),
            ("bytes=-1000", Selection::Part(0..100)),
            ("bytes=99-", Selection::Part(99..100)),
            ("bytes=5-99999999999999999999", Selection::Part(5..100)),
            ("bytes=100-", Selection::NotSatisfiable),
            ("bytes=-0", Selection::NotSatisfiable),
            ("bytes=100-200,-0", Selection::NotSatisfiable),
            ("bytes=5-4", Selection::Whole),
            ("lines=0-1", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("bytes=0-1,x", Selection::Whole),
            ("bytes=", Selection::Whole),
            ("", Selection::Whole),
        ] {
            assert_eq!(selected(header, 100), expected, "{header}");
        }
        for header in ["bytes=0-", "bytes=-1"] {
            assert_eq!(selected(header, 0), Selection::Whole);
        }
    }

    #[test]
    fn several_parts() {
        for (header, expected) in [
            ("bytes=0-1,5-6", &[0..2, 5..7][..]),
            ("bytes= 0-1 ,\t5-6, ,", &[0..2, 5..7]),
            // Those that touch, and out of order.
            ("bytes=10-19,0-9,20-29", &[10..20, 0..10, 20..30]),
            ("bytes=50-59,0-9,5-19,15-15", &[50..60, 0..20]),
            ("bytes=5-19,50-59,0-9", &[0..20, 50..60]),
            ("bytes=-5,0-4,200000-", &[99_995..100_000, 0..5]),
        ] {
            assert_eq!(parts(header, SIZE).as_deref(), Some(expected), "{header}");
        }
        // What is left of them is one.
        for (header, part) in [("bytes=0-4,200000-", 0..5), ("bytes=0-4,3-9", 0..10)] {
            assert_eq!(selected(header, SIZE), Selection::Part(part), "{header}");
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

    /// What RFC 9110, 14.1.2 says of one range, byte by byte.
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
            let sent = coalesce(
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
            // Without overlaps they are what was asked for, one by one.
            let some = asked.iter().filter(|bytes| !bytes.is_empty());
            if some.clone().map(BTreeSet::len).sum::<usize>() == wanted.len() {
                let as_asked: Vec<BTreeSet<u64>> = some.cloned().collect();
                let as_sent: Vec<BTreeSet<u64>> = sent.iter().map(|part| part.clone().collect()).collect();
                prop_assert_eq!(as_sent, as_asked, "{}", header);
            }
            match selected(&header, size) {
                Selection::Whole => {}
                Selection::NotSatisfiable => prop_assert!(wanted.is_empty()),
                Selection::Part(part) => prop_assert_eq!(vec![part], sent),
                Selection::Parts(several) => prop_assert_eq!(several.ranges(), sent),
            }
        }

        #[test]
        fn no_header_is_too_much(header in ".{0,60}", size in any::<u64>()) {
            selected(&header, size);
            selected(&format!("bytes={header}"), size);
        }
    }
}
