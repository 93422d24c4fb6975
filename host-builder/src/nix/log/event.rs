//! The events of Nix's log in JSON (`--log-format internal-json`) that matter here.
//!
//! ```text
//!   @nix {"action":"start","id":7,"type":105,"fields":["/nix/store/…-git.drv",…]}   a build begins
//!   @nix {"action":"result","id":7,"type":104,"fields":["buildPhase"]}              its phase
//!   @nix {"action":"result","id":7,"type":101,"fields":["checking for gcc"]}        a line of its log
//!   @nix {"action":"result","id":2,"type":105,"fields":[3,10,1,0]}                  3 of 10 are done
//!   @nix {"action":"start","id":9,"type":101,"fields":["https://…"]}                a download begins
//!   @nix {"action":"stop","id":7}                                                   it has ended
//!   @nix {"action":"msg","level":0,"msg":"error: builder for … failed"}             for a person
//! ```
//!
//! The format is internal to Nix and may grow: unknown events are ignored. Texts are plain: without colours
//! and control characters.

use serde::Deserialize;
use serde_json::Value;

use super::plain;
use crate::telemetry::build_log::Counts;

const PREFIX: &[u8] = b"@nix ";

/// Types of activities that matter here.
mod activity {
    pub(super) const COPY_PATH: u64 = 100;
    pub(super) const FILE_TRANSFER: u64 = 101;
    pub(super) const COPY_PATHS: u64 = 103;
    pub(super) const BUILDS: u64 = 104;
    pub(super) const BUILD: u64 = 105;
}

/// Types of results that matter here.
mod result {
    pub(super) const LOG_LINE: u64 = 101;
    pub(super) const PHASE: u64 = 104;
    pub(super) const PROGRESS: u64 = 105;
}

/// What has happened, to the activity with this id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Starts(u64, Activity),
    /// A line of a build's log.
    LogLine(u64, String),
    /// Such as `buildPhase`.
    Phase(u64, String),
    Progress(u64, Counts),
    Stops(u64),
    Message {
        level: u64,
        text: String,
    },
    Unknown,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// The build of a derivation.
    Build(String),
    /// All builds.
    Builds,
    /// The copy of a path from a cache.
    Copy { path: String, cache: String },
    /// All copies.
    Copies,
    /// A download of a URL.
    Transfer(String),
}

/// Each action has some of these.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    action: String,
    id: u64,
    #[serde(rename = "type")]
    kind: u64,
    fields: Vec<Value>,
    level: u64,
    msg: String,
}

impl Event {
    /// Reads a line; none if it is no event, but text for people.
    pub(super) fn read(line: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        let json = line.strip_prefix(PREFIX)?;
        // Nix prints what it has read from an archive as it is.
        let json = String::from_utf8_lossy(json);
        Some(serde_json::from_str(&json).map(Self::of))
    }

    fn of(written: Written) -> Self {
        let (id, fields) = (written.id, written.fields);
        let text = |at: usize| plain(fields.get(at).and_then(Value::as_str).unwrap_or_default());
        let number = |at: usize| fields.get(at).and_then(Value::as_u64).unwrap_or(0);
        let starts = |activity| Self::Starts(id, activity);
        match (written.action.as_str(), written.kind) {
            ("start", activity::BUILD) => starts(Activity::Build(text(0))),
            ("start", activity::BUILDS) => starts(Activity::Builds),
            ("start", activity::COPY_PATH) => starts(Activity::Copy {
                path: text(0),
                cache: text(1),
            }),
            ("start", activity::COPY_PATHS) => starts(Activity::Copies),
            ("start", activity::FILE_TRANSFER) => starts(Activity::Transfer(text(0))),
            ("result", result::LOG_LINE) => Self::LogLine(id, text(0)),
            ("result", result::PHASE) => Self::Phase(id, text(0)),
            ("result", result::PROGRESS) => Self::Progress(
                id,
                Counts {
                    done: number(0),
                    expected: number(1),
                },
            ),
            ("stop", _) => Self::Stops(id),
            ("msg", _) => Self::Message {
                level: written.level,
                text: plain(&written.msg),
            },
            _ => Self::Unknown,
        }
    }
}
