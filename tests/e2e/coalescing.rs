//! Many callers of one cold image.

use std::thread;

use anyhow::Result;
use http::StatusCode;
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::{ask, get};
use nixgate_tests::live::stack::Stack;

const PATH: &str = "/v2/gated/manifests/latest";
const FOLLOWERS: u64 = 4;

#[test]
fn when_the_first_caller_hangs_up_the_others_are_answered_from_its_flight() -> Result<()> {
    // Flights belong to a worker, so with one of them there can be no second flight.
    let envoy = envoy::Settings {
        workers: 1,
        ..Default::default()
    };
    let (stack, set) = Stack::gated(envoy, &[])?;
    let port = stack.envoy.port();

    let first = ask(port, PATH)?;
    set.wait_for_start()?;
    let followers: Vec<_> = (0..FOLLOWERS)
        .map(|_| thread::spawn(move || get(port, PATH)))
        .collect();
    stack.envoy.wait_until_it_holds(FOLLOWERS + 1)?;
    drop(first);
    stack.envoy.wait_until_it_holds(FOLLOWERS)?;
    set.open()?;

    for follower in followers {
        let answer = follower.join().expect("the follower's thread ends")?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert_eq!(stack.builder.manifest_requests()?, 1);
    Ok(())
}
