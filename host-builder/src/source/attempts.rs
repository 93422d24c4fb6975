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
//! Where clients choose among too many keys, they are bounded: when something is found, that is
//! forgotten which was asked for the longest ago. Keys that don't exist drive out nothing. So many
//! tasks are all that run.

use std::collections::BTreeMap;
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
pub(super) struct Attempts<V> {
    /// How long a value holds.
    hold: Duration,
    /// How long it is used beyond that while no newer one can be had.
    stale: Duration,
    /// So many keys at most, and so many more for which a task runs.
    most: usize,
    entries: Arc<Mutex<BTreeMap<String, Entry<V>>>>,
}

struct Entry<V> {
    asked: Instant,
    found: Option<(Instant, V)>,
    failed: Option<(Instant, PinError)>,
    running: Option<Running<V>>,
}

struct Running<V> {
    since: Instant,
    outcome: watch::Receiver<Option<Outcome<V>>>,
}

impl<V: Clone + Send + Sync + 'static> Attempts<V> {
    pub(super) fn new(hold: Duration, stale: Duration) -> Self {
        Self {
            hold,
            stale,
            most: usize::MAX,
            entries: Arc::default(),
        }
    }

    /// With no more keys than this.
    pub(super) fn bounded(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// The value that was found last, which may hold no more.
    pub(super) fn last(&self, key: &str) -> Option<V> {
        let entries = lock(&self.entries);
        let (_, value) = entries.get(key)?.found.as_ref()?;
        Some(value.clone())
    }

    /// All values that hold.
    pub(super) fn fresh(&self) -> Vec<V> {
        let entries = lock(&self.entries);
        let found = entries.values().filter_map(|entry| entry.found.as_ref());
        let fresh = found.filter(|(since, _)| since.elapsed() < self.hold);
        fresh.map(|(_, value)| value.clone()).collect()
    }

    /// Whatever is known of, or being found out.
    pub(super) fn keys(&self) -> Vec<String> {
        lock(&self.entries).keys().cloned().collect()
    }

    /// Forgets a value that turned out to be void.
    pub(super) fn forget(&self, key: &str) {
        if let Some(entry) = lock(&self.entries).get_mut(key) {
            entry.found = None;
        }
    }

    /// The value of a key, for which a caller without any waits at most `wait`. `find` is called
    /// when an attempt is due.
    ///
    /// # Errors
    /// When the attempt failed, now or lately, and there is no earlier value that will do. An error
    /// that the key doesn't exist voids the earlier value, and isn't remembered. When there are as
    /// many attempts as there may be keys.
    pub(super) async fn get(
        &self,
        key: &str,
        wait: Duration,
        find: impl FnOnce() -> BoxFuture<'static, Outcome<V>> + Send,
    ) -> Result<Known<V>, PinError> {
        let (since, mut outcome, old) = {
            let mut entries = lock(&self.entries);
            let limit = self.hold + self.stale;
            entries.retain(|_, entry| entry.is_of_use(limit));
            let tasks = entries.values().filter(|entry| entry.is_running()).count();
            let entry = entries.entry(key.to_owned()).or_default();
            entry.asked = Instant::now();
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
                (None, Some(old)) if tasks >= self.most => return Ok(Known::Value(old, AGAIN)),
                (None, None) if tasks >= self.most => return Err(PinError::TooMany),
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
        let most = self.most;
        let task = async move {
            let found = find.await;
            let mut entries = lock(&entries);
            if let Err(PinError::TagUnknown(_)) = found {
                entries.remove(&key);
            } else if let Some(entry) = entries.get_mut(&key) {
                entry.running = None;
                match &found {
                    Ok(value) => {
                        entry.found = Some((Instant::now(), value.clone()));
                        entry.failed = None;
                    }
                    Err(error) => entry.failed = Some((Instant::now(), error.clone())),
                }
                forget_oldest(&mut entries, most);
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
        Self {
            asked: Instant::now(),
            found: None,
            failed: None,
            running: None,
        }
    }
}

impl<V> Entry<V> {
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

/// Forgets what was asked for the longest ago of the entries without a task, until there are `most`.
fn forget_oldest<V>(entries: &mut BTreeMap<String, Entry<V>>, most: usize) {
    loop {
        let idle = entries.iter().filter(|(_, entry)| !entry.is_running());
        if idle.clone().count() <= most {
            return;
        }
        let oldest = idle.min_by_key(|(_, entry)| entry.asked);
        let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
            return;
        };
        entries.remove(&oldest);
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

    fn failure() -> PinError {
        PinError::Interrupted
    }

    #[tokio::test]
    async fn an_attempt_outlives_its_caller_and_serves_the_others() {
        let (attempts, finder) = (Attempts::new(LONG, LONG), Finder::new());
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
        let (attempts, slow, quick) = (Attempts::new(LONG, LONG), Finder::new(), Finder::new());
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
        let (attempts, finder) = (Attempts::new(NO_TIME, LONG), Finder::new());
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
        let (attempts, finder) = (Attempts::new(NO_TIME, NO_TIME), Finder::new());
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
        let (attempts, finder) = (Attempts::new(NO_TIME, LONG), Finder::new());
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
        let (attempts, finder) = (Attempts::new(LONG, LONG), Finder::new());
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
        let (attempts, finder) = (Attempts::new(LONG, LONG), Finder::new());
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
        let (attempts, finder) = (Attempts::new(LONG, LONG).bounded(2), Finder::new());
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
        let (attempts, finder) = (Attempts::new(LONG, LONG).bounded(2), Finder::new());
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
}
