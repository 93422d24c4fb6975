//! What stands in front of nixgate: nginx and HAProxy, by the snippets of the guide, and a registry
//! that keeps what it has pulled through.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use nixgate_core::distribution::MediaType;
use nixgate_tests::envoy_config::{self, EnvoyConfig};
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::docker_registry::DockerRegistry;
use nixgate_tests::live::http::{get, request};
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::process::Process;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{envoy, poll, ports, raw, scratch};

use super::shared;

/// The block of the guide that has this text.
fn snippet(part: &str) -> Result<String> {
    let page = fs::read_to_string(install::root().join("docs/src/behind-a-balancer.md"))?;
    let mut blocks = page.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains(part));
    let (_, text) = block
        .and_then(|block| block.split_once('\n'))
        .context(part.to_owned())?;
    Ok(text.to_owned())
}

/// A balancer that a snippet of the guide configures, in front of an Envoy.
struct Balancer {
    _process: Process,
    port: u16,
}

impl Balancer {
    fn nginx(snippet: &str, state: &Path) -> Result<Self> {
        let files = state.display();
        let head = format!(
            "daemon off; user root; pid {files}/nginx.pid; error_log stderr warn;
             events {{ worker_connections 1024; }}
             http {{ access_log off;\n"
        );
        let file = state.join("nginx.conf");
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(&file);
        Self::start(&file, &format!("{head}{snippet}}}\n"), &command)
    }

    fn haproxy(snippet: &str, state: &Path) -> Result<Self> {
        let file = state.join("haproxy.cfg");
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f"]).arg(&file);
        Self::start(&file, snippet, &command)
    }

    /// With the port 80 of the snippet at one that is free.
    fn start(file: &Path, config: &str, command: &Command) -> Result<Self> {
        let port = ports::free()?;
        let shown = ["listen 80;", "bind :80\n"];
        let ours = [
            format!("listen 127.0.0.1:{port};"),
            format!("bind 127.0.0.1:{port}\n"),
        ];
        ensure!(shown.iter().any(|shown| config.contains(shown)), "{config}");
        let config = shown
            .iter()
            .zip(&ours)
            .fold(config.to_owned(), |config, (shown, ours)| {
                config.replace(shown, ours)
            });
        fs::write(file, config)?;
        let mut process = Process::start(command, &file.with_extension("log"))?;
        process.until("the balancer serves the registry", |_| {
            let answer = get(port, "/v2/").ok()?;
            answer.status.is_success().then_some(())
        })?;
        Ok(Self {
            _process: process,
            port,
        })
    }
}

/// An Envoy as the guide has it behind a balancer.
fn behind_one(version: &'static str) -> Result<Stack> {
    let hops = envoy_config::parse(&snippet("xff_num_trusted_hops")?);
    let settings = envoy::Settings {
        version,
        config: EnvoyConfig::standalone().manager(hops),
        ..Default::default()
    };
    Stack::with(settings, nixgate_tests::live::builder::Settings::new)
}

/// Pulls through the balancer, and looks whether Envoy knows who asked.
fn serves(balancer: &Balancer, stack: &Stack, name: &str) -> Result<()> {
    let image = format!("127.0.0.1:{}/{name}", balancer.port);
    let copy = scratch::folder("copy-")?;
    skopeo::copy(&image, copy.path())?;
    // Refusals come as they are, and so do redirects: clients find the way by themselves.
    let unknown = get(balancer.port, "/v2/no-such-package/manifests/latest")?;
    assert_eq!(unknown.error()?.0, "MANIFEST_UNKNOWN");
    // What a client says of itself counts for nothing: the balancer's word does.
    let path = "/v2/hello/tags/list?by=the-client";
    let spoofed = [("x-forwarded-for", "10.6.6.6")];
    let answer = request(Method::GET, balancer.port, path, &spoofed)?;
    assert_eq!(answer.status, StatusCode::OK);
    poll::until("the log has the client's request", || {
        stack
            .envoy
            .log()
            .contains("/v2/hello/tags/list")
            .then_some(())
    })?;
    assert!(!stack.envoy.log().contains("10.6.6.6"));
    Ok(())
}

#[test]
fn nginx_in_front_serves_by_the_guides_configuration() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let stack = behind_one(version)?;
        let state = scratch::folder("balancer-")?;
        let config = snippet("proxy_http_version")?;
        let port = |port: u16| format!("127.0.0.1:{port}");
        let config = config.replace(&port(8080), &port(stack.envoy.port()));
        let nginx = Balancer::nginx(&config, state.path())?;
        serves(&nginx, &stack, "hello")?;
    }
    Ok(())
}

