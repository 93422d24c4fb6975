//! The builder's log: to stderr, a line for each event.
//!
//! ```text
//!   {"severity":"WARNING","time":"2026-11-21T09:30:00.123456Z","message":"not built",
//!    "error":"…","service":"nixgate-builder","version":"0.1.0+3fa9c0d1e2b4",
//!    "request_id":"5f0c2d1e-…","packages":"bashinteractive git"}
//!
//!   2026-11-21T09:30:00.123456Z  WARNING not built: … request_id="5f0c2d1e-…" packages="bashinteractive git"
//! ```
//!
//! Cloud Logging, Datadog and others know these field names; the severities are Cloud Logging's. `error`
//! has the whole chain of causes ([`chain`]). `request_id` is Envoy's id of the request ([`request`]); a
//! build has that of the request that began it.
//!
//! Every value is [redacted](redact) here, so no caller has to. Output of programs could also imitate a
//! log line or control a terminal: JSON escapes it; text indents further lines and has no control
//! characters.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::time::SystemTime;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Span, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::telemetry::redact::redact;

/// The release, and a hash of its sources.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("NIXGATE_SOURCES"));

const SERVICE: &str = "nixgate-builder";
/// The target of events that are worse than an error: the builder ends, or has a bug.
pub const CRITICAL: &str = "critical";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Starts logging to stderr. `RUST_LOG` sets the level, else `default`. Without a format, a terminal gets
/// text, and everything else JSON.
pub fn start_log(default: &str, format: Option<LogFormat>) -> LogFormat {
    let format = format.unwrap_or(match std::io::stderr().is_terminal() {
        true => LogFormat::Text,
        false => LogFormat::Json,
    });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let lines = Lines {
        format,
        write: |line: &str| drop(std::io::stderr().lock().write_all(line.as_bytes())),
    };
    Registry::default().with(filter).with(lines).init();
    std::panic::set_hook(Box::new(log_panic));
    format
}

/// The text of an error and its causes.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors have their cause in their text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// The span of a request. Callers pass an id only if it comes from the edge.
pub(crate) fn request(id: Option<&str>) -> Span {
    // Envoy or a proxy before it sets the id: a UUID or similar.
    let is_id = |id: &&str| id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic());
    match id.filter(is_id) {
        Some(id) => tracing::error_span!("request", request_id = id),
        None => Span::none(),
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => Some(backtrace.to_string()),
        _ => None,
    };
    let location = info.location().map(ToString::to_string);
    let error = info.payload_as_str().unwrap_or("the panic has no message");
    tracing::error!(
        target: CRITICAL,
        error,
        location,
        backtrace,
        "a thread panicked. Report this"
    );
}

/// Writes events as lines.
struct Lines<W> {
    format: LogFormat,
    write: W,
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.others.extend(of_span.others.clone());
                fields.bare.extend(&of_span.bare);
            }
        }
        event.record(&mut fields);
        let line = Line::new(event.metadata(), fields);
        (self.write)(&match self.format {
            LogFormat::Json => line.json(),
            LogFormat::Text => line.text(),
        });
    }
}

/// The fields of an event or a span, redacted.
#[derive(Default)]
struct Fields {
    message: String,
    error: Option<String>,
    others: Map<String, Value>,
    /// Names of other fields that text shows without quotes: those that were not logged as strings.
    bare: BTreeSet<&'static str>,
}

impl Fields {
    fn note(&mut self, field: &Field, value: Value) {
        let value = match value {
            Value::String(text) => Value::String(redact(&text)),
            other => other,
        };
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("error", Value::String(text)) => self.error = Some(text),
            (name, value) => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.bare.insert(field.name());
        self.note(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.note(field, chain(value).into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value.into());
    }
}

/// A line of the log.
#[derive(Serialize)]
struct Line {
    severity: &'static str,
    time: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    service: &'static str,
    version: &'static str,
    #[serde(flatten)]
    others: Map<String, Value>,
    #[serde(skip)]
    bare: BTreeSet<&'static str>,
}

impl Line {
    fn new(metadata: &Metadata<'_>, fields: Fields) -> Self {
        let mut others = fields.others;
        // These have their own fields.
        for own in ["severity", "time", "service", "version"] {
            others.remove(own);
        }
        Self {
            severity: match (metadata.target(), *metadata.level()) {
                (CRITICAL, _) => "CRITICAL",
                (_, Level::ERROR) => "ERROR",
                (_, Level::WARN) => "WARNING",
                (_, Level::INFO) => "INFO",
                (_, Level::DEBUG | Level::TRACE) => "DEBUG",
            },
            time: humantime::format_rfc3339_micros(SystemTime::now()).to_string(),
            message: fields.message,
            error: fields.error,
            service: SERVICE,
            version: VERSION,
            others,
            bare: fields.bare,
        }
    }

