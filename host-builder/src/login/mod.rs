//! Login: who a client is, told once for a token that Envoy can check by itself.
//!
//! Registry clients know two ways to say who they are: Basic with every request, and Bearer with a
//! token that they fetch where the registry's challenge sends them. Envoy's `jwt_authn` understands
//! Bearer, and has no such place to send anybody to. This is the place:
//!
//! ```text
//!   docker pull ──► Envoy: 401, Bearer realm=…/v2/token          jwt_authn, local_reply_config
//!   docker      ──► Envoy ──► /v2/token   Basic alice:…          server/token.rs
//!                                 │
//!               ┌─────────────────┴──────────────────┐
//!        a password in the            the password is a token of the
//!        htpasswd file                company's issuer
//!        htpasswd, users              company, company_keys
//!               │                                    │
//!        a new token, signed here     the same token, as it is
//!        with the user's groups
//!        signer, groups
//!               └─────────────────┬──────────────────┘
//!   docker pull ──► Envoy, with Bearer: jwt_authn checks the token, the policy its claims
//! ```
//!
//! Nothing is kept: a token holds all that is known of its bearer, and ends by itself. So what
//! changes in the files takes effect with a user's next token, and a token can't be called back.
//!
//! A token says who somebody is and not what they may have (it has no `access` claim, and the
//! `scope` that clients ask for is not looked at): that is the policy's, which asks for each request.
//!
//! Neither passwords nor tokens are logged, nor names that no entry has: people type passwords into
//! the field for names. A login that fails is logged with its address and the request's id.

mod company;
mod company_keys;
mod credentials;
mod groups;
mod htpasswd;
mod signer;
mod users;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use thiserror::Error;

pub(crate) use company_keys::KeySource;
pub(crate) use credentials::Credentials;

use company::OidcIssuer;
use users::Users;

/// How clients log in.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoginSettings {
    /// Users with passwords in a file.
    pub(crate) users: Option<UserSettings>,
    /// The company's issuer, whose tokens serve as passwords.
    pub(crate) company: Option<CompanySettings>,
}

/// Users with passwords in a file, and the tokens that they get.
#[derive(Clone, Debug)]
pub(crate) struct UserSettings {
    /// The htpasswd file.
    pub(crate) htpasswd: PathBuf,
    /// The file that says who is in which group.
    pub(crate) groups: Option<PathBuf>,
    /// The private key of the tokens; made in the state folder when not given.
    pub(crate) key: Option<PathBuf>,
    /// For how long a token holds.
    pub(crate) lifetime: Duration,
    /// The tokens' `iss`.
    pub(crate) issuer: String,
    /// The tokens' `aud`.
    pub(crate) audience: String,
}

/// The company's issuer.
#[derive(Clone, Debug)]
pub(crate) struct CompanySettings {
    /// Where its public keys are.
    pub(crate) keys: KeySource,
    /// Its tokens' `iss`.
    pub(crate) issuer: String,
    /// The `aud` that its tokens for this registry have.
    pub(crate) audience: String,
}

/// A token for who was asked about.
pub(crate) struct Issued {
    /// The token.
    pub(crate) token: String,
    /// When this answer was made.
    pub(crate) at: SystemTime,
    /// For how long it holds from then on.
    pub(crate) expires_in: Duration,
}

/// Why there is no token. The messages are for whoever asked.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody can log in here.
    #[error(
        "this registry has no login: administrators turn it on by NIXGATE_HTPASSWD or \
         NIXGATE_OIDC_JWKS"
    )]
    Unconfigured,
    /// There are no credentials, as when a client asks what it needs.
    #[error(
        "user and password are needed: log in by `docker login`, `podman login` or the like, then \
         try again"
    )]
    Missing,
    /// The password is not the user's.
    #[error("wrong user or password")]
    Password {
        /// The user, if there is such a one.
        user: Option<String>,
    },
    /// The credentials are not what they should be.
    #[error("{0}")]
    Credentials(&'static str),
    /// Too many passwords are being checked.
    #[error("too many logins are under way: try again in a few seconds")]
    Busy,
    /// What is needed to check them is not there.
    #[error("{0}")]
    Unready(String),
}

/// All ways to log in.
pub(crate) struct Login {
    users: Option<Users>,
    company: Option<OidcIssuer>,
}

impl Login {
    /// Reads the files that the settings name. A key that is to be made is made at `new_key`.
    ///
    /// # Errors
    /// When a file can't be read or isn't right; the error names it, and its line.
    pub(crate) fn open(settings: LoginSettings, new_key: &std::path::Path) -> Result<Self> {
        Ok(Self {
            users: settings
                .users
                .map(|users| Users::open(users, new_key))
                .transpose()?,
            company: settings.company.map(OidcIssuer::open).transpose()?,
        })
    }

    /// The public keys of the tokens that are signed here, as a JSON Web Key Set (RFC 7517); none
    /// when none are.
    pub(crate) fn keys(&self) -> Option<String> {
        self.users.as_ref().map(Users::keys)
    }

    /// A token for whoever these credentials are of.
    ///
    /// # Errors
    /// When there is none to be had, with the reason.
    pub(crate) async fn token(&self, credentials: Option<Credentials>) -> Result<Issued, Refusal> {
        if self.users.is_none() && self.company.is_none() {
            return Err(Refusal::Unconfigured);
        }
        let credentials = credentials.ok_or(Refusal::Missing)?;
        match (&self.company, &self.users) {
            // No password of a file looks like a token by chance.
            (Some(company), _) if credentials.password_is_token() => {
                company.check(credentials.into_password()).await
            }
            (_, Some(users)) => users.token(credentials).await,
            _ => Err(Refusal::Credentials(
                "the password has to be a token of the company's issuer: get one there, and log in \
                 with it as the password",
            )),
        }
    }
}
