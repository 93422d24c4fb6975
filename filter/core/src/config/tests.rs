use super::raw::Raw;
use super::*;
use crate::reference::keys::{keys_of, table_of};
#[cfg(not(target_arch = "wasm32"))]
use crate::reference::with_table;

fn parse(json: &str) -> Result<Config, String> {
    Config::parse(json.as_bytes(), |name| {
        (name == "TOKEN").then(|| "secret".to_owned())
    })
    .map_err(|error| error.to_string())
}

#[test]
fn the_least_that_is_needed() {
    let config = parse(r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}}"#).unwrap();
    assert_eq!(
        (config.hold, config.budget, config.cache_max_bytes),
        (20, 160, 64 << 20)
    );
    assert_eq!(config.name_prefix, None);
    assert_eq!(config.cluster, "b");
}

/// The least that is needed, with `value` at `key`, as in `cache.max_bytes`.
fn with(key: &str, value: serde_json::Value) -> String {
    let mut config = serde_json::json!({"builder": {"cluster": "b", "token_env": "TOKEN"}});
    let mut place = &mut config;
    for part in key.split('.').filter(|part| !part.is_empty()) {
        place = &mut place[part];
    }
    *place = value;
    config.to_string()
}

#[test]
fn what_the_reference_page_says_of_defaults_and_ranges_is_so() {
    let parse = |key: &str, value| parse(&with(key, value));
    let least = parse("builder.cluster", "b".into()).unwrap();
    let mut seen = (0, 0);
    for key in keys_of::<Raw>() {
        if let Some(default) = key.default {
            seen.0 += 1;
            // Keys of an object that is left out can't be given alone.
            let Ok(given) = parse(&key.path, default) else {
                assert!(key.path.ends_with("y.hide") || key.path.ends_with("w.hide"));
                continue;
            };
            // Each has a scope of its own.
            let given = Config {
                scope: least.scope.clone(),
                ..given
            };
            assert_eq!(format!("{given:?}"), format!("{least:?}"), "{}", key.path);
        }
        if let Some(range) = key.range {
            seen.1 += 1;
            let around = [range.start() - 1, range.end().saturating_add(1)];
            for value in [*range.start(), *range.end()] {
                let taken = parse(&key.path, value.into());
                assert!(taken.is_ok(), "{} is {value}: {taken:?}", key.path);
            }
            for value in around.into_iter().filter(|value| !range.contains(value)) {
                let error = parse(&key.path, value.into()).unwrap_err();
                assert!(
                    error.contains(&format!("{} is {value}", key.path)),
                    "{error}"
                );
            }
        }
    }
    assert!(seen.0 >= 4 && seen.1 >= 2, "{seen:?}");
}

#[test]
fn the_token_is_never_printed() {
    let config = parse(r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}}"#).unwrap();
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn errors_name_the_key() {
    for (json, part) in [
        ("", "EOF while parsing"),
        ("{}", "missing field `builder`"),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "cash": {}}"#,
            "unknown field `cash`",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN", "x": 1}}"#,
            "unknown field `x`",
        ),
        (
            r#"{"builder": {"cluster": "", "token_env": "TOKEN"}}"#,
            "builder.cluster is empty",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "NONE"}}"#,
            "the variable NONE holds no token",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "hold_seconds": 30}"#,
            "hold_seconds is 30",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "hold_seconds": 0}"#,
            "hold_seconds is 0",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "name_prefix": ""}"#,
            "name_prefix: invalid repository name",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "name_prefix": "nix/"}"#,
            "name_prefix: invalid repository name",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "cache": {"max_bytes": 1}}"#,
            "cache.max_bytes is 1",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "opaque_namespaces": ["shell"]}"#,
            "opaque_namespaces: \"shell\" can't be",
        ),
        (
            r#"{"builder": {"cluster": "b", "token_env": "TOKEN"}, "policy": {"revision": "1",
                "default": "deny", "rules": [{"name": "a", "images": ["corp/*"]}]}}"#,
            "policy: the rule a: images: \"corp/*\" is in no opaque namespace",
        ),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.contains(part), "{json}: {error}");
    }
}

