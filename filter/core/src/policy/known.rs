//! Reads attributes of a caller as Envoy gives them. Claims have a module of their own.

use super::subject::Known;

impl Known {
    /// A property that must be a text. Properties come as bytes without a type: one with control
    /// characters is a number (the eight bytes of a double) or the encoding of a list.
    pub fn text(bytes: &[u8]) -> Self {
        let text = str::from_utf8(bytes).ok();
        text.filter(|text| !text.contains(char::is_control))
            .map_or(Self::UNREADABLE, |text| Self::Values(vec![text.to_owned()]))
    }

    /// The values of a header. U+FFFD replaces bytes that are not UTF-8, so a value with it is
    /// unreadable: it may be another value than it seems.
    pub fn header(values: impl IntoIterator<Item = String>) -> Self {
        let (odd, values): (Vec<_>, Vec<_>) = values
            .into_iter()
            .partition(|value| value.contains(char::REPLACEMENT_CHARACTER));
        match (odd.is_empty(), values.is_empty()) {
            (true, true) => Self::Unknown,
            (true, false) => Self::Values(values),
            (false, _) => Self::Partly(values),
        }
    }

    /// The host of `:authority`, in lower case (RFC 9110, 4.2.3).
    pub fn host(authority: &str) -> Self {
        let host = without_port(authority);
        if host.is_empty() {
            return Self::Unknown;
        }
        Self::header([host.to_ascii_lowercase()])
    }

    /// The address of a client. Envoy gives it with the port.
    pub fn address(bytes: &[u8]) -> Self {
        match Self::text(bytes) {
            Self::Values(values) => Self::Values(
                values
                    .iter()
                    .map(|value| without_port(value).trim_matches(['[', ']']).to_owned())
                    .collect(),
            ),
            unknown => unknown,
        }
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(values: &[&str]) -> Known {
        Known::Values(values.iter().map(|&value| value.to_owned()).collect())
    }

    #[test]
    fn what_is_no_text_is_unreadable() {
        assert_eq!(Known::text(b"data-eng"), known(&["data-eng"]));
        for number in [0.0, 1.0, -1.0, 1_234_567.0, 0.5, f64::MAX] {
            let bytes = f64::to_le_bytes(number);
            assert_eq!(Known::text(&bytes), Known::UNREADABLE, "{number}");
        }
        for bytes in [&b"\0"[..], b"\x01", b"\x01\0\0\0", b"a\xff"] {
            assert_eq!(Known::text(bytes), Known::UNREADABLE);
        }
        assert_eq!(Known::address(b"10.0.0.1\0"), Known::UNREADABLE);
        assert_eq!(Known::host("registry\u{fffd}.corp"), Known::UNREADABLE);
    }

    #[test]
    fn a_header_that_is_no_text_is_unreadable_and_takes_the_others_nothing() {
        let header = |values: &[&str]| Known::header(values.iter().map(|&value| value.to_owned()));
        assert_eq!(header(&[]), Known::Unknown);
        assert_eq!(header(&["", "a"]), known(&["", "a"]));
        assert_eq!(header(&["a\u{fffd}"]), Known::UNREADABLE);
        let partly = Known::Partly(vec!["a".to_owned()]);
        assert_eq!(header(&["\u{fffd}", "a"]), partly);
    }

    #[test]
    fn hosts_and_addresses_lose_their_port() {
        for (authority, host) in [
            ("Registry.corp", "registry.corp"),
            ("registry.corp:8080", "registry.corp"),
            ("[::1]:8080", "[::1]"),
        ] {
            assert_eq!(Known::host(authority), known(&[host]));
        }
        assert_eq!(Known::host(""), Known::Unknown);
        assert_eq!(Known::host(":80"), Known::Unknown);
        for (text, address) in [
            ("10.1.2.3:50000", "10.1.2.3"),
            ("[2001:db8::1]:50000", "2001:db8::1"),
        ] {
            assert_eq!(Known::address(text.as_bytes()), known(&[address]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_unknown(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            Known::address(&bytes);
        }
    }
}
