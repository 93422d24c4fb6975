//! One build per image, shared by all callers.
//!
//! A build is a task that outlives its callers ([`Memo`]). A success is not kept: storage answers from
//! then on. A failure is kept for a short time ([`negative_ttl`]) when another build would most likely
//! fail too: so that a client that retries does not rebuild a broken package in a loop. Callers get the
//! time that is left, since the edge keeps the failure as well. Other failures, such as an unavailable
//! storage, are not kept.
//!
//! The builds that run or wait for their turn are the queue. A full queue refuses new images at once,
//! except for a rule that has less than its share of the places ([`Rule`]). A caller that joins a
//! build takes no place.

use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use nixgate_core::distribution::{Error, ErrorKind};

use super::{Builder, ImageRequest, Rule};
use crate::memo::{Bound, Known, Lifetime, Memo, Panicked};
use crate::negative_ttl;

/// The state of a build.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Progress {
    /// Published.
    Done,
    /// Failed. The failure is kept for so much longer.
    Failed(Error, Duration),
    /// Running, for so long already.
    Running(Duration),
}

/// See the module.
pub(crate) struct SingleFlight<B> {
    builder: Arc<B>,
    builds: Memo<(), Error, Rule>,
    max_queue: usize,
}

impl<B: Builder> SingleFlight<B> {
    /// Shares the builds of `builder`. Its queue has `max_queue` places, and a few more for fairness.
    pub(crate) fn new(builder: B, max_queue: usize) -> Self {
        Self {
            builder: Arc::new(builder),
            builds: Memo::new(Bound::NONE),
            max_queue,
        }
    }

    pub(crate) fn builder(&self) -> &B {
        &self.builder
    }

    /// Joins the build of an image, or starts it for `rule`, and waits at most `wait`.
    pub(crate) async fn build(&self, image: ImageRequest, rule: Rule, wait: Duration) -> Progress {
        let key = image.fingerprint();
        let start = |queue: &[Rule]| {
            if !rule.is_taken_in(queue, self.max_queue) {
                let message = format!(
                    "the builder's queue is full ({} images): pull again later, or ask the \
                     registry's administrator for more builders",
                    queue.len()
                );
                return Err(Error::new(ErrorKind::TooBusy, message));
            }
            let (builder, rule, key) = (Arc::clone(&self.builder), rule.clone(), key.clone());
            let build = async move {
                let result = builder.build(&image, &rule).await;
                let lifetime = match &result {
                    Err(error) if is_kept(error.kind) => {
                        Lifetime::fresh(negative_ttl::hold_for(&key))
                    }
                    _ => Lifetime::NONE,
                };
                (result, lifetime)
            };
            Ok(build.boxed())
        };
        match self.builds.get(&key, wait, rule.clone(), start).await {
            Ok(Known::Value((), _)) => Progress::Done,
            Ok(Known::Pending(elapsed)) => Progress::Running(elapsed),
            Err((error, left)) => Progress::Failed(error, left),
        }
    }

    /// The same, without a limit of time.
    pub(crate) async fn finish(&self, image: &ImageRequest, rule: &Rule) -> Result<(), Error> {
        loop {
            let build = self.build(image.clone(), rule.clone(), Duration::MAX);
            match build.await {
                Progress::Running(_) => {}
                Progress::Done => return Ok(()),
                Progress::Failed(error, _) => return Err(error),
            }
        }
    }
}

impl From<Panicked> for Error {
    fn from(_: Panicked) -> Self {
        let message = "the build ended without a result: see the builder's log";
        Self::new(ErrorKind::Internal, message)
    }
}

