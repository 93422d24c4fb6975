//! Every fault that an answer to a request for a manifest can have.
//!
//! All faults of one Envoy happen at once, each under an image name of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use nixgate_core::distribution::Digest;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::poll;
use nixgate_tests::live::stub_builder::{Act, MARK, OCI, head, manifest, response};
use parking_lot::Mutex;

use super::{BODY, Edge, served, unavailable};

/// What the builder does, by package: well, or badly, and how often it did the latter.
#[derive(Default)]
struct Days {
    good: Mutex<BTreeMap<&'static str, bool>>,
    bad: Mutex<BTreeMap<String, u64>>,
}

impl Days {
    fn set_good(&self, package: &'static str, good: bool) {
        let mut days = self.good.lock();
        days.insert(package, good);
    }

    fn is_good(&self, package: &str) -> bool {
        let days = self.good.lock();
        days.get(package).copied().unwrap_or(false)
    }

    fn count_bad(&self, package: &str) {
        let mut counts = self.bad.lock();
        *counts.entry(package.to_owned()).or_default() += 1;
    }

    fn bad(&self, package: &str) -> u64 {
        let counts = self.bad.lock();
        counts.get(package).copied().unwrap_or(0)
    }
}

/// A fault, under the name of the package whose manifest it befalls.
#[derive(Clone)]
struct Fault {
    package: &'static str,
    /// A part of what the client is told.
    told: &'static str,
    act: Act,
}

fn fault(package: &'static str, told: &'static str, act: Act) -> Fault {
    Fault { package, told, act }
}

/// A manifest's answer with other headers than a good one's.
fn manifest_with(headers: &[(&str, &str)]) -> Act {
    let all: Vec<_> = [MARK].into_iter().chain(headers.iter().copied()).collect();
    Act::Send(response("200 OK", &all, BODY))
}

fn with_length(length: usize, body: &[u8]) -> Vec<u8> {
    let digest = Digest::of(body).to_string();
    let length = length.to_string();
    let headers = [
        MARK,
        ("content-type", OCI),
        ("docker-content-digest", digest.as_str()),
        ("cache-control", "max-age=300"),
        ("content-length", length.as_str()),
    ];
    let mut bytes = head("200 OK", &headers);
    bytes.extend_from_slice(body);
    bytes
}

