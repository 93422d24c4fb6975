//! Turns, given to the rules one after the other rather than to whoever came first.
//!
//! ```text
//!                 ┌─ team-a   5 4 3 2 ─┐
//!   who waits ──► ├─ team-b   1        ├──► so many turns at a time ──► dropped: the next
//!                 └─ (none)   2 1     ─┘
//!                    the rules take one turn each, in a circle
//! ```
//!
//! Each rule that has somebody waiting has a line of its own, in the order in which they came. The
//! lines take turns: that which has had one goes to the end of the circle, and a line that is new
//! gets in at the end, but before the one that had the very last turn. So while somebody waits, no
//! other rule takes two turns before theirs takes one, and who is alone waits for nobody.
//!
//! Turns are about how many there are of a rule, not about how long they take: a build is never
//! interrupted.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::Rule;

/// So many turns at a time.
pub(super) struct FairSemaphore(Arc<Inside>);

/// One turn, which goes to the next when it is dropped.
pub(super) struct Turn(Arc<Inside>);

struct Inside(Mutex<State>);

struct State {
    free: usize,
    circle: Circle<oneshot::Sender<Turn>>,
}

impl FairSemaphore {
    /// Gives at most `turns` at a time.
    pub(super) fn new(turns: usize) -> Self {
        let circle = Circle::default();
        let state = State {
            free: turns,
            circle,
        };
        Self(Arc::new(Inside(Mutex::new(state))))
    }

    /// Gets into the line of this rule, and has a turn when the place is awaited.
    pub(super) fn turn(&self, rule: &Rule) -> Place {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().circle.join(rule, sender);
        self.0.hand_out();
        Place {
            turn: receiver,
            inside: Arc::clone(&self.0),
        }
    }

    /// How many turns nobody has.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.lock().free
    }
}

impl Inside {
    /// The state is whole between any two statements, so a panic elsewhere doesn't spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the turns that are free to those who wait.
    fn hand_out(self: &Arc<Self>) {
        let next = || {
            let mut state = self.lock();
            let next = (state.free > 0).then(|| state.circle.next()).flatten();
            state.free -= usize::from(next.is_some());
            next
        };
        // Not under the lock: a turn that meets nobody any more is dropped, and handed out anew.
        while let Some(waiting) = next() {
            drop(waiting.send(Turn(Arc::clone(self))));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.hand_out();
    }
}

/// A place in a line, which is given up when it is dropped. A turn that comes meanwhile is in the
/// receiver, and is dropped with it.
pub(super) struct Place {
    turn: oneshot::Receiver<Turn>,
    inside: Arc<Inside>,
}

impl Future for Place {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.turn).poll(context) {
            Poll::Ready(Ok(turn)) => Poll::Ready(turn),
            // Whoever has a place is in the circle until its turn, so the error never comes.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turn.close();
        self.inside.lock().circle.retain(|one| !one.is_closed());
    }
}

/// Who waits, in the order of the turns.
struct Circle<T> {
    /// None is empty.
    lines: VecDeque<(Rule, VecDeque<T>)>,
    /// Whose the last turn was.
    last: Option<Rule>,
}

impl<T> Default for Circle<T> {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            last: None,
        }
    }
}

impl<T> Circle<T> {
    fn join(&mut self, rule: &Rule, one: T) {
        if let Some((_, line)) = self.lines.iter_mut().find(|(other, _)| other == rule) {
            line.push_back(one);
            return;
        }
        let end = self.lines.back().map(|(rule, _)| rule);
        let had_the_last = end.is_some() && end == self.last.as_ref();
        let place = self.lines.len() - usize::from(had_the_last);
        self.lines.insert(place, (rule.clone(), [one].into()));
    }

    fn next(&mut self) -> Option<T> {
        let (rule, mut line) = self.lines.pop_front()?;
        let next = line.pop_front();
        if !line.is_empty() {
            self.lines.push_back((rule.clone(), line));
        }
        self.last = Some(rule);
        next
    }

    fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        self.lines.retain_mut(|(_, line)| {
            line.retain(&stays);
            !line.is_empty()
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

    /// Gets into the line of a rule.
    fn wait(turnstile: &FairSemaphore, name: char) -> Place {
        let mut turn = turnstile.turn(&rule(name));
        assert!((&mut turn).now_or_never().is_none(), "all turns are taken");
        turn
    }

    fn has_come(waiting: &mut Place) -> Option<Turn> {
        waiting.now_or_never()
    }

    #[tokio::test]
    async fn the_rules_take_turns_and_each_gives_its_own_to_who_came_first() {
        let turnstile = FairSemaphore::new(1);
        let mut turn = turnstile.turn(&rule('a')).await;
        let mut waiting: Vec<(usize, Place)> = Vec::new();
        let comers = "aaabbaca";
        for (number, name) in comers.chars().enumerate() {
            waiting.push((number, wait(&turnstile, name)));
        }
        let mut order = String::new();
        let mut numbers: BTreeMap<char, Vec<usize>> = BTreeMap::new();
        while !waiting.is_empty() {
            drop(turn);
            let mut come = waiting
                .iter_mut()
                .enumerate()
                .filter_map(|(index, (_, one))| Some((index, has_come(one)?)));
            let (index, next) = come.next().unwrap();
            assert!(come.next().is_none(), "there is one turn");
            drop(come);
            turn = next;
            let (number, _) = waiting.remove(index);
            let name = comers.chars().nth(number).unwrap();
            order.push(name);
            numbers.entry(name).or_default().push(number);
        }
        assert_eq!(order, "bcabaaaa");
        assert!(numbers.values().all(|numbers| numbers.is_sorted()));
        drop(turn);
        assert_eq!(turnstile.free(), 1);
    }

    #[tokio::test]
    async fn who_comes_is_before_the_rule_that_had_the_last_turn() {
        let turnstile = FairSemaphore::new(1);
        let turn = turnstile.turn(&rule('a')).await;
        let (mut hog, mut next) = (wait(&turnstile, 'a'), wait(&turnstile, 'b'));
        drop(turn);
        assert!(has_come(&mut hog).is_none());
        let turn = has_come(&mut next).unwrap();
        drop(turn);
        assert!(has_come(&mut hog).is_some());
    }

    #[tokio::test]
    async fn as_many_turns_are_taken_as_there_are() {
        let turnstile = FairSemaphore::new(2);
        let first = turnstile.turn(&rule('a')).await;
        let second = turnstile.turn(&Rule::NONE).await;
        let mut third = wait(&turnstile, 'a');
        drop(second);
        let third = has_come(&mut third).unwrap();
        assert_eq!(turnstile.free(), 0);
        drop((first, third));
        assert_eq!(turnstile.free(), 2);
    }

    #[tokio::test]
    async fn who_leaves_takes_nobodys_turn_with_them() {
        let turnstile = FairSemaphore::new(1);
        let turn = turnstile.turn(&rule('a')).await;
        let left_early = wait(&turnstile, 'a');
        let left_late = wait(&turnstile, 'b');
        let mut stays = wait(&turnstile, 'a');
        drop(left_early);
        assert_eq!(turnstile.0.lock().circle.lines.len(), 2);
        drop(turn);
        // The turn is on its way to this one.
        assert!(has_come(&mut stays).is_none());
        drop(left_late);
        drop(has_come(&mut stays).unwrap());
        assert_eq!(turnstile.free(), 1);
        assert!(turnstile.0.lock().circle.lines.is_empty());
    }

    #[tokio::test]
    async fn a_turn_outlives_no_panic() {
        let turnstile = Arc::new(FairSemaphore::new(1));
        let shared = Arc::clone(&turnstile);
        let task = tokio::spawn(async move {
            let _turn = shared.turn(&rule('a')).await;
            panic!("as the test wants");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(turnstile.free(), 1);
        turnstile.turn(&rule('b')).await;
    }

    proptest! {
        #[test]
        fn while_somebody_waits_no_other_rule_takes_two_turns(
            steps in prop::collection::vec(
                prop_oneof![
                    prop::char::range('a', 'e').prop_map(Some),
                    Just(None),
                ],
                0..200,
            ),
        ) {
            let mut circle = Circle::default();
            // Of each rule that has a line: who is in it, and who had turns since it has waited.
            let mut lines: BTreeMap<char, (VecDeque<usize>, String)> = BTreeMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                let Some(name) = step else {
                    let Some((name, number)) = circle.next() else {
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
                circle.join(&rule(name), (name, number));
                lines.entry(name).or_default().0.push_back(number);
            }
        }
    }
}
