//! Values that are found out again from time to time, each by a task of its own.
//!
//! ```text
//!   get(key) ── found lately ───────────────► the value
//!        │
//!        ├─ found before ── task ───────────► the new value, or after a moment the old one
//!        │
//!        └─ never found ─── task ───────────► the value when the caller waits for so long,
//!                                             else "still preparing"
//! ```
//!
//! A task is shared by all who ask for its key, and outlives them. When it fails, the old value is
//! used on for a while; the failure is remembered for [`AGAIN`], so that callers who insist don't
//! start task after task.
//!
//! Where clients choose among too many keys, they are bounded ([`Bound`]): when something is found, that
//! is forgotten which is used the least, and of these what was asked for the longest ago. So who asks for
//! one key after the other drives out what he asked for before, and not what others use all the time.
//! Keys that don't exist drive out nothing. So many tasks are all that run, and only so many new keys are
//! found in an hour, since each may take the disk some hundred megabytes until somebody collects garbage.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tracing::Instrument;

use super::PinError;

/// How soon after a failure the next attempt may start, and for how long an old value may be
/// repeated.
const AGAIN: Duration = Duration::from_secs(30);
/// For how long callers who could have the old value wait for the new one: folders and most git
/// repositories are that quick.
const PATIENCE: Duration = Duration::from_secs(1);

/// In which time no more new keys are found than [`Bound::new_keys`].
const WHILE: Duration = Duration::from_secs(3600);
/// What is asked for in so many holds is used as much as can be.
const REGULAR: u32 = 12;

/// How many keys there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// So many at most, and so many more for which a task runs.
    pub(super) most: usize,
    /// What is never forgotten, and always found. It doesn't count.
    pub(super) always: Option<&'static str>,
}

impl Bound {
    /// New keys that are found in an hour: all may be others by then, and some have come anew after a
    /// start.
    const fn new_keys(&self) -> usize {
        self.most.saturating_mul(2)
    }

    fn is_always(&self, key: &str) -> bool {
        self.always == Some(key)
    }
}

/// Keys that are known of.
pub(super) struct Keys {
    pub(super) keys: Vec<String>,
    pub(super) bound: Bound,
}

type Outcome<V> = Result<V, PinError>;

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known<V> {
    /// The value, and for how long it surely holds.
    Value(V, Duration),
    /// Nothing yet; the attempt has been going on for so long.
    Preparing(Duration),
}

/// See the module. Cloning shares the values.
#[derive(Clone)]
pub(super) struct Refreshing<V> {
    /// How long a value holds.
    hold: Duration,
    /// How long it is used beyond that while no newer one can be had.
    stale: Duration,
    bound: Bound,
    entries: Arc<Mutex<Entries<V>>>,
}

struct Entries<V> {
    of: BTreeMap<String, Entry<V>>,
    /// When keys were found that were new, as far as that counts.
    new: VecDeque<Instant>,
}

struct Entry<V> {
    asked: Instant,
    /// In how many holds it was asked for, and the last of these that was counted.
    uses: u32,
    used: Instant,
    found: Option<(Instant, V)>,
    failed: Option<(Instant, PinError)>,
    running: Option<Running<V>>,
}

struct Running<V> {
    since: Instant,
    outcome: watch::Receiver<Option<Outcome<V>>>,
}

