//! Requests that reach the builder without the filter: it is absent from the route, disabled, failed
//! open, or the builder's own port is asked. The builder refuses what does not bear the edge's token.

use std::fs;

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::{BUILDER, EnvoyConfig, FILTER_CONFIG};
use nixgate_tests::live::builder;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::http::{Response, ask as send, request};
use nixgate_tests::live::ingress::{self, Ingress};
use nixgate_tests::live::limited_filter::limited;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::stub_builder::{Act, StubBuilder, manifest, refusal};
use nixgate_tests::live::{install, poll, ports, scratch};
use serde_json::json;

use super::manifest_of;

/// 4 MiB, far more than these requests need.
const PAGES: u32 = 64;
/// More than that: an answer by which the VM dies.
const DEADLY: usize = 16 << 20;

/// Headers by which somebody might try to look like the edge.
const TRIES: [(&str, &str); 4] = [
    ("nixgate-token", "guess"),
    ("nixgate-token", ""),
    ("authorization", "Bearer the-token-of-the-tests"),
    ("x-other", "x"),
];

/// Asks for what is built and for what is not, in all ways; every answer is the builder's refusal.
fn is_refused(stack: &Stack, port: u16, host: &str) -> Result<()> {
    let digest = stack.digest("hello")?;
    let paths = [
        manifest_of("hello"),
        manifest_of("htop"),
        format!("/v2/hello/manifests/{digest}"),
        format!("/v2/hello/blobs/{digest}"),
        "/v2/hello/tags/list".to_owned(),
        "/v2/".to_owned(),
    ];
    for path in &paths {
        for method in [Method::GET, Method::HEAD] {
            for more in TRIES {
                let headers = [("host", host), more, ("range", "bytes=0-9")];
                let answer: Response = request(method.clone(), port, path, &headers)?;
                // Who has a token is taken for an edge that has the wrong one.
                let (status, code) = match more {
                    ("nixgate-token", _) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
                    _ => (StatusCode::FORBIDDEN, "DENIED"),
                };
                assert_eq!(answer.status, status, "{method} {path} {more:?}");
                assert!(
                    !answer.header("nixgate-builder").is_empty(),
                    "the builder's"
                );
                if method == Method::GET {
                    assert_eq!(answer.error()?.0, code, "{path} {more:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_builders_own_port_is_closed_to_others() -> Result<()> {
    let stack = Stack::start()?;
    is_refused(&stack, stack.builder.port(), "registry")
}

/// A route that goes to the builder without the filter.
#[test]
fn a_route_on_which_the_filter_is_disabled_opens_nothing() -> Result<()> {
    let route = json!({
        "match": {"prefix": "/"},
        "route": {"cluster": BUILDER},
        "typed_per_filter_config": {"nixgate": {"@type": FILTER_CONFIG, "disabled": true}},
    });
    let bare = json!({"name": "bare", "domains": ["bare.corp"], "routes": [route]});
    let envoy = envoy::Settings {
        config: EnvoyConfig::standalone().virtual_host(bare),
        ..Default::default()
    };
    let stack = Stack::with(envoy, builder::Settings::new)?;
    is_refused(&stack, stack.envoy.port(), "bare.corp")
}

/// An Envoy that has no such filter.
#[test]
fn a_listener_without_the_filter_opens_nothing() -> Result<()> {
    let stack = Stack::start()?;
    let settings = ingress::Settings {
        version: install::ENVOY_VERSIONS[0],
        workers: 1,
        app: stack.builder.port(),
        builder: None,
        refused: false,
        trace: false,
    };
    let ingress = Ingress::start(settings, stack.state())?;
    is_refused(&stack, ingress.port(), "app.corp")
}

/// A filter whose VM has died, with a setting of Envoy's by which requests then pass without it.
#[test]
fn a_filter_that_failed_open_passes_no_token_on() -> Result<()> {
    for version in install::ENVOY_VERSIONS {
        let state = scratch::folder("open-")?;
        let filter = state.path().join("limited.wasm");
        fs::write(&filter, limited(&fs::read(install::filter()?)?, PAGES)?)?;
        let port = ports::free()?;
        // As the builder itself does it, which refuses in the tests above.
        let _builder = StubBuilder::start(port, |asked| {
            Act::Send(match (asked.is_signed, asked.package()) {
                (false, _) => refusal("403 Forbidden", "DENIED", 0),
                (true, "deadly") => manifest(&vec![b' '; DEADLY], 300),
                (true, _) => manifest(b"{}", 300),
            })
        })?;
        let settings = envoy::Settings {
            version,
            workers: 1,
            filter: Some(filter),
            config: EnvoyConfig::standalone().plugin(json!({"failure_policy": "FAIL_OPEN"})),
        };
        let envoy = Envoy::start(settings, port, state.path())?;
        let ask = |package: &str| request(Method::GET, envoy.port(), &manifest_of(package), &[]);
        assert_eq!(ask("known")?.status, StatusCode::OK);
        let dying = send(envoy.port(), &manifest_of("deadly"))?;
        poll::until("requests pass without the filter", || {
            let answer = ask("known").ok()?;
            (answer.status == StatusCode::FORBIDDEN).then_some(())
        })?;
        drop(dying);
        for package in ["known", "new"] {
            assert_eq!(ask(package)?.error()?.0, "DENIED", "{package}");
        }
    }
    Ok(())
}
