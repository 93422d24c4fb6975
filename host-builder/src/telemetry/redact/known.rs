//! Secrets of the settings.
//!
//! Each is removed wherever it occurs: as it is, and as written in URLs, in quotes and as base64. A secret
//! with fewer than [`SHORTEST`] characters is not: it may be an ordinary word, which would disappear from
//! the log.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;

use super::REDACTED;

/// Bytes that a secret has at least.
const SHORTEST: usize = 8;
/// A variable whose name contains one of these is a secret.
const SECRET: [&str; 5] = ["TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "ACCESS_KEY"];
/// A variable whose name ends so is not: it says where a secret is.
const ABOUT: [&str; 4] = ["_FILE", "_PATH", "_URI", "_URL"];
/// Settings of nixgate about tokens, which are not secret.
const OURS: &str = "NIXGATE_TOKEN_";

/// The longest come first, so that a secret that contains another is removed as a whole.
static KNOWN: RwLock<BTreeSet<Longest>> = RwLock::new(BTreeSet::new());

#[derive(Clone, Debug, PartialEq, Eq)]
struct Longest(String);

impl Ord for Longest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_length = other.0.len().cmp(&self.0.len());
        by_length.then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Longest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Hides a secret from now on.
pub(crate) fn keep_secret(secret: &str) {
    let secret = secret.trim();
    if secret.len() < SHORTEST || is_known(secret) {
        return;
    }
    let quoted = format!("{secret:?}");
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let forms = [
        secret.to_owned(),
        quoted.trim_matches('"').to_owned(),
        encoded.replace('+', "%20"),
        encoded,
        percent_decoded(secret),
        STANDARD.encode(secret),
    ];
    KNOWN.write().extend(
        forms
            .into_iter()
            .filter(|form| form.len() >= SHORTEST)
            .map(Longest),
    );
}

/// Hides a password, and its form in Basic authentication.
pub(crate) fn keep_credentials(user: &str, password: &str) {
    if password.is_empty() {
        return;
    }
    keep_secret(password);
    keep_secret(&STANDARD.encode(format!("{user}:{password}")));
}

/// Hides secrets in a URL: the password, a user without a password, which may be a token, and fields of
/// the query with a secret's name.
pub(crate) fn keep_url(url: &str) {
    let Some((_, rest)) = url.split_once("://") else {
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if let Some((user, _)) = authority.rsplit_once('@') {
        match user.split_once(':') {
            Some((user, password)) => {
                keep_credentials(&percent_decoded(user), &percent_decoded(password));
                keep_secret(password);
            }
            None => keep_secret(user),
        }
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in query
        .split(['&', '#'])
        .filter_map(|field| field.split_once('='))
    {
        if is_secret(&name.to_ascii_uppercase()) {
            keep_secret(value);
        }
    }
}

/// Hides secrets in a setting of Nix: `access-tokens`, and passwords in URLs.
pub(crate) fn keep_nix_option(name: &str, value: &str) {
    for word in value.split_whitespace() {
        match word.split_once('=') {
            Some((_, token)) if name.ends_with("access-tokens") => {
                // GitLab's tokens begin with their type.
                keep_secret(token.split_once(':').map_or(token, |(_, token)| token));
            }
            _ => keep_url(word),
        }
    }
}

/// Hides secrets in variables: those with a secret's name, passwords in URLs, settings of Nix, and the
/// headers that git sends.
pub fn keep_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) {
    for (name, value) in variables {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        if is_secret(&name.to_ascii_uppercase()) {
            keep_secret(value);
        }
        for word in value.split(char::is_whitespace) {
            keep_url(word);
        }
        if name == "NIX_CONFIG" {
            for (name, value) in value.lines().filter_map(|line| line.split_once('=')) {
                keep_nix_option(name.trim(), value);
            }
        }
        if name.starts_with("GIT_CONFIG_VALUE")
            && let Some((_, header)) = value.split_once(": ")
        {
            header.split_whitespace().for_each(keep_secret);
        }
    }
}

/// Whether an upper-case name is that of a secret.
fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|word| name.contains(word))
        && !ABOUT.iter().any(|end| name.ends_with(end))
        && !name.starts_with(OURS)
}

fn is_known(secret: &str) -> bool {
    KNOWN.read().contains(&Longest(secret.to_owned()))
}

fn percent_decoded(text: &str) -> String {
    // Escapes the characters that mean something in a form.
    let field = text
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D");
    let mut fields = form_urlencoded::parse(field.as_bytes());
    fields
        .next()
        .map_or_else(String::new, |(name, _)| name.into_owned())
}

/// The text without these secrets.
pub(super) fn without(text: &str) -> Cow<'_, str> {
    let mut rest = Cow::Borrowed(text);
    for Longest(secret) in KNOWN.read().iter() {
        if rest.contains(secret) {
            rest = Cow::Owned(rest.replace(secret, REDACTED));
        }
    }
    rest
}
