//! The filter's settings: JSON as it is written ([`raw`]) → validated [`Config`].
//!
//! ```json
//! {
//!   "builder": { "cluster": "nixgate_builder", "token_env": "NIXGATE_TOKEN" },
//!   "name_prefix": "nix",
//!   "opaque_namespaces": ["corp"],
//!   "hold_seconds": 20,
//!   "cache": { "max_bytes": 67108864 },
//!   "catalog": false,
//!   "policy": { "revision": "1", "default": "deny", "rules": [] },
//!   "identity": { "jwt_metadata": ["envoy.filters.http.jwt_authn", "jwt_payload"] }
//! }
//! ```

mod raw;

use thiserror::Error;

use crate::cache::Seal;
use crate::distribution::{Digest, Repository};
use crate::policy::{Attribute, DeniedNames, FactRules, Policy, RawPolicy};
use crate::signature::SigningKey;
use crate::{OpaqueNamespaces, Seconds};

pub use raw::Identity;
use raw::{CACHE_MINIMUM, HOLD_LIMIT, Raw};

/// The settings of one filter configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Envoy cluster of the builder.
    pub cluster: String,
    /// Signs requests to the builder.
    pub signing_key: SigningKey,
    /// The prefix of nixgate's names, when another registry has the others.
    pub name_prefix: Option<Repository>,
    /// First components of names that are not lists of packages.
    pub opaque_namespaces: OpaqueNamespaces,
    /// How long a request is held while its image is built, in seconds.
    pub hold: Seconds,
    /// How long redirects keep a client, in seconds from its first request.
    pub budget: Seconds,
    /// The limit of the shared cache, in bytes.
    pub cache_max_bytes: u64,
    /// Whether callers can list the images that they may pull.
    pub catalog: bool,
    /// Who may have which packages; without one, everybody may have everything.
    pub policy: Option<Policy>,
    /// A policy on trial, which only counts its decisions.
    pub shadow: Option<Policy>,
    /// The rules of both that the builder evaluates.
    pub fact_rules: FactRules,
    /// The packages that rules of both deny, of which the builder knows other names.
    pub denied_names: DeniedNames,
    /// Where Envoy has a caller's attributes.
    pub identity: Identity,
    /// A digest of the configuration, for the keys of the cache.
    pub scope: String,
    /// Signs cache entries.
    pub seal: Seal,
}

/// A client follows 9 redirects, and the last answer must not be one.
const REDIRECTS: Seconds = 8;

impl Config {
    /// Whether any policy judges requests, if only on trial.
    pub const fn has_policy(&self) -> bool {
        self.policy.is_some() || self.shadow.is_some()
    }

    /// Parses and checks the filter's configuration. `environment` looks up a variable of the VM
    /// (Envoy's `vm_config.environment_variables`).
    ///
    /// # Errors
    /// Names the wrong key and the remedy.
    pub fn parse(
        json: &[u8],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_slice(json).map_err(|error| {
            let mut error = ConfigError::of_json(&error);
            error.message.push_str(
                ". The configuration is a google.protobuf.StringValue that holds JSON, such as \
                 {\"builder\": {\"cluster\": \"nixgate_builder\", \"token_env\": \"NIXGATE_TOKEN\"}}",
            );
            error
        })?;
        if raw.builder.cluster.is_empty() {
            return Err(ConfigError::new(
                "builder.cluster is empty: name the Envoy cluster of the builder".to_owned(),
            ));
        }
        let token = environment(&raw.builder.token_env).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::new(format!(
                "builder.token_env: the variable {name} holds no token (printable ASCII without \
                 spaces). Set it for Envoy, list it in vm_config.environment_variables.host_env_keys, \
                 and start the builder with the same value",
                name = raw.builder.token_env
            )));
        }
        let name_prefix = raw
            .name_prefix
            .map(|prefix| Repository::parse(&prefix))
            .transpose()
            .map_err(|error| {
                ConfigError::new(format!(
                    "name_prefix: {error}. Write it without a slash before or after it, such as \
                     \"nix\" or \"corp/nix\"; leave it out when all names are nixgate's"
                ))
            })?;
        let opaque_namespaces = OpaqueNamespaces::new(raw.opaque_namespaces)
            .map_err(|error| ConfigError::new(format!("opaque_namespaces: {error}")))?;
        let hold = raw.hold_seconds;
        if !(1..=HOLD_LIMIT).contains(&hold) {
            return Err(ConfigError::new(format!(
                "hold_seconds is {hold}: it must be from 1 to {HOLD_LIMIT}, since \
                 containerd and Docker give up after 30 s"
            )));
        }
        if raw.cache.max_bytes < CACHE_MINIMUM {
            return Err(ConfigError::new(format!(
                "cache.max_bytes is {}: it must be at least {CACHE_MINIMUM}",
                raw.cache.max_bytes
            )));
        }
        let compile = |raw: Option<RawPolicy>, key: &str, prefix: &str| {
            let compiled = raw.map(|raw| {
                let policy = raw.compile(prefix)?;
                let checked = policy.check_images(&opaque_namespaces);
                checked.map(|()| policy)
            });
            compiled
                .transpose()
                .map_err(|error| ConfigError::of_policy(key, &error.to_string()))
        };
        let policy = compile(raw.policy, "policy", "")?;
        let shadow = compile(raw.shadow, "shadow", SHADOW)?;
        let mut fact_rules = FactRules::default();
        for policy in [&policy, &shadow].into_iter().flatten() {
            fact_rules = fact_rules
                .and(policy.fact_rules())
                .map_err(|error| ConfigError::of_policy("policy", &error.to_string()))?;
            raw.identity.check(policy)?;
        }
        let rules = [&policy, &shadow];
        let rules = rules.map(|policy| policy.as_ref().map_or(&[][..], Policy::rules));
        let denied_names = DeniedNames::of(&rules)
            .map_err(|error| ConfigError::of_policy("policy", &error.to_string()))?;
        Ok(Self {
            cluster: raw.builder.cluster,
            seal: Seal::new(&token),
            signing_key: SigningKey::new(&Digest::of(token.as_bytes())),
            name_prefix,
            opaque_namespaces,
            hold,
            budget: hold.saturating_mul(REDIRECTS),
            cache_max_bytes: raw.cache.max_bytes,
            catalog: raw.catalog,
            policy,
            shadow,
            fact_rules,
            denied_names,
            identity: raw.identity,
            scope: Digest::of(json).hex(),
        })
    }
}

