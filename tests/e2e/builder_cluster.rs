//! What companies set for all of their clusters, on the builder's: the rows of
//! docs/src/builder-cluster.md.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_core::wire::STATUS;
use nixgate_tests::envoy_config::{BUILDER, EnvoyConfig};
use nixgate_tests::live::builder::{self, Builder};
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::{Response, ask, get, request};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::served_set::ServedSet;
use nixgate_tests::live::storm::Storm;
use nixgate_tests::live::{poll, scratch};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An Envoy in front of a builder.
struct Edge {
    envoy: Envoy,
    // Last: it is removed when nothing writes to it any more.
    _state: TempDir,
}

impl Edge {
    fn start(version: &'static str, config: EnvoyConfig, builder: &Builder) -> Result<Self> {
        let state = scratch::folder("cluster-")?;
        let settings = envoy::Settings {
            version,
            config,
            ..Default::default()
        };
        Ok(Self {
            envoy: Envoy::start(settings, builder.port(), state.path())?,
            _state: state,
        })
    }

    fn get(&self, path: &str) -> Result<Response> {
        get(self.envoy.port(), path)
    }

    fn manifest(&self, packages: &str) -> Result<Response> {
        self.get(&format!("/v2/{packages}/manifests/latest"))
    }

    fn pulls(&self, packages: &str) -> Result<Value> {
        let answer = self.manifest(packages)?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// A statistic of the builder's cluster; Envoy has those of statuses once there was one.
    fn count(&self, name: &str) -> u64 {
        let stat = self.envoy.stat(&format!("cluster.{BUILDER}.{name}"));
        stat.unwrap_or(0)
    }
}

/// Patches what the builder's cluster has of HTTP.
fn protocol(config: EnvoyConfig, patch: Value) -> EnvoyConfig {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    config.cluster(
        BUILDER,
        json!({"typed_extension_protocol_options": {OPTIONS: patch}}),
    )
}

fn with_http2(config: EnvoyConfig) -> EnvoyConfig {
    with_http2_options(config, json!({}))
}

fn with_http2_options(config: EnvoyConfig, options: Value) -> EnvoyConfig {
    let http2 = json!({"http_protocol_options": null, "http2_protocol_options": options});
    protocol(config, json!({"explicit_http_config": http2}))
}

/// Ejects a builder by each of Envoy's rules that look at statuses, and uses none that is ejected.
fn with_outlier_detection() -> EnvoyConfig {
    EnvoyConfig::standalone().cluster(
        BUILDER,
        json!({
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "outlier_detection": {
                "consecutive_5xx": 5,
                "consecutive_gateway_failure": 5, "enforcing_consecutive_gateway_failure": 100,
                "success_rate_minimum_hosts": 1, "success_rate_request_volume": 1,
                "failure_percentage_minimum_hosts": 1, "failure_percentage_request_volume": 1,
                "failure_percentage_threshold": 20, "enforcing_failure_percentage": 100,
                "interval": "0.2s", "base_ejection_time": "300s", "max_ejection_percent": 100,
            },
        }),
    )
}

/// Packages that fail to build, ones that take too long, and good ones.
fn packages(settings: impl FnOnce(builder::Settings) -> builder::Settings) -> Result<ServedSet> {
    let one = |name: String, script: &str| format!("{name} = package \"{name}\" ''{script}'';\n");
    let each = |kind: &str, script: &str| -> String {
        let names = (0..6).map(|number| format!("{kind}{number}"));
        names.map(|name| one(name, script)).collect()
    };
    let set = [
        each("fails", "echo the reason >&2; exit 3"),
        each("endless", "sleep 1000"),
        each("slow", "sleep 3; mkdir $out"),
        each(
            "good",
            "mkdir $out; head -c 300000 /dev/urandom > $out/file",
        ),
    ];
    ServedSet::start(&set.concat(), settings)
}

#[test]
fn broken_packages_eject_no_builder() -> Result<()> {
    let served = packages(|settings| settings.with("NIX_TIMEOUT", "6"))?;
    for version in ENVOY_VERSIONS {
        let edge = Edge::start(version, with_outlier_detection(), &served.builder)?;
        for number in 0..6 {
            let answer = edge.manifest(&format!("fails{number}"))?;
            let (code, message) = answer.error()?;
            assert_eq!((answer.status.as_u16(), &code[..]), (403, "UNKNOWN"));
            assert!(message.contains("the reason"), "{message}");
            assert_eq!(answer.header(STATUS), "");
        }
        let endless: Vec<_> = (0..6)
            .map(|number| {
                let port = edge.envoy.port();
                let path = format!("/v2/endless{number}/manifests/latest");
                thread::spawn(move || get(port, &path))
            })
            .collect();
        for answer in endless {
            let answer = answer.join().expect("the client's thread ends")?;
            let code = answer.error()?.0;
            assert_eq!((answer.status.as_u16(), &code[..]), (403, "UNKNOWN"));
        }
        assert_eq!(edge.manifest("no-such-package")?.status.as_u16(), 404);
        edge.pulls("good0")?;
        assert_eq!(
            edge.count("outlier_detection.ejections_detected_consecutive_5xx"),
            0
        );
        assert_eq!(edge.count("outlier_detection.ejections_active"), 0);
        assert_eq!(edge.count("upstream_rq_5xx"), 0);
        assert!(edge.count("upstream_rq_403") >= 12);
    }
    let failed = ["route=\"manifest\"", "status=\"403\""];
    let failed = served.builder.counter("nixgate_requests_total", &failed)?;
    assert_eq!(failed, 12 * ENVOY_VERSIONS.len() as u64);
    Ok(())
}

/// A builder that cannot do its work, here one without Nix, is not spared.
#[test]
fn a_builder_that_is_sick_is_ejected() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let settings = builder::Settings::new(state.path())?.with("PATH", "/nowhere");
    let builder = Builder::start(&settings)?;
    for version in ENVOY_VERSIONS {
        let edge = Edge::start(version, with_outlier_detection(), &builder)?;
        poll::until("the builder is ejected", || {
            let answer = edge.manifest("hello").ok()?;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            (edge.count("outlier_detection.ejections_active") == 1).then_some(())
        })?;
        let (_, message) = edge.manifest("hello")?.error()?;
        assert!(message.contains("no healthy builder"), "{message}");
    }
    Ok(())
}

