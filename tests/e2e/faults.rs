//! A builder's bad days, behind real Envoys: whatever it does, a client gets an error of the
//! distribution spec in time, nothing wrong is kept, and what is kept goes on being served.
//!
//! "In time" needs no clock here: the route's idle timeout would end a request with an answer that
//! is no such error.

mod blobs;
mod every_fault;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use nixgate_core::wire::BUILDING_FOR;
use nixgate_tests::envoy_config::{BUILDER, EnvoyConfig};
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::{Response, get};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::stub_builder::{
    Act, Asked, MARK, StubBuilder, manifest, refusal, response,
};
use nixgate_tests::live::{poll, ports, scratch};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

const BODY: &[u8] = br#"{"schemaVersion":2}"#;
/// Seconds. Callouts get 5 more, so the route's idle timeout must be above 7.
const HOLD: u64 = 2;

/// Envoy in front of a stub that does what `script` says of a package.
struct Edge {
    envoy: Envoy,
    _stub: StubBuilder,
    _state: TempDir,
}

impl Edge {
    fn start(
        version: &'static str,
        script: impl Fn(&Asked) -> Act + Send + Sync + 'static,
    ) -> Result<Self> {
        let (state, port) = (scratch::folder("faults-")?, ports::free()?);
        let stub = StubBuilder::start(port, script)?;
        let envoy = Envoy::start(settings(version), port, state.path())?;
        Ok(Self {
            envoy,
            _stub: stub,
            _state: state,
        })
    }

    fn manifest(&self, package: &str) -> Result<Response> {
        get(self.envoy.port(), &path_of(package))
    }
}

fn settings(version: &'static str) -> envoy::Settings {
    envoy::Settings {
        version,
        config: EnvoyConfig::standalone()
            .settings(json!({"hold_seconds": HOLD}))
            .registry_route(json!({"idle_timeout": "15s"})),
        ..Default::default()
    }
}

/// The same with a patch on the builder's cluster.
fn with_cluster(version: &'static str, patch: Value) -> envoy::Settings {
    let settings = settings(version);
    envoy::Settings {
        config: settings.config.cluster(BUILDER, patch),
        ..settings
    }
}

fn path_of(package: &str) -> String {
    format!("/v2/{package}/manifests/latest")
}

