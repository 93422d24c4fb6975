//! What filters behind nixgate see of the builder's token: nothing but a signature of the request.

use std::path::Path;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_core::wire;
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::http::request;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::poll;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{builder, envoy};
use serde_json::{Value, json};

use crate::clock::{by_clock, turn};

/// A filter that logs all headers of each request that reaches it.
fn recorder() -> Value {
    let code = r#"
        function envoy_on_request(handle)
          local line = "SEEN"
          for name, value in pairs(handle:headers()) do
            line = line .. " " .. name .. "=" .. value
          end
          handle:logErr(line)
        end
    "#;
    json!({
        "name": "recorder",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": code},
        },
    })
}

/// The digest of the image's config, a blob.
fn blob(stack: &Stack, image: &str) -> Result<String> {
    let manifest = stack.get(&format!("/v2/{image}/manifests/latest"))?.text();
    let parsed: Value = serde_json::from_str(&manifest)?;
    let digest = parsed["config"]["digest"].as_str();
    Ok(format!("/v2/{image}/blobs/{}", digest.context(manifest)?))
}

#[test]
fn a_filter_behind_nixgate_sees_a_signature_that_opens_one_request() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = envoy::Settings {
            version,
            config: EnvoyConfig::standalone().filter_behind_nixgate(recorder()),
            ..Default::default()
        };
        let stack = Stack::with(settings, builder::Settings::new)?;
        let path = blob(&stack, "hello")?;
        assert_eq!(stack.get(&path)?.status, StatusCode::OK);
        let seen = poll::until("the filter behind nixgate has seen the blob", || {
            let log = stack.envoy.log();
            let mut lines = log.lines().filter(|line| line.contains("SEEN"));
            lines
                .find(|line| line.contains("/blobs/"))
                .map(str::to_owned)
        })?;
        assert!(!stack.envoy.log().contains(TOKEN), "{seen}");
        let value = |name: &str| {
            let (_, value) = seen.split_once(&format!(" {name}="))?;
            value.split([' ', '"']).next()
        };
        let signature = value(wire::TOKEN).context("it is signed")?;
        let upstream = value(":path").context("it has a path")?;

        let ask = |method: Method, path: &str| {
            let headers = [(wire::TOKEN, signature)];
            request(method, stack.builder.port(), path, &headers)
        };
        assert_eq!(ask(Method::GET, upstream)?.status, StatusCode::OK);
        let other = upstream.replace("/blobs/", "/manifests/");
        let others = [
            (Method::HEAD, upstream.to_owned()),
            (Method::GET, format!("{upstream}?x=1")),
            (Method::GET, other),
            (Method::GET, "/v2/git/manifests/latest".to_owned()),
        ];
        for (method, path) in others {
            let refused = ask(method.clone(), &path)?;
            assert_eq!(
                refused.header(wire::REFUSES),
                wire::REFUSES_TOKEN,
                "{method} {path}"
            );
        }
    }
    Ok(())
}

#[test]
fn an_edge_goes_by_the_builders_clock() -> Result<()> {
    let clock = |folder: &Path| folder.join("clock");
    let ahead = |folder: &Path| {
        turn(&clock(folder), "+2h")?;
        by_clock(builder::Settings::new(folder)?, &clock(folder))
    };
    let stack = Stack::with(envoy::Settings::default(), ahead)?;
    for (image, jump) in [("hello", "-2h"), ("git", "+0h"), ("htop", "+0h")] {
        let blob = stack.get(&blob(&stack, image)?)?;
        assert_eq!(blob.status, StatusCode::OK, "{image}: {}", blob.text());
        turn(&clock(stack.state()), jump)?;
    }
    let log = stack.envoy.log();
    assert!(
        log.contains("this Envoy's clock and the builder's"),
        "{log}"
    );
    Ok(())
}
