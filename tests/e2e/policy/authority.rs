//! A policy by host: it is judged by the host that Envoy serves, however a request writes it. Old
//! and odd HTTP gets no more than ordinary requests.

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::http::request;
use nixgate_tests::live::raw::{http1, http2};
use nixgate_tests::live::stack::Stack;
use serde_json::json;

use super::{guarded_by, manifest_of};

/// What is in the manifest of every image, and in no refusal.
const MANIFEST: &str = "\"schemaVersion\"";

/// A registry of which `data.corp` alone gives out `free`.
fn stack(config: EnvoyConfig) -> Result<Stack> {
    let policy = json!({"revision": "r1", "default": "deny", "rules": [
        {"name": "data", "subject": {"host": {"glob": "data.corp"}}, "allow": ["free"]},
    ]});
    // Connections of malformed requests are left open for that long.
    let config = config.manager(json!({"delayed_close_timeout": "1s"}));
    let stack = guarded_by(&policy, config)?;
    let path = manifest_of("free");
    // It is known from here on, so that who may have it is all that is left to ask.
    let ask = |path: &str| {
        request(
            Method::GET,
            stack.envoy.port(),
            path,
            &[("host", "data.corp")],
        )
    };
    let mut answer = ask(&path)?;
    while answer.status == StatusCode::TEMPORARY_REDIRECT {
        answer = ask(answer.header("location"))?;
    }
    assert!(answer.text().contains(MANIFEST), "{}", answer.text());
    Ok(stack)
}

#[test]
fn no_spelling_of_the_host_is_another_hosts() -> Result<()> {
    let stack = stack(EnvoyConfig::standalone())?;
    let (port, path) = (stack.envoy.port(), manifest_of("free"));
    let two = |authority: &[(&str, &str)]| {
        let rest = [(":method", "GET"), (":scheme", "http"), (":path", &path)];
        http2(port, &[&rest, authority].concat())
    };
    let ours = two(&[(":authority", "DATA.corp:8443")])?;
    assert!(ours.is_some_and(|body| body.contains(MANIFEST)));
    for authority in [
        &[(":authority", "other.corp")][..],
        &[(":authority", "other.corp"), ("host", "data.corp")],
        &[(":authority", "other.corp"), (":authority", "data.corp")],
        &[(":authority", "data.corp"), (":authority", "other.corp")],
        &[("host", "other.corp"), ("host", "data.corp")],
        &[(":authority", ""), ("x-forwarded-host", "data.corp")],
        &[(":authority", "data.corp@other.corp")],
        &[(":authority", "other.corp@data.corp")],
        &[(":authority", "data.corp.")],
        &[(":authority", "data.corp:80:80")],
        &[(":authority", "data.corp,other.corp")],
        &[(":authority", "data.corp/")],
        &[(":authority", " data.corp")],
        &[(":authority", "data.corp\0")],
        &[
            (":authority", "other.corp"),
            ("x-forwarded-host", "data.corp"),
        ],
        &[
            (":authority", "other.corp"),
            ("forwarded", "host=data.corp"),
        ],
        &[],
    ] {
        let answer = two(authority)?.unwrap_or_default();
        assert!(!answer.contains(MANIFEST), "{authority:?}: {answer}");
    }
    for head in [
        format!("GET {path} HTTP/1.1\r\nHost: other.corp\r\nHost: data.corp"),
        format!("GET {path} HTTP/1.1\r\nHost: data.corp\r\nHost: other.corp"),
        format!("GET {path} HTTP/1.1\r\nHost : data.corp"),
        format!("GET {path} HTTP/1.1\r\nHost: other.corp\r\n\tdata.corp"),
        format!("GET {path} HTTP/1.1\r\nHost: other.corp data.corp"),
        format!("GET {path} HTTP/1.1\r\nX: data.corp"),
        // What a proxy is sent; its host is the one that counts (RFC 9112, 3.2.2).
        format!("GET http://other.corp{path} HTTP/1.1\r\nHost: data.corp"),
    ] {
        let answer = http1(port, &format!("{head}\r\nConnection: close\r\n\r\n"))?;
        assert!(!answer.contains(MANIFEST), "{head}: {answer}");
    }
    Ok(())
}

#[test]
fn http_1_0_gets_nothing_or_what_others_get() -> Result<()> {
    for is_taken in [false, true] {
        let options = json!({"http_protocol_options": {"accept_http_10": is_taken}});
        let stack = stack(EnvoyConfig::standalone().manager(options))?;
        let (port, path) = (stack.envoy.port(), manifest_of("free"));
        for (head, ours) in [
            (format!("GET {path} HTTP/1.0"), false),
            (format!("GET {path} HTTP/1.0\r\nHost: other.corp"), false),
            (format!("GET {path} HTTP/1.0\r\nHost: data.corp"), is_taken),
            (
                format!("GET {path} HTTP/1.0\r\nHost: other.corp\r\nHost: data.corp"),
                false,
            ),
            (
                format!("GET http://other.corp{path} HTTP/1.0\r\nHost: data.corp"),
                false,
            ),
        ] {
            let answer = http1(port, &format!("{head}\r\n\r\n"))?;
            assert_eq!(answer.contains(MANIFEST), ours, "{head}: {answer}");
        }
        // HTTP/0.9, which has no version and no headers.
        let answer = http1(port, &format!("GET {path}\r\n\r\n"))?;
        assert!(!answer.contains(MANIFEST), "{answer}");
    }
    Ok(())
}
