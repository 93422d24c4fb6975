//! The filter's VM dies while it holds requests. They end with an error. The very next request makes
//! a new VM, which answers it from the cache, which is Envoy's and not the VM's.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::{get, request};
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::limited_filter::limited;
use nixgate_tests::live::stub_builder::{Act, StubBuilder, manifest};
use nixgate_tests::live::{poll, ports, scratch};
use serde_json::json;

const HELD: usize = 10;
/// 4 MiB, far more than these requests need.
const PAGES: u32 = 64;
/// More than that.
const DEADLY: usize = 16 << 20;
/// What Envoy logs then.
const DEATH: &str = "Uncaught RuntimeError: unreachable";
/// The time that the shipped configuration has Envoy leave between two loads of a VM, with the half
/// that Envoy may add to it.
const BETWEEN_LOADS: Duration = Duration::from_millis(15);

fn path_of(package: &str) -> String {
    format!("/v2/{package}/manifests/latest")
}

fn held_requests_end_and_the_next_are_served(version: &'static str) -> Result<()> {
    let state = scratch::folder("vm-death-")?;
    let filter = state.path().join("limited.wasm");
    fs::write(&filter, limited(&fs::read(install::filter()?)?, PAGES)?)?;
    let builder_port = ports::free()?;
    let known = AtomicU64::new(0);
    let _stub = StubBuilder::start(builder_port, move |asked| match asked.package() {
        "held" => Act::SendAndHold(Vec::new()),
        "deadly" => Act::Send(manifest(&vec![b' '; DEADLY], 300)),
        // Its second answer would be another.
        "known" => Act::Send(manifest(
            format!("{}", known.fetch_add(1, Ordering::Relaxed)).as_bytes(),
            300,
        )),
        other => Act::Send(manifest(other.as_bytes(), 300)),
    })?;
    let settings = envoy::Settings {
        version,
        // One VM, so that it is the one that dies.
        workers: 1,
        filter: Some(filter),
        config: EnvoyConfig::standalone()
            .settings(json!({"hold_seconds": 5}))
            .registry_route(json!({"idle_timeout": "11s"})),
    };
    let envoy = Envoy::start(settings, builder_port, state.path())?;
    let port = envoy.port();

    assert_eq!(get(port, &path_of("known"))?.text(), "0");
    let held: Vec<_> = (0..HELD)
        .map(|_| thread::spawn(move || request(Method::GET, port, &path_of("held"), &[])))
        .collect();
    envoy.wait_until_it_holds(HELD as u64)?;
    // The second time, the VM that dies is the one that was made for the first.
    let mut deadly = Vec::new();
    for deaths in 1..=2 {
        let path = path_of("deadly");
        deadly.push(thread::spawn(move || {
            request(Method::GET, port, &path, &[])
        }));
        poll::until("the VM is dead", || {
            (envoy.log().matches(DEATH).count() == deaths).then_some(())
        })?;
        // The next request of all.
        let next = get(port, &path_of("known"))?;
        assert_eq!((next.status, next.text().as_str()), (StatusCode::OK, "0"));
        assert_eq!(envoy.stat("wasm.nixgate.vm_reload_success")?, deaths as u64);
        assert_eq!(get(port, &path_of("new"))?.text(), "new");
        thread::sleep(BETWEEN_LOADS);
    }
    assert_eq!(envoy.stat("wasm.nixgate.vm_reload_backoff")?, 0);

    for stream in held.into_iter().chain(deadly) {
        let answer = stream.join().expect("the request's thread ends")?;
        assert!(answer.status.is_server_error(), "{}", answer.status);
        assert_eq!(answer.error()?.0, "UNAVAILABLE");
    }
    assert_eq!(get(port, &path_of("known"))?.text(), "0");
    Ok(())
}

#[test]
fn on_the_newest_envoy_held_requests_end_and_the_next_are_served() -> Result<()> {
    held_requests_end_and_the_next_are_served(ENVOY_VERSIONS[0])
}

#[test]
fn on_the_oldest_envoy_held_requests_end_and_the_next_are_served() -> Result<()> {
    held_requests_end_and_the_next_are_served(ENVOY_VERSIONS[1])
}
