//! Commands are taken one by one, in the shell's own time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const STREAMS: u32 = 40;

fn joined(flights: &mut Flights<u32>, stream: u32, path: &str, now: Seconds) {
    let exchange = ask(path, now);
    flights.on(&config(), Event::Joined { stream, exchange }, now);
}

fn dispatch(flights: &mut Flights<u32>, token: u32) {
    let Some(Command::Call(Call { key, .. })) = flights.next(&config(), 0) else {
        panic!("a callout is due");
    };
    flights.on(&config(), Event::Dispatched { key, token }, 0);
}

#[test]
fn an_answer_is_for_all_who_wait_in_the_order_in_which_they_came() {
    let mut flights = Flights::default();
    for stream in 1..=STREAMS {
        joined(&mut flights, stream, GIT, 0);
    }
    dispatch(&mut flights, 7);
    assert!(!flights.has_due());
    let response = manifest(b"{}", 0);
    flights.on(&config(), Event::Answered { token: 7, response }, 1);
    for stream in 1..=STREAMS {
        assert!(flights.has_due());
        let command = flights.next(&config(), 1).into_iter().collect::<Vec<_>>();
        assert_eq!(statuses(&command), [(stream, 200)]);
    }
    assert_eq!(flights.next(&config(), 1), None);
    for stream in 1..=STREAMS {
        flights.on(&config(), Event::Left { stream }, 1);
    }
    assert!(flights.is_empty());
}

#[test]
fn a_policy_that_comes_between_two_replies_is_obeyed_by_the_second() {
    let mut flights = Flights::default();
    for stream in 1..=3 {
        joined(&mut flights, stream, GIT, 0);
    }
    dispatch(&mut flights, 7);
    let response = manifest(b"{}", 0);
    flights.on(&config(), Event::Answered { token: 7, response }, 1);
    let first: Vec<_> = flights.next(&config(), 1).into_iter().collect();
    flights.mark_outdated();
    let rest: Vec<_> = std::iter::from_fn(|| flights.next(&config(), 1)).collect();
    assert_eq!(statuses(&first), [(1, 200)]);
    assert_eq!(statuses(&rest), [(2, 307), (3, 307)]);
}

proptest! {
    /// Whatever happens, each stream gets one answer at most, and one that stays gets one.
    #[test]
    fn who_stays_is_answered_once(
        steps in prop::collection::vec((0..6_u8, 1..=STREAMS, 0..3_usize), 0..200),
    ) {
        const PATHS: [&str; 3] = [GIT, "/v2/htop/manifests/latest", "/v2/git/tags/list"];
        let mut flights = Flights::default();
        let (mut joined_streams, mut left) = (BTreeSet::new(), BTreeSet::new());
        let mut answers: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut open, mut tokens, mut next_stream, mut now) = (Vec::new(), 0, 0, 0);
        let mut take = |flights: &mut Flights<u32>, open: &mut Vec<u32>, now| {
            match flights.next(&config(), now) {
                Some(Command::Reply(stream, _) | Command::Forward(stream, _)) => {
                    *answers.entry(stream).or_default() += 1;
                }
                Some(Command::Call(Call { key, .. })) if tokens % 5 == 4 => {
                    tokens += 1;
                    flights.on(&config(), Event::NotDispatched { key }, now);
                }
                Some(Command::Call(Call { key, .. })) => {
                    tokens += 1;
                    open.push(tokens);
                    flights.on(&config(), Event::Dispatched { key, token: tokens }, now);
                }
                Some(Command::Store(..)) => {}
                None => return false,
            }
            true
        };
        for (step, stream, number) in steps {
            match step {
                0 | 1 => {
                    next_stream += 1;
                    joined(&mut flights, next_stream, PATHS[number], now);
                    joined_streams.insert(next_stream);
                }
                2 => {
                    flights.on(&config(), Event::Left { stream }, now);
                    left.insert(stream);
                }
                3 if !open.is_empty() => {
                    let token = open.remove(number % open.len());
                    let response = match number {
                        0 => manifest(b"{}", 300),
                        1 => response(202, &[], b""),
                        _ => response(429, &[], REFUSAL),
                    };
                    flights.on(&config(), Event::Answered { token, response }, now);
                }
                4 => {
                    now += 1;
                    flights.on(&config(), Event::Tick, now);
                }
                _ => {
                    take(&mut flights, &mut open, now);
                }
            }
        }
        // In the end the builder answers everything.
        while take(&mut flights, &mut open, now) || !open.is_empty() || flights.has_waiting() {
            for token in std::mem::take(&mut open) {
                let response = response(404, &[], REFUSAL);
                flights.on(&config(), Event::Answered { token, response }, now);
            }
            now += 1;
            flights.on(&config(), Event::Tick, now);
        }
        for stream in joined_streams {
            flights.on(&config(), Event::Left { stream }, now);
            let count = answers.get(&stream).copied().unwrap_or(0);
            prop_assert!(count == 1 || (count == 0 && left.contains(&stream)), "{stream}: {count}");
        }
        prop_assert!(flights.is_empty());
    }
}
