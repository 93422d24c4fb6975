//! Progress and output of builds, for people who watch.
//!
//! ```text
//!   NixBuilder ──► phases        waiting → evaluating → waiting → building → packing → done, or failed
//!   Finder ──────► phases        fetching a package set → done, or failed
//!   nix::log ────► work, lines        building: 3 of 10 built, 2 of 7 fetched
//!                    │
//!                    ▼
//!                BuildLog ◄── GET /builds/<id>          a snapshot, with a percentage
//!                         ◄── GET /builds/<id>/log      its lines, as they come
//! ```
//!
//! Everything is in memory and bounded: the last [`LOG_BYTES`] of each log; running builds, and the
//! [`ENDED`] that ended last. The percentage follows the phases, since nobody knows how long a build will
//! take: evaluating is the first twentieth, packing the last third, and between them it is the share of
//! derivations and store paths that Nix has built and fetched. It never decreases.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nixgate_core::distribution::{Error, ErrorKind};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::telemetry::redact::redact;

/// Bytes of a build's log that are kept.
const LOG_BYTES: usize = 256 << 10;
/// A longer line is cut.
const LINE_BYTES: usize = 4 << 10;
/// Bytes that a line counts besides its text: an empty one takes memory too.
const LINE_COST: usize = 64;
/// Files of packages that the image lacks, of which each is told.
const LEFT_OUT: usize = 50;
/// Ended builds that are kept.
const ENDED: usize = 64;

/// The phase of a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// For its turn.
    #[default]
    Waiting,
    /// Nix fetches a package set.
    Fetching,
    /// Nix resolves the names.
    Evaluating,
    /// Nix builds and fetches.
    Building,
    /// Layers are made and stored.
    Packing,
    /// The image can be pulled.
    Done,
    /// There is no image.
    Failed,
}

impl Phase {
    /// The percentages at the phase's begin and end.
    const fn span(self) -> (f64, f64) {
        match self {
            Self::Waiting => (0.0, 0.0),
            // Then it is unpacked.
            Self::Fetching => (0.0, 80.0),
            Self::Evaluating => (0.0, 5.0),
            Self::Building => (5.0, 70.0),
            Self::Packing => (70.0, 99.0),
            Self::Done | Self::Failed => (100.0, 100.0),
        }
    }

    /// Whether it is the last phase.
    pub(crate) const fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) done: u64,
    /// The total, as far as it is known.
    pub(crate) expected: u64,
}

/// A derivation that is being built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Running {
    pub(crate) derivation: String,
    /// Its own phase (`unpackPhase`, `buildPhase` …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
}

/// Nix's progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Work {
    /// Derivations.
    pub(crate) builds: Counts,
    /// Store paths from binary caches.
    pub(crate) fetches: Counts,
    /// The sum of the running fetches' fractions.
    #[serde(skip)]
    pub(crate) under_way: f64,
    pub(crate) running: Vec<Running>,
}

impl Work {
    fn fraction(&self) -> f64 {
        let expected = self.builds.expected + self.fetches.expected;
        let done = (self.builds.done + self.fetches.done) as f64 + self.under_way;
        match expected {
            0 => 0.0,
            expected => done / expected as f64,
        }
    }
}

/// The state of a build, as clients see it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    /// The package set that is being fetched, if it is no build of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Bytes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<Counts>,
    /// The recipe's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipe: Option<String>,
    pub(crate) packages: Vec<String>,
    /// The platform, as Nix calls it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) system: String,
    pub(crate) phase: Phase,
    pub(crate) percent: u8,
    /// Seconds since its start, or until its end.
    pub(crate) seconds: u64,
    #[serde(flatten)]
    pub(crate) work: Work,
    /// Lines of the log so far, including those that were dropped.
    pub(crate) lines: u64,
    #[serde(skip_serializing_if = "LeftOut::is_empty")]
    pub(crate) left_out: LeftOut,
    /// Only the page of one build has it.
    #[serde(skip)]
    pub(crate) contents: Option<Arc<Contents>>,
    /// Why it failed; some of it is not for every client.
    #[serde(skip)]
    pub(crate) error: Option<Error>,
}

/// What an image has, and why.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Contents {
    /// The variables that packages cause: what they bring, and which they are.
    pub(crate) variables: BTreeMap<String, String>,
    /// The folders of the root, with the packages that have files there; none if it is the image's own.
    pub(crate) folders: BTreeMap<String, Vec<String>>,
}

/// Files of packages that the image lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) count: usize,
    /// The first ones: what, and why.
    pub(crate) texts: Vec<String>,
}

