use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;

const NO_TIME: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);
const FRESH: Lifetime = Lifetime::fresh(LONG);
/// Stale at once, for a while.
const STALE: Lifetime = Lifetime {
    fresh: NO_TIME,
    stale: LONG,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Broken,
    Refused,
    Panicked,
}

impl From<Panicked> for Failure {
    fn from(_: Panicked) -> Self {
        Self::Panicked
    }
}

/// Work that ends once `open` has a permit. Its values count up.
#[derive(Clone)]
struct Counter {
    open: Arc<Semaphore>,
    started: Arc<AtomicUsize>,
}

impl Counter {
    /// Work of which the first `permits` end at once.
    fn new(permits: usize) -> Self {
        Self {
            open: Arc::new(Semaphore::new(permits)),
            started: Arc::default(),
        }
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }
}

type Numbers = Memo<usize, Failure>;

/// Looks a key up, whose work has this result and lifetime.
async fn get(
    memo: &Numbers,
    key: &str,
    wait: Duration,
    work: &Counter,
    (result, lifetime): (Result<(), Failure>, Lifetime),
) -> Answer<usize, Failure> {
    let start = |_: &[()]| {
        let Counter { open, started } = work.clone();
        let work = async move {
            let number = started.fetch_add(1, Ordering::SeqCst) + 1;
            open.acquire().await.unwrap().forget();
            (result.map(|()| number), lifetime)
        };
        Ok(work.boxed())
    };
    memo.get(key, wait, (), start).await
}

fn value(answer: Answer<usize, Failure>) -> usize {
    match answer {
        Ok(Known::Value(value, _)) => value,
        other => panic!("{other:?}"),
    }
}

fn error(answer: Answer<usize, Failure>) -> Failure {
    answer.expect_err("a failure").0
}

fn bound(most: usize) -> Bound {
    Bound {
        most,
        always: "always",
        window: LONG,
    }
}

#[tokio::test]
async fn a_task_outlives_its_caller_and_serves_the_others() {
    let (memo, work) = (Numbers::new(Bound::NONE), Counter::new(0));
    let ok = (Ok(()), FRESH);
    let first = get(&memo, "a", NO_TIME, &work, ok).await;
    assert!(matches!(first, Ok(Known::Pending(_))));
    // A caller that hangs up.
    let mut second = get(&memo, "a", LONG, &work, ok).boxed();
    assert!(futures::poll!(&mut second).is_pending());
    drop(second);
    work.open.add_permits(1);
    assert_eq!(value(get(&memo, "a", LONG, &work, ok).await), 1);
    assert_eq!(memo.last("a"), Some(1));
    assert_eq!(work.started(), 1);
}

#[tokio::test]
async fn a_slow_key_blocks_no_other() {
    let (memo, slow, quick) = (Numbers::new(Bound::NONE), Counter::new(0), Counter::new(1));
    let ok = (Ok(()), FRESH);
    let pending = get(&memo, "slow", NO_TIME, &slow, ok).await;
    assert!(matches!(pending, Ok(Known::Pending(_))));
    assert_eq!(value(get(&memo, "quick", LONG, &quick, ok).await), 1);
}

#[tokio::test]
async fn a_stale_value_is_served_while_the_task_runs_or_after_it_failed() {
    let (memo, work) = (Numbers::new(Bound::NONE), Counter::new(1));
    assert_eq!(
        value(get(&memo, "a", LONG, &work, (Ok(()), STALE)).await),
        1
    );
    let broken = (Err(Failure::Broken), FRESH);
    assert_eq!(value(get(&memo, "a", NO_TIME, &work, broken).await), 1);
    work.open.add_permits(1);
    for _ in 0..3 {
        assert_eq!(value(get(&memo, "a", LONG, &work, broken).await), 1);
    }
    assert_eq!(work.started(), 2);
}

#[tokio::test]
async fn a_value_that_is_too_old_is_not_served() {
    let (memo, work) = (Numbers::new(Bound::NONE), Counter::new(2));
    let ok = (Ok(()), Lifetime::NONE);
    assert_eq!(value(get(&memo, "a", LONG, &work, ok).await), 1);
    let broken = (Err(Failure::Broken), FRESH);
    assert_eq!(
        error(get(&memo, "a", LONG, &work, broken).await),
        Failure::Broken
    );
}

#[tokio::test]
async fn a_failure_that_is_not_kept_removes_the_value() {
    let (memo, work) = (Numbers::new(Bound::NONE), Counter::new(2));
    assert_eq!(
        value(get(&memo, "a", LONG, &work, (Ok(()), STALE)).await),
        1
    );
    let gone = (Err(Failure::Broken), Lifetime::NONE);
    assert_eq!(
        error(get(&memo, "a", LONG, &work, gone).await),
        Failure::Broken
    );
    assert_eq!(memo.last("a"), None);
    assert!(memo.keys().is_empty());
}

