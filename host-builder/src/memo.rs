//! A cache of slow lookups: one task per key, shared by all callers.
//!
//! ```text
//!   get(key) ── fresh value ──────────────────────────────► the value
//!      │
//!      ├─ recent failure ─────────────────────────────────► the stale value, else the error
//!      │
//!      ├─ stale value ── task, at most REVALIDATION_WAIT ─► the new value, else the stale one
//!      │
//!      └─ nothing ────── task, as long as the caller waits ► value, error, or Known::Pending
//! ```
//!
//! - **Single flight.** Callers join the running task of their key. A task outlives its callers.
//! - **Lifetimes.** A task says how long its outcome is kept ([`Lifetime`]). A failure that is kept
//!   leaves an older value in place, and no task starts until its time is over. A failure that is
//!   not kept removes the older value too: the key no longer exists. A panic changes nothing.
//! - **Bounds.** Beyond [`Bound::most`] keys, the least used are evicted; a key with a task stays. A
//!   client that walks through many keys evicts its own, and not those that others use all the time.
//!
//! `moka` was considered. It drops a load with the caller that started it, keeps no errors and no
//! stale values, and can't refuse to start a load; all of this would remain to be written around it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, Shared};
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::Instrument;

/// How long callers wait for a new value when there is a stale one. Folders and most git
/// repositories are that quick.
const REVALIDATION_WAIT: Duration = Duration::from_secs(1);
/// How long callers may repeat a stale value.
const STALE_TTL: Duration = Duration::from_secs(30);
/// Uses of a key that are counted.
const MAX_USES: u32 = 12;

/// How long an outcome is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// It is the answer for so long.
    pub(crate) fresh: Duration,
    /// It is used for so much longer while no newer value can be had.
    pub(crate) stale: Duration,
}

/// The keys of a memo.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    /// Keys that are kept, besides those with a task.
    pub(crate) most: usize,
    /// A key that is never evicted and does not count.
    pub(crate) always: &'static str,
    /// Uses of a key within so long count as one.
    pub(crate) window: Duration,
}

/// The answer to a lookup that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known<V> {
    /// The value, and for how long it may be repeated.
    Value(V, Duration),
    /// The task is running, for so long already.
    Pending(Duration),
}

/// The answer to a lookup. An error comes with the time for which it is still kept.
pub(crate) type Answer<V, E> = Result<Known<V>, (E, Duration)>;

/// The work of a task.
pub(crate) type Work<V, E> = BoxFuture<'static, (Result<V, E>, Lifetime)>;

/// A task ended without an outcome.
pub(crate) struct Panicked;

/// See the module. `O` tells for whom a task runs. Clones share the entries. A panic leaves them whole,
/// since they are changed by single statements.
#[derive(Clone)]
pub(crate) struct Memo<V, E, O = ()>(Arc<Mutex<Entries<V, E, O>>>);

/// The decisions, apart from the clock.
struct Entries<V, E, O> {
    bound: Bound,
    by_key: BTreeMap<String, Entry<V, E, O>>,
}

struct Entry<V, E, O> {
    /// The last use, the start of the last window that was counted, and the number of these.
    used: Instant,
    window: Instant,
    uses: u32,
    /// The last value, and until when it is used.
    value: Option<(V, Instant)>,
    /// The last outcome, and until when it is the answer.
    outcome: Option<(Result<V, E>, Instant)>,
    task: Option<Task<V, E, O>>,
}

#[derive(Clone)]
struct Task<V, E, O> {
    owner: O,
    started: Instant,
    ended: Shared<BoxFuture<'static, Ended<V, E>>>,
}

/// The outcome of a task and its time; none after a panic.
type Ended<V, E> = Option<(Result<V, E>, Lifetime, Instant)>;

enum Next<V, E, O> {
    Answer(Answer<V, E>),
    /// With the stale value.
    Wait(Task<V, E, O>, Option<V>),
}

impl Lifetime {
    /// Not kept at all.
    pub(crate) const NONE: Self = Self::fresh(Duration::ZERO);

