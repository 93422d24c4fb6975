//! Another plugin with the filter's `vm_id`, which can write to all that the filter keeps in shared
//! data. It is the filter itself with another token: it knows every name and format, and has its own
//! answers where the filter looks for them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_core::distribution::Digest;
use nixgate_core::wire;
use nixgate_tests::envoy_config::{BUILDER, EnvoyConfig, FILTER_CONFIG};
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::stub_builder::{Act, MARK, OCI, StubBuilder, response};
use nixgate_tests::live::{install, ports, scratch};
use serde_json::json;

use super::manifest_of;

const SLIPPED_IN: &str = r#"{"slipped": "in"}"#;
const TRUE: &str = r#"{"true": "one"}"#;

/// A builder's answer, with facts by which it is refused or is not.
fn manifest(body: &str, matched: &[&str]) -> Vec<u8> {
    let facts =
        json!([{"tags": ["latest"], "system": "x86_64-linux", "names": [], "matched": matched}]);
    let headers = [
        MARK,
        ("content-type", OCI),
        (
            "docker-content-digest",
            &Digest::of(body.as_bytes()).to_string(),
        ),
        ("cache-control", "max-age=300"),
        (wire::FACTS, &facts.to_string()),
    ];
    response("200 OK", &headers, body.as_bytes())
}

/// What the filter answers after the other plugin, which has this token, was asked for the same.
fn answer_after(token: &str) -> Result<Response> {
    let folder = scratch::folder("plugin-")?;
    let policy = json!({"revision": "r1", "default": "deny", "rules": [
        {"name": "all", "allow": ["free"]},
        {"name": "clean", "facts": {"licences": ["unfree"]}},
    ]});
    let config = EnvoyConfig::standalone().settings(json!({"policy": policy}));

    // Two have one configuration, to the byte: it is part of each key.
    let token = json!({"host_env_keys": null, "key_values": {"NIXGATE_TOKEN": token}});
    let other = config
        .clone()
        .module(&install::filter()?)
        .plugin(json!({"vm_config": {"environment_variables": token}}));
    let file = folder.path().join("other.yaml");
    fs::write(&file, other.filter().clone().name("other").yaml())?;
    let source = json!({"path_config_source": {"path": file}, "resource_api_version": "V3"});
    let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
    let filter = json!({
        "name": "other",
        "disabled": true,
        "config_discovery": {"type_urls": [wasm], "config_source": source},
    });
    let route = json!({
        "match": {"prefix": "/"},
        "route": {"cluster": BUILDER},
        "typed_per_filter_config": {
            "nixgate": {"@type": FILTER_CONFIG, "disabled": true},
            "other": {"@type": FILTER_CONFIG, "config": {}, "disabled": false},
        },
    });
    let host = json!({"name": "other", "domains": ["other.corp"], "routes": [route]});
    let is_other = Arc::new(AtomicBool::new(true));
    let asker = Arc::clone(&is_other);
    let builder = ports::free()?;
    let _builder = StubBuilder::start(builder, move |_| {
        Act::Send(if asker.load(Ordering::SeqCst) {
            manifest(SLIPPED_IN, &[])
        } else {
            manifest(TRUE, &["clean"])
        })
    })?;
    let settings = envoy::Settings {
        config: config.http_filter(filter).virtual_host(host),
        ..Default::default()
    };
    let envoy = Envoy::start(settings, builder, folder.path())?;
    let ask = |host: &str| {
        request(
            Method::GET,
            envoy.port(),
            &manifest_of("free"),
            &[("host", host)],
        )
    };
    let others = ask("other.corp")?;
    assert_eq!(others.text(), SLIPPED_IN);
    is_other.store(false, Ordering::SeqCst);
    ask("registry.corp")
}

#[test]
fn what_another_plugin_writes_into_the_shared_cache_is_not_believed() -> Result<()> {
    // With the builder's token it would be: so that what is tested here is reached at all.
    let believed = answer_after(TOKEN)?;
    assert_eq!(believed.text(), SLIPPED_IN);
    let answer = answer_after("another-token")?;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
    assert!(
        answer.text().contains("the rule clean"),
        "{}",
        answer.text()
    );
    Ok(())
}
