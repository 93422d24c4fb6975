//! Access to the builder: the edge has a token.
//!
//! During a rotation there are two, an old and a new one. In a file they change without a restart.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use nixgate_core::Seconds;
use nixgate_core::distribution::Digest;
use nixgate_core::signature::{Refused, SigningKey};

use crate::files::reload::{self, Reloading};
use crate::telemetry::redact::keep_secret;

/// An old one and a new one; a third was probably forgotten.
const MAX_TOKENS: usize = 2;

#[derive(Clone)]
pub(crate) enum Access {
    Tokens(Tokens),
    /// For everybody.
    Direct,
}

#[derive(Clone)]
pub(crate) struct Tokens(Source);

#[derive(Clone)]
enum Source {
    Given(Arc<Vec<Token>>),
    File(Arc<Reloading<Vec<Token>>>),
}

impl Tokens {
    /// Parses tokens separated by spaces.
    ///
    /// # Errors
    /// When there is none, more than two, or an invalid one.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let tokens = parse(text.split_whitespace())?;
        Ok(Self(Source::Given(Arc::new(tokens))))
    }

    /// Reads tokens from a file, one on each line, and reloads it when it changes.
    ///
    /// # Errors
    /// As [`Tokens::parse`], and when the file can't be read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = |text: &str| parse(reload::lines(text)?.map(|(_, line)| line));
        Ok(Self(Source::File(Arc::new(Reloading::open(path, read)?))))
    }

    /// Verifies what came instead of a token: one of the tokens, or the signature of the request by one of
    /// them.
    ///
    /// # Errors
    /// Says why it does not count.
    pub(crate) fn verify(&self, given: &str, request: &Signed<'_>) -> Result<(), Refused> {
        let verify = |tokens: &[Token]| {
            let verified = tokens.iter().map(|token| token.verify(given, request));
            let mut refused = Refused::Invalid;
            for verified in verified {
                match verified {
                    Ok(()) => return Ok(()),
                    Err(Refused::Outdated) => refused = Refused::Outdated,
                    Err(Refused::Invalid) => {}
                }
            }
            Err(refused)
        };
        match &self.0 {
            Source::Given(tokens) => verify(tokens),
            Source::File(tokens) => verify(&tokens.current()),
        }
    }
}

/// What the edge signs.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// With the query.
    pub(crate) path: &'a str,
    /// When it came.
    pub(crate) at: Seconds,
}

struct Token {
    digest: Digest,
    key: SigningKey,
}

impl Token {
    fn new(text: &str) -> Self {
        keep_secret(text);
        let digest = Digest::of(text.as_bytes());
        let key = SigningKey::new(&digest);
        Self { digest, key }
    }

    /// Compares digests, so that the time reveals nothing about the token.
    fn verify(&self, given: &str, request: &Signed<'_>) -> Result<(), Refused> {
        let Signed { method, path, at } = *request;
        match Digest::of(given.as_bytes()) == self.digest {
            true => Ok(()),
            false => self.key.verify(given, method, path, at),
        }
    }
}

fn parse<'a>(tokens: impl Iterator<Item = &'a str>) -> Result<Vec<Token>> {
    let tokens: Vec<&str> = tokens.collect();
    ensure!(
        (1..=MAX_TOKENS).contains(&tokens.len()),
        "found {} tokens. Give the one that Envoy has, or an old and a new one",
        tokens.len()
    );
    let is_token = |token: &&str| token.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(
        tokens.iter().all(is_token),
        "a token must be printable ASCII without spaces, as Envoy's filter requires"
    );
    Ok(tokens.into_iter().map(Token::new).collect())
}
