//! What Nix says it is doing, from its log in JSON (`--log-format internal-json`).
//!
//! ```text
//!   @nix {"action":"start","id":7,"type":105,"fields":["/nix/store/…-git.drv",…]}   a build begins
//!   @nix {"action":"result","id":7,"type":104,"fields":["buildPhase"]}              its phase
//!   @nix {"action":"result","id":7,"type":101,"fields":["checking for gcc"]}        a line of its log
//!   @nix {"action":"result","id":2,"type":105,"fields":[3,10,1,0]}                  3 of 10 are done
//!   @nix {"action":"stop","id":7}                                                   it has ended
//!   @nix {"action":"msg","level":0,"msg":"error: builder for … failed"}             for a person
//! ```
//!
//! The format is Nix's own and may grow: what isn't known is passed over. Lines that are not of it
//! are for a person, as before.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};

use serde::Deserialize;

use super::output::{has_network, without_log};
use crate::process::{Listener, Tail};
use crate::telemetry::build_log::{BuildLog, Counts, Running, Work};
use crate::telemetry::logging::chain;
use crate::telemetry::redact::KeyLines;

/// How a line of the format begins.
const PREFIX: &[u8] = b"@nix ";
/// A line that is longer is cut: some builds print progress without ever ending a line.
const LINE_LIMIT: usize = 16 << 10;
/// So many lines of a failed build's log are part of the error, as Nix does it for people.
const LAST_LINES: usize = 10;
/// What is told instead of the last lines of a build that had the network.
const HIDDEN: &[u8] =
    b"what it printed is in the builder's log: it is a download, and what it can reach \
    is not for everybody\n";
/// So much of a derivation is read: the first of its outputs stands at its beginning.
const BEGINNING: u64 = 4 << 10;
/// Builds that have ended and whose last lines are still known: the error comes after the end.
const ENDED: usize = 64;
/// Messages up to this level are errors and warnings.
const WARNING: u64 = 1;
/// Messages up to this level are what Nix tells people without being asked for more.
const INFO: u64 = 3;

/// Types of activities, of which there are more.
mod kind {
    pub(super) const COPY_PATH: u64 = 100;
    pub(super) const COPY_PATHS: u64 = 103;
    pub(super) const BUILDS: u64 = 104;
    pub(super) const BUILD: u64 = 105;
}

/// Types of results, of which there are more.
mod outcome {
    pub(super) const LOG_LINE: u64 = 101;
    pub(super) const PHASE: u64 = 104;
    pub(super) const PROGRESS: u64 = 105;
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Event {
    Start {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        fields: Vec<serde_json::Value>,
    },
    Result {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        fields: Vec<serde_json::Value>,
    },
    Stop {
        id: u64,
    },
    Msg {
        #[serde(default)]
        level: u64,
        #[serde(default)]
        msg: String,
    },
}

/// A build that Nix runs, or ran.
#[derive(Debug, Default)]
struct Build {
    derivation: String,
    /// Whether it had the network: then what it printed may be of places that are nobody's business.
    has_network: bool,
    phase: Option<String>,
    key: KeyLines,
    last: VecDeque<String>,
}

/// Hears Nix, and keeps a build's log and progress up to date.
pub(super) struct NixLog<'a> {
    log: &'a BuildLog,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Of the lines that are not of the format.
    key: KeyLines,
    /// What is for a person, should Nix fail.
    tail: Tail,
    builds: BTreeMap<u64, Build>,
    ended: VecDeque<Build>,
    /// Of builds and of copies, each by the activity that counts them.
    built: BTreeMap<u64, Counts>,
    copied: BTreeMap<u64, Counts>,
    /// How much of each running copy is done, in bytes.
    copies: BTreeMap<u64, (u64, u64)>,
    /// Reads the beginning of a derivation.
    derivation: fn(&str) -> io::Result<String>,
}

impl<'a> NixLog<'a> {
    pub(super) fn new(log: &'a BuildLog) -> Self {
        Self::with_derivations(log, read_beginning)
    }

    fn with_derivations(log: &'a BuildLog, derivation: fn(&str) -> io::Result<String>) -> Self {
        Self {
            derivation,
            log,
            line: Vec::new(),
            key: KeyLines::default(),
            tail: Tail::default(),
            builds: BTreeMap::new(),
            ended: VecDeque::new(),
            built: BTreeMap::new(),
            copied: BTreeMap::new(),
            copies: BTreeMap::new(),
        }
    }

