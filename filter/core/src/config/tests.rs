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

/// The keys that the parser knows under one, as it says itself when it meets another.
fn keys(under: &str) -> Vec<String> {
    let error = parse(&with(under, serde_json::json!({"?": 0}))).unwrap_err();
    let Some((_, known)) = error.split_once("unknown field `?`, expected ") else {
        return vec![under.to_owned()];
    };
    let names = known.split('`').skip(1).step_by(2);
    names
        .flat_map(|name| match under {
            "" => keys(name),
            under => keys(&format!("{under}.{name}")),
        })
        .collect()
}

#[test]
fn the_reference_page_has_every_key_and_no_other_with_its_default() {
    let page = include_str!("../../../../docs/src/settings.md");
    let (_, table) = page.split_once("| key | default | |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).skip(1).collect())
        .collect();
    let mut known = keys("");
    let mut listed: Vec<_> = rows.iter().map(|row| row[0].replace('`', "")).collect();
    known.sort();
    listed.sort();
    assert_eq!(listed, known, "docs/src/settings.md");

    let least = parse(&with("builder.cluster", "b".into())).unwrap();
    for row in rows.iter().filter(|row| !row[1].is_empty()) {
        let (key, default) = (row[0].replace('`', ""), row[1].replace('`', ""));
        let default = serde_json::from_str(&default).expect("a default is JSON");
        let given = parse(&with(&key, default)).unwrap();
        // Each has a scope of its own.
        let given = Config {
            scope: least.scope.clone(),
            ..given
        };
        assert_eq!(format!("{given:?}"), format!("{least:?}"), "{key}");
    }
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
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.contains(part), "{json}: {error}");
    }
}
