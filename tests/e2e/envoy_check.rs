//! `nixgate envoy check`, by the real binary: it finds the same in files as in a running Envoy.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::envoy_config::{BUILDER, EnvoyConfig, FILTER_CONFIG};
use nixgate_tests::live::admin::Admin;
use nixgate_tests::live::company::Company;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::gateway::{self, Gateway};
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::{builder, ports, scratch};
use serde_json::{Value, json};

/// Severity, check and place.
type Found = BTreeSet<(String, String, String)>;

/// What the command finds. Notes, which say what cannot be known, are left out.
fn check(arguments: &[&str]) -> Result<Found> {
    let output = Command::new(install::builder()?)
        .args(["envoy", "check", "--json"])
        .args(arguments)
        .current_dir(install::root())
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let findings = report["findings"].as_array().context("a list")?;
    let text = |finding: &Value, key: &str| finding[key].as_str().map(str::to_owned);
    let found = findings.iter().filter_map(|one| {
        let severity = text(one, "severity")?;
        Some((severity, text(one, "check")?, text(one, "where")?))
    });
    let found: Found = found.filter(|(severity, ..)| severity != "note").collect();
    let has_errors = found.iter().any(|(severity, ..)| severity == "error");
    assert_eq!(output.status.code(), Some(i32::from(has_errors)));
    Ok(found)
}

fn in_running(admin: &Admin) -> Result<Found> {
    check(&["--admin", &format!("unix:{}", admin.socket().display())])
}

fn in_files(folder: &Path) -> Result<Found> {
    check(&[&folder.join("envoy.yaml").display().to_string()])
}

/// Finds the same in the files of a folder and in the Envoy that was started with them.
fn in_both(folder: &Path, admin: &Admin) -> Result<Found> {
    let found = in_files(folder)?;
    assert_eq!(found, in_running(admin)?);
    Ok(found)
}

fn start(version: &'static str, config: EnvoyConfig, state: &Path) -> Result<Envoy> {
    let settings = envoy::Settings {
        version,
        workers: 1,
        config,
        ..Default::default()
    };
    Envoy::start(settings, ports::free()?, state)
}

#[test]
fn nothing_is_found_in_the_shipped_examples() -> Result<()> {
    for version in ENVOY_VERSIONS {
        for config in [
            EnvoyConfig::standalone(),
            EnvoyConfig::beside_registry(ports::free()?),
            EnvoyConfig::existing_ingress(ports::free()?),
        ] {
            let state = scratch::folder("check-")?;
            let envoy = start(version, config, state.path())?;
            assert_eq!(in_both(state.path(), envoy.admin())?, Found::new());
        }
        let settings = gateway::Settings {
            version,
            ..Default::default()
        };
        let gateway = Gateway::start(&settings)?;
        assert_eq!(in_both(&gateway.files(), gateway.admin())?, Found::new());
    }
    Ok(())
}

#[test]
fn a_companys_own_listener_is_not_judged_by_what_it_does_for_others() -> Result<()> {
    let company = Company::start()?;
    company.put_all()?;
    for version in ENVOY_VERSIONS {
        let _envoy = company.envoy(version, builder::TOKEN)?;
        let found = in_both(&company.etc(), company.admin())?;
        let places: BTreeSet<_> = found
            .iter()
            .map(|(severity, _, place)| (severity.as_str(), place.as_str()))
            .collect();
        assert_eq!(places, [("warning", "listener secure")].into(), "{found:?}");
    }
    Ok(())
}

#[test]
fn faults_are_found_alike_in_files_and_in_a_running_envoy() -> Result<()> {
    let bare = json!({
        "name": "bare",
        "domains": ["bare.corp"],
        "retry_policy": {"retry_on": "5xx"},
        "request_headers_to_add": [{"header": {"key": "nixgate-token", "value": "guess"}}],
        "routes": [{
            "match": {"prefix": "/v2"},
            "route": {"cluster": BUILDER, "idle_timeout": "20s",
                "hedge_policy": {"hedge_on_per_try_timeout": true}},
            "typed_per_filter_config": {"nixgate": {"@type": FILTER_CONFIG, "disabled": true}},
        }],
    });
    let other = json!({
        "name": "other",
        "domains": ["other.corp"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
    });
    let app = json!({"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app"}});
    for version in ENVOY_VERSIONS {
        let config = EnvoyConfig::standalone()
            .virtual_host(bare.clone())
            .virtual_host(other.clone())
            .more_clusters(json!([app]))
            .plugin(json!({"failure_policy": "FAIL_OPEN", "reload_config": null}))
            .manager(json!({
                "use_remote_address": null, "delayed_close_timeout": null, "normalize_path": true,
                "merge_slashes": true, "preserve_external_request_id": true,
                "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
                "request_timeout": "20s", "http2_protocol_options": null,
                "local_reply_config": {"body_format": {"json_format": {"a": "b"}}},
            }))
            .cluster(
                BUILDER,
                json!({"circuit_breakers": null, "outlier_detection": {},
                    "per_connection_buffer_limit_bytes": null,
                    "health_checks": [{"timeout": "1s", "interval": "60s", "unhealthy_threshold": 1,
                        "healthy_threshold": 1, "http_health_check": {"path": "/readyz"}}]}),
            );
        let state = scratch::folder("check-")?;
        let envoy = start(version, config, state.path())?;
        let found = in_both(state.path(), envoy.admin())?;
        let found: BTreeSet<_> = found
            .iter()
            .map(|(severity, check, _)| (severity.as_str(), check.as_str()))
            .collect();
        let expected = [
            ("error", "failure-policy"),
            ("error", "idle-timeout"),
            ("error", "login-headers"),
            ("error", "other-services"),
            ("error", "remote-address"),
            ("error", "reply-not-bound"),
            ("error", "reply-rewrites"),
            ("error", "request-timeout"),
            ("error", "route-timeout"),
            ("error", "route-without-filter"),
            ("error", "token-header"),
            ("warning", "circuit-breakers"),
            ("warning", "cluster-buffer"),
            ("warning", "delayed-close"),
            ("warning", "health-checks"),
            ("warning", "hedging"),
            ("warning", "http2"),
            ("warning", "outlier-detection"),
            ("warning", "paths"),
            ("warning", "reload-config"),
            ("warning", "request-id"),
            ("warning", "retries"),
            ("warning", "token-in-text"),
        ];
        assert_eq!(found, expected.into(), "Envoy {version}");
    }
    Ok(())
}

/// Envoy shows a filter's configuration in `/config_dump` also when it has refused it.
#[test]
fn a_configuration_that_envoy_has_refused_is_an_error_until_it_takes_another() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let state = scratch::folder("check-")?;
        let settings = envoy::Settings {
            version,
            filter: Some("/dev/null".into()),
            ..Default::default()
        };
        let envoy = Envoy::start(settings, ports::free()?, state.path())?;
        let place = "extension_config_discovery.http_filter.nixgate";
        let refused = |severity: &str| {
            let parts = [severity, "refused", place].map(str::to_owned);
            let [severity, check, place] = parts;
            (severity, check, place)
        };
        let found = in_running(envoy.admin())?;
        assert!(found.contains(&refused("error")), "{found:?}");
    }
    Ok(())
}