    /// Never stale.
    pub(crate) const fn fresh(fresh: Duration) -> Self {
        let stale = Duration::ZERO;
        Self { fresh, stale }
    }
}

impl Bound {
    /// Any number of keys.
    pub(crate) const NONE: Self = Self {
        most: usize::MAX,
        always: "",
        window: Duration::MAX,
    };
}

impl<V, E, O> Memo<V, E, O>
where
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + From<Panicked> + 'static,
    O: Clone + Send + 'static,
{
    pub(crate) fn new(bound: Bound) -> Self {
        let by_key = BTreeMap::new();
        Self(Arc::new(Mutex::new(Entries { bound, by_key })))
    }

    /// The value of a key. A caller waits at most `wait` for a task.
    ///
    /// When a task is due for this `owner`, `start` gets the owners of all tasks that run. It returns
    /// the work, or refuses it with an error that is not kept.
    ///
    /// # Errors
    /// When the task failed or was refused, and there is no stale value.
    pub(crate) async fn get(
        &self,
        key: &str,
        wait: Duration,
        owner: O,
        start: impl FnOnce(&[O]) -> Result<Work<V, E>, E>,
    ) -> Answer<V, E> {
        let spawn = |owners: &[O]| {
            let work = AssertUnwindSafe(start(owners)?).catch_unwind();
            let (memo, key) = (self.clone(), key.to_owned());
            let task = async move {
                let ended = work.await.ok();
                // It waits for the caller, who holds the lock.
                memo.0.lock().finish(&key, ended.clone(), Instant::now());
                ended.map(|(outcome, lifetime)| (outcome, lifetime, Instant::now()))
            };
            // Its log lines carry the request that started it.
            let task = tokio::spawn(task.in_current_span());
            Ok(Task {
                owner,
                started: Instant::now(),
                ended: task.map(|ended| ended.ok().flatten()).boxed().shared(),
            })
        };
        let next = self.0.lock().next(key, Instant::now(), spawn);
        let (task, stale) = match next {
            Next::Answer(answer) => return answer,
            Next::Wait(task, stale) => (task, stale),
        };
        let wait = match stale {
            Some(_) => wait.min(REVALIDATION_WAIT.saturating_sub(task.started.elapsed())),
            None => wait,
        };
        match timeout(wait, task.ended).await {
            Ok(Some((Ok(value), lifetime, _))) => Ok(Known::Value(value, lifetime.fresh)),
            Ok(Some((Err(error), lifetime, at))) => {
                let stale = stale.filter(|_| lifetime != Lifetime::NONE);
                stale_or(
                    stale,
                    Err((error, lifetime.fresh.saturating_sub(at.elapsed()))),
                )
            }
            Ok(None) => stale_or(stale, Err((Panicked.into(), Duration::ZERO))),
            Err(_) => stale_or(stale, Ok(Known::Pending(task.started.elapsed()))),
        }
    }

    /// The last value of a key, fresh or stale.
    pub(crate) fn last(&self, key: &str) -> Option<V> {
        let entries = self.0.lock();
        let value = entries.by_key.get(key)?.value.as_ref();
        value.map(|(value, _)| value.clone())
    }

    /// All fresh values.
    pub(crate) fn fresh(&self) -> Vec<V> {
        let (entries, now) = (self.0.lock(), Instant::now());
        let fresh = entries
            .by_key
            .values()
            .filter_map(|entry| entry.answer(now));
        fresh.filter_map(|(outcome, _)| outcome.ok()).collect()
    }

    /// All keys, also those without a value yet.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.0.lock().by_key.keys().cloned().collect()
    }

    /// Removes a value that turned out to be void.
    pub(crate) fn forget(&self, key: &str) {
        if let Some(entry) = self.0.lock().by_key.get_mut(key) {
            (entry.value, entry.outcome) = (None, None);
        }
    }
}

fn stale_or<V, E>(stale: Option<V>, answer: Answer<V, E>) -> Answer<V, E> {
    stale.map_or(answer, |stale| Ok(Known::Value(stale, STALE_TTL)))
}

