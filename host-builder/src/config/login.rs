//! How clients log in: [`LoginArgs`] → [`LoginSettings`].

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::login::{CompanySettings, LoginSettings, UserSettings};

/// How clients log in, as it was written.
#[derive(Args, Clone)]
pub struct LoginArgs {
    /// Users and their bcrypt hashes, as `htpasswd -B` writes them: who is in it can log in
    #[arg(long, env = "NIXGATE_HTPASSWD")]
    pub htpasswd: Option<PathBuf>,
    /// Groups of these users, on lines `group: user user`; they are the tokens' claim `groups`
    #[arg(long, env = "NIXGATE_GROUPS")]
    pub groups: Option<PathBuf>,
    /// Private key (P-256, PKCS #8, PEM) that tokens are signed with; made in the state folder when
    /// not given
    #[arg(long, env = "NIXGATE_TOKEN_KEY")]
    pub token_key: Option<PathBuf>,
    /// Seconds for which a token holds
    // Clients that know nothing of a token's end (containerd 1) pull a whole image with one, on a
    // slow line too.
    #[arg(long, env = "NIXGATE_TOKEN_SECONDS", default_value_t = 900)]
    pub token_seconds: u64,
    /// The tokens' issuer (`iss`)
    #[arg(long, env = "NIXGATE_TOKEN_ISSUER", default_value = "nixgate")]
    pub token_issuer: String,
    /// The tokens' audience (`aud`)
    #[arg(long, env = "NIXGATE_TOKEN_AUDIENCE", default_value = "nixgate")]
    pub token_audience: String,
    /// Public keys (JSON Web Key Set) of the company's issuer, whose tokens serve as passwords: a
    /// file or an https address
    #[arg(long, env = "NIXGATE_OIDC_JWKS")]
    pub oidc_jwks: Option<String>,
    /// Issuer (`iss`) of these tokens
    #[arg(long, env = "NIXGATE_OIDC_ISSUER")]
    pub oidc_issuer: Option<String>,
    /// Audience (`aud`) that these tokens must have
    #[arg(long, env = "NIXGATE_OIDC_AUDIENCE")]
    pub oidc_audience: Option<String>,
}

impl LoginArgs {
    /// Checks what was written.
    ///
    /// # Errors
    /// A sentence that names the setting and the remedy.
    pub fn validate(self) -> Result<LoginSettings> {
        // Envoy and clients take a minute for clocks that differ.
        ensure!(
            (60..=86_400).contains(&self.token_seconds),
            "NIXGATE_TOKEN_SECONDS is {}: it must be from 60 to 86400",
            self.token_seconds
        );
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
        let company = match (self.oidc_jwks, self.oidc_issuer, self.oidc_audience) {
            (None, None, None) => None,
            (Some(keys), Some(issuer), Some(audience)) => Some(CompanySettings {
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
            company
                .as_ref()
                .is_none_or(|company| company.issuer != self.token_issuer),
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
        Ok(LoginSettings { users, company })
    }
}
