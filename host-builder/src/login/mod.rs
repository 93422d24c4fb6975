//! Login: exchanges a password for a token that Envoy can check by itself.
//!
//! Registry clients authenticate by Basic with every request, or by Bearer with a token that they fetch
//! at the address in the registry's challenge. Envoy's `jwt_authn` checks Bearer tokens and issues none.
//! This module issues them:
//!
//! ```text
//!   docker pull ──► Envoy: 401, Bearer realm=…/v2/token          jwt_authn, local_reply_config
//!   docker      ──► Envoy ──► /v2/token   Basic alice:…          server/token.rs
//!                                 │
//!               ┌─────────────────┴──────────────────┐
//!        a password in the            the password is a token of the
//!        htpasswd file                OIDC issuer
//!        htpasswd, users              oidc_issuer, jwks
//!               │                                    │
//!        a new token, signed here     the same token
//!        with the user's groups
//!        signer, groups
//!               └─────────────────┬──────────────────┘
//!   docker pull ──► Envoy, with Bearer: jwt_authn checks the token, the policy its claims
//! ```
//!
//! No state is kept: a token holds its bearer's name and groups, and expires. So a change of the files
//! takes effect with a user's next token, and a token can't be revoked.
//!
//! A token says who the bearer is and not what they may pull: it has no `access` claim, and the `scope`
//! that clients request is ignored. The policy decides that for each request.
//!
//! Neither passwords nor tokens are logged, nor unknown user names: people type passwords into the field
//! for the name. A failed login is logged with its address and the id of its request.

mod credentials;
mod groups;
mod htpasswd;
mod jwks;
mod oidc_issuer;
mod signer;
mod users;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use thiserror::Error;

pub(crate) use credentials::Credentials;
pub(crate) use jwks::JwksSource;

use credentials::has_jwt_shape;
use oidc_issuer::OidcIssuer;
use users::Users;

/// How clients log in.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoginSettings {
    pub(crate) users: Option<UserSettings>,
    pub(crate) oidc: Option<OidcSettings>,
}

/// Users with passwords in a file, and their tokens.
#[derive(Clone, Debug)]
pub(crate) struct UserSettings {
    pub(crate) htpasswd: PathBuf,
    pub(crate) groups: Option<PathBuf>,
    /// The private key; none for one in the state folder.
    pub(crate) key: Option<PathBuf>,
    pub(crate) lifetime: Duration,
    /// The tokens' `iss`.
    pub(crate) issuer: String,
    /// The tokens' `aud`.
    pub(crate) audience: String,
}

/// An OIDC issuer, whose tokens serve as passwords.
#[derive(Clone, Debug)]
pub(crate) struct OidcSettings {
    pub(crate) keys: JwksSource,
    /// Its tokens' `iss`.
    pub(crate) issuer: String,
    /// The `aud` of its tokens for this registry.
    pub(crate) audience: String,
}

/// A token for a client.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) at: SystemTime,
    /// From `at` on.
    pub(crate) expires_in: Duration,
}

/// Why there is no token. Clients see the messages.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error(
        "this registry has no login: its administrators can set NIXGATE_HTPASSWD or \
         NIXGATE_OIDC_JWKS"
    )]
    Unconfigured,
    /// No credentials, as when a client asks for the challenge.
    #[error("user and password are missing: run `docker login` or `podman login`, then try again")]
    Missing,
    #[error("wrong user or password")]
    Password {
        /// None for an unknown user.
        user: Option<String>,
    },
    #[error("{0}")]
    Credentials(&'static str),
    #[error("too many logins at once: try again in a few seconds")]
    Busy,
    /// The credentials can't be checked.
    #[error("{0}")]
    Unready(String),
}

/// All ways to log in.
pub(crate) struct Login {
    users: Option<Users>,
    oidc: Option<OidcIssuer>,
}

impl Login {
    /// Reads the files of the settings. Without a key in them, one is read or created at `new_key`.
    ///
    /// # Errors
    /// When a file is missing or invalid; the error names the file and the line.
    pub(crate) fn open(settings: LoginSettings, new_key: &std::path::Path) -> Result<Self> {
        Ok(Self {
            users: settings
                .users
                .map(|users| Users::open(users, new_key))
                .transpose()?,
            oidc: settings.oidc.map(OidcIssuer::open).transpose()?,
        })
    }

    /// The public keys of the tokens that are signed here, as a JSON Web Key Set (RFC 7517).
    pub(crate) fn keys(&self) -> Option<String> {
        self.users.as_ref().map(Users::keys)
    }

    /// A token for the user of these credentials.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) async fn token(&self, credentials: Option<Credentials>) -> Result<Issued, Refusal> {
        if self.users.is_none() && self.oidc.is_none() {
            return Err(Refusal::Unconfigured);
        }
        let credentials = credentials.ok_or(Refusal::Missing)?;
        match (&self.oidc, &self.users) {
            // No password of a file looks like a token by chance.
            (Some(oidc), _) if has_jwt_shape(&credentials.password) => {
                oidc.check(credentials.password).await
            }
            (_, Some(users)) => users.token(credentials).await,
            _ => Err(Refusal::Credentials(
                "this registry's passwords are tokens of its OIDC issuer: get one there, and log in \
                 with it as the password",
            )),
        }
    }
}
