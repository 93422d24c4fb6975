//! Secrets that the settings give.
//!
//! Each is kept as it is written and as it is written in URLs, in quotes and as base64, and goes from
//! all text, wherever it stands. One with fewer than [`SHORTEST`] characters is left out: it may be a
//! word of any language, and the log would have holes where that stands.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::{PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::REDACTED;

/// A shorter text is kept for no secret.
const SHORTEST: usize = 8;
/// What the name of a variable holds whose value is a secret.
const SECRET: [&str; 5] = ["TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "ACCESS_KEY"];
/// How the name of a variable ends that says where a secret is, or something about it.
const ABOUT: [&str; 4] = ["_FILE", "_PATH", "_URI", "_URL"];
/// Variables of nixgate that are about tokens, and none.
const OURS: &str = "NIXGATE_TOKEN_";

/// They are told once and asked for with each line. The longest come first, so that what holds
/// another goes as a whole.
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

/// Keeps a secret from all text.
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
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    known.extend(
        forms
            .into_iter()
            .filter(|form| form.len() >= SHORTEST)
            .map(Longest),
    );
}

/// Keeps a password from all text, and what Basic makes of it.
pub(crate) fn keep_credentials(user: &str, password: &str) {
    if password.is_empty() {
        return;
    }
    keep_secret(password);
    keep_secret(&STANDARD.encode(format!("{user}:{password}")));
}

/// Keeps what a URL has of secrets: the password, a user that is a token (one without a password),
/// and fields of the query that are called as secrets.
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

/// Keeps what a setting of Nix has of secrets: `access-tokens`, and URLs with passwords.
pub(crate) fn keep_nix_option(name: &str, value: &str) {
    for word in value.split_whitespace() {
        match word.split_once('=') {
            Some((_, token)) if name.ends_with("access-tokens") => {
                // GitLab's begin with their kind.
                keep_secret(token.split_once(':').map_or(token, |(_, token)| token));
            }
            _ => keep_url(word),
        }
    }
}

/// Keeps what variables have of secrets: those that are called so, passwords in URLs, Nix's settings,
/// and the headers that git is told to send.
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

/// Whether what is called so, in capitals, is a secret.
fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|word| name.contains(word))
        && !ABOUT.iter().any(|end| name.ends_with(end))
        && !name.starts_with(OURS)
}

fn is_known(secret: &str) -> bool {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.contains(&Longest(secret.to_owned()))
}

fn percent_decoded(text: &str) -> String {
    // As the value of a field whose `+` is one.
    let field = text
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D");
    let mut fields = form_urlencoded::parse(field.as_bytes());
    fields
        .next()
        .map_or_else(String::new, |(name, _)| name.into_owned())
}

/// The text without them.
pub(super) fn without(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut rest = Cow::Borrowed(text);
    for Longest(secret) in &*known {
        if rest.contains(secret) {
            rest = Cow::Owned(rest.replace(secret, REDACTED));
        }
    }
    rest
}
