//! The ABI's encoding of header maps, written apart from the filter's so that an error in one of
//! them shows.

use super::Headers;

pub(super) fn encode(headers: &Headers) -> Vec<u8> {
    let number = |count: usize| u32::try_from(count).expect("a few headers").to_le_bytes();
    let mut bytes = number(headers.len()).to_vec();
    for (name, value) in headers {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), &[0], value, &[0]].concat());
    }
    bytes
}

/// # Panics
/// When the filter has sent something else than a header map.
pub(super) fn decode(bytes: &[u8]) -> Headers {
    let number = |index: usize| {
        let bytes = bytes[4 * index..4 * index + 4]
            .try_into()
            .expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    };
    let count = number(0);
    let mut texts = &bytes[4 * (1 + 2 * count)..];
    let mut next = |length: usize| {
        let (text, rest) = texts.split_at(length);
        assert_eq!(rest[0], 0, "each text ends with a zero");
        texts = &rest[1..];
        text.to_vec()
    };
    let headers = (0..count)
        .map(|index| {
            let name = next(number(1 + 2 * index));
            let value = next(number(2 + 2 * index));
            (String::from_utf8(name).expect("names are ASCII"), value)
        })
        .collect();
    assert!(texts.is_empty(), "nothing comes after the last header");
    headers
}