impl<V: Clone + Send + Sync + 'static> Refreshing<V> {
    pub(super) fn new(hold: Duration, stale: Duration) -> Self {
        Self {
            hold,
            stale,
            bound: Bound {
                most: usize::MAX,
                always: None,
            },
            entries: Arc::new(Mutex::new(Entries {
                of: BTreeMap::new(),
                new: VecDeque::new(),
            })),
        }
    }

    /// With no more keys than this.
    pub(super) fn bounded(self, bound: Bound) -> Self {
        Self { bound, ..self }
    }

    /// The value that was found last, which may hold no more.
    pub(super) fn last(&self, key: &str) -> Option<V> {
        let entries = lock(&self.entries);
        let (_, value) = entries.of.get(key)?.found.as_ref()?;
        Some(value.clone())
    }

    /// All values that hold.
    pub(super) fn fresh(&self) -> Vec<V> {
        let entries = lock(&self.entries);
        let found = entries.of.values();
        let found = found.filter_map(|entry| entry.found.as_ref());
        let fresh = found.filter(|(since, _)| since.elapsed() < self.hold);
        fresh.map(|(_, value)| value.clone()).collect()
    }

    /// Whatever is known of, or being found out.
    pub(super) fn keys(&self) -> Keys {
        Keys {
            keys: lock(&self.entries).of.keys().cloned().collect(),
            bound: self.bound,
        }
    }

    /// Forgets a value that turned out to be void.
    pub(super) fn forget(&self, key: &str) {
        if let Some(entry) = lock(&self.entries).of.get_mut(key) {
            entry.found = None;
        }
    }

    /// The value of a key, for which a caller without any waits at most `wait`. `find` is called
    /// when an attempt is due.
    ///
    /// # Errors
    /// When the attempt failed, now or lately, and there is no earlier value that will do. An error
    /// that the key doesn't exist voids the earlier value, and isn't remembered. When there are as
    /// many attempts as there may be keys, or enough new keys in this hour.
    pub(super) async fn get(
        &self,
        key: &str,
        wait: Duration,
        find: impl FnOnce() -> BoxFuture<'static, Outcome<V>> + Send,
    ) -> Result<Known<V>, PinError> {
        let (since, mut outcome, old) = {
            let mut entries = lock(&self.entries);
            let limit = self.hold + self.stale;
            entries.of.retain(|_, entry| entry.is_of_use(limit));
            let running = entries.of.values().filter(|entry| entry.is_running());
            let tasks = running.clone().count();
            let new = running.filter(|entry| entry.found.is_none()).count();
            let new = new.saturating_add(entries.found_lately());
            let is_enough = tasks >= self.bound.most
                || !self.bound.is_always(key) && new >= self.bound.new_keys();
            let entry = entries.of.entry(key.to_owned()).or_default();
            entry.note_use(Instant::now(), self.hold);
            let old = match &entry.found {
                Some((since, value)) => match self.hold.checked_sub(since.elapsed()) {
                    Some(rest) => return Ok(Known::Value(value.clone(), rest)),
                    None => (since.elapsed() < limit).then(|| value.clone()),
                },
                None => None,
            };
            if let Some((_, error)) = entry.failed.as_ref().filter(|(at, _)| at.elapsed() < AGAIN) {
                return match old {
                    Some(old) => Ok(Known::Value(old, AGAIN)),
                    None => Err(error.clone()),
                };
            }
            let running = match (entry.running.take().filter(Running::goes_on), old.clone()) {
                (Some(running), _) => running,
                (None, Some(old)) if tasks >= self.bound.most => {
                    return Ok(Known::Value(old, AGAIN));
                }
                (None, None) if is_enough => return Err(PinError::TooMany),
                (None, _) => self.start(key, find()),
            };
            let watched = (running.since, running.outcome.clone(), old);
            entry.running = Some(running);
            watched
        };
        let wait = match old {
            Some(_) => wait.min(PATIENCE.saturating_sub(since.elapsed())),
            None => wait,
        };
        let done = tokio::time::timeout(wait, outcome.wait_for(Option::is_some)).await;
        let outcome = match done {
            Err(_) => None,
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => Some(Err(PinError::Interrupted)),
        };
        match (outcome, old) {
            (Some(Ok(value)), _) => Ok(Known::Value(value, self.hold)),
            (Some(Err(error @ PinError::TagUnknown(_))), _) => Err(error),
            (_, Some(old)) => Ok(Known::Value(old, AGAIN)),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Ok(Known::Preparing(since.elapsed())),
        }
    }

    /// Starts the task. It waits for the lock that the caller holds before it changes anything.
    fn start(&self, key: &str, find: BoxFuture<'static, Outcome<V>>) -> Running<V> {
        let (sender, outcome) = watch::channel(None);
        let (key, entries) = (key.to_owned(), Arc::clone(&self.entries));
        let (bound, hold) = (self.bound, self.hold);
        let task = async move {
            let found = find.await;
            let mut entries = lock(&entries);
            let Entries { of, new } = &mut *entries;
            if let Err(PinError::TagUnknown(_)) = found {
                of.remove(&key);
            } else if let Some(entry) = of.get_mut(&key) {
                entry.running = None;
                match &found {
                    Ok(value) => {
                        let now = Instant::now();
                        let before = entry.found.replace((now, value.clone()));
                        entry.failed = None;
                        let counts = bound.most < usize::MAX && !bound.is_always(&key);
                        if before.is_none() && counts {
                            new.push_back(now);
                        }
                    }
                    Err(error) => entry.failed = Some((Instant::now(), error.clone())),
                }
                forget_unused(of, bound, hold, Instant::now());
            }
            drop(entries);
            sender.send_replace(Some(found));
        };
        tokio::spawn(task.in_current_span());
        Running {
            since: Instant::now(),
            outcome,
        }
    }
}

