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

use std::fmt;

use crate::cache::Seal;
use crate::distribution::{Digest, Repository};
use crate::policy::{Attribute, FactRules, Policy, RawPolicy};
use crate::{OpaqueNamespaces, Seconds};

pub use raw::Identity;
use raw::{CACHE_MINIMUM, HOLD_LIMIT, Raw};

/// The settings of one filter configuration, checked.
#[derive(Clone)]
pub struct Config {
    /// The Envoy cluster of the builder.
    pub cluster: String,
    /// The secret that opens the builder; never printed.
    pub token: String,
    /// What stands before the packages in the names that are nixgate's, when another registry has
    /// the others.
    pub name_prefix: Option<Repository>,
    /// First components of names that are no lists of packages.
    pub opaque_namespaces: OpaqueNamespaces,
    /// For how long a client's request is held while its image is built, in seconds.
    pub hold: Seconds,
    /// For how long a client is kept by redirects to itself, in seconds, from its first request.
    pub budget: Seconds,
    /// How much of Envoy's memory the shared cache may take, in bytes.
    pub cache_max_bytes: u64,
    /// Whether callers can list the images that there are and that they may have.
    pub catalog: bool,
    /// Who may have which packages; without one, everybody may have all.
    pub policy: Option<Policy>,
    /// A policy on trial: judged beside the first one, and only counted.
    pub shadow: Option<Policy>,
    /// What the builder has to judge for the two.
    pub fact_rules: FactRules,
    /// Where the policy finds out who asks.
    pub identity: Identity,
    /// What names this configuration among others, for the keys of the cache.
    pub scope: String,
    /// What only those who know the token can put on an entry of the cache.
    pub seal: Seal,
}

/// A client follows 9 redirects; the answer to the last request must not be one.
const REDIRECTS: Seconds = 8;

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
            opaque_namespaces,
            hold_seconds,
            cache,
            catalog,
            policy,
            shadow,
            identity,
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
        let opaque_namespaces = OpaqueNamespaces::new(opaque_namespaces)
            .map_err(|error| ConfigError(format!("opaque_namespaces: {error}")))?;
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
        let compile = |raw: Option<RawPolicy>, key: &str, prefix: &str| {
            let compiled = raw.map(|raw| {
                let policy = raw.compile(prefix)?;
                let checked = policy.check_images(&opaque_namespaces);
                checked.map(|()| policy)
            });
            compiled
                .transpose()
                .map_err(|error| ConfigError(format!("{key}: {error}")))
        };
        let policy = compile(policy, "policy", "")?;
        let shadow = compile(shadow, "shadow", SHADOW)?;
        let mut fact_rules = FactRules::default();
        for policy in [&policy, &shadow].into_iter().flatten() {
            fact_rules = fact_rules
                .and(policy.fact_rules())
                .map_err(|error| ConfigError(format!("policy: {error}")))?;
            identity.check(policy)?;
        }
        Ok(Self {
            cluster: builder.cluster,
            seal: Seal::new(&token),
            token,
            name_prefix,
            opaque_namespaces,
            hold: hold_seconds,
            budget: hold_seconds.saturating_mul(REDIRECTS),
            cache_max_bytes: cache.max_bytes,
            catalog,
            policy,
            shadow,
            fact_rules,
            identity,
            scope: Digest::of(json).hex(),
        })
    }
}

/// Before the names by which the builder judges the facts of the policy on trial. No rule's name
/// has a colon.
const SHADOW: &str = "shadow:";

impl Identity {
    /// Whether all that a policy asks for has a place.
    fn check(&self, policy: &Policy) -> Result<(), ConfigError> {
        let asked = policy.attributes();
        if self.basic_user_header.is_none() && asked.contains(&Attribute::BasicUser) {
            return Err(ConfigError(
                "identity.basic_user_header is missing, and a rule has the subject basic_user: \
                 name the header that the filter basic_auth sets (forward_username_header), which \
                 no client may be able to set"
                    .to_owned(),
            ));
        }
        let asks_for_claim =
            |attribute: &Attribute| matches!(attribute, Attribute::JwtClaim { .. });
        if self.jwt_metadata.is_empty() && asked.iter().any(asks_for_claim) {
            return Err(ConfigError(
                "identity.jwt_metadata is empty, and a rule has the subject jwt_claim: give the \
                 namespace and the key under which jwt_authn puts the payload"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            token: _,
            name_prefix,
            opaque_namespaces,
            hold,
            budget,
            cache_max_bytes,
            catalog,
            policy,
            shadow,
            fact_rules: _,
            identity,
            scope,
            seal: _,
        } = self;
        let revision =
            |policy: &Option<Policy>| policy.as_ref().map(|one| one.revision().to_owned());
        f.debug_struct("Config")
            .field("cluster", cluster)
            .field("token", &"(hidden)")
            .field("name_prefix", name_prefix)
            .field("opaque_namespaces", opaque_namespaces)
            .field("hold", hold)
            .field("budget", budget)
            .field("cache_max_bytes", cache_max_bytes)
            .field("catalog", catalog)
            .field("policy", &revision(policy))
            .field("shadow", &revision(shadow))
            .field("identity", identity)
            .field("scope", scope)
            .finish_non_exhaustive()
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
mod tests;
