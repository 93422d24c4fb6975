//! Progress and log of a running build, from Nix's log in JSON (`--log-format internal-json`).
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
//! The format is internal to Nix and may grow: unknown events are ignored. Other lines are text for
//! people.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};

use serde::Deserialize;
use serde_json::Value;

use super::caches::{CacheTrouble, is_retry};
use super::output::{has_network, without_log};
use crate::process::{Listener, Tail};
use crate::telemetry::build_log::{BuildLog, Counts, Running, Work};
use crate::telemetry::logging::chain;
use crate::telemetry::redact::KeyLines;

const PREFIX: &[u8] = b"@nix ";
/// Longer lines are cut: some builds print progress without ever ending a line.
const LINE_LIMIT: usize = 16 << 10;
/// Lines of a failed build's log that an error has, as in Nix's log for people.
const LAST_LINES: usize = 10;
/// Replaces the last lines of a build that had the network.
const HIDDEN: &[u8] =
    b"the builder's log has its output: it is a download, whose output may tell about the network\n";
/// Bytes read of a derivation: its first output is at its beginning.
const BEGINNING: u64 = 4 << 10;
/// Ended builds whose last lines are kept: the error comes after the end.
const ENDED: usize = 64;
/// Troubles of caches, and copies, that are kept: each path that is wanted may have one.
const TROUBLES: usize = 64;
/// Messages up to this level are errors and warnings.
const WARNING: u64 = 1;
/// Messages up to this level are those that Nix prints by default.
const INFO: u64 = 3;
/// Bytes of a package set between two lines of the builder's log.
const STEP: u64 = 16 << 20;

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

/// Each action has some of these.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    action: String,
    id: u64,
    #[serde(rename = "type")]
    kind: u64,
    fields: Vec<Value>,
    level: u64,
    msg: String,
}

#[derive(Debug, Default)]
struct Build {
    derivation: String,
    /// Then its output may tell about this network, which is not for every client.
    has_network: bool,
    phase: Option<String>,
    key: KeyLines,
    last_lines: VecDeque<String>,
}

/// Parses Nix's log into a [`BuildLog`], and keeps the end of what is for people.
pub(super) struct NixLog<'a> {
    log: &'a BuildLog,
    /// An incomplete line.
    line: Vec<u8>,
    /// For lines outside of the format.
    key: KeyLines,
    /// The text of the error, should Nix fail.
    tail: Tail,
    builds: BTreeMap<u64, Build>,
    ended: VecDeque<Build>,
    /// What Nix has begun to copy last, and from which cache.
    copies: Vec<(String, String)>,
    /// The first ones of those that caches had.
    troubles: Vec<CacheTrouble>,
    /// Progress by activity, with its type. A running copy counts bytes, the others items.
    counts: BTreeMap<u64, (u64, Counts)>,
    /// For a package set that is fetched: the bytes that the builder's log has reported.
    reported: Option<u64>,
    /// Reads the beginning of a derivation.
    read_derivation: fn(&str) -> io::Result<String>,
}

impl<'a> NixLog<'a> {
    pub(super) fn new(log: &'a BuildLog) -> Self {
        Self::with_derivations(log, read_beginning)
    }

    /// For fetching a package set: its downloads are counted in bytes.
    pub(super) fn of_source(log: &'a BuildLog) -> Self {
        Self {
            reported: Some(0),
            ..Self::new(log)
        }
    }

    fn with_derivations(
        log: &'a BuildLog,
        read_derivation: fn(&str) -> io::Result<String>,
    ) -> Self {
        Self {
            read_derivation,
            log,
            line: Vec::new(),
            key: KeyLines::default(),
            tail: Tail::default(),
            builds: BTreeMap::new(),
            ended: VecDeque::new(),
            copies: Vec::new(),
            troubles: Vec::new(),
            counts: BTreeMap::new(),
            reported: None,
        }
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if line.len() == LINE_LIMIT {
            // Drops the word that was cut: redaction would not recognise half a secret.
            let word = line.iter().rposition(u8::is_ascii_whitespace);
            line.truncate(word.unwrap_or(0));
        }
        match line.strip_prefix(PREFIX) {
            Some(json) => match serde_json::from_slice(json) {
                Ok(event) => self.event(event),
                // A newer Nix has other events, and a line that was cut is no JSON.
                Err(error) => {
                    tracing::debug!(error = chain(&error), "ignoring a line of Nix's log");
                }
            },
            None => {
                let text = plain(&String::from_utf8_lossy(&line));
                let text = self.key.without(&text).into_owned();
                self.report(&text);
            }
        }
    }

