//! The filter's settings: raw JSON → validated [`Config`].
//!
//! ```json
//! {
//!   "builder": { "cluster": "nixgate_builder", "token_env": "NIXGATE_TOKEN" },
//!   "name_prefix": "nix",
//!   "hold_seconds": 20,
//!   "cache": { "max_bytes": 67108864 }
//! }
//! ```

use std::fmt;

use serde::Deserialize;

use crate::Seconds;
use crate::distribution::Repository;

/// Current containerd and Docker give up 30 s after their request; a stream that is held is
/// answered well before. With the margin that a callout has beyond its wait, 22 s make 27.
const HOLD_LIMIT: Seconds = 22;
/// Each set of the cache needs room for at least one large manifest.
const CACHE_MINIMUM: u64 = 1 << 20;

/// The settings of one filter configuration, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The Envoy cluster of the builder.
    pub cluster: String,
    /// The secret that opens the builder; never printed.
    pub token: String,
    /// What stands before the packages in the names that are nixgate's, when another registry has
    /// the others.
    pub name_prefix: Option<Repository>,
    /// For how long a client's request is held while its image is built, in seconds.
    pub hold: Seconds,
    /// For how long a client is kept by redirects to itself, in seconds, from its first request.
    pub budget: Seconds,
    /// How much of Envoy's memory the shared cache may take, in bytes.
    pub cache_max_bytes: u64,
}

/// A client follows 9 redirects; the answer to the last request must not be one.
const REDIRECTS: Seconds = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    builder: RawBuilder,
    name_prefix: Option<String>,
    #[serde(default = "default_hold")]
    hold_seconds: Seconds,
    #[serde(default)]
    cache: RawCache,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBuilder {
    cluster: String,
    token_env: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCache {
    max_bytes: u64,
}

impl Default for RawCache {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
        }
    }
}

const fn default_hold() -> Seconds {
    20
}

impl Config {
    /// Parses and checks the filter's configuration. `environment` looks a variable of the VM up
    /// (Envoy's `vm_config.environment_variables`).
    ///
    /// # Errors
    /// A sentence that names the key at fault and the remedy.
    pub fn parse(
        json: &[u8],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_slice(json).map_err(|error| {
            ConfigError(format!(
                "{error}. The configuration is a google.protobuf.StringValue that holds JSON, \
                 such as {{\"builder\": {{\"cluster\": \"nixgate_builder\", \"token_env\": \"NIXGATE_TOKEN\"}}}}"
            ))
        })?;
        let Raw {
            builder,
            name_prefix,
            hold_seconds,
            cache,
        } = raw;
        if builder.cluster.is_empty() {
            return Err(ConfigError(
                "builder.cluster is empty: name the Envoy cluster of the builder".to_owned(),
            ));
        }
        let token = environment(&builder.token_env).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError(format!(
                "builder.token_env: the variable {name} holds no token (printable ASCII without \
                 spaces). Set it for Envoy, list it in vm_config.environment_variables.host_env_keys, \
                 and start the builder with the same value",
                name = builder.token_env
            )));
        }
        let name_prefix = name_prefix
            .map(|prefix| Repository::parse(&prefix))
            .transpose()
            .map_err(|error| {
                ConfigError(format!(
                    "name_prefix: {error}. Write it without a slash before or after it, such as \
                     \"nix\" or \"corp/nix\"; leave it out when all names are nixgate's"
                ))
            })?;
        if !(1..=HOLD_LIMIT).contains(&hold_seconds) {
            return Err(ConfigError(format!(
                "hold_seconds is {hold_seconds}: it must be from 1 to {HOLD_LIMIT}, since \
                 containerd and Docker give up after 30 s"
            )));
        }
        if cache.max_bytes < CACHE_MINIMUM {
            return Err(ConfigError(format!(
                "cache.max_bytes is {}: it must be at least {CACHE_MINIMUM}",
                cache.max_bytes
            )));
        }
        Ok(Self {
            cluster: builder.cluster,
            token,
            name_prefix,
            hold: hold_seconds,
            budget: hold_seconds.saturating_mul(REDIRECTS),
            cache_max_bytes: cache.max_bytes,
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            token: _,
            name_prefix,
            hold,
            budget,
            cache_max_bytes,
        } = self;
        f.debug_struct("Config")
            .field("cluster", cluster)
            .field("token", &"(hidden)")
            .field("name_prefix", name_prefix)
            .field("hold", hold)
            .field("budget", budget)
            .field("cache_max_bytes", cache_max_bytes)
            .finish()
    }
}

/// A configuration that can't be used, in words for the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nixgate filter configuration: {}", self.0)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
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
        let page = include_str!("../../../docs/src/settings.md");
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
            assert_eq!(parse(&with(&key, default)).unwrap(), least, "{key}");
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
}
