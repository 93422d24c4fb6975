//! A part of an Envoy configuration, with its place in it.
//!
//! Envoy reads each field by its name in the schema (`http_filters`) or in camel case (`httpFilters`),
//! and numbers as text, too; so do these methods.

use serde_json::Value;

/// A value, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    /// The file, and the path in it, such as `envoy.yaml: static_resources.listeners[0]`.
    pub(super) path: String,
}

impl<'a> Node<'a> {
    pub(super) fn root(source: &str, value: &'a Value) -> Self {
        Self {
            value,
            path: format!("{source}:"),
        }
    }

    /// A field. None when it is null, as if it were absent.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        let fields = self.value.as_object()?;
        let (key, value) = match fields.get_key_value(key) {
            Some(found) => found,
            None => fields.get_key_value(&camel_case(key))?,
        };
        (!value.is_null()).then(|| Self {
            value,
            path: self.below(key),
        })
    }

    fn below(&self, key: &str) -> String {
        let is_plain = key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let separator = if self.path.ends_with(':') { " " } else { "." };
        match is_plain {
            true => format!("{}{separator}{key}", self.path),
            false => format!("{}[{key:?}]", self.path),
        }
    }

    /// A field of a field.
    pub(super) fn at(&self, keys: &[&str]) -> Option<Self> {
        keys.iter()
            .try_fold(self.clone(), |node, key| node.get(key))
    }

    /// The items of a list.
    pub(super) fn items(&self, key: &str) -> Vec<Self> {
        let Some(list) = self.get(key) else {
            return Vec::new();
        };
        let items = list.value.as_array().into_iter().flatten().enumerate();
        items
            .map(|(index, value)| Self {
                value,
                path: format!("{}[{index}]", list.path),
            })
            .collect()
    }

    /// The fields of the value.
    pub(super) fn fields(&self) -> Vec<(&'a str, Self)> {
        let fields = self.value.as_object().into_iter().flatten();
        fields
            .map(|(key, value)| {
                let path = self.below(key);
                (key.as_str(), Self { value, path })
            })
            .collect()
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.value.as_str()
    }

    /// The name that Envoy's messages mostly have.
    pub(super) fn name(&self) -> &'a str {
        self.text("name").unwrap_or_default()
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.flag(key) == Some(true)
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.value.as_bool()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let value = self.get(key)?.value;
        let text = value.as_str().and_then(|text| text.parse().ok());
        value.as_u64().or(text)
    }

    /// A duration, in seconds.
    pub(super) fn seconds(&self, key: &str) -> Option<f64> {
        let text = self.text(key)?.strip_suffix('s')?;
        text.parse()
            .ok()
            .filter(|seconds: &f64| seconds.is_finite())
    }

    /// What an extension is configured with, taken out of a `TypedStruct`.
    pub(super) fn typed(&self) -> Option<Self> {
        let typed = self.get("typed_config")?;
        match typed.own_kind() {
            "TypedStruct" => typed.get("value"),
            _ => Some(typed),
        }
    }

    /// The last part of the type of an extension's configuration, such as `Router`.
    pub(super) fn kind(&self) -> &'a str {
        let Some(typed) = self.get("typed_config") else {
            return "";
        };
        match typed.own_kind() {
            "TypedStruct" => last_part(typed.text("type_url").unwrap_or_default()),
            kind => kind,
        }
    }

    /// The last part of the type of this value.
    pub(super) fn own_kind(&self) -> &'a str {
        last_part(self.text("@type").unwrap_or_default())
    }

    /// Whether any text in it, of whatever depth, is as wanted.
    pub(super) fn any_text(&self, wanted: &mut dyn FnMut(&str) -> bool) -> bool {
        any_text(self.value, wanted)
    }

    /// Calls with each object in it, of whatever depth, itself included.
    pub(super) fn each_object(&self, call: &mut dyn FnMut(&Self)) {
        match self.value {
            Value::Object(_) => {
                call(self);
                for (_, field) in self.fields() {
                    field.each_object(call);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    let path = format!("{}[{index}]", self.path);
                    Self { value, path }.each_object(call);
                }
            }
            _ => {}
        }
    }
}

fn any_text(value: &Value, wanted: &mut dyn FnMut(&str) -> bool) -> bool {
    match value {
        Value::String(text) => wanted(text),
        Value::Array(items) => items.iter().any(|item| any_text(item, wanted)),
        Value::Object(fields) => fields.values().any(|field| any_text(field, wanted)),
        _ => false,
    }
}

fn last_part(kind: &str) -> &str {
    kind.rsplit(['.', '/']).next().unwrap_or_default()
}

fn camel_case(key: &str) -> String {
    let mut upper = false;
    let mut camel = String::with_capacity(key.len());
    for letter in key.chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                camel.push(letter.to_ascii_uppercase());
                upper = false;
            }
            _ => camel.push(letter),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_in_both_spellings_and_say_where_they_are() {
        let value = json!({
            "httpFilters": [{"name": "a", "disabled": null}],
            "typed_per_filter_config": {"a.b": {"timeout": "0.500s", "bytes": "12", "more": 3}},
        });
        let root = Node::root("envoy.yaml", &value);
        let filter = root.items("http_filters").remove(0);
        assert_eq!(filter.path, "envoy.yaml: httpFilters[0]");
        assert!(filter.get("disabled").is_none());
        let per_filter = root.at(&["typed_per_filter_config", "a.b"]).unwrap();
        assert_eq!(
            per_filter.path,
            r#"envoy.yaml: typed_per_filter_config["a.b"]"#
        );
        assert_eq!(per_filter.seconds("timeout"), Some(0.5));
        assert_eq!(per_filter.number("bytes"), Some(12));
        assert_eq!(per_filter.number("more"), Some(3));
    }

    #[test]
    fn the_type_of_an_extension_is_also_known_in_a_typed_struct() {
        let plain = json!({"typed_config": {"@type": "type.googleapis.com/a.b.v3.Router"}});
        assert_eq!(Node::root("", &plain).kind(), "Router");
        let wrapped = json!({"typed_config": {
            "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": "type.googleapis.com/a.b.v3.Wasm",
            "value": {"config": {}},
        }});
        let node = Node::root("", &wrapped);
        assert_eq!(node.kind(), "Wasm");
        assert!(node.typed().unwrap().get("config").is_some());
    }
}
