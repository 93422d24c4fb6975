//! A semaphore whose permits go round the rules, rather than to whoever came first.
//!
//! ```text
//!              ┌─ team-a   5 4 3 2 ─┐
//!   waiters ──►├─ team-b   1        ├──► a bounded number of permits ──► dropped: the next waiter
//!              └─ (none)   2 1     ─┘
//!                 round robin over the rules
//! ```
//!
//! Each rule with waiters has a queue, in the order of arrival. After its turn, a rule moves to the end.
//! A new rule is inserted at the end, but before the rule that had the very last turn. So while a rule
//! waits, no other rule gets two permits; and a rule that is alone waits for nobody.
//!
//! Fairness is about the number of permits, not about how long they are held: a build is never
//! interrupted.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Rule;

pub(super) struct FairSemaphore(Shared);

/// Goes to the next waiter when it is dropped.
pub(super) struct Permit(Shared);

/// The state is consistent after each statement, so a panic elsewhere can't corrupt it.
type Shared = Arc<Mutex<State>>;

struct State {
    free: usize,
    waiters: RoundRobin<oneshot::Sender<Permit>>,
}

impl FairSemaphore {
    pub(super) fn new(permits: usize) -> Self {
        let state = State {
            free: permits,
            waiters: RoundRobin::default(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Joins the queue of a rule at once; awaiting the result yields a permit.
    pub(super) fn acquire(&self, rule: &Rule) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().waiters.push(rule, sender);
        hand_out(&self.0);
        Waiter {
            permit: receiver,
            shared: Arc::clone(&self.0),
        }
    }

    #[cfg(test)]
    pub(super) fn available_permits(&self) -> usize {
        self.0.lock().free
    }
}

/// Gives free permits to waiters.
fn hand_out(shared: &Shared) {
    let next = || {
        let mut state = shared.lock();
        let next = (state.free > 0).then(|| state.waiters.pop()).flatten();
        state.free -= usize::from(next.is_some());
        next
    };
    // Without the lock: a permit whose waiter is gone is dropped here, which takes the lock.
    while let Some(waiter) = next() {
        drop(waiter.send(Permit(Arc::clone(shared))));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        hand_out(&self.0);
    }
}

/// Leaves its queue when it is dropped. A permit that arrived meanwhile is dropped with the receiver.
pub(super) struct Waiter {
    permit: oneshot::Receiver<Permit>,
    shared: Shared,
}

impl Future for Waiter {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.permit).poll(context) {
            Poll::Ready(Ok(permit)) => Poll::Ready(permit),
            // The error never comes: the sender stays in its queue until it sends.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.permit.close();
        self.shared.lock().waiters.retain(|one| !one.is_closed());
    }
}

/// A queue for each rule, with turns.
struct RoundRobin<T> {
    /// No queue is empty.
    queues: VecDeque<(Rule, VecDeque<T>)>,
    /// The rule of the last turn.
    last: Option<Rule>,
}

impl<T> Default for RoundRobin<T> {
    fn default() -> Self {
        Self {
            queues: VecDeque::new(),
            last: None,
        }
    }
}

impl<T> RoundRobin<T> {
    fn push(&mut self, rule: &Rule, one: T) {
        if let Some((_, queue)) = self.queues.iter_mut().find(|(other, _)| other == rule) {
            queue.push_back(one);
            return;
        }
        let end = self.queues.back().map(|(rule, _)| rule);
        let had_last_turn = end.is_some() && end == self.last.as_ref();
        let at = self.queues.len() - usize::from(had_last_turn);
        self.queues.insert(at, (rule.clone(), [one].into()));
    }

    fn pop(&mut self) -> Option<T> {
        let (rule, mut queue) = self.queues.pop_front()?;
        let next = queue.pop_front();
        if !queue.is_empty() {
            self.queues.push_back((rule.clone(), queue));
        }
        self.last = Some(rule);
        next
    }

    fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        self.queues.retain_mut(|(_, queue)| {
            queue.retain(&stays);
            !queue.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn rule(name: char) -> Rule {
        Rule::named(&name.to_string())
    }

    /// Joins the queue of a rule.
    fn wait(semaphore: &FairSemaphore, name: char) -> Waiter {
        let mut waiter = semaphore.acquire(&rule(name));
        assert!((&mut waiter).now_or_never().is_none(), "no permit is free");
        waiter
    }

    fn permit_of(waiting: &mut Waiter) -> Option<Permit> {
        waiting.now_or_never()
    }

    #[tokio::test]
    async fn rules_take_permits_and_each_is_first_come_first_served() {
        let semaphore = FairSemaphore::new(1);
        let mut permit = semaphore.acquire(&rule('a')).await;
        let mut waiting: Vec<(usize, Waiter)> = Vec::new();
        let comers = "aaabbaca";
        for (number, name) in comers.chars().enumerate() {
            waiting.push((number, wait(&semaphore, name)));
        }
        let mut order = String::new();
        let mut numbers: BTreeMap<char, Vec<usize>> = BTreeMap::new();
        while !waiting.is_empty() {
            drop(permit);
            let mut come = waiting
                .iter_mut()
                .enumerate()
                .filter_map(|(index, (_, one))| Some((index, permit_of(one)?)));
            let (index, next) = come.next().unwrap();
            assert!(come.next().is_none(), "there is one permit");
            drop(come);
            permit = next;
            let (number, _) = waiting.remove(index);
            let name = comers.chars().nth(number).unwrap();
            order.push(name);
            numbers.entry(name).or_default().push(number);
        }
        assert_eq!(order, "bcabaaaa");
        assert!(numbers.values().all(|numbers| numbers.is_sorted()));
        drop(permit);
        assert_eq!(semaphore.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_new_rule_goes_before_the_rule_of_the_last_permit() {
        let semaphore = FairSemaphore::new(1);
        let permit = semaphore.acquire(&rule('a')).await;
        let (mut hog, mut next) = (wait(&semaphore, 'a'), wait(&semaphore, 'b'));
        drop(permit);
        assert!(permit_of(&mut hog).is_none());
        let permit = permit_of(&mut next).unwrap();
        drop(permit);
        assert!(permit_of(&mut hog).is_some());
    }

    #[tokio::test]
    async fn no_more_permits_are_given_than_there_are() {
        let semaphore = FairSemaphore::new(2);
        let first = semaphore.acquire(&rule('a')).await;
        let second = semaphore.acquire(&Rule::NONE).await;
        let mut third = wait(&semaphore, 'a');
        drop(second);
        let third = permit_of(&mut third).unwrap();
        assert_eq!(semaphore.available_permits(), 0);
        drop((first, third));
        assert_eq!(semaphore.available_permits(), 2);
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_takes_no_permit_along() {
        let semaphore = FairSemaphore::new(1);
        let permit = semaphore.acquire(&rule('a')).await;
        let left_early = wait(&semaphore, 'a');
        let left_late = wait(&semaphore, 'b');
        let mut stays = wait(&semaphore, 'a');
        drop(left_early);
        assert_eq!(semaphore.0.lock().waiters.queues.len(), 2);
        drop(permit);
        // The permit is on its way to `left_late`.
        assert!(permit_of(&mut stays).is_none());
        drop(left_late);
        drop(permit_of(&mut stays).unwrap());
        assert_eq!(semaphore.available_permits(), 1);
        assert!(semaphore.0.lock().waiters.queues.is_empty());
    }

    #[tokio::test]
    async fn a_permit_is_returned_when_its_task_panics() {
        let semaphore = Arc::new(FairSemaphore::new(1));
        let shared = Arc::clone(&semaphore);
        let task = tokio::spawn(async move {
            let _permit = shared.acquire(&rule('a')).await;
            panic!("as the test wants");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(semaphore.available_permits(), 1);
        semaphore.acquire(&rule('b')).await;
    }

    proptest! {
        #[test]
        fn while_a_rule_waits_no_other_rule_gets_two_permits(
            steps in prop::collection::vec(
                prop_oneof![
                    prop::char::range('a', 'e').prop_map(Some),
                    Just(None),
                ],
                0..200,
            ),
        ) {
            let mut robin = RoundRobin::default();
            // Of each rule with waiters: these, and the rules that had turns since it waits.
            let mut lines: BTreeMap<char, (VecDeque<usize>, String)> = BTreeMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                let Some(name) = step else {
                    let Some((name, number)) = robin.pop() else {
                        prop_assert!(lines.is_empty());
                        continue;
                    };
                    for (other, (_, since)) in &mut lines {
                        if *other == name {
                            since.clear();
                        } else {
                            prop_assert!(!since.contains(name), "{name} before {other}");
                            since.push(name);
                        }
                    }
                    let (line, _) = lines.get_mut(&name).unwrap();
                    prop_assert_eq!(line.pop_front(), Some(number));
                    if line.is_empty() {
                        lines.remove(&name);
                    }
                    continue;
                };
                robin.push(&rule(name), (name, number));
                lines.entry(name).or_default().0.push_back(number);
            }
        }
    }
}