impl<V: Clone, E: Clone, O: Clone> Entries<V, E, O> {
    fn next(
        &mut self,
        key: &str,
        now: Instant,
        start: impl FnOnce(&[O]) -> Result<Task<V, E, O>, E>,
    ) -> Next<V, E, O> {
        self.remove_expired(now);
        let tasks = self.by_key.values().filter_map(|entry| entry.task.as_ref());
        let owners: Vec<O> = tasks.map(|task| task.owner.clone()).collect();
        let entry = self.by_key.entry(key.to_owned());
        let entry = entry.or_insert_with(|| Entry::new(now));
        entry.record_use(now, self.bound.window);
        let stale = entry.value.as_ref().map(|(value, _)| value.clone());
        match entry.answer(now) {
            Some((Ok(value), left)) => return Next::Answer(Ok(Known::Value(value, left))),
            Some((Err(error), left)) => return Next::Answer(stale_or(stale, Err((error, left)))),
            None => {}
        }
        match entry.task.clone().map_or_else(|| start(&owners), Ok) {
            Ok(task) => {
                entry.task = Some(task.clone());
                Next::Wait(task, stale)
            }
            Err(error) => Next::Answer(stale_or(stale, Err((error, Duration::ZERO)))),
        }
    }

    /// Ends the task of a key, after a panic without an outcome.
    fn finish(&mut self, key: &str, ended: Option<(Result<V, E>, Lifetime)>, now: Instant) {
        if let Some(entry) = self.by_key.get_mut(key) {
            entry.task = None;
            if let Some((outcome, lifetime)) = ended {
                let until = now + lifetime.fresh;
                match &outcome {
                    Ok(value) => entry.value = Some((value.clone(), until + lifetime.stale)),
                    Err(_) if lifetime == Lifetime::NONE => entry.value = None,
                    Err(_) => {}
                }
                entry.outcome = Some((outcome, until));
            }
        }
        self.remove_expired(now);
        self.evict(now);
    }

    fn remove_expired(&mut self, now: Instant) {
        self.by_key.retain(|_, entry| {
            entry.value.take_if(|(_, until)| *until <= now);
            entry.outcome.take_if(|(_, until)| *until <= now);
            entry.task.is_some() || entry.value.is_some() || entry.outcome.is_some()
        });
    }

    fn evict(&mut self, now: Instant) {
        let bound = self.bound;
        loop {
            let idle = self.by_key.iter();
            let idle = idle.filter(|(key, entry)| entry.task.is_none() && *key != bound.always);
            if idle.clone().count() <= bound.most {
                return;
            }
            let unused = idle.min_by_key(|(_, entry)| (entry.usage(now, bound.window), entry.used));
            let unused = unused.map(|(key, _)| key.clone());
            unused.and_then(|key| self.by_key.remove(&key));
        }
    }
}

impl<V: Clone, E: Clone, O> Entry<V, E, O> {
    const fn new(now: Instant) -> Self {
        Self {
            used: now,
            window: now,
            uses: 1,
            value: None,
            outcome: None,
            task: None,
        }
    }

    /// The last outcome while it is fresh, and for how much longer.
    fn answer(&self, now: Instant) -> Option<(Result<V, E>, Duration)> {
        let (outcome, until) = self.outcome.as_ref().filter(|(_, until)| now < *until)?;
        Some((outcome.clone(), *until - now))
    }

    fn record_use(&mut self, now: Instant, window: Duration) {
        self.used = now;
        if now.saturating_duration_since(self.window) >= window {
            self.window = now;
            self.uses = (self.uses + 1).min(MAX_USES);
        }
    }

    /// The windows in which the key was used, less those since the last use.
    fn usage(&self, now: Instant, window: Duration) -> u128 {
        let unused = now.saturating_duration_since(self.used).as_nanos();
        u128::from(self.uses).saturating_sub(unused / window.as_nanos().max(1))
    }
}

#[cfg(test)]
mod tests;