/// Retries of everything, after so short a time that every build would be asked for again.
fn with_retries(version: &str, hedging: Value) -> EnvoyConfig {
    let policy = json!({
        "retry_on": "5xx,gateway-error,reset,connect-failure,refused-stream,retriable-4xx,\
                     retriable-status-codes",
        "retriable_status_codes": [500, 503, 504],
        "num_retries": 3,
        "per_try_timeout": "1s",
        "retry_back_off": {"base_interval": "0.01s"},
    });
    let route = json!({"retry_policy": policy, "hedge_policy": hedging});
    let config = EnvoyConfig::standalone().registry_route(route);
    match has_cluster_retries(version) {
        true => protocol(config, json!({"retry_policy": policy})),
        false => config,
    }
}

fn has_cluster_retries(version: &str) -> bool {
    version != "1.36.2"
}

#[test]
fn retries_and_hedging_build_nothing_twice() -> Result<()> {
    let served = packages(|settings| settings)?;
    let builder = &served.builder;
    let mut number = 0;
    for version in ENVOY_VERSIONS {
        for hedging in [Value::Null, json!({"hedge_on_per_try_timeout": true})] {
            let edge = Edge::start(version, with_retries(version, hedging), builder)?;
            let before = builder.manifest_requests()?;
            assert_eq!(
                edge.manifest(&format!("fails{number}"))?.status.as_u16(),
                403
            );
            let slow = edge.pulls(&format!("slow{number}"))?;
            assert_eq!(builder.manifest_requests()?, before + 2);
            let digest = slow["layers"][0]["digest"].as_str().context("a layer")?;
            let blob = edge.get(&format!("/v2/slow{number}/blobs/{digest}"))?;
            assert_eq!(blob.status, StatusCode::OK, "{}", blob.text());
            assert_eq!(edge.count("upstream_rq_retry"), 0);
            number += 1;
        }
    }
    Ok(())
}

/// That a cluster's retries reach callouts: what is not repeated above would be.
#[test]
fn what_a_sick_builder_answers_is_asked_for_again() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let settings = builder::Settings::new(state.path())?.with("PATH", "/nowhere");
    let builder = Builder::start(&settings)?;
    for version in ENVOY_VERSIONS {
        let edge = Edge::start(version, with_retries(version, Value::Null), &builder)?;
        let before = builder.manifest_requests()?;
        assert_eq!(edge.manifest("hello")?.status.as_u16(), 503);
        let retries = if has_cluster_retries(version) { 3 } else { 0 };
        assert_eq!(
            builder.manifest_requests()?,
            before + 1 + retries,
            "{version}"
        );
    }
    Ok(())
}

/// Health checks of a path, by which alone Envoy decides what builder it uses.
fn with_health_check(path: &str, panic: Value) -> EnvoyConfig {
    let check = json!({
        "timeout": "12s", "interval": "0.2s", "unhealthy_threshold": 1, "healthy_threshold": 1,
        "http_health_check": {"path": path},
    });
    EnvoyConfig::standalone().cluster(
        BUILDER,
        json!({
            "common_lb_config": {"healthy_panic_threshold": panic},
            "health_checks": [check],
        }),
    )
}