/// The part of a statistic's name that tells the registries of one Envoy apart, by the name of the plugin: of
/// that, 64 characters count, and those that could end a label become `_`.
pub fn statistics_label(plugin: &str) -> String {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_');
    let name = plugin.chars().take(64);
    let name: String = name
        .map(|one| if is_plain(one) { one } else { '_' })
        .collect();
    match name.is_empty() {
        true => name,
        false => format!(".registry.{name}"),
    }
}

/// The prefix of the rules of the policy on trial, at the builder. No rule's name has a colon.
const SHADOW: &str = "shadow:";

impl Identity {
    /// Checks that every attribute of a policy can be found.
    fn check(&self, policy: &Policy) -> Result<(), ConfigError> {
        let asked = policy.attributes();
        if self.basic_user_header.is_none() && asked.contains(&Attribute::BasicUser) {
            return Err(ConfigError::new(
                "identity.basic_user_header is missing, and a rule has the subject basic_user: \
                 name the header that the filter basic_auth sets (forward_username_header), and \
                 that no client can set"
                    .to_owned(),
            ));
        }
        let asks_for_claim =
            |attribute: &Attribute| matches!(attribute, Attribute::JwtClaim { .. });
        if self.jwt_metadata.is_empty() && asked.iter().any(asks_for_claim) {
            return Err(ConfigError::new(
                "identity.jwt_metadata is empty, and a rule has the subject jwt_claim: give the \
                 namespace and the key under which jwt_authn puts the payload"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// An invalid configuration, explained to the administrator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("nixgate filter configuration: {message}")]
pub struct ConfigError {
    message: String,
    /// Replaces the message for clients, when it may quote the policy.
    public: Option<String>,
}

impl ConfigError {
    /// The error as strangers may read it: it says what to mend, and quotes nothing of the policy.
    pub fn public(&self) -> &str {
        self.public.as_deref().unwrap_or(&self.message)
    }

    fn new(message: String) -> Self {
        Self {
            message,
            public: None,
        }
    }

    /// Of one of the policies. Names of rules, users and packages are in the log only.
    fn of_policy(key: &str, error: &str) -> Self {
        Self {
            message: format!("{key}: {error}"),
            public: Some(format!("{key} is not valid")),
        }
    }

    /// Not JSON, or not the settings. Errors about types quote values.
    fn of_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let is_about_a_key = ["unknown field", "missing field"]
            .iter()
            .any(|start| text.starts_with(start));
        let (line, column) = (error.line(), error.column());
        Self {
            public: (!is_about_a_key).then(|| format!("an error at line {line} column {column}")),
            message: text,
        }
    }
}

#[cfg(test)]
mod tests;
