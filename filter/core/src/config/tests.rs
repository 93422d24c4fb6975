use super::raw::Raw;
use super::reference::keys_of;
use super::*;

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
    assert_eq!(
        (config.cluster.as_str(), config.token.as_str()),
        ("b", "secret")
    );
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
