//! The public keys of the OIDC issuer: a JSON Web Key Set (JWKS) in a file or at a URL.
//!
//! Issuers publish a new key under a new id (`kid`) before they sign with it. So the URL is fetched
//! again when a token has an unknown `kid`, at most once in [`MIN_AGE`] since clients can invent ids;
//! and after [`MAX_AGE`], to drop withdrawn keys. While the issuer doesn't answer, the earlier keys
//! stay.

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

const MAX_AGE: Duration = Duration::from_secs(300);
const MIN_AGE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Real ones have a few kilobytes.
const MAX_BYTES: usize = 1 << 20;

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwksSource {
    File(PathBuf),
    Url(Url),
}

impl FromStr for JwksSource {
    type Err = anyhow::Error;

    /// Text with `://` is a URL. It must use https, except on loopback: whoever can change the keys in
    /// transit can log in as anybody.
    fn from_str(text: &str) -> Result<Self> {
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let url: Url = text
            .parse()
            .with_context(|| format!("\"{text}\" is not a URL"))?;
        let on_loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        match url.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if on_loopback => Ok(Self::Url(url)),
            _ => bail!("\"{text}\" is not an https URL: anybody in between could change the keys"),
        }
    }
}

/// See the module.
pub(super) enum Jwks {
    File(Reloading<JwkSet>),
    Url {
        client: Client,
        url: Url,
        fetched: Mutex<Fetched>,
    },
}

#[derive(Default)]
pub(super) struct Fetched {
    /// The last attempt.
    tried: Option<Instant>,
    /// Of the last success.
    keys: Option<Vec<Jwk>>,
}

impl Fetched {
    /// Whether the keys must be fetched for a token with this `kid`.
    fn is_due(&self, kid: Option<&str>, now: Instant) -> bool {
        let Some(age) = self.tried.map(|tried| now.duration_since(tried)) else {
            return true;
        };
        let has = |keys: &Vec<Jwk>| {
            kid.is_none() || keys.iter().any(|key| key.common.key_id.as_deref() == kid)
        };
        age >= MAX_AGE || (age >= MIN_AGE && !self.keys.as_ref().is_some_and(has))
    }
}

impl Jwks {
    /// Reads a file. A URL is fetched for the first token.
    pub(super) fn open(source: &JwksSource) -> Result<Self> {
        Ok(match source {
            JwksSource::File(path) => Self::File(Reloading::open(path, parse)?),
            JwksSource::Url(url) => Self::Url {
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

    /// All keys, fetched again if none has this `kid`.
    pub(super) async fn get(&self, kid: Option<&str>) -> Result<Vec<Jwk>, Refusal> {
        match self {
            Self::File(file) => Ok(file.current().keys.clone()),
            Self::Url {
                client,
                url,
                fetched,
            } => {
                // Locked during the fetch, so that concurrent logins share it.
                let mut fetched = fetched.lock().await;
                let now = Instant::now();
                if fetched.is_due(kid, now) {
                    fetched.tried = Some(now);
                    match fetch(client, url).await {
                        Ok(keys) => fetched.keys = Some(keys.keys),
                        Err(error) => tracing::error!(
                            %url,
                            error = chain(&*error),
                            "cannot fetch the keys of the OIDC issuer: the earlier ones stay in force"
                        ),
                    }
                }
                fetched.keys.clone().ok_or_else(|| {
                    let message = "the keys of the OIDC issuer are not available yet: try again \
                                   later, and see the builder's log";
                    Refusal::Unready(message.to_owned())
                })
            }
        }
    }
}

fn parse(text: &str) -> Result<JwkSet> {
    serde_json::from_str(text).context("not a JSON Web Key Set")
}

async fn fetch(client: &Client, url: &Url) -> Result<JwkSet> {
    let mut answer = client.get(url.clone()).send().await?;
    ensure!(answer.status() == 200, "HTTP status {}", answer.status());
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        ensure!(
            body.len() <= MAX_BYTES,
            "the body has more than {MAX_BYTES} bytes"
        );
    }
    parse(std::str::from_utf8(&body).context("the body is not UTF-8")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_by_https_or_from_loopback() {
        for (text, good) in [
            ("https://login.example/keys", true),
            ("http://127.0.0.1:8000/keys", true),
            ("http://[::1]:8000/keys", true),
            ("http://login.example/keys", false),
            ("http://localhost.example/keys", false),
            ("ftp://login.example/keys", false),
            ("https://", false),
        ] {
            assert_eq!(text.parse::<JwksSource>().is_ok(), good, "{text}");
        }
        let file = JwksSource::File(PathBuf::from("/etc/keys.json"));
        assert_eq!("/etc/keys.json".parse::<JwksSource>().unwrap(), file);
    }

    #[test]
    fn a_new_kid_causes_a_fetch_at_most_once_in_ten_seconds() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut fetched = Fetched::default();
        assert!(fetched.is_due(Some("a"), start));

        fetched.tried = Some(start);
        assert!(
            !fetched.is_due(Some("a"), after(9)),
            "the fetch has just failed"
        );
        assert!(fetched.is_due(Some("a"), after(10)));

        let set = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"AA","y":"AA"}]}"#;
        fetched.keys = Some(parse(set).unwrap().keys);
        for kid in [Some("a"), None] {
            assert!(!fetched.is_due(kid, after(299)));
            assert!(fetched.is_due(kid, after(300)));
        }
        assert!(!fetched.is_due(Some("b"), after(9)));
        assert!(fetched.is_due(Some("b"), after(10)));
    }
}
