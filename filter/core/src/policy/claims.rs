//! Claims of a token, found in Envoy's dynamic metadata.
//!
//! Envoy gives a filter a single claim as bytes without a type: a list, a text with the same bytes and
//! a map of empty values look the same. The whole metadata is a Protocol Buffers message with the type
//! of each value. Reading it takes one host call for all claims, instead of two for each.
//!
//! ```text
//!   Metadata   1: map of namespace to Struct            envoy.filters.http.jwt_authn
//!   Struct     1: map of key to Value                     jwt_payload ─► groups
//!   Value      2: number  3: text  4: boolean  5: Struct  6: List
//!   List       1: Value, repeated                             "data-eng", "staff"
//! ```
//!
//! (`envoy.config.core.v3.Metadata` and `google.protobuf.Struct`.) A map is a repeated field of
//! entries, each with its key as 1 and its value as 2. Unreadable values are unknown. A list with an
//! item that is not a text is known in part: the other items still count.

use super::subject::{ClaimKind, Known};

const MAP: u64 = 1;
const KEY: u64 = 1;
const ENTRY_VALUE: u64 = 2;
const TEXT: u64 = 3;
const STRUCT: u64 = 5;
const LIST: u64 = 6;
const ITEM: u64 = 1;

impl Known {
    /// The claim at a path of Envoy's dynamic metadata: the namespace, then keys. Unknown when there is
    /// none, and unreadable when it is of another kind.
    pub fn claim<'a>(
        metadata: &[u8],
        path: impl IntoIterator<Item = &'a str>,
        kind: ClaimKind,
    ) -> Self {
        value_at(metadata, path).map_or(Self::Unknown, |value| match kind {
            ClaimKind::Text => text(value),
            ClaimKind::List => list(value),
        })
    }
}

fn value_at<'m, 'p>(
    metadata: &'m [u8],
    path: impl IntoIterator<Item = &'p str>,
) -> Option<&'m [u8]> {
    let mut path = path.into_iter();
    let mut fields = entry(metadata, path.next()?)?;
    let mut value = entry(fields, path.next()?)?;
    for key in path {
        fields = only(value, STRUCT)?;
        value = entry(fields, key)?;
    }
    Some(value)
}

fn text(value: &[u8]) -> Known {
    only(value, TEXT).map_or(Known::UNREADABLE, Known::text)
}

fn list(value: &[u8]) -> Known {
    let Some(mut rest) = only(value, LIST) else {
        return Known::UNREADABLE;
    };
    let (mut items, mut is_whole) = (Vec::new(), true);
    while !rest.is_empty() {
        match field(&mut rest) {
            Some((ITEM, item)) => match text(item) {
                Known::Values(item) => items.extend(item),
                Known::Unknown | Known::Partly(_) => is_whole = false,
            },
            Some(_) => is_whole = false,
            // The next field has no known beginning.
            None => return Known::Partly(items),
        }
    }
    if is_whole {
        Known::Values(items)
    } else {
        Known::Partly(items)
    }
}

/// The value of a key in a message with a map.
fn entry<'m>(mut message: &'m [u8], key: &str) -> Option<&'m [u8]> {
    while !message.is_empty() {
        let (number, mut entry) = field(&mut message)?;
        if number != MAP {
            continue;
        }
        let (mut found, mut value): (&[u8], &[u8]) = (&[], &[]);
        while !entry.is_empty() {
            match field(&mut entry)? {
                (KEY, bytes) => found = bytes,
                (ENTRY_VALUE, bytes) => value = bytes,
                _ => {}
            }
        }
        if found == key.as_bytes() {
            return Some(value);
        }
    }
    None
}

/// The bytes of the only field of a message.
fn only(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    let (number, bytes) = field(&mut message)?;
    (number == wanted && message.is_empty()).then_some(bytes)
}

