//! One build per image, whoever asks and however often; it outlives every caller.
//!
//! A build is a task of its own. Callers watch it for as long as they care to wait, and leave
//! without disturbing it. A failure of the packages is remembered for a short while ([`refusals`]),
//! so that a client that insists does not rebuild a broken package in a loop; callers are told for how
//! much longer, since the edge remembers it as well. So is a failure that is not said to be the packages'
//! fault and that they can bring about, such as a build that is killed. What failed for want of something
//! else, such as storage for a moment, is tried again for the next who asks.
//!
//! The builds that run or wait for their turn are the queue, and it has a bound: one image more is
//! refused at once, rather than kept waiting for hours, but for a rule that has less than its share
//! of the places ([`Rule`] says which). Whoever asks for an image of the queue joins its build as
//! ever, and takes no place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nixgate_core::distribution::{Error, ErrorKind};
use tokio::sync::watch;
use tracing::Instrument;

use super::{Builder, ImageRequest, Rule};
use crate::negative_ttl;

/// How long somebody watches who waits for the end, before it is looked at again.
const WATCH: Duration = Duration::from_secs(3600);

type Outcome = Result<(), Error>;
/// Where a build's outcome appears, and until when that is remembered if it is a refusal.
type Ended = watch::Receiver<Option<(Instant, Outcome)>>;
/// When a build started, and its end.
type Watched = (Instant, Ended);

/// How far a build is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Progress {
    /// Published.
    Done,
    /// Failed. A failure that lasts is the answer for so much longer.
    Failed(Error, Duration),
    /// Still running, for so long.
    Running(Duration),
}

struct Build {
    /// Of whoever asked first.
    rule: Rule,
    started: Instant,
    outcome: Ended,
}

type Builds = Arc<Mutex<BTreeMap<String, Build>>>;

/// See the module.
pub(crate) struct SingleFlight<B> {
    builder: Arc<B>,
    builds: Builds,
    max_queue: usize,
}

impl<B: Builder> SingleFlight<B> {
    /// Shares the builds of `builder`, and lets it have at most `max_queue` to do, or a few more when
    /// that is only fair.
    pub(crate) fn new(builder: B, max_queue: usize) -> Self {
        Self {
            max_queue,
            builder: Arc::new(builder),
            builds: Builds::default(),
        }
    }

    /// Joins the build of an image, or starts it for `rule`, and waits for at most `wait`.
    pub(crate) async fn build(&self, image: ImageRequest, rule: Rule, wait: Duration) -> Progress {
        let (started, mut outcome) = match self.join(image, rule) {
            Ok(build) => build,
            Err(error) => return Progress::Failed(error, Duration::ZERO),
        };
        let done = outcome.wait_for(Option::is_some);
        match tokio::time::timeout(wait, done).await {
            Err(_) => Progress::Running(started.elapsed()),
            Ok(Ok(outcome)) => match &*outcome {
                Some((_, Ok(()))) => Progress::Done,
                Some((until, Err(error))) => {
                    let left = until.saturating_duration_since(Instant::now());
                    Progress::Failed(error.clone(), left)
                }
                None => Progress::Running(started.elapsed()),
            },
            Ok(Err(_)) => {
                let message = "the build ended without a result; the builder's log says why";
                Progress::Failed(Error::new(ErrorKind::Internal, message), Duration::ZERO)
            }
        }
    }

    /// The same, however long it takes.
    pub(crate) async fn finish(&self, image: &ImageRequest, rule: &Rule) -> Result<(), Error> {
        loop {
            match self.build(image.clone(), rule.clone(), WATCH).await {
                Progress::Running(_) => {}
                Progress::Done => return Ok(()),
                Progress::Failed(error, _) => return Err(error),
            }
        }
    }

    fn join(&self, image: ImageRequest, rule: Rule) -> Result<Watched, Error> {
        let key = image.fingerprint();
        let mut builds = lock(&self.builds);
        builds.retain(|_, build| !is_forgotten(build));
        if let Some(build) = builds.get(&key) {
            return Ok((build.started, build.outcome.clone()));
        }
        let unfinished = |build: &&Build| build.outcome.borrow().is_none();
        let queue = builds.values().filter(unfinished).map(|build| &build.rule);
        if !rule.is_taken_in(queue.clone(), self.max_queue) {
            let queue = queue.count();
            let message = format!(
                "the builder has {queue} images to build already and takes on no more: pull again \
                 in a while, or ask the registry's administrator for more builders"
            );
            return Err(Error::new(ErrorKind::TooBusy, message));
        }
        let (sender, outcome) = watch::channel(None);
        let started = Instant::now();
        let build = Build {
            rule: rule.clone(),
            started,
            outcome: outcome.clone(),
        };
        builds.insert(key.clone(), build);
        let (builder, builds) = (Arc::clone(&self.builder), Arc::clone(&self.builds));
        // What is logged of the build names the request that began it.
        let task = async move {
            let result = builder.build(&image, &rule).await;
            // What succeeded, storage answers from now on.
            let remembered = result
                .as_ref()
                .is_err_and(|error| is_remembered(error.kind));
            let until = Instant::now() + negative_ttl::hold_for(&key);
            sender.send_replace(Some((until, result)));
            if !remembered {
                lock(&builds).remove(&key);
            }
        };
        tokio::spawn(task.in_current_span());
        Ok((started, outcome))
    }
}

