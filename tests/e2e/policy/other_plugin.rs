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
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::stub_builder::{Act, MARK, OCI, StubBuilder, response};
use nixgate_tests::live::{install, ports, scratch};
use serde_json::json;

use super::{SETTING, configured, manifest_of};

const SLIPPED_IN: &str = r#"{"slipped": "in"}"#;
const TRUE: &str = r#"{"true": "one"}"#;

/// A builder's answer, with facts by which it is refused or is not.
fn manifest(body: &str, matched: &[&str]) -> Vec<u8> {
    let facts =
        json!([{"tags": ["latest"], "system": "x86_64-linux", "names": {}, "matched": matched}]);
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
    let configured = configured(&policy);

    // Two have one configuration, to the byte: it is part of each key.
    let shipped = fs::read_to_string(install::root().join("envoy/standalone/filter.yaml"))?;
    let module = install::filter()?.display().to_string();
    let other = [
        ("name: nixgate\n", "name: other\n"),
        ("target/wasm32-wasip1/wasm/nixgate_filter.wasm", &module),
        (
            "host_env_keys: [NIXGATE_TOKEN]",
            &format!("key_values: {{ NIXGATE_TOKEN: {token} }}"),
        ),
        (SETTING, &configured),
    ];
    let other = other.iter().fold(shipped, |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    });
    let file = folder.path().join("other.yaml");
    fs::write(&file, other)?;
    let filter = format!(
        r#"http_filters:
                  - name: other
                    disabled: true
                    config_discovery:
                      type_urls: [type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm]
                      config_source:
                        path_config_source: {{ path: {} }}
                        resource_api_version: V3"#,
        file.display()
    );
    let host = r#"virtual_hosts:
                    - name: other
                      domains: [other.corp]
                      routes:
                        - match: { prefix: / }
                          route: { cluster: nixgate_builder }
                          typed_per_filter_config:
                            nixgate:
                              "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig
                              disabled: true
                            other:
                              "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig
                              config: {}
                              disabled: false"#;
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
    let settings = envoy::Settings::default()
        .with(SETTING, configured)
        .with("http_filters:", filter)
        .with("virtual_hosts:", host);
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