    fn json(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    fn text(&self) -> String {
        let Self { time, severity, .. } = self;
        let mut line = format!("{time} {severity:>8} {}", printable(&self.message));
        if let Some(error) = &self.error {
            let _ = write!(line, ": {}", printable(error));
        }
        for (name, value) in &self.others {
            let _ = match value {
                Value::String(text) if self.bare.contains(&**name) => {
                    write!(line, " {name}={}", printable(text))
                }
                // As JSON: quoted, on one line.
                quoted => write!(line, " {name}={quoted}"),
            };
        }
        line.push('\n');
        line
    }
}

/// Escapes text for a terminal.
fn printable(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => written.push_str("\n    "),
            '\t' => written.push('\t'),
            control if control.is_control() => written.extend(control.escape_default()),
            other => written.push(other),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use anyhow::{Context as _, anyhow};

    use super::*;

    /// The lines that `act` logs.
    fn logged(format: LogFormat, act: impl FnOnce()) -> Vec<String> {
        let written = Arc::new(Mutex::new(String::new()));
        let lines = Lines {
            format,
            write: {
                let written = Arc::clone(&written);
                move |line: &str| written.lock().unwrap().push_str(line)
            },
        };
        tracing::subscriber::with_default(Registry::default().with(lines), act);
        let written = written.lock().unwrap();
        written.lines().map(str::to_owned).collect()
    }

    fn json(act: impl FnOnce()) -> Value {
        let lines = logged(LogFormat::Json, act);
        assert_eq!(lines.len(), 1, "{lines:?}");
        serde_json::from_str(&lines[0]).unwrap()
    }

    #[test]
    fn a_line_has_the_fields_that_log_services_know() {
        let error = Err::<(), _>(anyhow!("no route to host"))
            .context("can't fetch http://me:pw@host/x")
            .unwrap_err();
        let line = json(|| {
            let _entered = request(Some("5f0c2d1e")).entered();
            tracing::warn!(error = chain(&*error), tries = 3, "package source");
        });
        for (name, expected) in [
            ("severity", Value::from("WARNING")),
            ("message", "package source".into()),
            (
                "error",
                "can't fetch http://host/x: no route to host".into(),
            ),
            ("request_id", "5f0c2d1e".into()),
            ("service", "nixgate-builder".into()),
            ("version", VERSION.into()),
            ("tries", 3.into()),
        ] {
            assert_eq!(line[name], expected, "{name} of {line}");
        }
        let time = line["time"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    }

    #[test]
    fn severities_are_those_of_cloud_logging() {
        let severity = |act: fn()| json(act)["severity"].as_str().unwrap().to_owned();
        assert_eq!(severity(|| tracing::debug!("x")), "DEBUG");
        assert_eq!(severity(|| tracing::info!("x")), "INFO");
        assert_eq!(severity(|| tracing::warn!("x")), "WARNING");
        assert_eq!(severity(|| tracing::error!("x")), "ERROR");
        assert_eq!(
            severity(|| tracing::error!(target: CRITICAL, "x")),
            "CRITICAL"
        );
    }

    #[test]
    fn a_value_can_not_forge_a_line() {
        let forged = "x\n2026-11-21T09:30:00Z     INFO all is well\u{1b}[2J\r\"}";
        let act = || tracing::error!(error = forged, path = forged, time = 3, "{forged}");
        assert_eq!(json(act)["message"], forged);
        let lines = logged(LogFormat::Text, act);
        for line in &lines[1..] {
            assert!(line.starts_with("    "), "{lines:?}");
        }
        assert!(!lines.concat().contains(['\u{1b}', '\r']), "{lines:?}");
    }

    #[test]
    fn text_is_for_people() {
        let lines = logged(LogFormat::Text, || {
            let _entered = request(Some("5f0c2d1e")).entered();
            tracing::warn!(user = "alice", address = %"::1", error = "no", tries = 3, "refused");
        });
        for said in [
            " WARNING refused: no ",
            " user=\"alice\"",
            " address=::1",
            " request_id=\"5f0c2d1e\"",
            " tries=3",
        ] {
            assert!(lines[0].contains(said), "{said} in {lines:?}");
        }
    }

    #[test]
    fn no_field_has_a_secret() {
        let secret = "https://h/x?private_token=abcdef";
        for format in [LogFormat::Json, LogFormat::Text] {
            let lines = logged(format, || {
                let _entered = tracing::error_span!("s", of_span = secret).entered();
                tracing::info!(error = secret, quoted = secret, shown = %secret, debug = ?secret, "{secret}");
            });
            let text = lines.concat();
            assert_eq!(text.matches("[redacted]").count(), 6, "{text}");
            assert!(!text.contains("abcdef"), "{text}");
        }
    }

    #[test]
    fn invalid_ids_are_left_out() {
        for id in [
            None,
            Some("two words"),
            Some("a\nb"),
            Some(&*"a".repeat(129)),
        ] {
            let line = json(|| {
                let _entered = request(id).entered();
                tracing::info!("x");
            });
            assert_eq!(line.get("request_id"), None);
        }
    }

    #[test]
    fn a_cause_in_an_error_s_own_text_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] std::io::Error);
        let outer = Outer(std::io::Error::other("inner"));
        assert_eq!(chain(&outer), "outer: inner");
    }

    #[test]
    fn a_panic_is_a_line() {
        let line = json(|| {
            let old = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let panicked = std::panic::catch_unwind(|| panic!("as the test wants"));
            std::panic::set_hook(old);
            assert!(panicked.is_err());
        });
        assert_eq!(line["severity"], "CRITICAL");
        assert_eq!(line["error"], "as the test wants");
        assert!(line["location"].as_str().unwrap().contains("logging.rs"));
    }
}
