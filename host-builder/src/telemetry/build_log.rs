//! How far builds are, and what they print: kept for people who want to watch.
//!
//! ```text
//!   NixBuilder ──► phases        waiting → evaluating → waiting → building → packing → done, or failed
//!   Nix's log ───► work, lines        building: so many of so many built and fetched
//!                    │
//!                    ▼
//!                BuildLog ◄── GET /builds/<id>          a snapshot, with a percentage
//!                         ◄── GET /builds/<id>/log      its lines, as they come
//! ```
//!
//! All of it is in memory and bounded: of each build the last [`LOG_BYTES`] of its log, of builds
//! those that run and the [`ENDED`] that ended last. The percentage is of phases, since nobody knows
//! how long a build will take: evaluating is its first twentieth, packing its last third, and between
//! them counts what Nix has built and fetched of what it has to. It never goes back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nixgate_core::distribution::{Error, ErrorKind};
use serde::Serialize;
use tokio::sync::watch;

use crate::telemetry::redact::redact;

/// How much of a build's log is kept, in bytes.
const LOG_BYTES: usize = 256 << 10;
/// A line that is longer is cut.
const LINE_BYTES: usize = 4 << 10;
/// What a line costs besides its text: even empty ones take memory.
const LINE_COST: usize = 64;
/// Builds that are remembered after they ended.
const ENDED: usize = 64;

/// Where a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// For its turn.
    Waiting,
    /// Nix finds out what the names mean.
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
    /// The percentages that the phase begins and ends with.
    const fn span(self) -> (f64, f64) {
        match self {
            Self::Waiting => (0.0, 0.0),
            Self::Evaluating => (0.0, 5.0),
            Self::Building => (5.0, 70.0),
            Self::Packing => (70.0, 99.0),
            Self::Done | Self::Failed => (100.0, 100.0),
        }
    }

    /// Whether nothing comes after it.
    pub(crate) const fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// How many are done.
    pub(crate) done: u64,
    /// How many there are, as far as is known.
    pub(crate) expected: u64,
}

/// A derivation that is being built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Running {
    /// Its name.
    pub(crate) derivation: String,
    /// What its builder says it is doing (`unpackPhase`, `buildPhase` …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
}

/// What Nix has done of what it has to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Work {
    /// Derivations.
    pub(crate) builds: Counts,
    /// Store paths from binary caches.
    pub(crate) fetches: Counts,
    /// How much of the fetches that run is done: their parts of one, added.
    #[serde(skip)]
    pub(crate) under_way: f64,
    /// What is being built.
    pub(crate) running: Vec<Running>,
}

impl Work {
    fn part(&self) -> f64 {
        let expected = self.builds.expected + self.fetches.expected;
        let done = (self.builds.done + self.fetches.done) as f64 + self.under_way;
        match expected {
            0 => 0.0,
            expected => (done / expected as f64).min(1.0),
        }
    }
}

/// A build, as somebody sees it who asks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    /// What names the build.
    pub(crate) id: String,
    /// The name of its recipe, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipe: Option<String>,
    /// What is built.
    pub(crate) packages: Vec<String>,
    /// For which platform, as Nix calls it.
    pub(crate) system: String,
    /// Where it is.
    pub(crate) phase: Phase,
    /// How far that is.
    pub(crate) percent: u8,
    /// For how many seconds it has been going on, or went on.
    pub(crate) seconds: u64,
    /// What Nix does.
    #[serde(flatten)]
    pub(crate) work: Work,
    /// Lines of the log so far, those that are no longer kept included.
    pub(crate) lines: u64,
    /// Why it failed; not all of it is for everybody.
    #[serde(skip)]
    pub(crate) error: Option<Error>,
}

struct State {
    phase: Phase,
    percent: f64,
    work: Work,
    /// Each with its number; the first one's is 1.
    lines: VecDeque<(u64, String)>,
    bytes: usize,
    last: u64,
    ended: Option<Instant>,
    error: Option<Error>,
}

