//! Progress and log of a running build, from the events that Nix prints ([`event`]). Other lines are text for
//! people.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};

use super::caches::{CacheTrouble, is_retry};
use super::output::{has_network, without_log};
use crate::process::{Listener, Tail};
use crate::telemetry::build_log::{BuildLog, Counts, Running, Work};
use crate::telemetry::logging::chain;
use crate::telemetry::redact::KeyLines;
use event::{Activity, Event};

mod event;

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

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Builds,
    /// The paths that are copied.
    Copies,
    /// The bytes of one path.
    Copy,
    /// The bytes of a download.
    Transfer,
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
    /// Progress by activity.
    counts: BTreeMap<u64, (Counted, Counts)>,
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
        match Event::read(&line) {
            Some(Ok(event)) => self.event(event),
            // A newer Nix has other events, and a line that was cut is no JSON.
            Some(Err(error)) => {
                tracing::debug!(error = chain(&error), "ignoring a line of Nix's log");
            }
            None => {
                let text = plain(&String::from_utf8_lossy(&line));
                let text = self.key.without(&text).into_owned();
                self.report(&text);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Starts(id, activity) => self.start(id, activity),
            Event::LogLine(id, line) => return self.build_line(id, &line),
            Event::Phase(id, phase) => {
                if let Some(build) = self.builds.get_mut(&id) {
                    build.phase = Some(phase);
                }
            }
            Event::Progress(id, now) => {
                if let Some((_, counts)) = self.counts.get_mut(&id) {
                    *counts = now;
                }
            }
            Event::Stops(id) => {
                // The counts of other activities are totals, and stay.
                self.counts
                    .retain(|one, (counted, _)| *one != id || *counted != Counted::Copy);
                self.ended.extend(self.builds.remove(&id));
                if self.ended.len() > ENDED {
                    self.ended.pop_front();
                }
            }
            Event::Message { level, text } => return self.message(level, &text),
            Event::Unknown => return,
        }
        self.log.set_work(self.work());
        self.report_transfer();
    }

    fn start(&mut self, id: u64, activity: Activity) {
        let counted = match activity {
            Activity::Build(derivation) => return self.start_build(id, derivation),
            Activity::Builds => Counted::Builds,
            Activity::Copies => Counted::Copies,
            Activity::Copy { path, cache } => {
                self.log.line(&format!("fetching {path}"));
                if self.copies.len() == TROUBLES {
                    self.copies.remove(0);
                }
                self.copies.push((path, cache));
                Counted::Copy
            }
            Activity::Transfer(url) if self.reported.is_some() => {
                self.log.line(&format!("downloading {url}"));
                Counted::Transfer
            }
            Activity::Transfer(_) => return,
        };
        self.counts.insert(id, (counted, Counts::default()));
    }

    fn report_transfer(&mut self) {
        let Some(reported) = self.reported else {
            return;
        };
        let bytes = self.sum(Counted::Transfer);
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

    fn of(&self, wanted: Counted) -> impl Iterator<Item = &Counts> {
        let counts = self.counts.values();
        counts.filter_map(move |(counted, counts)| (*counted == wanted).then_some(counts))
    }

    fn sum(&self, wanted: Counted) -> Counts {
        let counts = self.of(wanted);
        counts.fold(Counts::default(), |sum, one| Counts {
            done: sum.done + one.done,
            expected: sum.expected + one.expected,
        })
    }

    fn work(&self) -> Work {
        let copies = self.of(Counted::Copy).filter(|copy| copy.expected > 0);
        let running = self.builds.values().map(|build| Running {
            derivation: name(&build.derivation).to_owned(),
            phase: build.phase.clone(),
        });
        Work {
            builds: self.sum(Counted::Builds),
            fetches: self.sum(Counted::Copies),
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
mod tests;