#[tokio::test]
async fn a_failure_is_kept_and_callers_get_the_time_that_is_left() {
    let (memo, work) = (Numbers::new(Bound::NONE), Counter::new(3));
    let mut left = vec![LONG];
    for _ in 0..3 {
        let failed = get(&memo, "a", LONG, &work, (Err(Failure::Broken), FRESH)).await;
        left.push(failed.expect_err("a failure").1);
    }
    assert!(left.is_sorted_by(|one, next| one > next), "{left:?}");
    assert_eq!(work.started(), 1);
}

#[tokio::test]
async fn a_panic_is_a_failure_that_is_not_kept_and_changes_no_value() {
    let (memo, work) = (Numbers::new(Bound::NONE), Counter::new(2));
    let panic = |_: &[()]| Ok(async { panic!("on purpose") }.boxed());
    assert_eq!(
        error(memo.get("a", LONG, (), panic).await),
        Failure::Panicked
    );
    assert!(memo.keys().is_empty());
    assert_eq!(
        value(get(&memo, "a", LONG, &work, (Ok(()), STALE)).await),
        1
    );
    assert_eq!(value(memo.get("a", LONG, (), panic).await), 1);
    assert_eq!(
        value(get(&memo, "a", LONG, &work, (Ok(()), FRESH)).await),
        2
    );
}

#[tokio::test]
async fn work_can_be_refused_by_the_tasks_that_run() {
    let (memo, work) = (Numbers::new(Bound::NONE), Counter::new(0));
    let (pending, stale) = (Counter::new(0), Counter::new(1));
    value(get(&memo, "old", LONG, &stale, (Ok(()), STALE)).await);
    let _ = get(&memo, "b", NO_TIME, &pending, (Ok(()), FRESH)).await;
    let refuse = |running: &[()]| {
        assert_eq!(running.len(), 1);
        Err(Failure::Refused)
    };
    assert_eq!(
        error(memo.get("a", LONG, (), refuse).await),
        Failure::Refused
    );
    assert_eq!(value(memo.get("old", LONG, (), refuse).await), 1);
    // A refusal is not kept.
    work.open.add_permits(1);
    assert_eq!(
        value(get(&memo, "a", LONG, &work, (Ok(()), FRESH)).await),
        1
    );
}

#[tokio::test]
async fn the_key_that_was_used_longest_ago_is_evicted_and_failures_evict_nothing() {
    let (memo, work) = (Numbers::new(bound(2)), Counter::new(9));
    for key in ["always", "a", "b", "a", "c"] {
        value(get(&memo, key, LONG, &work, (Ok(()), FRESH)).await);
    }
    for key in ["d", "e", "f"] {
        let gone = (Err(Failure::Broken), Lifetime::NONE);
        error(get(&memo, key, LONG, &work, gone).await);
    }
    assert_eq!(memo.keys(), ["a", "always", "c"]);
    assert_eq!(memo.fresh().len(), 3);
    memo.forget("a");
    assert_eq!(memo.last("a"), None);
}

/// Entries whose tasks have numbers for owners.
fn entries(most: usize) -> Entries<u32, Failure, u32> {
    Entries {
        bound: bound(most),
        by_key: BTreeMap::new(),
    }
}

fn task(owner: u32, started: Instant) -> Task<u32, Failure, u32> {
    let ended = std::future::ready(None).boxed().shared();
    Task {
        owner,
        started,
        ended,
    }
}

#[test]
fn a_client_that_walks_through_keys_evicts_its_own() {
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    let mut entries = entries(3);
    let mut ask = |key: &str, minutes: u32| {
        let now = start + minute * minutes;
        entries.next(key, now, |_| Ok(task(0, now)));
        let lifetime = Lifetime::fresh(100 * minute);
        entries.finish(key, Some((Ok(0), lifetime)), now);
        entries.by_key.keys().cloned().collect::<Vec<_>>()
    };
    ask("always", 0);
    for minutes in 0..20 {
        ask("used", minutes);
        ask("too", minutes);
    }
    // Each new key takes the place of the one before.
    for number in 0..9 {
        let new = format!("new-{number}");
        assert_eq!(ask(&new, 20 + number), ["always", &new, "too", "used"]);
        ask("too", 20 + number);
    }
    // A key goes once it was unused for longer than it was used.
    assert_eq!(ask("last", 40), ["always", "last", "new-8", "too"]);
}