/// One build.
pub(crate) struct BuildLog {
    id: String,
    recipe: Option<String>,
    packages: Vec<String>,
    system: String,
    started: Instant,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl BuildLog {
    /// A build that waits.
    pub(crate) fn new(id: &str, recipe: Option<&str>, packages: &[String], system: &str) -> Self {
        Self {
            id: id.to_owned(),
            recipe: recipe.map(str::to_owned),
            packages: packages.to_vec(),
            system: system.to_owned(),
            started: Instant::now(),
            state: Mutex::new(State {
                phase: Phase::Waiting,
                percent: 0.0,
                work: Work::default(),
                lines: VecDeque::new(),
                bytes: 0,
                last: 0,
                ended: None,
                error: None,
            }),
            changed: watch::Sender::new(()),
        }
    }

    /// Adds to the log, without secrets; the text may have several lines.
    pub(crate) fn line(&self, text: &str) {
        let text = redact(text);
        let mut state = self.lock();
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

    /// Says what Nix has done.
    pub(crate) fn work(&self, work: Work) {
        let mut state = self.lock();
        let (begin, end) = state.phase.span();
        let percent = begin + (end - begin) * work.part();
        state.percent = state.percent.max(percent);
        state.work = work;
    }

    /// Says what begins now.
    pub(crate) fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = phase;
        state.percent = state.percent.max(phase.span().0);
    }

    /// Says how much of the phase is done, of 1.
    pub(crate) fn part(&self, part: f64) {
        let mut state = self.lock();
        let (begin, end) = state.phase.span();
        state.percent = state
            .percent
            .max(begin + (end - begin) * part.clamp(0.0, 1.0));
    }

    fn finish(&self, error: Option<Error>) {
        let mut state = self.lock();
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

    /// How far it is.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let elapsed = state.ended.map_or_else(
            || self.started.elapsed(),
            |ended| ended.duration_since(self.started),
        );
        Snapshot {
            id: self.id.clone(),
            recipe: self.recipe.clone(),
            packages: self.packages.clone(),
            system: self.system.clone(),
            phase: state.phase,
            // It is a number from 0 to 100.
            percent: state.percent as u8,
            seconds: elapsed.as_secs(),
            work: state.work.clone(),
            lines: state.last,
            error: state.error.clone(),
        }
    }

    /// The lines after the one with this number that are still kept, and whether there will be no
    /// more.
    pub(crate) fn lines_after(&self, number: u64) -> (Vec<(u64, String)>, bool) {
        let state = self.lock();
        let lines = state.lines.iter().filter(|(one, _)| *one > number);
        (lines.cloned().collect(), state.phase.is_end())
    }

    /// Tells of each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All builds. Cloning shares them.
#[derive(Clone, Default)]
pub(crate) struct BuildLogs(Arc<Mutex<Builds>>);

#[derive(Default)]
struct Builds {
    by_id: BTreeMap<String, Arc<BuildLog>>,
    /// Their ids, in the order in which they ended.
    ended: VecDeque<String>,
}

impl BuildLogs {
    /// Begins a build; an earlier one of the same image is forgotten. It has failed when what this
    /// returns is dropped, unless that is told otherwise.
    pub(crate) fn begin(
        &self,
        id: &str,
        recipe: Option<&str>,
        packages: &[String],
        system: &str,
    ) -> Ongoing {
        let log = Arc::new(BuildLog::new(id, recipe, packages, system));
        let mut builds = self.lock();
        builds.ended.retain(|ended| ended != id);
        builds.by_id.insert(id.to_owned(), Arc::clone(&log));
        Ongoing {
            logs: self.clone(),
            log,
        }
    }

    /// A build, if it is remembered.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<BuildLog>> {
        self.lock().by_id.get(id).cloned()
    }

    /// All that are remembered, those that run first, each from the latest on.
    pub(crate) fn all(&self) -> Vec<Snapshot> {
        let logs: Vec<_> = self.lock().by_id.values().cloned().collect();
        let mut all: Vec<_> = logs
            .iter()
            .map(|log| (log.started.elapsed(), log.snapshot()))
            .collect();
        all.sort_by_key(|(age, snapshot): &(Duration, Snapshot)| (snapshot.phase.is_end(), *age));
        all.into_iter().map(|(_, snapshot)| snapshot).collect()
    }

    fn end(&self, log: &Arc<BuildLog>, error: Option<Error>) {
        log.finish(error);
        let mut builds = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, Builds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A build that goes on for as long as this lives.
pub(crate) struct Ongoing {
    logs: BuildLogs,
    log: Arc<BuildLog>,
}

impl Ongoing {
    /// It ended: well, or with an error.
    pub(crate) fn end(self, error: Option<Error>) {
        self.logs.end(&self.log, error);
    }
}

impl std::ops::Deref for Ongoing {
    type Target = BuildLog;

    fn deref(&self) -> &BuildLog {
        &self.log
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        // Changes nothing of what has ended already.
        let error = Error::new(ErrorKind::Internal, "the build was given up");
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
            log.work(Work {
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
        // More was found to be needed.
        built(5, 20);
        assert_eq!(percent(), 37);
        log.enter(Phase::Packing);
        assert_eq!(percent(), 70);
        log.part(2.0);
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
    fn builds_that_ended_long_ago_are_forgotten_and_running_ones_are_not() {
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
