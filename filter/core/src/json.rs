//! JSON that decides something.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A map of which no key is there twice: of two, one would be meant and the other in force. Types with
/// fields of their own refuse that by themselves.
///
/// # Errors
/// When one is, by its name.
pub fn each_key_once<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Keys<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, T>()? {
                if map.contains_key(&key) {
                    let message = format!("\"{}\" is there twice", key.escape_debug());
                    return Err(Error::custom(message));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Keys(PhantomData))
}
