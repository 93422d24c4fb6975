//! Removes secrets from text that people read: the log, errors, and the pages of builds.
//!
//! Text from elsewhere may contain a secret: a URL that could not be fetched, a command with its
//! arguments, an answer that quotes a request. So all of it passes [`redact`]:
//!
//! ```text
//!   stderr of programs (process) ──► errors ──┬─► log (telemetry::logging: each value of each line)
//!   answers of servers ────────────► errors ──┤
//!                                             ├─► clients (server::error)
//!   lines of builds (nix::log) ──► BuildLog ──┴─► /builds
//! ```
//!
//! Secrets of the settings are removed wherever they occur ([`known`]). Others are recognised by their
//! surroundings, such as `?private_token=` ([`patterns`]); these lists can't be complete. A private key
//! has many lines: [`KeyLines`] removes it from text that comes line by line.

mod known;
mod patterns;
mod private_key;

use std::borrow::Cow;

use serde_json::Value;

pub use known::keep_environment;
pub(crate) use known::{keep_credentials, keep_nix_option, keep_secret, keep_url};
pub(crate) use private_key::KeyLines;

/// Replaces a secret.
const REDACTED: &str = "[redacted]";

/// The text without secrets.
pub fn redact(text: &str) -> String {
    match patterns::without(&known::without(text)) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// Redacts each string of a JSON value, including keys.
pub(crate) fn redact_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact(&text)),
        Value::Array(items) => items.into_iter().map(redact_value).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (redact(&name), redact_value(value)))
            .collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