/// Takes a field off a message. Returns its number and its bytes, which are empty for a number.
/// (Protocol Buffers, "Encoding".)
fn field<'m>(message: &mut &'m [u8]) -> Option<(u64, &'m [u8])> {
    const NUMBER: u64 = 0;
    const EIGHT_BYTES: u64 = 1;
    const BYTES: u64 = 2;
    const FOUR_BYTES: u64 = 5;
    let tag = varint(message)?;
    let length = match tag & 7 {
        NUMBER => {
            varint(message)?;
            0
        }
        EIGHT_BYTES => 8,
        BYTES => usize::try_from(varint(message)?).ok()?,
        FOUR_BYTES => 4,
        _ => return None,
    };
    let (bytes, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some((tag >> 3, bytes))
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Metadata as Envoy encodes it, for tests: an object of namespaces, each an object.
#[cfg(any(test, feature = "test"))]
pub fn metadata(namespaces: &serde_json::Value) -> Vec<u8> {
    use serde_json::Value;

    fn bytes_field(number: u64, bytes: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        for mut value in [number << 3 | 2, bytes.len() as u64] {
            while value >= 0x80 {
                field.push((value & 0x7f) as u8 | 0x80);
                value >>= 7;
            }
            field.push(value as u8);
        }
        field.extend(bytes);
        field
    }
    fn map(object: &Value, encode: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
        let entries = object.as_object().into_iter().flatten();
        let entries = entries.flat_map(|(key, value)| {
            let key = bytes_field(KEY, key.as_bytes());
            bytes_field(
                MAP,
                &[key, bytes_field(ENTRY_VALUE, &encode(value))].concat(),
            )
        });
        entries.collect()
    }
    fn value(json: &Value) -> Vec<u8> {
        match json {
            Value::Null => vec![1 << 3, 0],
            Value::Bool(value) => vec![4 << 3, u8::from(*value)],
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default().to_le_bytes();
                [&[2 << 3 | 1][..], &number].concat()
            }
            Value::String(text) => bytes_field(TEXT, text.as_bytes()),
            Value::Array(items) => {
                let items = items
                    .iter()
                    .flat_map(|item| bytes_field(ITEM, &value(item)));
                bytes_field(LIST, &items.collect::<Vec<_>>())
            }
            Value::Object(_) => bytes_field(STRUCT, &map(json, value)),
        }
    }
    map(namespaces, |fields| map(fields, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const PATH: [&str; 3] = ["jwt_authn", "payload", "groups"];

    fn claim(groups: &Value, kind: ClaimKind) -> Known {
        let others = json!({"sub": "a", "groups": groups, "exp": 7, "z": {"groups": ["x"]}});
        let all = json!({"a": {"payload": 1}, "jwt_authn": {"other": true, "payload": others}});
        Known::claim(&metadata(&all), PATH, kind)
    }

    fn known(values: &[&str]) -> Known {
        Known::Values(values.iter().map(|&value| value.to_owned()).collect())
    }

    #[test]
    fn a_claim_is_of_the_kind_that_it_is_to_be_or_unreadable() {
        let (text, list) = (ClaimKind::Text, ClaimKind::List);
        assert_eq!(claim(&json!("data-eng"), text), known(&["data-eng"]));
        assert_eq!(claim(&json!(["a", "", "ü"]), list), known(&["a", "", "ü"]));
        assert_eq!(claim(&json!([]), list), known(&[]));
        for other in [
            json!("data-eng"),
            json!("\n\u{5}\n\u{3}abc"),
            json!(""),
            json!({"a": "", "": "", "0": ""}),
            json!({}),
            json!(7),
            json!(true),
            json!(null),
        ] {
            assert_eq!(claim(&other, list), Known::UNREADABLE, "{other}");
        }
        for (odd, readable) in [
            (json!(["a", 7]), &["a"][..]),
            (json!([7, "a", {"b": "c"}, "d"]), &["a", "d"]),
            (json!([["a"]]), &[]),
            (json!([null]), &[]),
            (json!(["a\u{0}b", "c"]), &["c"]),
        ] {
            let readable = readable.iter().map(|&item| item.to_owned()).collect();
            assert_eq!(claim(&odd, list), Known::Partly(readable), "{odd}");
        }
        for other in [
            json!(["a"]),
            json!({"a": "b"}),
            json!("a\0b"),
            json!(7),
            json!(null),
        ] {
            assert_eq!(claim(&other, text), Known::UNREADABLE, "{other}");
        }
    }

    #[test]
    fn a_claim_is_where_its_path_leads() {
        let all = metadata(&json!({"jwt_authn": {"payload": {"realm": {"roles": ["a"]}}}}));
        let at = |path: &[&'static str]| Known::claim(&all, path.iter().copied(), ClaimKind::List);
        assert_eq!(
            at(&["jwt_authn", "payload", "realm", "roles"]),
            known(&["a"])
        );
        for path in [
            &[][..],
            &["jwt_authn"],
            &["payload"],
            &["jwt_authn", "payload", "roles"],
            &["jwt_authn", "payload", "realm", "roles", "0"],
            &["", "payload", "realm", "roles"],
        ] {
            assert_eq!(at(path), Known::Unknown, "{path:?}");
        }
        let realm = at(&["jwt_authn", "payload", "realm"]);
        assert_eq!(realm, Known::UNREADABLE, "a map is no list");
    }

    #[test]
    fn metadata_that_is_cut_off_or_spoilt_is_unknown_or_what_it_says() {
        let whole = metadata(&json!({"jwt_authn": {"payload": {"groups": ["data-eng"]}}}));
        let read = |bytes: &[u8]| Known::claim(bytes, PATH, ClaimKind::List);
        assert_eq!(read(&whole), known(&["data-eng"]));
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Known::Unknown, "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_unknown(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            Known::claim(&bytes, ["", ""], ClaimKind::List);
            Known::claim(&bytes, PATH, ClaimKind::Text);
        }

        #[test]
        fn a_list_survives(items in prop::collection::vec("[^\\p{Cc}]{0,200}", 0..6)) {
            prop_assert_eq!(claim(&json!(items), ClaimKind::List), Known::Values(items));
        }
    }
}