impl<V> Default for Entry<V> {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            asked: now,
            uses: 1,
            used: now,
            found: None,
            failed: None,
            running: None,
        }
    }
}

impl<V> Entries<V> {
    /// How many new keys were found in the last hour.
    fn found_lately(&mut self) -> usize {
        while self.new.front().is_some_and(|at| at.elapsed() >= WHILE) {
            self.new.pop_front();
        }
        self.new.len()
    }
}

impl<V> Entry<V> {
    fn note_use(&mut self, now: Instant, hold: Duration) {
        self.asked = now;
        if now.saturating_duration_since(self.used) >= hold {
            self.used = now;
            self.uses = self.uses.saturating_add(1).min(REGULAR);
        }
    }

    /// In how many holds it was asked for, less those in which it was not since then.
    fn usage(&self, now: Instant, hold: Duration) -> u128 {
        let unused = now.saturating_duration_since(self.asked).as_nanos();
        let unused = unused / hold.as_nanos().max(1);
        u128::from(self.uses).saturating_sub(unused)
    }

    fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(Running::goes_on)
    }

    fn is_of_use(&self, limit: Duration) -> bool {
        let within = |at: Option<Instant>, limit| at.is_some_and(|at| at.elapsed() < limit);
        self.is_running()
            || within(self.found.as_ref().map(|(at, _)| *at), limit)
            || within(self.failed.as_ref().map(|(at, _)| *at), AGAIN)
    }
}

impl<V> Running<V> {
    /// A task that panicked has dropped its end.
    fn goes_on(&self) -> bool {
        self.outcome.has_changed().is_ok()
    }
}

/// Forgets what is used the least of the entries without a task, until there are no more than may be.
fn forget_unused<V>(
    entries: &mut BTreeMap<String, Entry<V>>,
    bound: Bound,
    hold: Duration,
    now: Instant,
) {
    loop {
        let idle = entries.iter();
        let idle = idle.filter(|(key, entry)| !entry.is_running() && !bound.is_always(key));
        if idle.clone().count() <= bound.most {
            return;
        }
        let unused = idle.min_by_key(|(_, entry)| (entry.usage(now, hold), entry.asked));
        let Some(unused) = unused.map(|(key, _)| key.clone()) else {
            return;
        };
        entries.remove(&unused);
    }
}

