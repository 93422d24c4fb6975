//! Users of the htpasswd file, and the tokens that they get.

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

/// Passwords that are checked at once. Each takes a processor for as long as its hash was made to
/// cost, and builds want the processors too; the others wait.
const CHECKS: usize = 2;

/// For how long a login waits for its turn. Envoy gives a login 20 s in all, and a client that is told
/// to come again is better off than one that is cut off.
const TURN: Duration = Duration::from_secs(10);

/// By how much the clock of whoever checks a token may be behind this one, in seconds.
const CLOCKS_DIFFER: u64 = 300;

/// Who has a password, and what a token is made with.
pub(super) struct Users {
    files: Arc<Files>,
    signer: Reloading<Signer>,
    settings: UserSettings,
    checks: Arc<Semaphore>,
    patience: Duration,
}

struct Files {
    htpasswd: Reloading<Htpasswd>,
    groups: Option<Reloading<Groups>>,
}

impl Files {
    /// The user's groups, when the password is right.
    fn check(&self, credentials: &Credentials) -> Result<Vec<String>, Refusal> {
        let user = credentials.user();
        let htpasswd = self.htpasswd.current();
        if !htpasswd.check(user, credentials.password()) {
            let user = htpasswd.has(user).then(|| user.to_owned());
            return Err(Refusal::Password { user });
        }
        let groups = self.groups.as_ref().map(|groups| groups.current().of(user));
        Ok(groups.unwrap_or_default())
    }
}

impl Users {
    /// Reads the files. The key is made at `new_key` when the settings name none.
    pub(super) fn open(settings: UserSettings, new_key: &Path) -> Result<Self> {
        let files = Files {
            htpasswd: Reloading::open(&settings.htpasswd, Htpasswd::parse)?,
            groups: match &settings.groups {
                Some(path) => Some(Reloading::open(path, Groups::parse)?),
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
            patience: TURN,
        })
    }

    /// The public keys of the tokens.
    pub(super) fn keys(&self) -> String {
        self.signer.current().keys().to_owned()
    }

    /// A token for the user of these credentials.
    pub(super) async fn token(&self, credentials: Credentials) -> Result<Issued, Refusal> {
        let failed = |_| Refusal::Unready("the password could not be checked".to_owned());
        // GcRoots by the check, which goes on when whoever asked has hung up.
        let turn = timeout(self.patience, Arc::clone(&self.checks).acquire_owned()).await;
        let turn = turn.map_err(|_| Refusal::Busy)?;
        let files = Arc::clone(&self.files);
        let request = tracing::Span::current();
        let checked = tokio::task::spawn_blocking(move || {
            let (_turn, _request) = (turn, request.entered());
            files
                .check(&credentials)
                .map(|groups| (credentials, groups))
        });
        let (credentials, groups) = checked.await.map_err(failed)??;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_login_does_not_wait_for_its_turn_for_ever() {
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
        users.patience = Duration::from_millis(1);
        let ask = || Credentials::from_basic(b"Basic YTpi").unwrap();
        assert!(users.token(ask()).await.is_ok());
        // Others have all the turns.
        users.checks = Arc::new(Semaphore::new(0));
        assert_eq!(users.token(ask()).await.err(), Some(Refusal::Busy));
    }
}
