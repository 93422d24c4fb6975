//! Access to the builder: the edge has a token.
//!
//! During a rotation there are two, an old and a new one. In a file they change without a restart.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use nixgate_core::distribution::Digest;

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
    Given(Arc<Vec<Digest>>),
    File(Arc<Reloading<Vec<Digest>>>),
}

impl Tokens {
    /// Parses tokens separated by spaces.
    ///
    /// # Errors
    /// When there is none, more than two, or an invalid one.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let tokens = digests(text.split_whitespace())?;
        Ok(Self(Source::Given(Arc::new(tokens))))
    }

    /// Reads tokens from a file, one on each line, and reloads it when it changes.
    ///
    /// # Errors
    /// As [`Tokens::parse`], and when the file can't be read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let parse = |text: &str| digests(reload::lines(text)?.map(|(_, line)| line));
        Ok(Self(Source::File(Arc::new(Reloading::open(path, parse)?))))
    }

    /// Compares digests, so that the time reveals nothing about the tokens.
    pub(crate) fn has(&self, given: &[u8]) -> bool {
        let given = Digest::of(given);
        match &self.0 {
            Source::Given(tokens) => tokens.contains(&given),
            Source::File(tokens) => tokens.current().contains(&given),
        }
    }
}

fn digests<'a>(tokens: impl Iterator<Item = &'a str>) -> Result<Vec<Digest>> {
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
    tokens.iter().for_each(|token| keep_secret(token));
    Ok(tokens
        .iter()
        .map(|token| Digest::of(token.as_bytes()))
        .collect())
}
