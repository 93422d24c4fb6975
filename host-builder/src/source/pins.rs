//! Which package set a tag means now, remembered for a while.
//!
//! A pin is fresh for the time that `NIXGATE_PIN_SECONDS` sets. Then the next request starts a task
//! that looks the tag up again ([`Memo`]). While that runs or fails, the old pin is used for another
//! day.
//!
//! Clients choose among all branches, tags and commits that a repository ever had, and each may be a
//! whole nixpkgs in the Nix store. So pins are bounded, those of commits apart from those of names, and
//! so are new ones in an hour: garbage collection may take that long to free their disk space. A tag
//! that had a link in the state folder at the start is not new the first time: its package set is in the
//! store.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::FutureExt;
use nixgate_core::distribution::Tag;
use nixgate_core::package_set::System;
use parking_lot::Mutex;

use super::finder::Finder;
use super::{DEFAULT, Pin, PinError, Source, git};
use crate::fingerprint::Fingerprint;
use crate::memo::{Bound, Known, Lifetime, Memo};
use crate::nix::Nix;
use crate::process::NetworkSettings;
use crate::telemetry::build_log::BuildLogs;

/// How long a pin is used beyond its time while its source is unreachable.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// How long a failed lookup is remembered.
const RETRY: Duration = Duration::from_secs(30);
const MAX_COMMITS: usize = 100;
/// How long commands wait for a package set that has to be fetched.
const COMMAND_WAIT: Duration = Duration::from_secs(3600);
const HOUR: Duration = Duration::from_secs(3600);

/// What sources are made of.
pub(crate) struct SourceSettings {
    pub(crate) source: Source,
    /// The platform for which package sets are tried.
    pub(crate) system: System,
    /// Every tag means `latest`, as in Nixery.
    pub(crate) any_tag: bool,
    /// How long a pin is fresh.
    pub(crate) hold: Duration,
    /// Branches and tags that are pinned at most.
    pub(crate) max_refs: usize,
    /// How the source is reached.
    pub(crate) network: NetworkSettings,
}

/// A source with its pins. Clones share them.
#[derive(Clone)]
pub(crate) struct Sources {
    finder: Arc<Finder>,
    /// What the package sets are configured with, as part of keys.
    config: Option<String>,
    any_tag: bool,
    lifetime: Lifetime,
    /// Of branches, tags, and other tags that the settings name.
    names: Pins,
    commits: Pins,
}

/// Pins that share a bound.
#[derive(Clone)]
struct Pins {
    most: usize,
    memo: Memo<Pin, PinError>,
    new: Arc<RateLimit>,
}

