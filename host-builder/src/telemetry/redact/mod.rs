//! No secret in what people read: the log, errors, and the pages of builds.
//!
//! Text that comes from elsewhere may repeat a secret: a URL that could not be fetched, a command with
//! its arguments, the answer of a server that quotes a request. So all of it passes [`redact`]:
//!
//! ```text
//!   stderr of programs (nix::process) ──► errors ──┬─► log (telemetry::log: each value of each line)
//!   answers of servers ───────────────────► errors ┤
//!                                                  ├─► clients (server::error)
//!   lines of builds (nix::activity) ─► BuildLog ───┴─► /builds
//! ```
//!
//! Two things are taken out. Secrets that the settings give are known ([`known`]), and go wherever they
//! stand. Others are told by what is around them, such as `?private_token=` ([`patterns`]); these lists
//! can't be complete, and text that nobody marks as a secret stays. A private key has many lines: who
//! hears them one by one takes it out with [`KeyLines`].

mod known;
mod patterns;
mod private_key;

use std::borrow::Cow;

use serde_json::Value;

pub use known::keep_environment;
pub(crate) use known::{keep_credentials, keep_nix_option, keep_secret, keep_url};
pub(crate) use private_key::KeyLines;

/// What stands for a secret.
const REDACTED: &str = "[redacted]";

/// The text without secrets.
pub fn redact(text: &str) -> String {
    match patterns::without(&known::without(text)) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// The same for each text of a value, keys included.
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
