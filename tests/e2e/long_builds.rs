//! A build that takes longer than clients wait for an answer, and many who want its image.
//!
//! `NIXGATE_TEST_BUILD_SECONDS` says how long it takes, 65 s if unset: three holds and a bit.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::clients::containerd::Containerd;
use nixgate_tests::live::clients::docker::Docker;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::get_within;
use nixgate_tests::live::scratch;
use nixgate_tests::live::stack::Stack;

const BUILD_SECONDS: u64 = 65;
const CLIENTS: u64 = 20;
/// Between two clients, so that their holds end at different times.
const STAGGER: Duration = Duration::from_secs(1);
/// Current containerd and Docker wait no longer for the headers of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

fn build_time() -> Result<Duration> {
    let text = std::env::var("NIXGATE_TEST_BUILD_SECONDS");
    let seconds = text.map_or(Ok(BUILD_SECONDS), |text| text.parse());
    let seconds = seconds.context("NIXGATE_TEST_BUILD_SECONDS is not a number")?;
    Ok(Duration::from_secs(seconds))
}

fn pull(client: u64, stack: &Stack) -> Result<()> {
    let image = stack.image("gated");
    match client {
        0 | 10 => skopeo::copy(&image, scratch::folder("copy-")?.path()),
        1 => Podman::new()?.pull(&image),
        2 => Containerd::start()?.pull(&format!("{image}:latest")),
        3 => Docker::start()?.command(&["pull", &image]).map(drop),
        _ => {
            let answer = get_within(stack.envoy.port(), "/v2/gated/manifests/latest", PATIENCE)?;
            anyhow::ensure!(answer.status == StatusCode::OK, "{}", answer.text());
            Ok(())
        }
    }
}

#[test]
fn everyone_who_waits_for_a_long_build_is_served() -> Result<()> {
    let build_time = build_time()?;
    let envoy = envoy::Settings {
        workers: 4,
        ..Default::default()
    };
    let (stack, set) = Stack::gated(envoy, &[])?;

    let failures: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let stack = &stack;
                scope.spawn(move || {
                    thread::sleep(STAGGER * u32::try_from(client)?);
                    pull(client, stack).with_context(|| format!("client {client}"))
                })
            })
            .collect();
        let opened = set.wait_for_start().and_then(|()| {
            thread::sleep(build_time);
            set.open()
        });
        let outcomes = clients
            .into_iter()
            .map(|client| client.join().expect("the client's thread ends"));
        [opened]
            .into_iter()
            .chain(outcomes)
            .filter_map(Result::err)
            .map(|error| format!("{error:#}"))
            .collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
    Ok(())
}
