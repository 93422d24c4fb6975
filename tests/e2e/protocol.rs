//! What a client sees at the edge, by every tested Envoy, of what is new and of what is known.

use std::thread;

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_core::distribution::Code;
use nixgate_core::requests::{Answer, Case, requests};
use nixgate_tests::live::builder::Settings;
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::{Response, get, request};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::poll;
use nixgate_tests::live::stack::Stack;

use crate::shared;

const HELLO: &str = "/v2/hello/manifests/latest";

/// Asserts that an answer is the one of the table; without a body for `HEAD`.
fn is_as_expected(case: &Case, method: &Method, answer: &Response) -> Result<()> {
    let path = &case.path;
    let (status, code) = match case.answer {
        Answer::Edge(status, code) | Answer::Builder(status, code) => (status, code),
        Answer::Elsewhere => {
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
            assert_eq!(answer.header("content-type"), "text/plain", "{path}");
            return Ok(());
        }
    };
    assert_eq!(
        answer.status.as_u16(),
        status,
        "{method} {path}: {}",
        answer.text()
    );
    if method == Method::HEAD {
        assert!(answer.body.is_empty(), "{path}");
    } else if let Some(code) = code {
        assert_eq!(answer.error()?.0, code.as_str(), "{method} {path}");
    }
    assert_eq!(answer.header("allow").is_empty(), status != 405, "{path}");
    Ok(())
}

#[test]
fn every_envoy_answers_every_request_as_the_table_says_cold_and_warm() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let envoy = envoy::Settings {
            version,
            ..Default::default()
        };
        let stack = Stack::with(envoy, Settings::new)?;
        // Built first: a request that is held for a slow build would be redirected.
        stack.digest("git")?;
        for case in requests() {
            let ask =
                |method: &Method| request(method.clone(), stack.envoy.port(), &case.path, &[]);
            let method: Method = case.method.parse()?;
            let cold = ask(&method)?;
            is_as_expected(&case, &method, &cold)?;
            let warm = ask(&method)?;
            is_as_expected(&case, &method, &warm)?;
            assert_eq!(cold.body, warm.body, "{}", case.path);
            if method == Method::GET {
                let head = ask(&Method::HEAD)?;
                is_as_expected(&case, &Method::HEAD, &head)?;
                // Of a refusal to HEAD, only the builder knows the body, and it sends none.
                if matches!(case.answer, Answer::Builder(404, Some(Code::BlobUnknown))) {
                    continue;
                }
                for name in ["content-type", "docker-content-digest", "etag"] {
                    assert_eq!(
                        head.header(name),
                        warm.header(name),
                        "{name}: {}",
                        case.path
                    );
                }
                let length = warm.body.len().to_string();
                assert_eq!(head.header("content-length"), length, "{}", case.path);
            }
        }
    }
    Ok(())
}

#[test]
fn a_list_of_referrers_is_an_empty_index() -> Result<()> {
    let digest = shared().digest("shell/git")?;
    let answer = shared().get(&format!("/v2/shell/git/referrers/{digest}"))?;
    let index: serde_json::Value = serde_json::from_slice(&answer.body)?;
    assert_eq!(
        answer.header("content-type"),
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["manifests"], serde_json::json!([]));
    Ok(())
}

#[test]
fn all_accept_headers_count() -> Result<()> {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    for (accept, kind) in [
        (&["text/html", DOCKER][..], DOCKER),
        (&[DOCKER, "*/*", OCI], OCI),
        (&["text/html"], OCI),
        (&[], OCI),
    ] {
        let headers: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
        let port = shared().envoy.port();
        let answer = request(
            Method::GET,
            port,
            "/v2/shell/git/manifests/latest",
            &headers,
        )?;
        assert_eq!(answer.header("content-type"), kind, "{accept:?}");
    }
    Ok(())
}

#[test]
fn a_manifest_that_the_client_has_is_not_sent_again() -> Result<()> {
    let path = "/v2/shell/git/manifests/latest";
    let etag = shared().get(path)?.header("etag").to_owned();
    for method in [Method::GET, Method::HEAD] {
        for tags in [
            &[etag.as_str()][..],
            &["*"],
            &["\"x\"", &format!("W/{etag}")],
        ] {
            let headers: Vec<_> = tags.iter().map(|tag| ("if-none-match", *tag)).collect();
            let answer = request(method.clone(), shared().envoy.port(), path, &headers)?;
            assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{method} {tags:?}");
            assert_eq!(answer.header("etag"), etag);
            assert!(answer.body.is_empty());
        }
    }
    Ok(())
}

#[test]
fn a_manifest_that_was_waited_for_is_not_sent_to_who_has_it() -> Result<()> {
    let (stack, set) = Stack::gated(envoy::Settings::default(), &[])?;
    let port = stack.envoy.port();
    let path = "/v2/gated/manifests/latest";
    let waiting =
        thread::spawn(move || request(Method::GET, port, path, &[("if-none-match", "*")]));
    set.wait_for_start()?;
    set.open()?;
    let answer = waiting.join().expect("the client's thread ends")?;
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{}", answer.text());
    assert_eq!(answer.header("etag"), get(port, path)?.header("etag"));
    Ok(())
}

#[test]
fn an_old_manifest_is_served_and_marked_when_the_builder_is_gone() -> Result<()> {
    let stack = Stack::with(envoy::Settings::default(), |state| {
        Ok(Settings::new(state)?.with("NIXGATE_PIN_SECONDS", "5"))
    })?;
    let fresh = stack.get(HELLO)?;
    assert_eq!(fresh.status, StatusCode::OK, "{}", fresh.text());
    assert_eq!(fresh.header("warning"), "");
    let (envoy, _state) = stack.without_builder();
    let old = poll::until("the manifest's time is over", || {
        let answer = get(envoy.port(), HELLO).ok()?;
        (answer.headers.contains_key("warning") || answer.status != StatusCode::OK)
            .then_some(answer)
    })?;
    assert_eq!(old.header("warning"), "110 - \"Response is Stale\"");
    assert_eq!((old.status, &old.body), (StatusCode::OK, &fresh.body));
    for name in ["content-type", "docker-content-digest", "etag"] {
        assert_eq!(old.header(name), fresh.header(name), "{name}");
    }
    let etag = [("if-none-match", fresh.header("etag"))];
    let known = request(Method::GET, envoy.port(), HELLO, &etag)?;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    let other = get(envoy.port(), "/v2/git/manifests/latest")?;
    assert_eq!(other.error()?.0, "UNAVAILABLE");
    Ok(())
}