/// The map is whole between any two statements, so a panic elsewhere doesn't spoil it.
fn lock<T>(entries: &Mutex<T>) -> MutexGuard<'_, T> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    const NO_TIME: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(60);

    /// What is found, once the test lets it: a number that counts up, or a failure.
    #[derive(Clone)]
    struct Finder {
        open: Arc<Semaphore>,
        attempts: Arc<AtomicUsize>,
    }

    impl Finder {
        fn new() -> Self {
            Self {
                open: Arc::new(Semaphore::new(0)),
                attempts: Arc::default(),
            }
        }

        fn find(&self, result: Result<(), PinError>) -> BoxFuture<'static, Outcome<usize>> {
            let Self { open, attempts } = self.clone();
            async move {
                let number = attempts.fetch_add(1, Ordering::SeqCst) + 1;
                open.acquire().await.unwrap().forget();
                result.map(|()| number)
            }
            .boxed()
        }
    }

    fn number(known: Result<Known<usize>, PinError>) -> usize {
        match known {
            Ok(Known::Value(number, _)) => number,
            other => panic!("{other:?}"),
        }
    }

    fn most(most: usize) -> Bound {
        Bound {
            most,
            always: Some("always"),
        }
    }

    fn failure() -> PinError {
        PinError::Interrupted
    }

    #[tokio::test]
    async fn an_attempt_outlives_its_caller_and_serves_the_others() {
        let (attempts, finder) = (Refreshing::new(LONG, LONG), Finder::new());
        let first = attempts.get("a", NO_TIME, || finder.find(Ok(()))).await;
        assert!(matches!(first, Ok(Known::Preparing(_))));
        // A caller that hangs up.
        let mut second = attempts.get("a", LONG, || finder.find(Ok(()))).boxed();
        assert!(futures::poll!(&mut second).is_pending());
        drop(second);
        finder.open.add_permits(1);
        assert_eq!(
            number(attempts.get("a", LONG, || finder.find(Ok(()))).await),
            1
        );
        assert_eq!(attempts.last("a"), Some(1));
        assert_eq!(finder.attempts.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_slow_key_keeps_no_other_waiting() {
        let (attempts, slow, quick) = (Refreshing::new(LONG, LONG), Finder::new(), Finder::new());
        let waiting = attempts.get("slow", NO_TIME, || slow.find(Ok(()))).await;
        assert!(matches!(waiting, Ok(Known::Preparing(_))));
        quick.open.add_permits(1);
        assert_eq!(
            number(attempts.get("quick", LONG, || quick.find(Ok(()))).await),
            1
        );
    }

    #[tokio::test]
    async fn while_a_refresh_runs_or_fails_the_old_value_is_served() {
        // Nothing holds, so every call is a refresh.
        let (attempts, finder) = (Refreshing::new(NO_TIME, LONG), Finder::new());
        finder.open.add_permits(1);
        assert_eq!(
            number(attempts.get("a", LONG, || finder.find(Ok(()))).await),
            1
        );
        let refresh = |wait| attempts.get("a", wait, || finder.find(Err(failure())));
        assert_eq!(number(refresh(NO_TIME).await), 1);
        finder.open.add_permits(1);
        for _ in 0..3 {
            assert_eq!(number(refresh(LONG).await), 1);
        }
        assert_eq!(finder.attempts.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_value_that_is_too_old_is_not_used_any_more() {
        let (attempts, finder) = (Refreshing::new(NO_TIME, NO_TIME), Finder::new());
        finder.open.add_permits(2);
        assert_eq!(
            number(attempts.get("a", LONG, || finder.find(Ok(()))).await),
            1
        );
        let found = attempts
            .get("a", LONG, || finder.find(Err(failure())))
            .await;
        assert!(matches!(found, Err(PinError::Interrupted)), "{found:?}");
    }

    #[tokio::test]
    async fn a_key_that_is_no_more_is_told_at_once() {
        let (attempts, finder) = (Refreshing::new(NO_TIME, LONG), Finder::new());
        finder.open.add_permits(2);
        assert_eq!(
            number(attempts.get("a", LONG, || finder.find(Ok(()))).await),
            1
        );
        let gone = || Err(PinError::TagUnknown("a".to_owned()));
        let found = attempts.get("a", LONG, || finder.find(gone())).await;
        assert!(matches!(found, Err(PinError::TagUnknown(_))), "{found:?}");
        assert_eq!(attempts.last("a"), None);
    }

    #[tokio::test]
    async fn a_failure_without_an_old_value_is_remembered() {
        let (attempts, finder) = (Refreshing::new(LONG, LONG), Finder::new());
        finder.open.add_permits(3);
        for _ in 0..3 {
            let found = attempts
                .get("a", LONG, || finder.find(Err(failure())))
                .await;
            assert!(matches!(found, Err(PinError::Interrupted)), "{found:?}");
        }
        assert_eq!(finder.attempts.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_attempt_that_panics_is_an_error_and_not_for_ever() {
        let (attempts, finder) = (Refreshing::new(LONG, LONG), Finder::new());
        let found = attempts
            .get("a", LONG, || async { panic!("as the test wants") }.boxed())
            .await;
        assert!(matches!(found, Err(PinError::Interrupted)), "{found:?}");
        finder.open.add_permits(1);
        assert_eq!(
            number(attempts.get("a", LONG, || finder.find(Ok(()))).await),
            1
        );
    }

    #[tokio::test]
    async fn of_too_many_keys_those_are_forgotten_that_were_asked_for_the_longest_ago() {
        let (attempts, finder) = (Refreshing::new(LONG, LONG).bounded(most(2)), Finder::new());
        finder.open.add_permits(9);
        for key in ["a", "b", "a", "c"] {
            number(attempts.get(key, LONG, || finder.find(Ok(()))).await);
        }
        // Those that there are not don't count.
        for key in ["d", "e", "f"] {
            let gone = || Err(PinError::TagUnknown(key.to_owned()));
            let found = attempts.get(key, LONG, || finder.find(gone())).await;
            assert!(matches!(found, Err(PinError::TagUnknown(_))), "{found:?}");
        }
        let known = ["a", "b", "c"].map(|key| attempts.last(key));
        assert_eq!(known, [Some(1), None, Some(3)]);
    }

    #[tokio::test]
    async fn there_are_no_more_attempts_than_keys() {
        let (attempts, finder) = (Refreshing::new(LONG, LONG).bounded(most(2)), Finder::new());
        let ask = |key| attempts.get(key, NO_TIME, || finder.find(Ok(())));
        for key in ["a", "b", "a"] {
            let found = ask(key).await;
            assert!(matches!(found, Ok(Known::Preparing(_))), "{found:?}");
        }
        let found = ask("c").await;
        assert!(matches!(found, Err(PinError::TooMany)), "{found:?}");
        finder.open.add_permits(3);
        for key in ["a", "b", "c"] {
            number(attempts.get(key, LONG, || finder.find(Ok(()))).await);
        }
        assert_eq!(finder.attempts.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn who_asks_for_one_key_after_the_other_drives_out_none_that_is_used_all_the_time() {
        let start = Instant::now();
        let (minute, hold) = (Duration::from_secs(60), Duration::from_secs(300));
        let mut entries: BTreeMap<String, Entry<usize>> = BTreeMap::new();
        let mut ask = |key: &str, minutes: u32| {
            let now = start + minute * minutes;
            let entry = entries.entry(key.to_owned()).or_insert_with(|| Entry {
                asked: now,
                used: now,
                ..Entry::default()
            });
            entry.note_use(now, hold);
            forget_unused(&mut entries, most(3), hold, now);
            entries.keys().cloned().collect::<Vec<_>>()
        };
        ask("always", 0);
        for minutes in 0..20 {
            ask("used", minutes);
            ask("too", minutes);
        }
        // One more each second minute: it takes the place of the one before.
        for number in 0..9 {
            let known = ask(&format!("new-{number}"), 20 + 2 * number);
            let expected = [
                "always".to_owned(),
                format!("new-{number}"),
                "too".to_owned(),
            ];
            assert!(expected.iter().all(|key| known.contains(key)), "{known:?}");
            assert_eq!(known.len(), 4);
            ask("too", 20 + 2 * number);
        }
        // What nobody has used for longer than it was used goes as well.
        let known = ask("last", 40);
        assert_eq!(known, ["always", "last", "new-8", "too"]);
    }

    #[tokio::test]
    async fn only_so_many_new_keys_are_found_in_an_hour() {
        let attempts = Refreshing::new(NO_TIME, LONG).bounded(most(2));
        let ask = async |key: String| {
            let found = || async { Ok(1) }.boxed();
            attempts.get(&key, LONG, found).await
        };
        for key in 0..4 {
            number(ask(format!("{key}")).await);
        }
        let found = ask("4".to_owned()).await;
        assert!(matches!(found, Err(PinError::TooMany)), "{found:?}");
        // What is known is found again, and what is always to be found as well.
        for key in ["2", "3", "always"] {
            number(ask(key.to_owned()).await);
        }
        let hour_ago = Instant::now().checked_sub(WHILE).unwrap();
        lock(&attempts.entries).new = VecDeque::from([hour_ago; 4]);
        number(ask("4".to_owned()).await);
    }
}