#[test]
fn haproxy_in_front_serves_by_the_guides_configuration() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let stack = behind_one(version)?;
        let state = scratch::folder("balancer-")?;
        let config = snippet("option httpchk")?;
        let port = |port: u16| format!("127.0.0.1:{port}");
        let config = config.replace(&port(8080), &port(stack.envoy.port()));
        // Its health check has to succeed before it serves at all.
        let haproxy = Balancer::haproxy(&config, state.path())?;
        serves(&haproxy, &stack, "hello")?;
    }
    Ok(())
}

#[test]
fn a_registry_that_pulls_through_serves_what_it_has_when_nixgate_is_away() -> Result<()> {
    let stack = Stack::start()?;
    let folder = scratch::folder("registry-")?;
    let upstream = format!("http://127.0.0.1:{}", stack.envoy.port());
    let registry = DockerRegistry::pull_through(folder.path(), &upstream)?;
    let pull = |name: &str| -> Result<()> {
        let copy = scratch::folder("copy-")?;
        skopeo::copy(
            &format!("127.0.0.1:{}/{name}", registry.port()),
            copy.path(),
        )
    };
    pull("hello")?;
    let manifest = |port: u16| {
        let accept = [("accept", MediaType::Oci.as_str())];
        request(Method::GET, port, "/v2/hello/manifests/latest", &accept)
    };
    let (theirs, ours) = (manifest(registry.port())?, manifest(stack.envoy.port())?);
    assert_eq!(theirs.body, ours.body);
    let unknown = get(registry.port(), "/v2/no-such-package/manifests/latest")?;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);

    let (envoy, _state) = stack.without_builder();
    drop(envoy);
    pull("hello")?;
    Ok(())
}

#[test]
fn http_1_0_is_told_what_to_set() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = envoy::Settings {
            version,
            ..envoy::Settings::default()
        };
        let stack = Stack::with(settings, nixgate_tests::live::builder::Settings::new)?;
        // As nginx asks, and as HAProxy looks after health, if nobody tells them otherwise.
        for request in [
            "GET /v2/ HTTP/1.0\r\nHost: registry\r\nConnection: close\r\n\r\n",
            "OPTIONS / HTTP/1.0\r\n\r\n",
        ] {
            let answer = raw::http1(stack.envoy.port(), request)?;
            assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
            assert!(answer.contains("application/json"), "{answer}");
            let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
            let body: serde_json::Value = serde_json::from_str(body)?;
            assert_eq!(body["errors"][0]["code"], "UNSUPPORTED");
            let message = body["errors"][0]["message"].as_str().unwrap_or_default();
            assert!(message.contains("proxy_http_version 1.1"), "{message}");
        }
    }
    Ok(())
}

#[test]
fn half_a_head_is_not_waited_for_for_ever() -> Result<()> {
    let stack = shared();
    let answer = raw::http1(stack.envoy.port(), "GET /v2/ HTTP/1.1\r\nHost: reg")?;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("did not arrive in time"), "{answer}");
    Ok(())
}

#[test]
fn no_header_of_a_client_changes_what_is_logged() -> Result<()> {
    let stack = shared();
    let spoofed = [
        ("x-envoy-original-path", "/v2/spoofed/manifests/latest"),
        ("x-request-id", "11111111-1111-4111-8111-111111111111"),
        ("x-forwarded-for", "10.6.6.6"),
    ];
    let path = "/v2/hello/manifests/not-spoofed";
    request(Method::GET, stack.envoy.port(), path, &spoofed)?;
    poll::until("the request is in the log", || {
        stack.envoy.log().contains("not-spoofed").then_some(())
    })?;
    for word in ["/v2/spoofed", "11111111-1111", "10.6.6.6"] {
        assert!(!stack.envoy.log().contains(word), "{word}");
    }
    Ok(())
}