    fn event(&mut self, event: Event) {
        let (id, fields) = (event.id, event.fields);
        let field = |at: usize| plain(fields.get(at).and_then(Value::as_str).unwrap_or_default());
        let text = || field(0);
        let number = |at: usize| fields.get(at).and_then(Value::as_u64).unwrap_or(0);
        match (event.action.as_str(), event.kind) {
            ("start", activity::BUILD) => self.start_build(id, text()),
            ("start", kind @ (activity::COPY_PATH | activity::COPY_PATHS | activity::BUILDS)) => {
                if kind == activity::COPY_PATH {
                    self.log.line(&format!("fetching {}", text()));
                    if self.copies.len() == TROUBLES {
                        self.copies.remove(0);
                    }
                    self.copies.push((text(), field(1)));
                }
                self.counts.insert(id, (kind, Counts::default()));
            }
            ("start", activity::FILE_TRANSFER) if self.reported.is_some() => {
                self.log.line(&format!("downloading {}", text()));
                self.counts
                    .insert(id, (activity::FILE_TRANSFER, Counts::default()));
            }
            ("result", result::LOG_LINE) => return self.build_line(id, &text()),
            ("result", result::PHASE) => {
                if let Some(build) = self.builds.get_mut(&id) {
                    build.phase = Some(text());
                }
            }
            ("result", result::PROGRESS) => {
                if let Some((_, counts)) = self.counts.get_mut(&id) {
                    (counts.done, counts.expected) = (number(0), number(1));
                }
            }
            ("stop", _) => {
                // The counts of other activities are totals, and stay.
                self.counts
                    .retain(|one, (kind, _)| *one != id || *kind != activity::COPY_PATH);
                self.ended.extend(self.builds.remove(&id));
                if self.ended.len() > ENDED {
                    self.ended.pop_front();
                }
            }
            ("msg", _) => return self.message(event.level, &plain(&event.msg)),
            _ => return,
        }
        self.log.set_work(self.work());
        self.report_transfer();
    }

    fn report_transfer(&mut self) {
        let Some(reported) = self.reported else {
            return;
        };
        let bytes = self.sum(activity::FILE_TRANSFER);
        self.log.set_transfer(bytes);
        if bytes.done >= reported + STEP {
            self.reported = Some(bytes.done);
            let Counts { done, expected } = bytes;
            tracing::info!(done, expected, "downloading the package set");
        }
    }

    fn start_build(&mut self, id: u64, derivation: String) {
        let beginning = (self.read_derivation)(&derivation);
        self.log.line(&format!("building {derivation}"));
        let build = Build {
            // An unreadable derivation may have it.
            has_network: beginning.map_or(true, |text| has_network(&text)),
            derivation,
            ..Build::default()
        };
        self.builds.insert(id, build);
    }

    fn build_line(&mut self, id: u64, line: &str) {
        let Some(build) = self.builds.get_mut(&id) else {
            return;
        };
        let line = build.key.without(line).into_owned();
        let name = name(&build.derivation);
        self.log.line(&format!("{name}> {line}"));
        build.last_lines.push_back(line);
        if build.last_lines.len() > LAST_LINES {
            build.last_lines.pop_front();
        }
    }

    fn message(&mut self, level: u64, text: &str) {
        if level <= WARNING {
            let room = TROUBLES.saturating_sub(self.troubles.len());
            let lines = text.lines();
            let troubles = lines.filter_map(|line| CacheTrouble::read(line, &self.copies));
            self.troubles.extend(troubles.take(room));
            if text.lines().all(is_retry) {
                return self.log.line(text);
            }
            // The end of the build's log follows, unless it is hidden.
            self.report(&without_log(text));
            self.report_last_lines(text);
        } else if level <= INFO {
            self.log.line(text);
        }
    }

    /// Adds text to the log, and to the error should Nix fail.
    fn report(&mut self, text: &str) {
        self.log.line(text);
        self.tail.hear(text.as_bytes());
        self.tail.hear(b"\n");
    }