/// Fails unless the answer is the edge's own "no builder", which says `told` of the reason.
fn unavailable(answer: &Response, told: &str) -> Result<()> {
    let (code, message) = answer.error()?;
    ensure!(
        (answer.status, code.as_str()) == (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        "{} {code}: {message}",
        answer.status
    );
    ensure!(message.contains(told), "{message:?} does not say {told:?}");
    ensure!(!answer.header("retry-after").is_empty(), "no Retry-After");
    Ok(())
}

fn served(answer: &Response, body: &[u8]) -> Result<()> {
    ensure!(
        answer.status == StatusCode::OK && answer.body == body,
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

/// Asks an edge on each Envoy.
fn on_each_envoy(
    script: impl Fn(&Asked) -> Act + Clone + Send + Sync + 'static,
    check: impl Fn(&Edge) -> Result<()>,
) -> Result<()> {
    for version in ENVOY_VERSIONS {
        let edge = Edge::start(version, script.clone())?;
        check(&edge).with_context(|| format!("on Envoy {version}"))?;
    }
    Ok(())
}

#[test]
fn a_builder_that_goes_on_building_is_told_after_the_budget() -> Result<()> {
    let building = |_: &Asked| {
        let headers = [MARK, (BUILDING_FOR, "77"), ("retry-after", "1")];
        let answer = Act::Send(response("202 Accepted", &headers, b""));
        Act::After(Duration::from_secs(HOLD), Box::new(answer))
    };
    on_each_envoy(building, |edge| {
        let answer = edge.manifest("slow")?;
        let (code, message) = answer.error()?;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(code, "TOOMANYREQUESTS");
        assert!(message.contains("77 s"), "{message}");
        assert_ne!(answer.header("retry-after"), "");
        Ok(())
    })
}

#[test]
fn a_refusal_of_the_builder_is_passed_on_and_kept_for_as_long_as_it_says() -> Result<()> {
    let asked = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
    let count = Arc::clone(&asked);
    let script = move |asked: &Asked| {
        let mut counts = count.lock();
        *counts.entry(asked.package().to_owned()).or_default() += 1;
        Act::Send(match asked.package() {
            "broken" => refusal("500 Oh", "UNKNOWN", 300),
            "passing" => refusal("500 Oh", "UNKNOWN", 0),
            _ => refusal("404 Not Found", "MANIFEST_UNKNOWN", 300),
        })
    };
    let mut envoys = 0;
    for version in ENVOY_VERSIONS {
        let edge = Edge::start(version, script.clone())?;
        envoys += 1;
        for (package, status, code, asks) in [
            ("broken", 500, "UNKNOWN", envoys),
            ("passing", 500, "UNKNOWN", 2 * envoys),
            ("unknown", 404, "MANIFEST_UNKNOWN", envoys),
        ] {
            for _ in 0..2 {
                let answer = edge.manifest(package)?;
                let (seen, message) = answer.error()?;
                assert_eq!((answer.status.as_u16(), seen.as_str()), (status, code));
                assert_eq!(message, "as told");
            }
            let asked = asked.lock();
            assert_eq!(asked.get(package), Some(&asks), "{package}");
        }
    }
    Ok(())
}

/// What follows an answer on its connection is no answer to the next request there.
#[test]
fn a_second_answer_behind_the_first_is_not_believed() -> Result<()> {
    let script = |asked: &Asked| {
        let first = manifest(asked.package().as_bytes(), 300);
        Act::Send([first, manifest(b"smuggled", 300)].concat())
    };
    on_each_envoy(script, |edge| {
        for number in 0..20 {
            let package = format!("p{number}");
            let answer = edge.manifest(&package)?;
            assert_ne!(answer.text(), "smuggled");
            // Envoy may notice what follows before it has handed the answer over.
            if answer.status == StatusCode::OK {
                assert_eq!(answer.text(), package);
            } else {
                unavailable(&answer, "is unavailable")?;
            }
        }
        Ok(())
    })
}

#[test]
fn while_the_builder_is_down_what_is_known_is_served_and_later_all() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let (state, port) = (scratch::folder("faults-")?, ports::free()?);
        let up = || StubBuilder::start(port, |_| Act::Send(manifest(BODY, 1)));
        let stub = up()?;
        let envoy = Envoy::start(settings(version), port, state.path())?;
        served(&get(envoy.port(), &path_of("known"))?, BODY)?;
        drop(stub);
        for _ in 0..3 {
            unavailable(
                &get(envoy.port(), &path_of("unknown"))?,
                "no connection to it",
            )?;
            served(&get(envoy.port(), &path_of("known"))?, BODY)?;
        }
        let _stub = up()?;
        served(&get(envoy.port(), &path_of("unknown"))?, BODY)?;
    }
    Ok(())
}

/// With no healthy host, Envoy refuses a callout at once instead of reporting its failure.
#[test]
fn without_a_healthy_builder_the_edge_says_so() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let state = scratch::folder("faults-")?;
        let check = json!({
            "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1,
            "http_health_check": {"path": "/healthz"},
        });
        let checked = json!({
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "health_checks": [check],
        });
        let settings = with_cluster(version, checked);
        let envoy = Envoy::start(settings, ports::free()?, state.path())?;
        for _ in 0..2 {
            unavailable(&get(envoy.port(), &path_of("git"))?, "no healthy builder")?;
        }
    }
    Ok(())
}

/// A circuit breaker that is open is no builder to the edge, and closes again.
#[test]
fn one_request_more_than_the_circuit_breaker_takes_is_told_so() -> Result<()> {
    let script = |asked: &Asked| match asked.package() {
        "held" => Act::SendAndHold(Vec::new()),
        _ => Act::Send(manifest(BODY, 300)),
    };
    for version in ENVOY_VERSIONS {
        let (state, port) = (scratch::folder("faults-")?, ports::free()?);
        let _stub = StubBuilder::start(port, script)?;
        let breakers = json!({"circuit_breakers": {"thresholds": [{"max_requests": 1}]}});
        let settings = with_cluster(version, breakers);
        let envoy = Envoy::start(settings, port, state.path())?;
        let front = envoy.port();
        let held = thread::spawn(move || get(front, &path_of("held")));
        poll::until("the callout is under way", || {
            let sent = envoy.stat("cluster.nixgate_builder.upstream_rq_total");
            (sent.ok()? == 1).then_some(())
        })?;
        let other = get(front, &path_of("other"))?;
        let held_on = !held.is_finished();
        unavailable(&held.join().expect("the client's thread ends")?, "in time")?;
        // On a machine that is very slow, the first one may have ended before.
        if held_on {
            unavailable(&other, "no connection to it")?;
        }
        served(&get(front, &path_of("other"))?, BODY)?;
    }
    Ok(())
}
