//! The company's own issuer: its tokens serve as passwords, and at the gateway.

use std::sync::Arc;

use anyhow::Result;
use http::StatusCode;
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::gateway::{Gateway, Settings};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::issuer::{Issuer, now};
use nixgate_tests::live::poll;
use nixgate_tests::live::ports;
use nixgate_tests::live::stub_builder::{Act, StubBuilder, response};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::tokens;

const ISSUER: &str = "https://login.corp.example";

/// Serves the public keys of an issuer, which can be exchanged.
struct Keys {
    current: Arc<Mutex<String>>,
    port: u16,
    _server: StubBuilder,
}

impl Keys {
    fn serve(issuer: &Issuer) -> Result<Self> {
        let (port, current) = (ports::free()?, Arc::new(Mutex::new(issuer.keys())));
        let keys = Arc::clone(&current);
        let server = StubBuilder::start(port, move |_| {
            let keys = keys.lock();
            let headers = [("content-type", "application/json")];
            Act::Send(response("200 OK", &headers, keys.as_bytes()))
        })?;
        Ok(Self {
            current,
            port,
            _server: server,
        })
    }

    fn exchange(&self, issuer: &Issuer) {
        *self.current.lock() = issuer.keys();
    }

    fn gateway(&self, version: &'static str) -> Result<Gateway> {
        gateway(version, self.port)
    }
}

/// A gateway for tokens of the issuer whose keys are to be had at that port.
fn gateway(version: &'static str, keys: u16) -> Result<Gateway> {
    Gateway::start(&Settings {
        version,
        config: EnvoyConfig::gateway_with_issuer(keys),
        environment: vec![
            ("NIXGATE_OIDC_JWKS", format!("http://127.0.0.1:{keys}/keys")),
            ("NIXGATE_OIDC_ISSUER", ISSUER.to_owned()),
            ("NIXGATE_OIDC_AUDIENCE", "nixgate".to_owned()),
        ],
        ..Settings::default()
    })
}

fn claims(changes: &Value) -> Value {
    let good = json!({
        "iss": ISSUER, "aud": ["nixgate", "mail"], "sub": "dora", "groups": ["web-team"],
        "exp": now() + 600,
    });
    tokens::claims(good, changes)
}

#[test]
fn a_token_of_the_company_is_a_password() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let company = Issuer::new("first")?;
        let keys = Keys::serve(&company)?;
        let gateway = keys.gateway(version)?;
        let token = company.sign(&claims(&json!({})))?;

        let answer = gateway.log_in("any", &token)?;
        let body: Value = serde_json::from_slice(&answer.body)?;
        assert_eq!(body["token"], token, "it comes back as it is");
        assert!(
            body["expires_in"]
                .as_u64()
                .is_some_and(|left| 0 < left && left <= 600)
        );
        let podman = Podman::new()?;
        podman.login(&gateway.registry(), "any", &token, &gateway.ca())?;
        podman.pull_logged_in(&gateway.image("hello"), &gateway.ca())?;
        // Its groups count as those of the file's users do, who are still there.
        let denied = gateway.get("/v2/sqlite/manifests/latest", Some(&token))?;
        assert_eq!(denied.error()?.0, "DENIED");
        let alice = gateway.token("alice")?;
        assert_eq!(gateway.get("/v2/", Some(&alice))?.status, StatusCode::OK);

        // What is wrong with one is told at the login, and the gateway takes none of them.
        let stranger = Issuer::new("first")?.sign(&claims(&json!({})))?;
        let mut bad = vec![("no key of the OIDC issuer", stranger)];
        bad.push((
            "no key of the OIDC issuer",
            company.confuse(&claims(&json!({})))?,
        ));
        for (part, changes) in [
            ("expired", json!({"exp": now() - 120})),
            ("lacks", json!({"exp": null})),
            ("(aud)", json!({"aud": "mail"})),
            ("(iss)", json!({"iss": "https://evil.example"})),
            // The issuer of the builder's own tokens, by another key.
            ("(iss)", json!({"iss": "nixgate"})),
        ] {
            bad.push((part, company.sign(&claims(&changes))?));
        }
        for (part, token) in bad {
            let (code, message) = gateway.log_in("any", &token)?.error()?;
            assert_eq!(code, "UNAUTHORIZED");
            assert!(message.contains(part), "{part}: {message}");
            let answer = gateway.get("/v2/", Some(&token))?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{part}");
            assert!(
                answer
                    .header("www-authenticate")
                    .starts_with("Bearer realm=")
            );
        }
        assert!(!gateway.builder.log().contains(&token));
    }
    Ok(())
}

