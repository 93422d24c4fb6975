//! The tables of the reference page, from the types that the parser fills: a key that is parsed is in
//! them, with its type, its default and its range, because it is a field.

use std::ops::RangeInclusive;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::{Row, table};

/// A key, as its type says.
pub(crate) struct Key {
    /// Where it is, as in `cache.max_bytes`.
    pub(crate) path: String,
    kind: String,
    pub(crate) default: Option<Value>,
    pub(crate) range: Option<RangeInclusive<u64>>,
    meaning: String,
}

impl Key {
    fn new(path: String, schema: &Value) -> Self {
        let number = |name: &str| schema[name].as_u64();
        let range = match (number("minimum"), number("maximum")) {
            // Every unsigned type has that.
            (None | Some(0), None) => None,
            (least, most) => Some(least.unwrap_or(0)..=most.unwrap_or(u64::MAX)),
        };
        // What an option is without is no default to write.
        let default = Some(&schema["default"]).filter(|default| !default.is_null());
        Self {
            path,
            kind: kind(schema),
            default: default.cloned(),
            range,
            meaning: schema["description"].as_str().unwrap_or_default().into(),
        }
    }

    fn row(&self) -> Row {
        assert!(!self.meaning.is_empty(), "{} has no comment", self.path);
        let mut meaning = self.meaning.replace('\n', " ");
        match self
            .range
            .as_ref()
            .map(|range| (range.start(), range.end()))
        {
            None => {}
            Some((least, &u64::MAX)) => meaning.push_str(&format!("; {least} at least")),
            Some((least, most)) => meaning.push_str(&format!("; {least} to {most}")),
        }
        let default = self.default.as_ref();
        Row::new([
            format!("`{}`", self.path),
            self.kind.clone(),
            default.map_or_else(String::new, |default| format!("`{}`", spaced(default))),
            meaning,
        ])
    }
}

/// JSON in one line, as people write it.
fn spaced(value: &Value) -> String {
    value.to_string().replace("\",\"", "\", \"")
}

fn kind(schema: &Value) -> String {
    if let Some(choices) = choices(schema) {
        return choices;
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => Vec::from_iter(one.as_str()),
    };
    match types.into_iter().find(|kind| *kind != "null") {
        Some("array") => format!("list of {}s", kind(&schema["items"])),
        Some("integer") => "number".to_owned(),
        Some(kind) => kind.to_owned(),
        None => "object".to_owned(),
    }
}

/// The words that a key may have.
fn choices(schema: &Value) -> Option<String> {
    // Words with comments of their own are schemas of their own.
    let (words, key) = match (schema["enum"].as_array(), schema["oneOf"].as_array()) {
        (Some(words), _) => (words, None),
        (None, words) => (words?, Some("const")),
    };
    let words = words.iter().map(|word| key.map_or(word, |key| &word[key]));
    let words: Vec<_> = words.map(|word| format!("`{word}`")).collect();
    Some(words.join(" or "))
}

/// All keys below an object, sorted; those of objects in it are named with its own.
fn keys(schema: &Value, under: &str, keys_of: &mut Vec<Key>) {
    let properties = schema["properties"].as_object();
    for (name, inner) in properties.into_iter().flatten() {
        let path = match under {
            "" => name.clone(),
            under => format!("{under}.{name}"),
        };
        // `Option` of a struct is one of two.
        let object = [inner, &inner["anyOf"][0]]
            .into_iter()
            .find(|schema| schema["properties"].is_object());
        match object {
            Some(object) => {
                if let Some(meaning) = inner["description"].as_str() {
                    keys_of.push(Key {
                        path: path.clone(),
                        kind: "object".to_owned(),
                        default: None,
                        range: None,
                        meaning: meaning.to_owned(),
                    });
                }
                keys(object, &path, keys_of);
            }
            None => keys_of.push(Key::new(path, inner)),
        }
    }
}

/// The keys of a type.
pub(crate) fn keys_of<T: JsonSchema>() -> Vec<Key> {
    let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    let schema: Schema = settings.into_generator().into_root_schema_for::<T>();
    let mut found = Vec::new();
    keys(schema.as_value(), "", &mut found);
    found
}

/// The table of a type's keys.
pub(crate) fn table_of<T: JsonSchema>() -> String {
    let rows: Vec<Row> = keys_of::<T>().iter().map(Key::row).collect();
    table(["key", "type", "default", ""], &rows)
}