    fn line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if line.len() == LINE_LIMIT {
            // Half a word may be half a secret, which nobody would know for one.
            let word = line.iter().rposition(u8::is_ascii_whitespace);
            line.truncate(word.unwrap_or(0));
        }
        match line.strip_prefix(PREFIX) {
            // What can't be read is of a newer Nix, or was cut.
            Some(json) => match serde_json::from_slice(json) {
                Ok(event) => self.event(event),
                Err(error) => {
                    tracing::debug!(error = chain(&error), "an unknown line of Nix's log");
                }
            },
            None => {
                let text = plain(&String::from_utf8_lossy(&line));
                let text = self.key.without(&text).into_owned();
                self.say(&text);
            }
        }
    }

    fn event(&mut self, event: Event) {
        let text = |fields: &[serde_json::Value]| {
            let first = fields.first().and_then(|field| field.as_str());
            plain(first.unwrap_or_default())
        };
        let number = |fields: &[serde_json::Value], at: usize| {
            fields
                .get(at)
                .and_then(serde_json::Value::as_u64)
                .unwrap_or(0)
        };
        match event {
            Event::Start { id, kind, fields } => match kind {
                kind::BUILD => {
                    let derivation = text(&fields);
                    let beginning = (self.derivation)(&derivation);
                    let build = Build {
                        // What can't be read may have it.
                        has_network: beginning.map_or(true, |text| has_network(&text)),
                        derivation,
                        ..Build::default()
                    };
                    self.log.line(&format!("building {}", build.derivation));
                    self.builds.insert(id, build);
                }
                kind::BUILDS => drop(self.built.insert(id, Counts::default())),
                kind::COPY_PATHS => drop(self.copied.insert(id, Counts::default())),
                kind::COPY_PATH => {
                    self.log.line(&format!("fetching {}", text(&fields)));
                    self.copies.insert(id, (0, 0));
                }
                _ => return,
            },
            Event::Result { id, kind, fields } => match kind {
                outcome::LOG_LINE => {
                    let Some(build) = self.builds.get_mut(&id) else {
                        return;
                    };
                    let line = build.key.without(&text(&fields)).into_owned();
                    self.log
                        .line(&format!("{}> {line}", name(&build.derivation)));
                    build.last.push_back(line);
                    if build.last.len() > LAST_LINES {
                        build.last.pop_front();
                    }
                    return;
                }
                outcome::PHASE => {
                    if let Some(build) = self.builds.get_mut(&id) {
                        build.phase = Some(text(&fields));
                    }
                }
                outcome::PROGRESS => {
                    let (done, expected) = (number(&fields, 0), number(&fields, 1));
                    let counts = Counts { done, expected };
                    if let Some(built) = self.built.get_mut(&id) {
                        *built = counts;
                    } else if let Some(copied) = self.copied.get_mut(&id) {
                        *copied = counts;
                    } else if let Some(copy) = self.copies.get_mut(&id) {
                        *copy = (done, expected);
                    }
                }
                _ => return,
            },
            Event::Stop { id } => {
                self.copies.remove(&id);
                if let Some(build) = self.builds.remove(&id) {
                    self.ended.push_back(build);
                    if self.ended.len() > ENDED {
                        self.ended.pop_front();
                    }
                }
            }
            Event::Msg { level, msg } => {
                let text = plain(&msg);
                if level <= WARNING {
                    // Its end is told below, where it may be.
                    self.say(&without_log(&text));
                    self.say_last_lines(&text);
                } else if level <= INFO {
                    self.log.line(&text);
                }
                return;
            }
        }
        self.log.work(self.work());
    }

    /// For the log, and for the error should Nix fail.
    fn say(&mut self, text: &str) {
        self.log.line(text);
        self.tail.hear(text.as_bytes());
        self.tail.hear(b"\n");
    }

    /// With an error that names a build: how that ended. In its other format Nix says so itself.
    fn say_last_lines(&mut self, error: &str) {
        let failed = |build: &Build| !build.last.is_empty() && error.contains(&build.derivation);
        let Some(at) = self.ended.iter().position(failed) else {
            return;
        };
        let Some(build) = self.ended.remove(at) else {
            return;
        };
        if build.has_network {
            let lines = build.last.into_iter().collect::<Vec<_>>().join(" | ");
            tracing::warn!(derivation = build.derivation, "a download failed: {lines}");
            self.tail.hear(HIDDEN);
            return;
        }
        self.tail
            .hear(format!("last {} lines of its log:\n", build.last.len()).as_bytes());
        for line in &build.last {
            self.tail.hear(format!("> {line}\n").as_bytes());
        }
    }

    fn work(&self) -> Work {
        let sum = |counts: &BTreeMap<u64, Counts>| {
            counts.values().fold(Counts::default(), |sum, one| Counts {
                done: sum.done + one.done,
                expected: sum.expected + one.expected,
            })
        };
        let parts = self.copies.values().filter(|(_, expected)| *expected > 0);
        let parts = parts.map(|(done, expected)| *done as f64 / *expected as f64);
        Work {
            builds: sum(&self.built),
            fetches: sum(&self.copied),
            under_way: parts.sum(),
            running: self
                .builds
                .values()
                .map(|build| Running {
                    derivation: name(&build.derivation).to_owned(),
                    phase: build.phase.clone(),
                })
                .collect(),
        }
    }
}

