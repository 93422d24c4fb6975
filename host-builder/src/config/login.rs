//! How clients log in: [`LoginArgs`] → [`LoginSettings`].

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::bounds::Bounds;
use crate::login::{LoginSettings, OidcSettings, UserSettings};
use crate::telemetry::redact::keep_url;

/// Envoy and clients take a minute for clocks that differ.
pub(super) const TOKEN_SECONDS: Bounds = Bounds::new("NIXGATE_TOKEN_SECONDS", 60, 86_400);

/// How clients log in, as it was written.
#[derive(Args, Clone)]
pub(crate) struct LoginArgs {
    /// Who can log in: a file of users and their bcrypt hashes, as `htpasswd -B` writes them
    #[arg(long, env = "NIXGATE_HTPASSWD", value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// Groups of these users, on lines `group: user user`; they are the tokens' claim `groups`
    #[arg(long, env = "NIXGATE_GROUPS", value_name = "FILE")]
    pub(crate) groups: Option<PathBuf>,
    /// Private key that tokens are signed with: P-256, PKCS #8, PEM; several builders need the same.
    /// When not given, `token-key.pem` in the state folder, which is made when it is missing. Of
    /// several keys in it, the first signs and all are published, while one is
    /// [exchanged](rotation.md); it is read again when it changes
    #[arg(long, env = "NIXGATE_TOKEN_KEY", value_name = "FILE")]
    pub(crate) token_key: Option<PathBuf>,
    /// For how many seconds a token holds
    // Clients that know nothing of a token's end (containerd 1) pull a whole image with one, on a
    // slow line too.
    #[arg(
        long,
        env = TOKEN_SECONDS.variable,
        value_name = "SECONDS",
        default_value_t = 900
    )]
    pub(crate) token_seconds: u64,
    /// The tokens' issuer (`iss`)
    #[arg(
        long,
        env = "NIXGATE_TOKEN_ISSUER",
        value_name = "NAME",
        default_value = "nixgate"
    )]
    pub(crate) token_issuer: String,
    /// The tokens' audience (`aud`)
    #[arg(
        long,
        env = "NIXGATE_TOKEN_AUDIENCE",
        value_name = "NAME",
        default_value = "nixgate"
    )]
    pub(crate) token_audience: String,
    /// Public keys (JSON Web Key Set) of the company's issuer, whose tokens serve as passwords: a
    /// file, or an `https` address
    #[arg(long, env = "NIXGATE_OIDC_JWKS", value_name = "FILE OR URL")]
    pub(crate) oidc_jwks: Option<String>,
    /// Issuer (`iss`) of these tokens
    #[arg(long, env = "NIXGATE_OIDC_ISSUER", value_name = "NAME")]
    pub(crate) oidc_issuer: Option<String>,
    /// Audience (`aud`) that these tokens must have
    #[arg(long, env = "NIXGATE_OIDC_AUDIENCE", value_name = "NAME")]
    pub(crate) oidc_audience: Option<String>,
}

impl LoginArgs {
    /// Checks what was written.
    ///
    /// # Errors
    /// A sentence that names the setting and the remedy.
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
                    "{name} is of no use without users: set NIXGATE_HTPASSWD too"
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
                "the company's issuer takes all of NIXGATE_OIDC_JWKS, NIXGATE_OIDC_ISSUER and \
                 NIXGATE_OIDC_AUDIENCE: set those that are missing"
            ),
        };
        // Envoy chooses the keys by the issuer.
        ensure!(
            oidc.as_ref()
                .is_none_or(|oidc| oidc.issuer != self.token_issuer),
            "NIXGATE_OIDC_ISSUER and NIXGATE_TOKEN_ISSUER are the same: tokens of the two could \
             not be told apart"
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