#[test]
fn health_checks_need_no_token_and_say_whether_the_builder_can_build() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let settings = builder::Settings::new(state.path())?;
    let builder = Builder::start(&settings)?;
    let never = || json!({"value": 0});
    let mut path = String::new();
    for version in ENVOY_VERSIONS {
        let edge = Edge::start(version, with_health_check("/readyz", never()), &builder)?;
        poll::until("the builder is found healthy", || {
            (edge.count("health_check.success") > 0).then_some(())
        })?;
        let answer = edge.manifest("hello")?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        path = format!(
            "/v2/hello/manifests/{}",
            answer.header("docker-content-digest")
        );
        assert_eq!(edge.count("health_check.failure"), 0);
    }
    drop(builder);
    // Stored images need no Nix.
    let builder = Builder::start(&settings.with("PATH", "/nowhere"))?;
    for version in ENVOY_VERSIONS {
        for (check, panic, status) in [
            ("/readyz", never(), 503),
            ("/readyz", Value::Null, 200),
            ("/healthz", never(), 200),
        ] {
            let edge = Edge::start(version, with_health_check(check, panic), &builder)?;
            poll::until("the builder is checked", || {
                (edge.count("health_check.attempt") > 0).then_some(())
            })?;
            poll::until("the answer is what the check says", || {
                let answer = edge.get(&path).ok()?;
                (answer.status.as_u16() == status).then_some(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn over_http2_one_connection_serves_all_pulls() -> Result<()> {
    let served = packages(|settings| settings)?;
    for (number, version) in ENVOY_VERSIONS.into_iter().enumerate() {
        let one = json!({"circuit_breakers": {"thresholds": [{"max_connections": 1}]}});
        let config = with_http2(EnvoyConfig::standalone()).cluster(BUILDER, one);
        let edge = Edge::start(version, config, &served.builder)?;
        let port = edge.envoy.port();
        let name = format!("good{number}");
        let cold = edge.pulls(&name)?;
        assert_eq!(edge.pulls(&name)?, cold);
        assert_eq!(
            edge.manifest(&format!("fails{number}"))?.status.as_u16(),
            403
        );
        // The largest one is sent in several pieces.
        let layers = cold["layers"].as_array().context("layers")?;
        let layer = layers.iter().max_by_key(|layer| layer["size"].as_u64());
        let layer = layer.context("a layer")?;
        let (digest, size) = (layer["digest"].as_str(), layer["size"].as_u64());
        let (digest, size) = (digest.context("a digest")?, size.context("a size")?);
        let path = format!("/v2/{name}/blobs/{digest}");
        let blob = edge.get(&path)?;
        assert_eq!(
            nixgate_core::distribution::Digest::of(&blob.body).to_string(),
            digest
        );
        let head = request(Method::HEAD, port, &path, &[])?;
        assert_eq!(head.header("content-length"), size.to_string());
        let part = request(Method::GET, port, &path, &[("range", "bytes=1-9")])?;
        assert_eq!(
            (part.status.as_u16(), &part.body[..]),
            (206, &blob.body[1..10])
        );
        let blobs = Storm::start(port, &path, 100).end()?;
        assert_eq!(
            blobs.statuses().into_iter().collect::<Vec<_>>(),
            [(StatusCode::OK, 100)]
        );
        // Each of these has a callout of its own.
        let lists: Vec<_> = (0..100)
            .map(|number| {
                let path = format!("/v2/any{number}/tags/list");
                thread::spawn(move || get(port, &path))
            })
            .collect();
        for answer in lists {
            let answer = answer.join().expect("the client's thread ends")?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        }
        // One for each worker.
        let connections = edge.count("upstream_cx_http2_total");
        assert!((1..=2).contains(&connections), "{connections}");
        assert_eq!(edge.count("upstream_rq_5xx"), 0);
    }
    Ok(())
}

/// A connection has one window for all of its streams, and what clients don't read stays in it. With
/// Envoy's own windows, two such clients take all of it, and callouts fail.
#[test]
fn over_http2_clients_that_do_not_read_hold_up_nobody_with_small_windows_of_streams() -> Result<()>
{
    let large =
        "large = package \"large\" \"mkdir $out; head -c 46137344 /dev/urandom > $out/noise\";";
    let served = ServedSet::start(large, |settings| settings)?;
    for version in ENVOY_VERSIONS {
        let windows = json!({
            "initial_stream_window_size": 65_536, "initial_connection_window_size": 67_108_864,
        });
        let config = with_http2_options(EnvoyConfig::standalone(), windows);
        let edge = Edge::start(version, config, &served.builder)?;
        let image = edge.pulls("large")?;
        let layers = image["layers"].as_array().context("layers")?;
        let layer = layers.iter().max_by_key(|layer| layer["size"].as_u64());
        let digest = layer.and_then(|layer| layer["digest"].as_str());
        let path = format!("/v2/large/blobs/{}", digest.context("a layer")?);
        assert_eq!(edge.get(&path)?.status, StatusCode::OK);
        let readers: Vec<_> = (0..20)
            .map(|_| ask(edge.envoy.port(), &path))
            .collect::<Result<_>>()?;
        let mut sent = 0;
        poll::until("Envoy takes no more for them", || {
            thread::sleep(Duration::from_millis(500));
            let before = std::mem::replace(&mut sent, edge.count("upstream_cx_rx_bytes_total"));
            (before == sent && edge.count("upstream_rq_active") >= 20).then_some(())
        })?;
        for number in 0..10 {
            let list = edge.get(&format!("/v2/any{number}/tags/list"))?;
            assert_eq!(list.status, StatusCode::OK, "{}", list.text());
        }
        drop(readers);
    }
    Ok(())
}

#[test]
fn one_request_for_each_connection_is_enough() -> Result<()> {
    let served = packages(|settings| settings)?;
    for version in ENVOY_VERSIONS {
        for http2 in [false, true] {
            let one = json!({"common_http_protocol_options": {"max_requests_per_connection": 1}});
            let config = protocol(EnvoyConfig::standalone(), one);
            let config = if http2 { with_http2(config) } else { config };
            let edge = Edge::start(version, config, &served.builder)?;
            let image = edge.pulls("good0")?;
            for layer in image["layers"].as_array().context("layers")? {
                let digest = layer["digest"].as_str().context("a digest")?;
                let blob = edge.get(&format!("/v2/good0/blobs/{digest}"))?;
                assert_eq!(blob.status, StatusCode::OK, "{}", blob.text());
            }
            let requests = edge.count("upstream_rq_total");
            assert_eq!(edge.count("upstream_cx_total"), requests);
        }
    }
    Ok(())
}

#[test]
fn the_version_of_http_is_not_found_out_without_tls() -> Result<()> {
    let served = packages(|settings| settings)?;
    for version in ENVOY_VERSIONS {
        let auto = json!({"explicit_http_config": null, "auto_config": {}});
        let config = protocol(EnvoyConfig::standalone(), auto);
        let refused = Edge::start(version, config, &served.builder).err();
        let refused = format!("{:#}", refused.context("Envoy starts")?);
        // Envoy shows the cluster that it refuses.
        assert!(refused.contains("auto_config {"), "{refused}");
    }
    Ok(())
}

#[test]
fn a_timeout_of_the_route_spares_builds_and_cuts_off_blobs() -> Result<()> {
    let large = "slow = package \"slow\" \"sleep 3; mkdir $out\";
        large = package \"large\" \"mkdir $out; head -c 46137344 /dev/urandom > $out/noise\";";
    for version in ENVOY_VERSIONS {
        let served = ServedSet::start(large, |settings| settings)?;
        let config = EnvoyConfig::standalone().registry_route(json!({"timeout": "1s"}));
        let edge = Edge::start(version, config, &served.builder)?;
        edge.pulls("slow")?;
        assert_eq!(edge.count("upstream_rq_timeout"), 0);
        let image = edge.pulls("large")?;
        let layers = image["layers"].as_array().context("layers")?;
        let layer = layers.iter().max_by_key(|layer| layer["size"].as_u64());
        let digest = layer.and_then(|layer| layer["digest"].as_str());
        let path = format!("/v2/large/blobs/{}", digest.context("a layer")?);
        let unread = ask(edge.envoy.port(), &path)?;
        poll::until("the blob is cut off", || {
            (edge.count("upstream_rq_timeout") == 1).then_some(())
        })?;
        drop(unread);
    }
    Ok(())
}

/// The builder closes idle connections, which Envoy notices; what it notices too late is a failed pull.
#[test]
fn connections_that_the_builder_has_closed_are_made_anew() -> Result<()> {
    let served = packages(|settings| settings)?;
    let cases = ENVOY_VERSIONS
        .into_iter()
        .flat_map(|version| [(version, false), (version, true)]);
    let cases: Vec<_> = cases
        .map(|(version, http2)| -> Result<_> {
            let hour = json!({"common_http_protocol_options": {"idle_timeout": "3600s"}});
            let config = protocol(EnvoyConfig::standalone(), hour);
            let config = if http2 { with_http2(config) } else { config };
            let edge = Edge::start(version, config, &served.builder)?;
            edge.pulls("good0")?;
            assert!(edge.count("upstream_cx_active") > 0);
            Ok(edge)
        })
        .collect::<Result<_>>()?;
    for edge in cases {
        poll::until("the builder has closed all connections", || {
            (edge.count("upstream_cx_active") == 0).then_some(())
        })?;
        edge.pulls("good1")?;
        assert_eq!(edge.count("upstream_rq_5xx"), 0);
    }
    Ok(())
}