/// A step of the property test: a lookup of a key, or the end of its task.
#[derive(Clone, Debug)]
enum Step {
    Look,
    End(Option<Result<(), Failure>>, Lifetime),
}

fn step() -> impl Strategy<Value = Step> {
    let seconds = || (0_u64..100).prop_map(Duration::from_secs);
    let lifetime = (seconds(), seconds()).prop_map(|(fresh, stale)| Lifetime { fresh, stale });
    let failed = prop_oneof![Just(Lifetime::NONE), seconds().prop_map(Lifetime::fresh)];
    prop_oneof![
        3 => Just(Step::Look),
        2 => lifetime.prop_map(|lifetime| Step::End(Some(Ok(())), lifetime)),
        1 => failed.prop_map(|lifetime| Step::End(Some(Err(Failure::Broken)), lifetime)),
        1 => Just(Step::End(None, Lifetime::NONE)),
    ]
}

/// The expected entry of a key without a bound. Each content comes with its end.
#[derive(Clone, Default)]
struct Model {
    value: Option<(u32, Instant)>,
    answer: Option<(Result<u32, Failure>, Instant)>,
    task: Option<u32>,
}

impl Model {
    fn end(&mut self, ended: Option<(Result<u32, Failure>, Lifetime)>, now: Instant) {
        self.task = None;
        let Some((outcome, Lifetime { fresh, stale })) = ended else {
            return;
        };
        self.answer = Some((outcome, now + fresh));
        match outcome {
            Ok(value) => self.value = Some((value, now + fresh + stale)),
            Err(_) => drop(self.value.take_if(|_| fresh.is_zero())),
        }
    }

    fn value(&self, now: Instant) -> Option<u32> {
        let (value, until) = self.value?;
        (now < until).then_some(value)
    }

    fn answer(&self, now: Instant) -> Option<(Result<u32, Failure>, Duration)> {
        let (answer, until) = self.answer?;
        (now < until).then(|| (answer, until - now))
    }

    fn is_empty(&self, now: Instant) -> bool {
        self.task.is_none() && self.value(now).is_none() && self.answer(now).is_none()
    }

    fn allows(&self, next: &Next<u32, Failure, u32>, now: Instant) -> bool {
        let stale = self.value(now);
        match (next, self.answer(now)) {
            (Next::Wait(task, found), None) => (Some(task.owner), *found) == (self.task, stale),
            (Next::Answer(Ok(Known::Value(found, for_now))), Some((answer, left))) => {
                match answer {
                    Ok(value) => (*found, *for_now) == (value, left),
                    Err(_) => stale == Some(*found),
                }
            }
            (Next::Answer(Err((error, for_now))), Some((answer, left))) => {
                stale.is_none() && answer == Err(*error) && *for_now == left
            }
            _ => false,
        }
    }
}

proptest! {
    #[test]
    fn but_for_evictions_a_memo_answers_like_one_without_a_bound(
        most in 1_usize..4,
        steps in prop::collection::vec((0_usize..5, 0_u64..40, step()), 0..200),
    ) {
        const KEYS: [&str; 5] = ["always", "a", "b", "c", "d"];
        let mut entries = entries(most);
        let mut model: [Model; 5] = Default::default();
        let mut now = Instant::now();
        for (number, (index, seconds, step)) in (0..).zip(steps) {
            now += Duration::from_secs(seconds);
            let key = KEYS[index];
            match step {
                Step::Look => {
                    let mut running: Vec<u32> = model.iter().filter_map(|model| model.task).collect();
                    let mut started = None;
                    let next = entries.next(key, now, |owners| {
                        let mut owners = owners.to_vec();
                        owners.sort_unstable();
                        running.sort_unstable();
                        assert_eq!(owners, running);
                        started = Some(number);
                        Ok(task(number, now))
                    });
                    prop_assert!(started.is_none() || model[index].task.is_none());
                    model[index].task = model[index].task.or(started);
                    prop_assert!(model[index].allows(&next, now));
                }
                Step::End(result, lifetime) if model[index].task.is_some() => {
                    let ended = result.map(|result| (result.map(|()| number), lifetime));
                    model[index].end(ended, now);
                    entries.finish(key, ended, now);
                    let idle = entries.by_key.iter();
                    let idle = idle.filter(|(key, entry)| entry.task.is_none() && *key != "always");
                    let idle = idle.count();
                    prop_assert!(idle <= most);
                    for (key, model) in KEYS.iter().zip(&mut model) {
                        if !entries.by_key.contains_key(*key) {
                            let is_evicted = *key != "always" && model.task.is_none() && idle == most;
                            prop_assert!(is_evicted || model.is_empty(now));
                            *model = Model::default();
                        }
                    }
                }
                Step::End(..) => {}
            }
        }
    }
}
