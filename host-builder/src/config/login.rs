//! How clients log in: [`LoginArgs`] → [`LoginSettings`].

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::bounds::Bounds;
use crate::login::{LoginSettings, OidcSettings, UserSettings};
use crate::telemetry::redact::keep_url;

/// Envoy and clients allow for clocks that differ by a minute.
pub(super) const TOKEN_SECONDS: Bounds = Bounds::new("NIXGATE_TOKEN_SECONDS", 60..=86_400);

/// The arguments for logging in.
#[derive(Args, Clone)]
pub(crate) struct LoginArgs {
    /// File of users with their bcrypt hashes, as `htpasswd -B` writes it
    #[arg(long, env = "NIXGATE_HTPASSWD", value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// File of these users' groups, with lines `group: user user`; tokens have them as the claim `groups`
    #[arg(long, env = "NIXGATE_GROUPS", value_name = "FILE")]
    pub(crate) groups: Option<PathBuf>,
    /// File of the private key that signs tokens: P-256, PKCS #8, PEM; several builders need the same.
    /// By default `token-key.pem` in the state folder, which is made if it is missing. Of several keys
    /// in it, the first signs and all are published, for a [rotation](rotation.md). Reloaded when it
    /// changes
    #[arg(long, env = "NIXGATE_TOKEN_KEY", value_name = "FILE")]
    pub(crate) token_key: Option<PathBuf>,
    /// Seconds for which a token is valid
    // Some clients (containerd 1) ignore a token's expiry, and pull a whole image with one, even on a
    // slow line.
    #[arg(
        long,
        env = TOKEN_SECONDS.variable,
        value_name = "SECONDS",
        default_value_t = 900
    )]
    pub(crate) token_seconds: u64,
    /// Issuer (`iss`) of tokens
    #[arg(
        long,
        env = "NIXGATE_TOKEN_ISSUER",
        value_name = "NAME",
        default_value = "nixgate"
    )]
    pub(crate) token_issuer: String,
    /// Audience (`aud`) of tokens
    #[arg(
        long,
        env = "NIXGATE_TOKEN_AUDIENCE",
        value_name = "NAME",
        default_value = "nixgate"
    )]
    pub(crate) token_audience: String,
    /// Public keys (JSON Web Key Set) of the company's issuer, whose tokens are accepted as passwords:
    /// a file or an `https` URL
    #[arg(long, env = "NIXGATE_OIDC_JWKS", value_name = "FILE OR URL")]
    pub(crate) oidc_jwks: Option<String>,
    /// Issuer (`iss`) of these tokens
    #[arg(long, env = "NIXGATE_OIDC_ISSUER", value_name = "NAME")]
    pub(crate) oidc_issuer: Option<String>,
    /// Required audience (`aud`) of these tokens
    #[arg(long, env = "NIXGATE_OIDC_AUDIENCE", value_name = "NAME")]
    pub(crate) oidc_audience: Option<String>,
}

impl LoginArgs {
    /// # Errors
    /// When a setting is invalid; the error names it and says what to do.
    pub(crate) fn validate(self) -> Result<LoginSettings> {
        self.oidc_jwks.as_deref().into_iter().for_each(keep_url);
        TOKEN_SECONDS.check(self.token_seconds)?;
        if self.htpasswd.is_none() {
            for (name, given) in [
                ("NIXGATE_GROUPS", self.groups.is_some()),
                ("NIXGATE_TOKEN_KEY", self.token_key.is_some()),
            ] {
                ensure!(
                    !given,
                    "{name} has no effect without users. Set NIXGATE_HTPASSWD too"
                );
            }
        }
        let oidc = match (self.oidc_jwks, self.oidc_issuer, self.oidc_audience) {
            (None, None, None) => None,
            (Some(keys), Some(issuer), Some(audience)) => Some(OidcSettings {
                keys: keys.parse().context("NIXGATE_OIDC_JWKS")?,
                issuer,
                audience,
            }),
            _ => bail!(
                "the company's issuer needs NIXGATE_OIDC_JWKS, NIXGATE_OIDC_ISSUER and \
                 NIXGATE_OIDC_AUDIENCE. Set those that are missing"
            ),
        };
        // Envoy selects the keys by the issuer.
        ensure!(
            oidc.as_ref()
                .is_none_or(|oidc| oidc.issuer != self.token_issuer),
            "NIXGATE_OIDC_ISSUER and NIXGATE_TOKEN_ISSUER are the same, so Envoy cannot tell their tokens \
             apart. Change NIXGATE_TOKEN_ISSUER"
        );
        let users = self.htpasswd.map(|htpasswd| UserSettings {
            htpasswd,
            groups: self.groups,
            key: self.token_key,
            lifetime: Duration::from_secs(self.token_seconds),
            issuer: self.token_issuer,
            audience: self.token_audience,
        });
        Ok(LoginSettings { users, oidc })
    }
}