/// Whether the same would be done once more in vain, or in a loop, if it were tried for each who asks.
const fn is_remembered(kind: ErrorKind) -> bool {
    kind.lasts() || matches!(kind, ErrorKind::BuildBroken | ErrorKind::PackageAltered)
}

/// A failure whose time is up, or a build whose task is no more.
fn is_forgotten(build: &Build) -> bool {
    match &*build.outcome.borrow() {
        Some((until, _)) => *until <= Instant::now(),
        None => build.outcome.has_changed().is_err(),
    }
}

/// The map is whole between any two statements, so a panic elsewhere doesn't spoil it.
fn lock(builds: &Mutex<BTreeMap<String, Build>>) -> MutexGuard<'_, BTreeMap<String, Build>> {
    builds.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::BoxFuture;
    use tokio::sync::Semaphore;

    use super::*;

    /// Builds when it is let; packages called `broken` fail, `unready` finds no storage,
    /// `panic` panics.
    struct Gate {
        open: Arc<Semaphore>,
        builds: Arc<AtomicUsize>,
    }

    impl Builder for Gate {
        fn build<'a>(&'a self, image: &'a ImageRequest, _: &'a Rule) -> BoxFuture<'a, Outcome> {
            Box::pin(async {
                self.builds.fetch_add(1, Ordering::SeqCst);
                self.open.acquire().await.unwrap().forget();
                match image.packages[0].as_str() {
                    "broken" => Err(Error::new(ErrorKind::BuildFailed, "broken")),
                    "killed" => Err(Error::new(ErrorKind::BuildBroken, "killed")),
                    "altered" => Err(Error::new(ErrorKind::PackageAltered, "altered")),
                    "unready" => Err(Error::new(ErrorKind::BuilderUnready, "no storage")),
                    "panic" => panic!("as the test wants"),
                    _ => Ok(()),
                }
            })
        }
    }

    fn image(package: &str) -> ImageRequest {
        ImageRequest::example(&[package])
    }

    const NO_TIME: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(60);

    fn coalesce() -> (SingleFlight<Gate>, Arc<Semaphore>, Arc<AtomicUsize>) {
        let (open, builds) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Gate {
            open: Arc::clone(&open),
            builds: Arc::clone(&builds),
        };
        (SingleFlight::new(gate, 2), open, builds)
    }

    #[tokio::test]
    async fn a_build_outlives_its_first_caller_and_serves_the_others() {
        let (coalesce, open, builds) = coalesce();
        assert!(matches!(
            coalesce.build(image("git"), Rule::NONE, NO_TIME).await,
            Progress::Running(_)
        ));
        let second = coalesce.build(image("git"), Rule::NONE, LONG);
        let third = coalesce.build(image("git"), Rule::NONE, LONG);
        open.add_permits(1);
        let (second, third) = tokio::join!(second, third);
        assert_eq!((second, third), (Progress::Done, Progress::Done));
        assert_eq!(builds.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn one_image_too_many_is_refused_at_once_and_those_of_the_queue_are_joined() {
        let (coalesce, open, builds) = coalesce();
        let too_busy = |progress| match progress {
            Progress::Failed(error, _) => error.kind == ErrorKind::TooBusy,
            _ => false,
        };
        for package in ["git", "broken"] {
            let progress = coalesce.build(image(package), Rule::NONE, NO_TIME).await;
            assert!(matches!(progress, Progress::Running(_)), "{package}");
        }
        assert!(too_busy(
            coalesce.build(image("htop"), Rule::NONE, LONG).await
        ));
        let joined = coalesce.build(image("git"), Rule::NONE, LONG);
        open.add_permits(2);
        assert_eq!(joined.await, Progress::Done);
        let failed = coalesce.build(image("broken"), Rule::NONE, LONG).await;
        assert!(matches!(failed, Progress::Failed(..)) && !too_busy(failed));

        // Neither a failure that is remembered nor a refusal takes a place.
        for package in ["htop", "nano"] {
            let progress = coalesce.build(image(package), Rule::NONE, NO_TIME).await;
            assert!(matches!(progress, Progress::Running(_)), "{package}");
        }
        assert!(too_busy(
            coalesce.build(image("curl"), Rule::NONE, LONG).await
        ));
        open.add_permits(2);
        let built = coalesce.build(image("nano"), Rule::NONE, LONG).await;
        assert_eq!(built, Progress::Done);
        assert_eq!(builds.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_full_queue_takes_in_who_has_less_than_a_share_and_joiners_take_no_place() {
        let (coalesce, open, _) = coalesce();
        let ask = async |package, rule| match coalesce
            .build(image(package), Rule::named(rule), NO_TIME)
            .await
        {
            Progress::Running(_) => true,
            Progress::Failed(error, _) if error.kind == ErrorKind::TooBusy => false,
            other => panic!("{package} for {rule}: {other:?}"),
        };
        for (package, rule, is_taken) in [
            ("git", "a", true),
            ("htop", "a", true),
            ("nano", "a", false),
            // Two images of the other rule are joined.
            ("git", "b", true),
            ("htop", "b", true),
            ("nano", "b", true),
            ("curl", "b", false),
            ("curl", "c", true),
            ("jq", "a", false),
        ] {
            assert_eq!(ask(package, rule).await, is_taken, "{package} for {rule}");
        }
        open.add_permits(4);
        let all = ["git", "htop", "nano", "curl"];
        let all = all.map(|package| coalesce.build(image(package), Rule::NONE, LONG));
        for built in futures::future::join_all(all).await {
            assert_eq!(built, Progress::Done);
        }
        // Who is alone has all places again.
        for package in ["jq", "rsync"] {
            assert!(ask(package, "b").await, "{package}");
        }
        assert!(!ask("vim", "b").await);
    }

    #[tokio::test]
    async fn a_failure_is_remembered_and_other_images_are_not_touched() {
        let (coalesce, open, builds) = coalesce();
        open.add_permits(3);
        let hold = negative_ttl::hold_for(&image("broken").fingerprint());
        let mut left = Vec::new();
        for _ in 0..3 {
            match coalesce.build(image("broken"), Rule::NONE, LONG).await {
                Progress::Failed(error, rest) if error.kind == ErrorKind::BuildFailed => {
                    left.push(rest);
                }
                other => panic!("{other:?}"),
            }
        }
        // What is told is what is left: no answer prolongs what the first one said.
        assert!(left.is_sorted_by(|one, next| one > next), "{left:?}");
        assert!(left[0] <= hold && left[2] > Duration::ZERO, "{left:?}");
        assert_eq!(builds.load(Ordering::SeqCst), 1);
        assert_eq!(
            coalesce.build(image("git"), Rule::NONE, LONG).await,
            Progress::Done
        );
        assert_eq!(builds.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn what_packages_can_bring_about_is_remembered_whosever_fault_it_is() {
        for (package, kind) in [
            ("killed", ErrorKind::BuildBroken),
            ("altered", ErrorKind::PackageAltered),
        ] {
            let (coalesce, open, builds) = coalesce();
            open.add_permits(3);
            for _ in 0..3 {
                match coalesce.build(image(package), Rule::NONE, LONG).await {
                    Progress::Failed(error, left) if error.kind == kind => {
                        assert!(error.kind.is_transient() && left > Duration::ZERO);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(lock(&coalesce.builds).len(), 1);
            assert_eq!(builds.load(Ordering::SeqCst), 1);
        }
    }

    #[tokio::test]
    async fn what_may_pass_at_any_moment_is_tried_again() {
        let (coalesce, open, builds) = coalesce();
        open.add_permits(2);
        for _ in 0..2 {
            let progress = coalesce.build(image("unready"), Rule::NONE, LONG).await;
            assert!(
                matches!(progress, Progress::Failed(error, _) if error.kind == ErrorKind::BuilderUnready)
            );
            // The caller may be told before the task has tidied up.
            while !lock(&coalesce.builds).is_empty() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(builds.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_build_that_panics_is_an_error_and_not_for_ever() {
        let (coalesce, open, builds) = coalesce();
        open.add_permits(2);
        for _ in 0..2 {
            let progress = coalesce.build(image("panic"), Rule::NONE, LONG).await;
            assert!(
                matches!(progress, Progress::Failed(error, _) if error.kind == ErrorKind::Internal)
            );
        }
        assert_eq!(builds.load(Ordering::SeqCst), 2);
    }
}
