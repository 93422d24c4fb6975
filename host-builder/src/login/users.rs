//! Users of the htpasswd file, and the tokens that they get.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::sync::Semaphore;

use super::groups::Groups;
use super::htpasswd::Htpasswd;
use super::signer::{Claims, Signer};
use super::{Credentials, Issued, Refusal, UserSettings};
use crate::watched::Watched;

/// Passwords that are checked at once. Each takes a processor for as long as its hash was made to
/// cost, and builds want the processors too; the others wait.
const CHECKS: usize = 2;

/// By how much the clock of whoever checks a token may be behind this one, in seconds.
const CLOCKS_DIFFER: u64 = 300;

/// Who has a password, and what a token is made with.
pub(super) struct Users {
    files: Arc<Files>,
    signer: Watched<Signer>,
    settings: UserSettings,
    checks: Arc<Semaphore>,
}

struct Files {
    htpasswd: Watched<Htpasswd>,
    groups: Option<Watched<Groups>>,
}

impl Files {
    /// The user's groups; none when the password is wrong.
    fn check(&self, credentials: &Credentials) -> Option<Vec<String>> {
        let user = credentials.user();
        let htpasswd = self.htpasswd.current();
        if !htpasswd.check(user, credentials.password()) {
            if htpasswd.has(user) {
                tracing::warn!(user, "a wrong password");
            } else {
                tracing::warn!("a user that the htpasswd file does not have");
            }
            return None;
        }
        let groups = self.groups.as_ref().map(|groups| groups.current().of(user));
        Some(groups.unwrap_or_default())
    }
}

impl Users {
    /// Reads the files. The key is made at `new_key` when the settings name none.
    pub(super) fn open(settings: UserSettings, new_key: &Path) -> Result<Self> {
        let files = Files {
            htpasswd: Watched::open(&settings.htpasswd, Htpasswd::parse)?,
            groups: match &settings.groups {
                Some(path) => Some(Watched::open(path, Groups::parse)?),
                None => None,
            },
        };
        let signer = match &settings.key {
            Some(path) => Signer::open(path)?,
            None => Signer::open_or_make(new_key)?,
        };
        Ok(Self {
            files: Arc::new(files),
            signer,
            settings,
            checks: Arc::new(Semaphore::new(CHECKS)),
        })
    }

    /// The public keys of the tokens.
    pub(super) fn keys(&self) -> String {
        self.signer.current().keys().to_owned()
    }

    /// A token for the user of these credentials.
    pub(super) async fn token(&self, credentials: Credentials) -> Result<Issued, Refusal> {
        let failed = |_| Refusal::Unready("the password could not be checked".to_owned());
        // Kept by the check, which goes on when whoever asked has hung up.
        let turn = Arc::clone(&self.checks).acquire_owned().await;
        let files = Arc::clone(&self.files);
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            files
                .check(&credentials)
                .map(|groups| (credentials, groups))
        });
        let (credentials, groups) = checked
            .await
            .map_err(failed)?
            .ok_or(Refusal::Credentials("wrong user or password"))?;
        let (at, lifetime) = (SystemTime::now(), self.settings.lifetime);
        let now = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: &self.settings.issuer,
            sub: credentials.user(),
            aud: &self.settings.audience,
            iat: now,
            nbf: now.saturating_sub(CLOCKS_DIFFER),
            exp: now.saturating_add(lifetime.as_secs()),
            groups,
        };
        let signer = self.signer.current();
        let token = signer
            .sign(&claims)
            .map_err(|error| Refusal::Unready(format!("no token could be signed: {error:#}")))?;
        tracing::debug!(user = claims.sub, groups = ?claims.groups, "a token");
        Ok(Issued {
            token,
            at,
            expires_in: lifetime,
        })
    }
}
