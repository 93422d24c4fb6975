//! Users of the htpasswd file, and their tokens.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::groups::Groups;
use super::htpasswd::Htpasswd;
use super::signer::{Claims, Signer};
use super::{Credentials, Issued, Refusal, UserSettings};
use crate::files::reload::Reloading;

/// Passwords that are checked at once. A check takes a processor for the cost of its hash, and builds
/// need processors too.
const MAX_CHECKS: usize = 2;

/// How long a login waits for a permit. Envoy gives a login 20 s in all; a client that gets an error with
/// an advice is better off than one that is cut off.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How far the clock of a verifier may be behind, in seconds.
const CLOCK_SKEW: u64 = 300;

/// See the module.
pub(super) struct Users {
    files: Arc<Files>,
    signer: Reloading<Signer>,
    settings: UserSettings,
    checks: Arc<Semaphore>,
    permit_timeout: Duration,
}

struct Files {
    htpasswd: Reloading<Htpasswd>,
    groups: Option<Reloading<Groups>>,
}

impl Files {
    /// The user's groups, if the password is right.
    fn check(&self, credentials: &Credentials) -> Result<Vec<String>, Refusal> {
        let user = &credentials.user;
        let htpasswd = self.htpasswd.current();
        if !htpasswd.check(user, &credentials.password) {
            let user = htpasswd.has(user).then(|| user.to_owned());
            return Err(Refusal::Password { user });
        }
        let groups = self.groups.as_ref().map(|groups| groups.current().of(user));
        Ok(groups.unwrap_or_default())
    }
}

impl Users {
    /// Reads the files. Without a key in the settings, one is read or created at `new_key`.
    pub(super) fn open(settings: UserSettings, new_key: &Path) -> Result<Self> {
        let groups = settings.groups.as_ref();
        let groups = groups.map(|path| Reloading::open(path, Groups::parse));
        let files = Files {
            htpasswd: Reloading::open(&settings.htpasswd, Htpasswd::parse)?,
            groups: groups.transpose()?,
        };
        let signer = match &settings.key {
            Some(path) => Signer::open(path)?,
            None => Signer::open_or_create(new_key)?,
        };
        Ok(Self {
            files: Arc::new(files),
            signer,
            settings,
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
            permit_timeout: PERMIT_TIMEOUT,
        })
    }

    /// The tokens' public keys, as a JSON Web Key Set.
    pub(super) fn keys(&self) -> String {
        self.signer.current().keys.clone()
    }

    /// A token for the user of these credentials.
    pub(super) async fn token(&self, credentials: Credentials) -> Result<Issued, Refusal> {
        let permit = Arc::clone(&self.checks).acquire_owned();
        let permit = timeout(self.permit_timeout, permit).await;
        // The check owns the permit, since it goes on when the client has hung up.
        let permit = permit.map_err(|_| Refusal::Busy)?;
        let files = Arc::clone(&self.files);
        let request = tracing::Span::current();
        let checked = tokio::task::spawn_blocking(move || {
            let (_permit, _request) = (permit, request.entered());
            (files.check(&credentials), credentials)
        });
        let failed = "cannot check the password: see the builder's log";
        let (groups, credentials) = checked
            .await
            .map_err(|_| Refusal::Unready(failed.to_owned()))?;
        let (at, lifetime) = (SystemTime::now(), self.settings.lifetime);
        let now = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: &self.settings.issuer,
            sub: &credentials.user,
            aud: &self.settings.audience,
            iat: now,
            nbf: now.saturating_sub(CLOCK_SKEW),
            exp: now.saturating_add(lifetime.as_secs()),
            groups: groups?,
        };
        let signer = self.signer.current();
        let token = signer
            .sign(&claims)
            .map_err(|error| Refusal::Unready(format!("cannot sign a token: {error:#}")))?;
        tracing::debug!(user = claims.sub, groups = ?claims.groups, "issued a token");
        Ok(Issued {
            token,
            at,
            expires_in: lifetime,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_login_waits_for_a_permit_for_a_limited_time() {
        let folder = tempfile::tempdir().unwrap();
        let htpasswd = folder.path().join("htpasswd");
        std::fs::write(&htpasswd, format!("a:{}\n", bcrypt::hash("b", 4).unwrap())).unwrap();
        let settings = UserSettings {
            htpasswd,
            groups: None,
            key: None,
            lifetime: Duration::from_secs(60),
            issuer: "nixgate".to_owned(),
            audience: "nixgate".to_owned(),
        };
        let mut users = Users::open(settings, &folder.path().join("key.pem")).unwrap();
        users.permit_timeout = Duration::from_millis(1);
        let ask = || Credentials::from_basic(b"Basic YTpi").unwrap();
        assert!(users.token(ask()).await.is_ok());
        // Others have all permits.
        users.checks = Arc::new(Semaphore::new(0));
        assert_eq!(users.token(ask()).await.err(), Some(Refusal::Busy));
    }
}
