//! What Envoy hands over of a caller's attributes, understood.
//!
//! Properties reach a filter as bytes without a type: a text as it is, a list as proxy-wasm encodes
//! pairs (each item a name with an empty value), a number as the eight bytes of a double. So the
//! policy says which it expects, and what looks like anything else is unknown:
//!
//! ```text
//!   text   UTF-8 without control characters: no number that a person would write, and no list
//!   list   the encoding of one, whole, and the host finds an item under its index, which it does
//!          neither in a text that was made to look like a list nor in a map
//! ```
//!
//! A map is encoded as its keys with their values, so one whose values are all empty looks like a
//! list of its keys. It gives itself away by any key that is not empty: under a list's index the
//! host has that item, and under a map's key the empty value.

use super::subject::Known;

impl Known {
    /// The value of a property that is to be a text.
    pub fn text(bytes: &[u8]) -> Self {
        let text = str::from_utf8(bytes).ok();
        text.filter(|text| !text.contains(char::is_control))
            .map_or(Self::Unknown, |text| Self::Values(vec![text.to_owned()]))
    }

    /// The value of a property that is to be a list of texts. `item` looks up what the host has
    /// under an index of the property.
    pub fn list(bytes: &[u8], item: impl FnOnce(usize) -> Option<Vec<u8>>) -> Self {
        let Some(values) = items(bytes) else {
            return Self::Unknown;
        };
        // With nothing but empty items, the first is as good as any.
        let telling = values.iter().position(|value| !value.is_empty());
        let index = telling.unwrap_or(0);
        let is_list = values
            .get(index)
            .is_none_or(|value| item(index).as_deref() == Some(value.as_bytes()));
        if is_list {
            Self::Values(values)
        } else {
            Self::Unknown
        }
    }

    /// The host of `:authority` (RFC 9110, 4.2.3): names are compared without regard to case.
    pub fn host(authority: &str) -> Self {
        let host = without_port(authority);
        if host.is_empty() {
            return Self::Unknown;
        }
        Self::text(host.to_ascii_lowercase().as_bytes())
    }

    /// The address of a client, which Envoy gives with the port.
    pub fn address(bytes: &[u8]) -> Self {
        match Self::text(bytes) {
            Self::Values(values) => Self::Values(
                values
                    .iter()
                    .map(|value| without_port(value).trim_matches(['[', ']']).to_owned())
                    .collect(),
            ),
            Self::Unknown => Self::Unknown,
        }
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The items of a list as a host encodes it: the count, the lengths of each item and of the empty
/// value that goes with it, then the texts with a zero byte behind each.
fn items(bytes: &[u8]) -> Option<Vec<String>> {
    let number = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
    let (count, rest) = bytes.split_first_chunk()?;
    let (lengths, mut texts) = rest.split_at_checked(number(count)?.checked_mul(8)?)?;
    let mut items = Vec::new();
    let (lengths, _) = lengths.as_chunks::<4>();
    let (pairs, _) = lengths.as_chunks::<2>();
    for [length, value] in pairs {
        if number(value)? != 0 {
            return None;
        }
        let (text, rest) = texts.split_at_checked(number(length)?)?;
        texts = rest.strip_prefix(b"\0\0")?;
        let Known::Values(text) = Known::text(text) else {
            return None;
        };
        items.extend(text);
    }
    texts.is_empty().then_some(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(values: &[&str]) -> Known {
        Known::Values(values.iter().map(|&value| value.to_owned()).collect())
    }

    /// As a host does it.
    fn encode(items: &[&[u8]]) -> Vec<u8> {
        let length = |length: usize| u32::try_from(length).unwrap().to_le_bytes();
        let mut bytes = length(items.len()).to_vec();
        for item in items {
            bytes.extend(length(item.len()));
            bytes.extend(length(0));
        }
        for item in items {
            bytes.extend(*item);
            bytes.extend([0, 0]);
        }
        bytes
    }

    #[test]
    fn a_text_is_no_list_and_a_list_no_text() {
        let list = encode(&[b"data-eng", b"staff"]);
        assert_eq!(Known::text(b"data-eng"), known(&["data-eng"]));
        assert_eq!(Known::text(&list), Known::Unknown);
        let has = |items: &'static [&str]| {
            move |index: usize| items.get(index).map(|item| item.as_bytes().to_vec())
        };
        assert_eq!(
            Known::list(&list, has(&["data-eng", "staff"])),
            known(&["data-eng", "staff"])
        );
        let list_with_empty = encode(&[b"", b"staff"]);
        assert_eq!(
            Known::list(&list_with_empty, has(&["", "staff"])),
            known(&["", "staff"])
        );
        // The same bytes in a text have no items for the host.
        assert_eq!(Known::list(&list, |_| None), Known::Unknown);
        assert_eq!(Known::list(&list, has(&["staff"])), Known::Unknown);
        assert_eq!(Known::list(b"data-eng", |_| None), Known::Unknown);
        assert_eq!(Known::list(&encode(&[]), |_| None), known(&[]));
    }

    #[test]
    fn numbers_and_maps_are_unknown() {
        for number in [0.0, 1.0, -1.0, 1_234_567.0, 0.5, f64::MAX] {
            let bytes = f64::to_le_bytes(number);
            assert_eq!(Known::text(&bytes), Known::Unknown, "{number}");
            assert_eq!(Known::list(&bytes, |_| None), Known::Unknown, "{number}");
            let items = encode(&[&bytes]);
            let item = |_| Some(bytes.to_vec());
            assert_eq!(Known::list(&items, item), Known::Unknown, "{number}");
        }
        // A map has values that are not empty.
        let mut map = encode(&[b"data-eng"]);
        map[8] = 1;
        map.splice(21.., *b"x\0");
        assert_eq!(Known::list(&map, |_| None), Known::Unknown);
        // Nor has a map of empty values items, whatever its keys are and in what order they come.
        for keys in [
            &["", "0", "1", "data-eng"][..],
            &["data-eng", "0", ""],
            &["0", "data-eng", "1"],
            &["", "data-eng", "1"],
            &["0"],
        ] {
            let bytes: Vec<_> = keys.iter().map(|key| key.as_bytes()).collect();
            let item = |index: usize| {
                let key = index.to_string();
                keys.contains(&key.as_str()).then(Vec::new)
            };
            let map = Known::list(&encode(&bytes), item);
            assert_eq!(map, Known::Unknown, "{keys:?}");
        }
        for boolean in [b"\0", b"\x01"] {
            assert_eq!(Known::text(boolean), Known::Unknown);
        }
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
            Known::list(&bytes, |_| None);
            Known::address(&bytes);
        }

        #[test]
        fn a_list_survives(items in prop::collection::vec("[^\\p{Cc}]{0,8}", 0..6)) {
            let bytes: Vec<_> = items.iter().map(String::as_bytes).collect();
            let item = |index: usize| items.get(index).map(|item| item.as_bytes().to_vec());
            prop_assert_eq!(Known::list(&encode(&bytes), item), Known::Values(items.clone()));
        }
    }
}
