//! Envoy's memory keeps to its bound and images in demand stay cached, whatever else is asked for.
//!
//! `NIXGATE_TEST_REQUESTS` says how many names are asked for once, 15,000 if unset. After each of
//! them an image of a small set is asked for that everyone wants.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::Connection;
use nixgate_tests::live::stub_builder::{Act, Asked, StubBuilder, manifest, refusal};
use nixgate_tests::live::{ports, scratch};
use parking_lot::Mutex;
use serde_json::json;

/// As many names are asked for once.
const REQUESTS: u64 = 15_000;
const IN_DEMAND: u64 = 100;
const CONNECTIONS: u64 = 4;
const CACHE_BYTES: u64 = 8 << 20;
/// The cache is full after this many.
const FILLING: u64 = 5_000;
/// What Envoy's memory may grow by when the cache is full already. Buffers come and go; 1 kB lost
/// with each of the other requests would be more.
const SLACK: u64 = 10 << 20;
/// What the full cache may take beyond its bound: keys, the VMs, connections, and what the
/// allocator keeps at hand.
const OVERHEAD: u64 = 32 << 20;

fn requests() -> Result<u64> {
    let Ok(text) = std::env::var("NIXGATE_TEST_REQUESTS") else {
        return Ok(REQUESTS);
    };
    let count = text
        .parse()
        .context("NIXGATE_TEST_REQUESTS is not a number")?;
    ensure!(count > FILLING, "NIXGATE_TEST_REQUESTS: over {FILLING}");
    Ok(count)
}

/// A third of what is asked for once exists, a third is unknown, a third is refused.
fn name(number: u64) -> (String, u16) {
    match number % 3 {
        0 => (format!("once{number}"), 200),
        1 => (format!("unknown{number}"), 404),
        _ => (format!("refused{number}"), 403),
    }
}

/// What the builder was asked for of the set that is in demand.
#[derive(Default)]
struct Demanded {
    misses: AtomicU64,
    seen: Mutex<BTreeSet<String>>,
}

fn answer(asked: &Asked, demanded: &Demanded) -> Act {
    let package = asked.package();
    // As large as a manifest of many layers.
    let body = format!("{package:15000}");
    Act::Send(if package.starts_with("unknown") {
        refusal("404 Not Found", "MANIFEST_UNKNOWN", 30)
    } else if package.starts_with("refused") {
        refusal("403 Forbidden", "DENIED", 30)
    } else {
        let mut seen = demanded.seen.lock();
        if package.starts_with("demanded") && !seen.insert(package.to_owned()) {
            demanded.misses.fetch_add(1, Ordering::Relaxed);
        }
        manifest(body.as_bytes(), 3600)
    })
}

/// Asks for the names of these numbers, each on whichever connection is free: the set in demand
/// is in demand to the end, even when one connection is faster than another.
fn ask(port: u16, numbers: std::ops::Range<u64>) -> Result<()> {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (next, end) = (Arc::clone(&next), numbers.end);
            thread::spawn(move || -> Result<()> {
                let mut connection = Connection::open(port)?;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return Ok(());
                    }
                    let demanded = (format!("demanded{}", number % IN_DEMAND), 200);
                    for (name, status) in [name(number), demanded] {
                        let answer = connection.get(&format!("/v2/{name}/manifests/latest"))?;
                        ensure!(answer.status == status, "{name}: {}", answer.status);
                        ensure!(status != 200 || answer.text().trim_end() == name);
                    }
                }
            })
        })
        .collect();
    for connection in connections {
        connection.join().expect("the connection's thread ends")?;
    }
    Ok(())
}

#[test]
fn memory_keeps_to_its_bound_and_what_is_in_demand_stays() -> Result<()> {
    let requests = requests()?;
    let (state, builder_port) = (scratch::folder("memory-")?, ports::free()?);
    let demanded = Arc::new(Demanded::default());
    let record = Arc::clone(&demanded);
    let _stub = StubBuilder::start(builder_port, move |asked| answer(asked, &record))?;
    let settings = envoy::Settings {
        config: EnvoyConfig::standalone().settings(json!({"cache": {"max_bytes": CACHE_BYTES}})),
        ..Default::default()
    };
    let envoy = Envoy::start(settings, builder_port, state.path())?;

    let empty = envoy.resident_bytes()?;
    ask(envoy.port(), 0..FILLING)?;
    let full = envoy.resident_bytes()?;
    ask(envoy.port(), FILLING..requests)?;
    let last = envoy.resident_bytes()?;
    let misses = demanded.misses.load(Ordering::Relaxed);
    println!("empty {empty}, full {full}, last {last} bytes; {misses} of {requests} missed");

    assert!(full < empty + CACHE_BYTES + OVERHEAD, "{empty} → {full}");
    assert!(last < full + SLACK, "{full} → {last}");
    assert!(misses * 100 <= requests, "{misses} of {requests}");
    Ok(())
}