impl Listener for NixLog<'_> {
    fn hear(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let ends = part.last() == Some(&b'\n');
            let text = &part[..part.len() - usize::from(ends)];
            let room = LINE_LIMIT.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.line();
            }
        }
    }

    fn end(&mut self) -> String {
        if !self.line.is_empty() {
            self.line();
        }
        self.tail.end()
    }
}

fn read_beginning(derivation: &str) -> io::Result<String> {
    let mut beginning = Vec::new();
    let file = File::open(derivation)?;
    file.take(BEGINNING).read_to_end(&mut beginning)?;
    Ok(String::from_utf8_lossy(&beginning).into_owned())
}

/// `/nix/store/<hash>-git-2.39.drv` → `git-2.39`
fn name(derivation: &str) -> &str {
    let base = derivation.rsplit('/').next().unwrap_or(derivation);
    let name = base.split_once('-').map_or(base, |(_, name)| name);
    name.strip_suffix(".drv").unwrap_or(name)
}

/// Without the sequences that colour a terminal's text, and what else is not for reading: a carriage
/// return would begin another field in a stream of events.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' if characters.peek() == Some(&'[') => {
                // ECMA-48: the sequence ends with the first character from @ to ~ after the bracket.
                characters.next();
                characters.find(|one| ('@'..='~').contains(one));
            }
            '\n' | '\t' => plain.push(character),
            other if other.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRV: &str = "/nix/store/00000000000000000000000000000000-git-2.39.drv";
    const BUILD: &str =
        r#"Derive([("out","/nix/store/x-git","",""),("doc","/nix/store/y","","")],["#;
    const DOWNLOAD: &str = r#"Derive([("out","/nix/store/x-git","r:sha256","00ff")],[],"#;

    fn hear(log: &mut NixLog<'_>, events: &[String]) {
        for event in events {
            // In two pieces, as a pipe may hand them over.
            let line = format!("@nix {event}\n");
            let (first, second) = line.split_at(line.len() / 2);
            log.hear(first.as_bytes());
            log.hear(second.as_bytes());
        }
    }

    /// As Nix 2.8 prints it.
    fn started() -> Vec<String> {
        [
            r#"{"action":"start","id":1,"level":0,"text":"","type":104}"#,
            r#"{"action":"start","id":2,"level":0,"text":"","type":103}"#,
            r#"{"action":"result","fields":[1,4,1,0],"id":1,"type":105}"#,
            r#"{"action":"start","fields":["DRV","",1,1],"id":7,"level":3,"text":"building","type":105}"#,
            r#"{"action":"result","fields":["buildPhase"],"id":7,"type":104}"#,
            r#"{"action":"result","fields":["\u001b[31mone\u001b[0m\u0007"],"id":7,"type":101}"#,
            r#"{"action":"unheard of","id":7}"#,
        ]
        .map(|line| line.replace("DRV", DRV))
        .into()
    }

    #[test]
    fn builds_are_counted_and_their_lines_are_kept_under_their_names() {
        let log = BuildLog::new("id", None, &[], "");
        let mut nix = NixLog::with_derivations(&log, |_| Ok(BUILD.to_owned()));
        hear(&mut nix, &started());
        let work = nix.work();
        let counts = Counts {
            done: 1,
            expected: 4,
        };
        assert_eq!((work.builds, work.fetches), (counts, Counts::default()));
        assert_eq!(work.running[0].derivation, "git-2.39");
        assert_eq!(work.running[0].phase.as_deref(), Some("buildPhase"));
        let (lines, _) = log.lines_after(0);
        let lines: Vec<_> = lines.into_iter().map(|(_, text)| text).collect();
        assert_eq!(lines, [format!("building {DRV}"), "git-2.39> one".into()]);
    }

    #[test]
    fn a_failure_has_the_last_lines_of_the_build_that_failed() {
        let log = BuildLog::new("id", None, &[], "");
        let mut nix = NixLog::with_derivations(&log, |_| Ok(BUILD.to_owned()));
        hear(&mut nix, &started());
        let line = |text: String| {
            format!(r#"{{"action":"result","fields":["{text}"],"id":7,"type":101}}"#)
        };
        let lines: Vec<_> = (0..20)
            .map(|number| line(format!("line {number}")))
            .collect();
        hear(&mut nix, &lines);
        hear(
            &mut nix,
            &[
                r#"{"action":"stop","id":7}"#.to_owned(),
                format!(
                    r#"{{"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m builder for '{DRV}' failed"}}"#
                ),
            ],
        );
        nix.hear(b"a \r\x1b[1mword without an end");
        let end = nix.end();
        assert!(
            end.starts_with(&format!("error: builder for '{DRV}' failed\n")),
            "{end}"
        );
        assert!(
            end.contains("> line 10\n") && !end.contains("> line 9\n"),
            "{end}"
        );
        assert!(end.ends_with("> line 19\na word without an end"), "{end}");
    }

    #[test]
    fn a_private_key_is_hidden_from_the_log_and_the_error() {
        let log = BuildLog::new("id", None, &[], "");
        let mut nix = NixLog::with_derivations(&log, |_| Ok(BUILD.to_owned()));
        hear(&mut nix, &started());
        let key = [
            "-----BEGIN RSA PRIVATE KEY-----",
            "c2VjcmV0",
            "-----END RSA PRIVATE KEY-----",
            "after",
        ];
        for text in key {
            let line = format!(r#"{{"action":"result","fields":["{text}"],"id":7,"type":101}}"#);
            hear(&mut nix, &[line]);
            // Between them comes what is not of the build.
            nix.hear(format!("{text}\n").as_bytes());
            nix.event(Event::Msg {
                level: INFO,
                msg: "between".to_owned(),
            });
        }
        let error =
            format!(r#"{{"action":"msg","level":0,"msg":"error: builder for '{DRV}' failed"}}"#);
        hear(&mut nix, &[r#"{"action":"stop","id":7}"#.to_owned(), error]);
        let (lines, _) = log.lines_after(0);
        let lines: Vec<_> = lines.into_iter().map(|(_, text)| text).collect();
        let end = nix.end();
        let all = lines.join("\n");
        assert!(
            !all.contains("c2VjcmV0") && !end.contains("c2VjcmV0"),
            "{all}\n{end}"
        );
        assert!(
            all.contains("git-2.39> after\n") && all.contains("\nafter"),
            "{all}"
        );
        assert_eq!(all.matches("between").count(), key.len(), "{all}");
        assert!(end.ends_with("> after"), "{end}");
    }

    #[test]
    fn what_a_build_with_the_network_printed_is_for_the_administrator_alone() {
        let unreadable = |_: &str| Err(io::Error::other("unreadable"));
        for (derivation, hidden) in [
            ((|_| Ok(BUILD.to_owned())) as fn(&str) -> _, false),
            (|_| Ok(DOWNLOAD.to_owned()), true),
            (unreadable, true),
        ] {
            let log = BuildLog::new("id", None, &[], "");
            let mut nix = NixLog::with_derivations(&log, derivation);
            hear(&mut nix, &started());
            // A daemon's errors repeat the log.
            let error = format!(
                "error: builder for '{DRV}' failed with exit code 1;\\n       last 1 log lines:\\n       \
                 > secret\\n       For full logs, run 'nix log'"
            );
            hear(
                &mut nix,
                &[
                    r#"{"action":"result","fields":["secret"],"id":7,"type":101}"#.to_owned(),
                    r#"{"action":"stop","id":7}"#.to_owned(),
                    format!(r#"{{"action":"msg","level":0,"msg":"{error}"}}"#),
                ],
            );
            let end = nix.end();
            assert_eq!(!end.contains("secret"), hidden, "{end}");
            assert!(end.contains(DRV) && end.contains("nix log"), "{end}");
            // Those who run the registry read it all.
            let (lines, _) = log.lines_after(0);
            assert!(lines.iter().any(|(_, line)| line == "git-2.39> secret"));
        }
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_than_its_share() {
        let log = BuildLog::new("id", None, &[], "");
        let mut nix = NixLog::with_derivations(&log, |_| Ok(BUILD.to_owned()));
        for _ in 0..100 {
            nix.hear(&[b'x'; 4096]);
        }
        assert_eq!(nix.line.len(), LINE_LIMIT);
    }
}