impl LeftOut {
    const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[derive(Default)]
struct State {
    phase: Phase,
    percent: f64,
    work: Work,
    transfer: Option<Counts>,
    /// With their numbers, from 1 on.
    lines: VecDeque<(u64, String)>,
    bytes: usize,
    last: u64,
    left_out: LeftOut,
    contents: Option<Arc<Contents>>,
    ended: Option<Instant>,
    error: Option<Error>,
}

impl State {
    /// Moves the percentage to a fraction of the phase, and never back.
    fn advance(&mut self, fraction: f64) {
        let (begin, end) = self.phase.span();
        let percent = begin + (end - begin) * fraction.clamp(0.0, 1.0);
        self.percent = self.percent.max(percent);
    }
}

/// One build.
pub(crate) struct BuildLog {
    id: String,
    source: Option<String>,
    recipe: Option<String>,
    packages: Vec<String>,
    system: String,
    started: Instant,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl BuildLog {
    pub(crate) fn new(id: &str, recipe: Option<&str>, packages: &[String], system: &str) -> Self {
        Self {
            id: id.to_owned(),
            source: None,
            recipe: recipe.map(str::to_owned),
            packages: packages.to_vec(),
            system: system.to_owned(),
            started: Instant::now(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Of a package set that is fetched.
    pub(crate) fn of_source(id: &str, source: &str) -> Self {
        Self {
            source: Some(redact(source)),
            ..Self::new(id, None, &[], "")
        }
    }

    /// Adds one or more lines to the log, without secrets.
    pub(crate) fn line(&self, text: &str) {
        let text = redact(text);
        let mut state = self.state.lock();
        for line in text.lines() {
            let line = &line[..line.floor_char_boundary(LINE_BYTES)];
            state.last += 1;
            state.bytes += line.len() + LINE_COST;
            let number = state.last;
            state.lines.push_back((number, line.to_owned()));
        }
        while state.bytes > LOG_BYTES
            && let Some((_, line)) = state.lines.pop_front()
        {
            state.bytes -= line.len() + LINE_COST;
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Tells of a file of a package that the image lacks, as a line too. After the first ones, it is only
    /// counted.
    pub(crate) fn left_out(&self, text: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        let left_out = &mut state.left_out;
        left_out.count += 1;
        if left_out.texts.len() >= LEFT_OUT {
            return;
        }
        let text = redact(&text());
        let cut = text.floor_char_boundary(LINE_BYTES);
        left_out.texts.push(text[..cut].to_owned());
        drop(state);
        self.line(&text);
    }

    /// Sets what the image has. The caller bounds it.
    pub(crate) fn set_contents(&self, contents: Contents) {
        self.state.lock().contents = Some(Arc::new(contents));
    }

    /// Sets Nix's progress.
    pub(crate) fn set_work(&self, work: Work) {
        let mut state = self.state.lock();
        state.advance(work.fraction());
        state.work = work;
    }

    /// Sets how much of a package set has been fetched.
    pub(crate) fn set_transfer(&self, bytes: Counts) {
        let mut state = self.state.lock();
        if bytes.expected > 0 {
            state.advance(bytes.done as f64 / bytes.expected as f64);
        }
        state.transfer = Some(bytes);
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let mut state = self.state.lock();
        state.phase = phase;
        state.advance(0.0);
    }

    /// Sets the fraction of the phase that is done.
    pub(crate) fn set_progress(&self, fraction: f64) {
        self.state.lock().advance(fraction);
    }

    fn finish(&self, error: Option<Error>) {
        let mut state = self.state.lock();
        if state.phase.is_end() {
            return;
        }
        state.phase = match error {
            Some(_) => Phase::Failed,
            None => Phase::Done,
        };
        state.percent = 100.0;
        state.work.running.clear();
        state.ended = Some(Instant::now());
        state.error = error;
        drop(state);
        self.changed.send_replace(());
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        let elapsed = state.ended.map_or_else(
            || self.started.elapsed(),
            |ended| ended.duration_since(self.started),
        );
        Snapshot {
            id: self.id.clone(),
            source: self.source.clone(),
            bytes: state.transfer,
            recipe: self.recipe.clone(),
            packages: self.packages.clone(),
            system: self.system.clone(),
            phase: state.phase,
            // From 0 to 100.
            percent: state.percent as u8,
            seconds: elapsed.as_secs(),
            work: state.work.clone(),
            lines: state.last,
            left_out: state.left_out.clone(),
            contents: state.contents.clone(),
            error: state.error.clone(),
        }
    }

    /// The lines after this number that are still kept, and whether these are the last.
    pub(crate) fn lines_after(&self, number: u64) -> (Vec<(u64, String)>, bool) {
        let state = self.state.lock();
        let lines = state.lines.iter().filter(|(one, _)| *one > number);
        (lines.cloned().collect(), state.phase.is_end())
    }

    /// Notifies of each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// All builds. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct BuildLogs(Arc<Mutex<Builds>>);

#[derive(Default)]
struct Builds {
    by_id: BTreeMap<String, Arc<BuildLog>>,
    /// Ids of ended builds, in the order of their ends.
    ended: VecDeque<String>,
}

impl BuildLogs {
    /// Begins a build, and drops an earlier one of the same image. It has failed if the result is dropped
    /// without [`ActiveBuild::end`].
    pub(crate) fn begin(
        &self,
        id: &str,
        recipe: Option<&str>,
        packages: &[String],
        system: &str,
    ) -> ActiveBuild {
        self.add(BuildLog::new(id, recipe, packages, system))
    }

    /// Begins to fetch a package set, like [`Self::begin`].
    pub(crate) fn begin_source(&self, id: &str, source: &str) -> ActiveBuild {
        let active = self.add(BuildLog::of_source(id, source));
        active.enter(Phase::Fetching);
        active
    }

    fn add(&self, log: BuildLog) -> ActiveBuild {
        let log = Arc::new(log);
        let mut builds = self.0.lock();
        builds.ended.retain(|ended| *ended != log.id);
        builds.by_id.insert(log.id.clone(), Arc::clone(&log));
        ActiveBuild {
            logs: self.clone(),
            log,
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<BuildLog>> {
        self.0.lock().by_id.get(id).cloned()
    }

    /// All builds: running ones first, then by their starts, latest first.
    pub(crate) fn all(&self) -> Vec<Snapshot> {
        let logs: Vec<_> = self.0.lock().by_id.values().cloned().collect();
        let mut all: Vec<_> = logs
            .iter()
            .map(|log| (log.started.elapsed(), log.snapshot()))
            .collect();
        all.sort_by_key(|(age, snapshot): &(Duration, Snapshot)| (snapshot.phase.is_end(), *age));
        all.into_iter().map(|(_, snapshot)| snapshot).collect()
    }

    fn end(&self, log: &Arc<BuildLog>, error: Option<Error>) {
        log.finish(error);
        let mut builds = self.0.lock();
        let is_this = |known: &Arc<BuildLog>| Arc::ptr_eq(known, log);
        if !builds.by_id.get(&log.id).is_some_and(is_this) {
            return;
        }
        builds.ended.retain(|ended| *ended != log.id);
        builds.ended.push_back(log.id.clone());
        if builds.ended.len() > ENDED
            && let Some(oldest) = builds.ended.pop_front()
        {
            builds.by_id.remove(&oldest);
        }
    }
}

/// A build that has not ended.
pub(crate) struct ActiveBuild {
    logs: BuildLogs,
    log: Arc<BuildLog>,
}

impl ActiveBuild {
    pub(crate) fn end(self, error: Option<Error>) {
        self.logs.end(&self.log, error);
    }
}

impl std::ops::Deref for ActiveBuild {
    type Target = BuildLog;

    fn deref(&self) -> &BuildLog {
        &self.log
    }
}

impl Drop for ActiveBuild {
    fn drop(&mut self) {
        // Has no effect after `end`.
        let error = Error::new(ErrorKind::Internal, "the build was cancelled");
        self.logs.end(&self.log, Some(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_follows_the_phases_and_never_goes_back() {
        let log = BuildLog::new("id", None, &[], "");
        let percent = || log.snapshot().percent;
        let built = |done, expected| {
            log.set_work(Work {
                builds: Counts { done, expected },
                ..Work::default()
            });
        };
        assert_eq!(percent(), 0);
        log.enter(Phase::Evaluating);
        log.enter(Phase::Building);
        assert_eq!(percent(), 5);
        built(5, 10);
        assert_eq!(percent(), 37);
        // Nix found more to build.
        built(5, 20);
        assert_eq!(percent(), 37);
        log.enter(Phase::Packing);
        assert_eq!(percent(), 70);
        log.set_progress(2.0);
        assert_eq!(percent(), 99);
        log.finish(None);
        assert_eq!((percent(), log.snapshot().phase), (100, Phase::Done));
    }

    #[test]
    fn the_log_is_bounded_and_keeps_its_end() {
        let log = BuildLog::new("id", None, &[], "");
        log.line(&"é".repeat(LINE_BYTES));
        for number in 0..100_000 {
            log.line(&format!("line {number}"));
        }
        let (lines, ended) = log.lines_after(0);
        assert!(!ended);
        assert_eq!(lines.last().unwrap(), &(100_001, "line 99999".to_owned()));
        let bytes: usize = lines.iter().map(|(_, line)| line.len() + LINE_COST).sum();
        assert!(bytes <= LOG_BYTES && bytes > LOG_BYTES / 2, "{bytes}");
        assert_eq!(log.lines_after(100_000).0.len(), 1);
    }

    #[test]
    fn old_ended_builds_are_dropped_and_running_ones_are_not() {
        let logs = BuildLogs::default();
        let running = logs.begin("running", None, &[], "");
        for number in 0..100 {
            logs.begin(&number.to_string(), None, &[], "").end(None);
        }
        assert!(logs.get("0").is_none() && logs.get("99").is_some());
        assert_eq!(logs.all().len(), ENDED + 1);
        assert_eq!(logs.all()[0].id, "running");
        drop(running);
        let stopped = logs.get("running").unwrap().snapshot();
        assert_eq!(stopped.phase, Phase::Failed);
    }
}