/// The JSON with one of its keys twice, for each of its keys.
fn with_a_key_twice(json: &serde_json::Value) -> Vec<(String, String)> {
    use serde_json::Value;
    let entry = |key: &str, value: &str| format!("\"{key}\":{value}");
    match json {
        Value::Object(fields) => {
            let others = |but: &str| -> Vec<String> {
                let others = fields.iter().filter(|(key, _)| *key != but);
                let entries = others.map(|(key, value)| entry(key, &value.to_string()));
                entries.collect()
            };
            let mut all = Vec::new();
            for (key, value) in fields {
                let with = |values: &[&str]| {
                    let mine = values.iter().map(|value| entry(key, value));
                    let entries: Vec<_> = others(key).into_iter().chain(mine).collect();
                    format!("{{{}}}", entries.join(","))
                };
                let text = value.to_string();
                all.push((key.clone(), with(&[&text, &text])));
                let inner = with_a_key_twice(value).into_iter();
                all.extend(inner.map(|(key, text)| (key, with(&[&text]))));
            }
            all
        }
        Value::Array(items) => {
            let mut all = Vec::new();
            for (index, item) in items.iter().enumerate() {
                for (key, doubled) in with_a_key_twice(item) {
                    let item = |(at, item): (usize, &Value)| {
                        if at == index {
                            doubled.clone()
                        } else {
                            item.to_string()
                        }
                    };
                    let texts: Vec<_> = items.iter().enumerate().map(item).collect();
                    all.push((key, format!("[{}]", texts.join(","))));
                }
            }
            all
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_key_that_is_there_twice_is_refused_wherever_it_is() {
    let subject = serde_json::json!({"all": [
        {"jwt_claim": {"path": ["g"], "type": "list", "glob": "a"}},
        {"any": [{"header": {"name": "x", "glob": "a"}}, {"basic_user": {"glob": "a"}}]},
        {"not": {"any": [{"uri_san": {"glob": "a:b"}}, {"host": {"glob": "a"}}]}},
        {"address": {"ranges": ["10.0.0.0/8"]}},
    ]});
    let policy = serde_json::json!({"revision": "1", "default": "deny", "hide": true, "rules": [{
        "name": "a", "subject": subject, "mode": "audit", "allow": ["git"], "deny": ["vim"],
        "images": ["corp/a"], "deny_images": ["corp/b"], "tags": ["latest"],
        "systems": ["x86_64-linux"], "max_packages": 3, "message": "Ask.",
        "facts": {"licences": ["a"], "insecure": true, "closure": ["b"]},
    }]});
    let whole = serde_json::json!({
        "builder": {"cluster": "b", "token_env": "TOKEN"},
        "name_prefix": "nix", "opaque_namespaces": ["corp"], "hold_seconds": 20,
        "cache": {"max_bytes": 1 << 20}, "catalog": true, "policy": policy, "shadow": policy,
        "identity": {"jwt_metadata": ["a"], "basic_user_header": "x-user"},
    });
    assert!(
        parse(&whole.to_string()).is_ok(),
        "{:?}",
        parse(&whole.to_string())
    );
    let doubled = with_a_key_twice(&whole);
    for (key, json) in &doubled {
        let error = parse(json).unwrap_err();
        // Of a subject, no key may follow the first.
        let said = error.contains(&format!("duplicate field `{key}`"));
        assert!(
            said || error.contains("expected value")
                || error.contains("single key")
                || error.contains("expected `}`"),
            "{key}: {error}"
        );
    }
    for key in keys_of::<Raw>() {
        let name = key.path.rsplit('.').next().unwrap_or_default();
        assert!(
            doubled.iter().any(|(key, _)| key == name),
            "{name} is not tried"
        );
    }
}

// Where the tests are wasm there are no files.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn the_reference_page_has_the_keys_of_the_filter() {
    let page = expect_test::expect_file!["../../../../docs/src/settings.md"];
    page.assert_eq(&with_table(&page.data(), "filter", &table_of::<Raw>()));
}

#[test]
fn the_builder_learns_what_both_policies_deny_as_far_as_a_header_has_room() {
    let config = |deny: &[String], shadow: &[String]| {
        let policy = |deny: &[String]| {
            serde_json::json!({"revision": "1", "default": "allow", "rules": [
                {"name": "a", "allow": ["x"], "deny": deny},
            ]})
        };
        let config = serde_json::json!({
            "builder": {"cluster": "b", "token_env": "TOKEN"},
            "policy": policy(deny), "shadow": policy(shadow),
        });
        parse(&config.to_string()).map(|config| config.denied_names)
    };
    let names = |count: usize, of: &str| -> Vec<String> {
        (0..count)
            .map(|number| format!("{of}{number:05}"))
            .collect()
    };
    let both = config(
        &["Git".to_owned(), "@shell".to_owned()],
        &["git{,-*}".to_owned()],
    );
    assert_eq!(
        both.unwrap().header(),
        Some("bashinteractive coreutils git git-* moreutils nano")
    );
    assert_eq!(config(&[], &[]).unwrap().header(), None);
    let many = names(3000, "package-");
    assert!(config(&names(1500, "one-"), &names(1500, "two-")).is_ok());
    for (deny, shadow) in [
        (&many, &Vec::new()),
        (&Vec::new(), &many),
        (&names(2500, "one-"), &names(2500, "two-")),
    ] {
        let error = config(deny, shadow).unwrap_err();
        for part in ["at most 32768 bytes", "wildcards"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
