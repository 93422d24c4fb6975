//! The settings as they are written. What is said of a key here is what the reference page says: its
//! tables are written from these types (`reference`), which only tests do, so that no word of it is
//! in the filter.

use serde::Deserialize;

use crate::Seconds;
use crate::policy::RawPolicy;

/// Current containerd and Docker give up 30 s after their request; a stream that is held is
/// answered well before. With the margin that a callout has beyond its wait, 22 s make 27.
pub(super) const HOLD_LIMIT: Seconds = 22;
/// Each set of the cache needs room for at least one large manifest.
pub(super) const CACHE_MINIMUM: u64 = 1 << 20;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) builder: RawBuilder,
    /// What stands before the packages in the names that are nixgate's, such as `nix` for
    /// `nix/shell/git`; see below
    pub(super) name_prefix: Option<String>,
    /// First components of names that are not split into packages: the namespaces of the builder's
    /// [recipes](recipes.md), such as `corp` for `corp/ci-base`
    #[serde(default)]
    pub(super) opaque_namespaces: Vec<String>,
    /// For how many seconds a request is held while its image is built
    #[serde(default = "default_hold")]
    #[cfg_attr(test, schemars(range(min = 1, max = HOLD_LIMIT)))]
    pub(super) hold_seconds: Seconds,
    #[serde(default)]
    pub(super) cache: RawCache,
    /// Whether `/v2/_catalog` lists images; see below
    #[serde(default)]
    pub(super) catalog: bool,
    /// Who may have which packages: see [Policy](policy.md); without one everybody may have
    /// everything
    pub(super) policy: Option<RawPolicy>,
    /// A policy on trial, judged beside the first and only counted
    pub(super) shadow: Option<RawPolicy>,
    /// Where Envoy has what is known of a caller, when that has no fixed place
    #[serde(default)]
    pub(super) identity: Identity,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawBuilder {
    /// Envoy cluster of the builder
    pub(super) cluster: String,
    /// Variable of Envoy that holds the builder's token; list it in
    /// `vm_config.environment_variables.host_env_keys`
    pub(super) token_env: String,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCache {
    /// How many bytes the shared cache may take
    #[cfg_attr(test, schemars(range(min = CACHE_MINIMUM)))]
    pub(super) max_bytes: u64,
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

/// Where in Envoy the attributes of a caller are that have no fixed place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Where the payload of the verified token is in Envoy's dynamic metadata: the namespace, then
    /// the keys that lead to it (`payload_in_metadata` of `jwt_authn`)
    pub jwt_metadata: Vec<String>,
    /// The header in which Envoy's `basic_auth` puts the user (`forward_username_header`)
    pub basic_user_header: Option<String>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            jwt_metadata: ["envoy.filters.http.jwt_authn", "jwt_payload"]
                .map(str::to_owned)
                .into(),
            basic_user_header: None,
        }
    }
}
