//! The entries of a JSON object as they are written, in their order: the filter then reads what was
//! checked, byte for byte.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The keys of an object and the texts of their values. A key that is there twice is an error: its
/// author would mean one, and the other would be in force.
pub(super) fn entries(json: &str) -> Result<Vec<(String, &str)>> {
    let mut all: Vec<(String, &str)> = Vec::new();
    let mut rest = json
        .trim_start()
        .strip_prefix('{')
        .context("it is not an object")?;
    if let Some(end) = rest.trim_start().strip_prefix('}') {
        rest = end;
    } else {
        loop {
            let (key, _) = take::<String>(&mut rest)?;
            rest = rest
                .trim_start()
                .strip_prefix(':')
                .context("a key has no value")?;
            let (_, value) = take::<IgnoredAny>(&mut rest)?;
            ensure!(
                all.iter().all(|(known, _)| *known != key),
                "duplicate field `{key}`"
            );
            all.push((key, value));
            rest = rest.trim_start();
            if let Some(next) = rest.strip_prefix(',') {
                rest = next;
            } else if let Some(end) = rest.strip_prefix('}') {
                rest = end;
                break;
            } else {
                bail!("the object has no end");
            }
        }
    }
    ensure!(rest.trim().is_empty(), "text follows the object");
    Ok(all)
}

/// Takes a value off a text. Returns the value and its own text.
fn take<'a, T: Deserialize<'a>>(rest: &mut &'a str) -> Result<(T, &'a str)> {
    let mut values = serde_json::Deserializer::from_str(rest).into_iter();
    let value = values.next().context("the text ends")??;
    let (text, after) = rest
        .split_at_checked(values.byte_offset())
        .context("the text ends")?;
    *rest = after;
    Ok((value, text.trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn entries_are_what_was_written() {
        let json = "{ \"b\" : [1, {\"}\": \"\\\"\"}],\n\"\\u0061\":true,\"c\":-1.50 }\n";
        let expected = [
            ("b", "[1, {\"}\": \"\\\"\"}]"),
            ("a", "true"),
            ("c", "-1.50"),
        ];
        let found = entries(json).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(key, text)| (key.as_str(), *text))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(entries(" { } ").unwrap(), []);
        for wrong in [
            "",
            "[]",
            "{",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1,}",
            "{1:2}",
            "{\"a\":1} {}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":01}",
            "{\"a\":1,\"\\u0061\":1}",
        ] {
            assert!(entries(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        /// What is read is what any other parser reads, and what that refuses is refused.
        #[test]
        fn an_object_is_one_to_every_parser(json in "\\{[ab\":,{}1\\[\\]\\\\ ]{0,12}\\}") {
            let whole: Result<Value, _> = serde_json::from_str(&json);
            if let Ok(found) = entries(&json) {
                let whole = whole.unwrap();
                prop_assert_eq!(whole.as_object().map(serde_json::Map::len), Some(found.len()));
                for (key, text) in found {
                    prop_assert_eq!(&whole[&key], &serde_json::from_str::<Value>(text).unwrap());
                }
            }
        }
    }
}
