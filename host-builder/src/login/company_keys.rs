//! The public keys of the company's issuer: a JSON Web Key Set in a file or at an address.
//!
//! Issuers change their keys, and publish the new one under a new name (`kid`) before they sign by
//! it. So an address is asked again when a token names a key that isn't known, and now and then
//! anyway, since a key that was withdrawn has to go. Whoever sends tokens with invented names can't
//! have the issuer asked more often than [`AT_MOST`]. While the issuer doesn't answer, the keys that
//! are known stay.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::sync::Mutex;

use super::Refusal;
use crate::files::reload::Reloading;
use crate::telemetry::logging::chain;

/// Keys are fetched again after so long.
const FRESH: Duration = Duration::from_secs(300);
/// And not again before so long has passed.
const AT_MOST: Duration = Duration::from_secs(10);
/// How long the issuer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A set of keys takes a few kilobytes.
const MAX_BYTES: usize = 1 << 20;

/// Where an issuer's public keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Url(Url),
}

impl FromStr for KeySource {
    type Err = anyhow::Error;

    /// What has `://` is an address, which must be https: whoever can change the keys on their way
    /// can log in as anybody. On loopback there is no way.
    fn from_str(text: &str) -> Result<Self> {
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let url: Url = text
            .parse()
            .with_context(|| format!("\"{text}\" is no URL"))?;
        let on_loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        match url.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if on_loopback => Ok(Self::Url(url)),
            _ => bail!("\"{text}\" is not https, so that anybody on the way could change the keys"),
        }
    }
}

/// The keys, as far as they are known.
pub(super) enum CompanyKeys {
    File(Reloading<JwkSet>),
    Url {
        client: Client,
        url: Url,
        fetched: Mutex<Fetched>,
    },
}

/// What came of the last attempts.
#[derive(Default)]
pub(super) struct Fetched {
    tried: Option<Instant>,
    keys: Option<Vec<Jwk>>,
}

impl Fetched {
    /// Whether the issuer is to be asked for a token that names this key.
    fn must_ask(&self, kid: Option<&str>, now: Instant) -> bool {
        let Some(age) = self.tried.map(|tried| now.duration_since(tried)) else {
            return true;
        };
        let has = |keys: &Vec<Jwk>| {
            kid.is_none() || keys.iter().any(|key| key.common.key_id.as_deref() == kid)
        };
        age >= FRESH || (age >= AT_MOST && !self.keys.as_ref().is_some_and(has))
    }
}

impl CompanyKeys {
    /// Reads the file; an address is asked when the first token comes.
    pub(super) fn open(source: &KeySource) -> Result<Self> {
        Ok(match source {
            KeySource::File(path) => Self::File(Reloading::open(path, parse)?),
            KeySource::Url(url) => Self::Url {
                // A redirect could lead away from https.
                client: Client::builder()
                    .timeout(TIMEOUT)
                    .redirect(Policy::none())
                    .build()?,
                url: url.clone(),
                fetched: Mutex::default(),
            },
        })
    }

    /// The keys that are known, after asking for one of this name where it is not among them.
    pub(super) async fn that_have(&self, kid: Option<&str>) -> Result<Vec<Jwk>, Refusal> {
        match self {
            Self::File(file) => Ok(file.current().keys.clone()),
            Self::Url {
                client,
                url,
                fetched,
            } => {
                // Held while asking: whoever comes meanwhile gets the same answer.
                let mut fetched = fetched.lock().await;
                let now = Instant::now();
                if fetched.must_ask(kid, now) {
                    fetched.tried = Some(now);
                    match fetch(client, url).await {
                        Ok(keys) => fetched.keys = Some(keys.keys),
                        Err(error) => tracing::error!(
                            %url,
                            error = chain(&*error),
                            "the keys of the company's issuer can't be fetched, so tokens are \
                             checked by those that are known"
                        ),
                    }
                }
                fetched.keys.clone().ok_or_else(|| {
                    Refusal::Unready(
                        "the keys of the company's issuer are not known yet".to_owned(),
                    )
                })
            }
        }
    }
}

fn parse(text: &str) -> Result<JwkSet> {
    serde_json::from_str(text).context("it is no JSON Web Key Set")
}

async fn fetch(client: &Client, url: &Url) -> Result<JwkSet> {
    let mut answer = client.get(url.clone()).send().await?;
    ensure!(answer.status() == 200, "it answered {}", answer.status());
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        ensure!(
            body.len() <= MAX_BYTES,
            "the answer has more than {MAX_BYTES} bytes"
        );
    }
    parse(std::str::from_utf8(&body).context("the answer is no text")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_where_nobody_can_change_them() {
        for (text, good) in [
            ("https://login.example/keys", true),
            ("http://127.0.0.1:8000/keys", true),
            ("http://[::1]:8000/keys", true),
            ("http://login.example/keys", false),
            ("http://localhost.example/keys", false),
            ("ftp://login.example/keys", false),
            ("https://", false),
        ] {
            assert_eq!(text.parse::<KeySource>().is_ok(), good, "{text}");
        }
        let file = KeySource::File(PathBuf::from("/etc/keys.json"));
        assert_eq!("/etc/keys.json".parse::<KeySource>().unwrap(), file);
    }

    #[test]
    fn a_new_name_has_the_issuer_asked_and_invented_ones_not_all_the_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut fetched = Fetched::default();
        assert!(fetched.must_ask(Some("a"), start));

        fetched.tried = Some(start);
        assert!(!fetched.must_ask(Some("a"), after(9)), "it has just failed");
        assert!(fetched.must_ask(Some("a"), after(10)));

        let set = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"AA","y":"AA"}]}"#;
        fetched.keys = Some(parse(set).unwrap().keys);
        for kid in [Some("a"), None] {
            assert!(!fetched.must_ask(kid, after(299)));
            assert!(fetched.must_ask(kid, after(300)));
        }
        assert!(!fetched.must_ask(Some("b"), after(9)));
        assert!(fetched.must_ask(Some("b"), after(10)));
    }
}