fn faults() -> Vec<Fault> {
    let digest = Digest::of(BODY).to_string();
    let digest = ("docker-content-digest", digest.as_str());
    let other = Digest::of(b"other").to_string();
    let kind = ("content-type", OCI);
    let kept = ("cache-control", "max-age=300");
    let huge = "x".repeat(100 << 10);
    let chunked = [
        &head(
            "200 OK",
            &[MARK, kind, digest, ("transfer-encoding", "chunked")],
        )[..],
        b"5\r\n{\"sch\r\n",
    ]
    .concat();
    vec![
        fault("hangs-up", "no connection to it", Act::SendAndClose(vec![])),
        fault(
            "is-silent",
            "did not answer in time",
            Act::SendAndHold(vec![]),
        ),
        fault(
            "babbles",
            "is unavailable",
            Act::SendAndClose(b"\x16\x03\x01 what?\r\n\r\n".to_vec()),
        ),
        fault(
            "ends-amid-headers",
            "is unavailable",
            Act::SendAndClose(b"HTTP/1.1 200 OK\r\nnixgate-bui".to_vec()),
        ),
        fault(
            "ends-amid-body",
            "is unavailable",
            Act::SendAndClose(with_length(BODY.len() + 9, BODY)),
        ),
        fault(
            "ends-amid-chunks",
            "is unavailable",
            Act::SendAndClose(chunked),
        ),
        fault(
            "stalls-amid-body",
            "is unavailable",
            Act::SendAndHold(with_length(BODY.len() + 9, BODY)),
        ),
        fault(
            "sends-more-than-it-said",
            "does not match its digest",
            Act::Send(with_length(BODY.len() - 9, BODY)),
        ),
        fault(
            "is-no-builder",
            "not a nixgate builder",
            Act::Send(response("200 OK", &[kind, digest, kept], BODY)),
        ),
        fault(
            "fails-unmarked",
            "not a nixgate builder",
            Act::Send(response("500 Oh", &[kept], b"<html>")),
        ),
        fault(
            "refuses-unmarked",
            "not a nixgate builder",
            Act::Send(response("404 Not Found", &[kept], b"<html>")),
        ),
        fault(
            "has-other-digest",
            "does not match its digest",
            manifest_with(&[kind, ("docker-content-digest", &other), kept]),
        ),
        fault(
            "has-no-digest",
            "does not match its digest",
            manifest_with(&[kind, kept]),
        ),
        fault(
            "has-empty-digest",
            "does not match its digest",
            manifest_with(&[kind, ("docker-content-digest", ""), kept]),
        ),
        fault("has-no-type", "media type", manifest_with(&[digest, kept])),
        fault(
            "has-empty-type",
            "media type",
            manifest_with(&[digest, ("content-type", ""), kept]),
        ),
        fault(
            "has-other-type",
            "media type",
            manifest_with(&[digest, ("content-type", "text/html"), kept]),
        ),
        fault(
            "has-no-body",
            "does not match its digest",
            Act::Send(response("200 OK", &[MARK, kind, digest, kept], b"")),
        ),
        fault(
            "has-huge-headers",
            "is unavailable",
            manifest_with(&[kind, digest, kept, ("x-huge", &huge)]),
        ),
        fault(
            "redirects-a-manifest",
            "status 307",
            Act::Send(response(
                "307 Oh",
                &[MARK, kept, ("location", "http://x/")],
                b"",
            )),
        ),
        fault(
            "has-no-content",
            "status 204",
            Act::Send(response("204 Oh", &[MARK, kept], b"")),
        ),
        // Over the callout, a body of this size would be in Envoy's memory at once.
        fault(
            "has-huge-body",
            "is unavailable",
            Act::SendAndClose(manifest(&vec![b' '; 64 << 20], 300)),
        ),
    ]
}

fn befalls(fault: &Fault, edge: &Edge, days: &Days) -> Result<()> {
    let package = fault.package;
    unavailable(&edge.manifest(package)?, fault.told).context("at first")?;

    days.set_good(package, true);
    served(&edge.manifest(package)?, BODY).context("on the next good day")?;

    // It may be kept for a second; after that, what is kept is better than no answer.
    days.set_good(package, false);
    let before = days.bad(package);
    poll::until("the builder is asked again", || {
        let answer = edge
            .manifest(package)
            .and_then(|answer| served(&answer, BODY));
        match answer {
            Err(error) => Some(Err(error.context("when it was known"))),
            Ok(()) => (days.bad(package) > before).then_some(Ok(())),
        }
    })?
}

fn every_fault_is_told_and_none_is_kept(version: &'static str) -> Result<()> {
    let (faults, days) = (faults(), Arc::new(Days::default()));
    let (acts, record) = (faults.clone(), Arc::clone(&days));
    let edge = Edge::start(version, move |asked| {
        let package = asked.package();
        if record.is_good(package) {
            return Act::Send(manifest(BODY, 1));
        }
        record.count_bad(package);
        let fault = acts.iter().find(|fault| fault.package == package);
        fault.map_or(Act::SendAndClose(Vec::new()), |fault| fault.act.clone())
    })?;
    let failures: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = faults
            .iter()
            .map(|fault| (fault.package, scope.spawn(|| befalls(fault, &edge, &days))))
            .collect();
        running
            .into_iter()
            .filter_map(|(package, thread)| {
                let outcome = thread.join().expect("the fault's thread ends");
                outcome.err().map(|error| format!("{package}: {error:#}"))
            })
            .collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
    Ok(())
}

#[test]
fn on_the_newest_envoy_every_fault_is_told_and_none_is_kept() -> Result<()> {
    every_fault_is_told_and_none_is_kept(ENVOY_VERSIONS[0])
}

#[test]
fn on_the_oldest_envoy_every_fault_is_told_and_none_is_kept() -> Result<()> {
    every_fault_is_told_and_none_is_kept(ENVOY_VERSIONS[1])
}