impl Sources {
    /// Opens a source. `state_dir` gets the links that keep package sets from garbage collection, and
    /// `logs` the progress of fetches.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub(crate) fn new(
        settings: SourceSettings,
        nix: Arc<dyn Nix>,
        logs: BuildLogs,
        state_dir: &Path,
    ) -> std::io::Result<Self> {
        let SourceSettings {
            source,
            system,
            any_tag,
            hold,
            max_refs,
            network,
        } = settings;
        let finder = Finder::new(source, nix, system, network, logs, hold + STALE, state_dir)?;
        Ok(Self {
            finder: Arc::new(finder),
            config: None,
            any_tag,
            lifetime: Lifetime {
                fresh: hold,
                stale: STALE,
            },
            names: Pins::new(max_refs, hold),
            commits: Pins::new(MAX_COMMITS, hold),
        })
    }

    /// The same, whose package sets get a configuration with this fingerprint.
    pub(crate) fn configured(mut self, config: Option<String>) -> Self {
        self.config = config;
        self
    }

    /// [`Source::identity`], with the configuration.
    pub(crate) fn identity(&self) -> String {
        let source = self.source().identity();
        match &self.config {
            None => source,
            Some(config) => Fingerprint::new("configured-source-1")
                .part(source)
                .part(config)
                .hex(),
        }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.finder.source
    }

    /// The package set that a tag means. It may have to be fetched; this waits at most `wait`, while
    /// the fetch goes on.
    ///
    /// # Errors
    /// [`PinError`]; a client's tag may be unknown.
    pub(crate) async fn pin(&self, tag: &Tag, wait: Duration) -> Result<Known<Pin>, PinError> {
        let tag = self.canonical(tag)?;
        let started = Instant::now();
        let pins = self.pins_of(&tag);
        let last = pins.memo.last(&tag);
        let is_known = tag == DEFAULT || last.is_some();
        match last {
            Some(pin) if !pin.path.exists() => {
                let path = pin.path.display();
                tracing::warn!(%path, "the package set is no longer in the Nix store: fetching it again");
                pins.memo.forget(&tag);
            }
            // The list of refs tells an unknown tag without a task of its own.
            None => match self.finder.refs(wait).await? {
                Some(Known::Pending(elapsed)) => return Ok(Known::Pending(elapsed)),
                // A commit may be in a ref without being its tip.
                Some(Known::Value(refs, _)) if !git::is_commit(&tag) => drop(refs.find(&tag)?),
                _ => {}
            },
            Some(_) => {}
        }
        let wait = wait.saturating_sub(started.elapsed());
        let start = |running: &[()]| {
            if running.len() >= pins.most {
                return Err(PinError::TooMany);
            }
            let is_new = !is_known && !self.finder.roots.take_restored(&tag);
            if is_new && !pins.new.try_acquire(Instant::now()) {
                return Err(PinError::TooMany);
            }
            let (sources, tag) = (self.clone(), tag.clone());
            Ok(async move { sources.find(&tag, is_new).await }.boxed())
        };
        let answer = pins.memo.get(&tag, wait, (), start).await;
        answer.map_err(|(error, _)| error)
    }

    /// Pins a tag for a command, which waits for the fetch.
    ///
    /// # Errors
    /// [`PinError`]; the tag may be unknown.
    pub(crate) async fn wait_for(&self, tag: &Tag) -> Result<Pin, PinError> {
        match self.pin(tag, COMMAND_WAIT).await? {
            Known::Value(pin, _) => Ok(pin),
            Known::Pending(_) => Err(PinError::Preparing),
        }
    }

    /// The package sets in use: that of `latest`, for which this waits at most `wait`, and those of
    /// all fresh pins.
    ///
    /// # Errors
    /// [`PinError`], when `latest` has no pin.
    pub(crate) async fn current(&self, wait: Duration) -> Result<Vec<Pin>, PinError> {
        let Known::Value(latest, _) = self.pin(&Tag::latest(), wait).await? else {
            return Err(PinError::Preparing);
        };
        let mut current = vec![latest];
        let fresh = self.names.memo.fresh().into_iter();
        for pin in fresh.chain(self.commits.memo.fresh()) {
            if !current.contains(&pin) {
                current.push(pin);
            }
        }
        Ok(current)
    }

    /// The package set that `latest` meant when it was asked for last.
    pub(crate) fn latest(&self) -> Option<Pin> {
        self.names.memo.last(DEFAULT)
    }

    /// What is wrong with the package set of `latest` itself, while there is no older one to use.
    pub(crate) fn fault(&self) -> Option<PinError> {
        let fault = self.finder.fault();
        fault.filter(|_| self.names.memo.last(DEFAULT).is_none())
    }

    async fn find(&self, tag: &str, is_new: bool) -> (Result<Pin, PinError>, Lifetime) {
        let found = self.finder.find(tag, is_new).await;
        // A tag that does not exist evicts nothing.
        if found.is_ok() {
            let Self { names, commits, .. } = self;
            self.finder.roots.prune(
                (&names.memo.keys(), names.most),
                (&commits.memo.keys(), commits.most),
            );
        }
        let lifetime = match &found {
            Ok(_) => self.lifetime,
            Err(PinError::TagUnknown(_)) => Lifetime::NONE,
            Err(_) => Lifetime::fresh(RETRY),
        };
        if is_new && found.is_err() {
            self.pins_of(tag).new.release();
        }
        (found, lifetime)
    }

    fn pins_of(&self, tag: &str) -> &Pins {
        match git::is_commit(tag) {
            true => &self.commits,
            false => &self.names,
        }
    }

    /// The same tag for all tags with the same meaning.
    fn canonical(&self, tag: &Tag) -> Result<String, PinError> {
        match self.source() {
            _ if self.any_tag => Ok(DEFAULT.to_owned()),
            source if source.repository().is_some() => Ok(tag.to_string()),
            source if source.tags().iter().any(|known| known == tag.as_str()) => {
                Ok(DEFAULT.to_owned())
            }
            source => Err(PinError::TagUnknown(format!(
                "the tag \"{tag}\" is unknown here; known are: {}",
                source.tags().join(", ")
            ))),
        }
    }
}

impl Pins {
    fn new(most: usize, hold: Duration) -> Self {
        Self {
            most,
            memo: Memo::new(Bound {
                most,
                always: DEFAULT,
                window: hold,
            }),
            // All may be replaced within an hour, and some be tried.
            new: Arc::new(RateLimit::new(most.saturating_mul(2))),
        }
    }
}

/// At most so many in each hour (a sliding window).
struct RateLimit {
    most: usize,
    acquired: Mutex<VecDeque<Instant>>,
}

impl RateLimit {
    fn new(most: usize) -> Self {
        let acquired = Mutex::default();
        Self { most, acquired }
    }

    fn try_acquire(&self, now: Instant) -> bool {
        let mut acquired = self.acquired.lock();
        let is_over = |at: &Instant| now.saturating_duration_since(*at) >= HOUR;
        while acquired.pop_front_if(|at| is_over(at)).is_some() {}
        let is_free = acquired.len() < self.most;
        if is_free {
            acquired.push_back(now);
        }
        is_free
    }

    /// Gives back one that came to nothing.
    fn release(&self) {
        self.acquired.lock().pop_back();
    }
}

#[cfg(test)]
pub(in crate::source) mod tests;