    /// Adds the last lines of the build that an error names, as Nix's log for people does.
    fn report_last_lines(&mut self, error: &str) {
        let failed =
            |build: &Build| !build.last_lines.is_empty() && error.contains(&build.derivation);
        let at = self.ended.iter().position(failed);
        let Some(build) = at.and_then(|at| self.ended.remove(at)) else {
            return;
        };
        let lines = build.last_lines;
        if build.has_network {
            let lines = lines.into_iter().collect::<Vec<_>>().join(" | ");
            tracing::warn!(derivation = build.derivation, "a download failed: {lines}");
            self.tail.hear(HIDDEN);
            return;
        }
        self.tail
            .hear(format!("last {} lines of its log:\n", lines.len()).as_bytes());
        for line in &lines {
            self.tail.hear(format!("> {line}\n").as_bytes());
        }
    }

    /// What was wrong with binary caches.
    pub(super) fn troubles(&self) -> &[CacheTrouble] {
        &self.troubles
    }

    fn of_kind(&self, wanted: u64) -> impl Iterator<Item = &Counts> {
        let counts = self.counts.values();
        counts.filter_map(move |(kind, counts)| (*kind == wanted).then_some(counts))
    }

    fn sum(&self, kind: u64) -> Counts {
        let counts = self.of_kind(kind);
        counts.fold(Counts::default(), |sum, one| Counts {
            done: sum.done + one.done,
            expected: sum.expected + one.expected,
        })
    }

    fn work(&self) -> Work {
        let copies = self
            .of_kind(activity::COPY_PATH)
            .filter(|copy| copy.expected > 0);
        let running = self.builds.values().map(|build| Running {
            derivation: name(&build.derivation).to_owned(),
            phase: build.phase.clone(),
        });
        Work {
            builds: self.sum(activity::BUILDS),
            fetches: self.sum(activity::COPY_PATHS),
            under_way: copies
                .map(|copy| copy.done as f64 / copy.expected as f64)
                .sum(),
            running: running.collect(),
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
                self.end_line();
            }
        }
    }

    fn end(&mut self) -> String {
        if !self.line.is_empty() {
            self.end_line();
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

/// Removes colours and control characters: a carriage return would begin another field in a stream of
/// events.
pub(super) fn plain(text: &str) -> String {
    let text = anstream::adapter::strip_str(text).to_string();
    let is_plain = |character: &char| !character.is_control() || matches!(character, '\n' | '\t');
    text.chars().filter(is_plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::build_log::Phase;

    const DRV: &str = "/nix/store/00000000000000000000000000000000-git-2.39.drv";
    const BUILD: &str =
        r#"Derive([("out","/nix/store/x-git","",""),("doc","/nix/store/y","","")],["#;
    const DOWNLOAD: &str = r#"Derive([("out","/nix/store/x-git","r:sha256","00ff")],[],"#;

    #[test]
    fn a_package_set_that_is_fetched_is_counted_in_bytes_and_a_build_s_downloads_are_not() {
        let events = [
            r#"{"action":"start","id":1,"type":101,"level":4,"fields":["https://h/x.tar.gz"]}"#,
            r#"{"action":"result","id":1,"type":105,"fields":[0,0,0,0]}"#,
            r#"{"action":"result","id":1,"type":105,"fields":[30,40,0,0]}"#,
            r#"{"action":"stop","id":1}"#,
        ]
        .map(str::to_owned);
        let build = BuildLog::new("id", None, &[], "");
        hear(&mut NixLog::new(&build), &events);
        assert_eq!(build.snapshot().bytes, None);
        let source = BuildLog::of_source("id", "channel stable");
        source.enter(Phase::Fetching);
        hear(&mut NixLog::of_source(&source), &events);
        let (done, expected) = (30, 40);
        let snapshot = source.snapshot();
        assert_eq!(snapshot.bytes, Some(Counts { done, expected }));
        assert_eq!(snapshot.percent, 60);
        let (lines, _) = source.lines_after(0);
        assert_eq!(lines[0].1, "downloading https://h/x.tar.gz");
    }

    fn hear(log: &mut NixLog<'_>, events: &[String]) {
        for event in events {
            // In two pieces, as a pipe may deliver it.
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
            // Other lines come between those of the build.
            nix.hear(format!("{text}\n").as_bytes());
            nix.event(Event {
                action: "msg".to_owned(),
                level: INFO,
                msg: "between".to_owned(),
                ..Event::default()
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
    fn the_output_of_a_build_with_the_network_is_for_the_administrator_alone() {
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
            // Administrators read all of it.
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