/// Whether another build would most likely fail too. A build that is killed and a package that was
/// altered count, though the packages may not be at fault: they can cause both.
const fn is_kept(kind: ErrorKind) -> bool {
    kind.lasts() || matches!(kind, ErrorKind::BuildBroken | ErrorKind::PackageAltered)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Builds once `open` has a permit. The name of the package is the outcome.
    struct Barrier {
        open: Arc<Semaphore>,
        builds: Arc<AtomicUsize>,
    }

    impl Builder for Barrier {
        async fn build(&self, image: &ImageRequest, _: &Rule) -> Result<(), Error> {
            self.builds.fetch_add(1, Ordering::SeqCst);
            self.open.acquire().await.unwrap().forget();
            match image.packages[0].as_str() {
                "broken" => Err(Error::new(ErrorKind::BuildFailed, "broken")),
                "killed" => Err(Error::new(ErrorKind::BuildBroken, "killed")),
                "altered" => Err(Error::new(ErrorKind::PackageAltered, "altered")),
                "unready" => Err(Error::new(ErrorKind::BuilderUnready, "no storage")),
                "panic" => panic!("on purpose"),
                _ => Ok(()),
            }
        }
    }

    fn image(package: &str) -> ImageRequest {
        ImageRequest::example(&[package])
    }

    const NO_TIME: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(60);

    fn single_flight() -> (SingleFlight<Barrier>, Arc<Semaphore>, Arc<AtomicUsize>) {
        let (open, builds) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let barrier = Barrier {
            open: Arc::clone(&open),
            builds: Arc::clone(&builds),
        };
        (SingleFlight::new(barrier, 2), open, builds)
    }

    #[tokio::test]
    async fn a_build_outlives_its_first_caller_and_serves_the_others() {
        let (flights, open, builds) = single_flight();
        assert!(matches!(
            flights.build(image("git"), Rule::NONE, NO_TIME).await,
            Progress::Running(_)
        ));
        let second = flights.build(image("git"), Rule::NONE, LONG);
        let third = flights.build(image("git"), Rule::NONE, LONG);
        open.add_permits(1);
        let (second, third) = tokio::join!(second, third);
        assert_eq!((second, third), (Progress::Done, Progress::Done));
        assert_eq!(builds.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_a_new_image_at_once_and_lets_callers_join() {
        let (flights, open, builds) = single_flight();
        let too_busy = |progress| match progress {
            Progress::Failed(error, _) => error.kind == ErrorKind::TooBusy,
            _ => false,
        };
        for package in ["git", "broken"] {
            let progress = flights.build(image(package), Rule::NONE, NO_TIME).await;
            assert!(matches!(progress, Progress::Running(_)), "{package}");
        }
        assert!(too_busy(
            flights.build(image("htop"), Rule::NONE, LONG).await
        ));
        let joined = flights.build(image("git"), Rule::NONE, LONG);
        open.add_permits(2);
        assert_eq!(joined.await, Progress::Done);
        let failed = flights.build(image("broken"), Rule::NONE, LONG).await;
        assert!(matches!(failed, Progress::Failed(..)) && !too_busy(failed));

        // Neither a kept failure nor a refusal takes a place.
        for package in ["htop", "nano"] {
            let progress = flights.build(image(package), Rule::NONE, NO_TIME).await;
            assert!(matches!(progress, Progress::Running(_)), "{package}");
        }
        assert!(too_busy(
            flights.build(image("curl"), Rule::NONE, LONG).await
        ));
        open.add_permits(2);
        let built = flights.build(image("nano"), Rule::NONE, LONG).await;
        assert_eq!(built, Progress::Done);
        assert_eq!(builds.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_full_queue_admits_a_rule_below_its_share_and_joining_takes_no_place() {
        let (flights, open, _) = single_flight();
        let ask = async |package, rule| match flights
            .build(image(package), Rule::named(rule), NO_TIME)
            .await
        {
            Progress::Running(_) => true,
            Progress::Failed(error, _) if error.kind == ErrorKind::TooBusy => false,
            other => panic!("{package} for {rule}: {other:?}"),
        };
        for (package, rule, is_admitted) in [
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
            assert_eq!(
                ask(package, rule).await,
                is_admitted,
                "{package} for {rule}"
            );
        }
        open.add_permits(4);
        let all = ["git", "htop", "nano", "curl"];
        let all = all.map(|package| flights.build(image(package), Rule::NONE, LONG));
        for built in futures::future::join_all(all).await {
            assert_eq!(built, Progress::Done);
        }
        // A rule that is alone has all places again.
        for package in ["jq", "rsync"] {
            assert!(ask(package, "b").await, "{package}");
        }
        assert!(!ask("vim", "b").await);
    }

    #[tokio::test]
    async fn a_failure_is_kept_and_affects_no_other_image() {
        let (flights, open, builds) = single_flight();
        open.add_permits(3);
        let hold = negative_ttl::hold_for(&image("broken").fingerprint());
        let mut left = Vec::new();
        for _ in 0..3 {
            match flights.build(image("broken"), Rule::NONE, LONG).await {
                Progress::Failed(error, rest) if error.kind == ErrorKind::BuildFailed => {
                    left.push(rest);
                }
                other => panic!("{other:?}"),
            }
        }
        // Callers get the time that is left: no answer prolongs the first one.
        assert!(left.is_sorted_by(|one, next| one > next), "{left:?}");
        assert!(left[0] <= hold && left[2] > Duration::ZERO, "{left:?}");
        assert_eq!(builds.load(Ordering::SeqCst), 1);
        assert_eq!(
            flights.build(image("git"), Rule::NONE, LONG).await,
            Progress::Done
        );
        assert_eq!(builds.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn failures_that_packages_can_cause_are_kept_whoever_is_at_fault() {
        for (package, kind) in [
            ("killed", ErrorKind::BuildBroken),
            ("altered", ErrorKind::PackageAltered),
        ] {
            let (flights, open, builds) = single_flight();
            open.add_permits(3);
            for _ in 0..3 {
                match flights.build(image(package), Rule::NONE, LONG).await {
                    Progress::Failed(error, left) if error.kind == kind => {
                        assert!(error.kind.is_transient() && left > Duration::ZERO);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(flights.builds.keys().len(), 1);
            assert_eq!(builds.load(Ordering::SeqCst), 1);
        }
    }

    #[tokio::test]
    async fn a_transient_failure_is_not_kept() {
        let (flights, open, builds) = single_flight();
        open.add_permits(2);
        for _ in 0..2 {
            let progress = flights.build(image("unready"), Rule::NONE, LONG).await;
            assert!(
                matches!(progress, Progress::Failed(error, _) if error.kind == ErrorKind::BuilderUnready)
            );
            assert!(flights.builds.keys().is_empty());
        }
        assert_eq!(builds.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_build_that_panics_is_an_error_that_is_not_kept() {
        let (flights, open, builds) = single_flight();
        open.add_permits(2);
        for _ in 0..2 {
            let progress = flights.build(image("panic"), Rule::NONE, LONG).await;
            assert!(
                matches!(progress, Progress::Failed(error, _) if error.kind == ErrorKind::Internal)
            );
        }
        assert_eq!(builds.load(Ordering::SeqCst), 2);
    }
}