#[test]
fn a_new_key_of_the_company_is_found() -> Result<()> {
    let (first, second) = (Issuer::new("first")?, Issuer::new("second")?);
    let keys = Keys::serve(&first)?;
    let gateway = keys.gateway(ENVOY_VERSIONS[0])?;
    let login = |issuer: &Issuer| gateway.log_in("any", &issuer.sign(&claims(&json!({})))?);
    assert_eq!(login(&first)?.status, StatusCode::OK);
    assert_eq!(login(&second)?.status, StatusCode::UNAUTHORIZED);
    keys.exchange(&second);
    // Not at once: who invents names of keys can't have the issuer asked all the time.
    poll::until("the builder has asked for the new key", || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        (login(&second).ok()?.status == StatusCode::OK).then_some(())
    })?;
    assert_eq!(
        login(&first)?.status,
        StatusCode::UNAUTHORIZED,
        "it was withdrawn"
    );
    Ok(())
}

#[test]
fn a_token_is_not_blamed_for_keys_that_cannot_be_had() -> Result<()> {
    let company = Issuer::new("first")?;
    let token = company.sign(&claims(&json!({})))?;
    for version in ENVOY_VERSIONS {
        let port = ports::free()?;
        let gateway = gateway(version, port)?;
        let refused = |why: &str| -> Result<()> {
            for path in ["/v2/", "/v2/hello/manifests/latest"] {
                let answer = gateway.get(path, Some(&token))?;
                assert_eq!(
                    answer.status,
                    StatusCode::SERVICE_UNAVAILABLE,
                    "{why}: {}",
                    answer.text()
                );
                // Nobody's own address, and no word against the token.
                let challenge = format!(
                    "Bearer realm=\"https://{}/v2/token\",service=\"nixgate\"",
                    gateway.registry()
                );
                assert_eq!(answer.header("www-authenticate"), challenge, "{why}");
                assert_eq!(answer.header("retry-after"), "5", "{why}");
                let (code, message) = answer.error()?;
                assert_eq!(code, "UNAVAILABLE", "{why}");
                assert!(message.contains("keys"), "{why}: {message}");
            }
            Ok(())
        };
        refused("nobody listens")?;
        for (why, head, body) in [
            ("an error", "500 Internal Server Error", ""),
            ("no JSON", "200 OK", "<html>"),
            ("no keys", "200 OK", r#"{"keys": []}"#),
        ] {
            let answer = Act::Send(response(head, &[], body.as_bytes()));
            let _server = StubBuilder::start(port, move |_| answer.clone())?;
            refused(why)?;
        }
        // Tokens of the builder are checked by other keys, and one that is missing by none.
        let alice = gateway.token("alice")?;
        assert_eq!(gateway.get("/v2/", Some(&alice))?.status, StatusCode::OK);
        assert_eq!(gateway.get("/v2/", None)?.status, StatusCode::UNAUTHORIZED);

        // The token was good all along.
        let keys = company.keys();
        let answer = Act::Send(response("200 OK", &[], keys.as_bytes()));
        let _server = StubBuilder::start(port, move |_| answer.clone())?;
        poll::until("Envoy has the keys", || {
            let answer = gateway.get("/v2/", Some(&token)).ok()?;
            (answer.status == StatusCode::OK).then_some(())
        })?;
    }
    Ok(())
}
