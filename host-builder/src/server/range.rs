//! `Range` of one part (RFC 9110, 14.2). Several parts in one request are answered with the
//! whole, which the RFC allows and every client understands.

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// Everything.
    Whole,
    /// From byte `start` up to but not including `end`.
    Part { start: u64, end: u64 },
    /// There is no such part: 416.
    NotSatisfiable,
}

/// Reads the header of a request for a content of `size` bytes. What isn't understood is ignored.
pub(super) fn parse(header: Option<&str>, size: u64) -> Range {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Range::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Range::Whole;
    };
    let (first, last) = match (first, last) {
        ("", last) => match last.parse::<u64>() {
            Ok(count) => (
                size.saturating_sub(count),
                if count == 0 { 0 } else { size },
            ),
            Err(_) => return Range::Whole,
        },
        (first, "") => match first.parse() {
            Ok(first) => (first, size),
            Err(_) => return Range::Whole,
        },
        (first, last) => match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
            _ => return Range::Whole,
        },
    };
    if first >= last {
        return Range::NotSatisfiable;
    }
    Range::Part {
        start: first,
        end: last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_hundred_bytes() {
        let part = |start, end| Range::Part { start, end };
        for (header, expected) in [
            ("bytes=0-", part(0, 100)),
            ("bytes=0-0", part(0, 1)),
            ("bytes=10-19", part(10, 20)),
            ("bytes=90-1000", part(90, 100)),
            ("bytes=-10", part(90, 100)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=99-", part(99, 100)),
            ("bytes=100-", Range::NotSatisfiable),
            ("bytes=-0", Range::NotSatisfiable),
            ("bytes=5-4", Range::Whole),
            ("bytes=0-1,5-6", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=", Range::Whole),
        ] {
            assert_eq!(parse(Some(header), 100), expected, "{header}");
        }
        assert_eq!(parse(None, 100), Range::Whole);
        assert_eq!(parse(Some("bytes=0-"), 0), Range::NotSatisfiable);
    }
}
