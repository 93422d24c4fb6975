//! Tokens at the gateway: what a good one opens, and that no other opens anything.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::gateway::{Gateway, Settings};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::issuer::{Issuer, now};
use serde_json::{Value, json};

use super::shared;

const MANIFEST: &str = "/v2/hello/manifests/latest";

/// The claims of a token of the builder's, but for what `changes` says; null takes one away.
pub(super) fn claims(mut claims: Value, changes: &Value) -> Value {
    let fields = claims.as_object_mut().expect("claims are an object");
    for (name, value) in changes.as_object().into_iter().flatten() {
        fields.insert(name.clone(), value.clone());
    }
    fields.retain(|_, value| !value.is_null());
    claims
}

pub(super) fn builders(changes: &Value) -> Value {
    let good = json!({
        "iss": "nixgate", "aud": "nixgate", "sub": "mallory", "groups": ["data-team"],
        "exp": now() + 600,
    });
    claims(good, changes)
}

/// The same header and claims with another signature, or other claims under the same.
fn forged(token: &str, claims: Option<&Value>, signature: Option<&str>) -> Result<String> {
    let [header, payload, signed] = token.split('.').collect::<Vec<_>>()[..] else {
        anyhow::bail!("not a token: {token}")
    };
    let payload = claims.map_or_else(
        || payload.to_owned(),
        |claims| base64url(&claims.to_string()),
    );
    Ok(format!(
        "{header}.{payload}.{}",
        signature.unwrap_or(signed)
    ))
}

fn base64url(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

pub(super) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

#[test]
fn no_token_but_the_builders_own_opens_anything() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = Settings {
            version,
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings)?;
        // Whoever had the builder's key could do all this; it stands for the builder's own tokens.
        let builder = Issuer::with_key(&gateway.token_key(), None)?;
        let good = builder.sign(&builders(&json!({})))?;
        assert_eq!(gateway.get("/v2/", Some(&good))?.status, StatusCode::OK);

        let stranger = Issuer::new("stranger")?;
        let kid: Value = serde_json::from_str(&builder.keys())?;
        let kid = kid["keys"][0]["kid"].as_str().context("a kid")?;
        let impostor = Issuer::new(kid)?;
        let mut bad = vec![
            ("another key", stranger.sign(&builders(&json!({})))?),
            (
                "another key of that name",
                impostor.sign(&builders(&json!({})))?,
            ),
            (
                "the public key as a secret",
                builder.confuse(&builders(&json!({})))?,
            ),
            (
                "other claims",
                forged(&good, Some(&builders(&json!({"sub": "root"}))), None)?,
            ),
            ("no signature", forged(&good, None, Some(""))?),
        ];
        for algorithm in ["none", "None", "NONE", ""] {
            let header = base64url(&json!({"alg": algorithm, "typ": "JWT"}).to_string());
            let payload = base64url(&builders(&json!({})).to_string());
            bad.push(("no algorithm", format!("{header}.{payload}.")));
        }
        for (what, changes) in [
            // Envoy allows clocks to differ by a minute.
            ("expired", json!({"exp": now() - 120})),
            ("without end", json!({"exp": null})),
            ("for somebody else", json!({"aud": "other"})),
            ("for nobody", json!({"aud": null})),
            ("of another issuer", json!({"iss": "https://evil.example"})),
            ("of no issuer", json!({"iss": null})),
            ("not yet", json!({"nbf": now() + 600})),
        ] {
            bad.push((what, builder.sign(&builders(&changes))?));
        }
        for (what, token) in bad {
            for path in ["/v2/", MANIFEST] {
                let answer = gateway.get(path, Some(&token))?;
                assert_eq!(
                    answer.status,
                    StatusCode::UNAUTHORIZED,
                    "{what}: {}",
                    answer.text()
                );
                assert_eq!(answer.error()?.0, "UNAUTHORIZED", "{what}");
                let challenge = answer.header("www-authenticate");
                assert!(
                    challenge.contains(",error=\"invalid_token\""),
                    "{what}: {challenge}"
                );
            }
        }
        // A good token counts where it is written, and nowhere else: URLs are logged.
        let in_query = gateway.get(&format!("/v2/?access_token={good}"), None)?;
        assert_eq!(in_query.status, StatusCode::UNAUTHORIZED);
    }
    Ok(())
}

#[test]
fn the_scheme_is_written_in_any_case() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let gateway = Gateway::start(&Settings {
            version,
            ..Settings::default()
        })?;
        let token = gateway.token("alice")?;
        let ask = |authorization: &str| {
            let header = format!("authorization: {authorization}");
            gateway.request(&Method::GET, MANIFEST, None, &[&header])
        };
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer "] {
            let answer = ask(&format!("{scheme} {token}"))?;
            let redirected = answer.status == StatusCode::TEMPORARY_REDIRECT;
            assert!(answer.status == StatusCode::OK || redirected, "{scheme}");
        }
        // A token that isn't good is told so, under each; what is none, to log in.
        for (authorization, told) in [
            ("Bearer nonsense", true),
            ("bearer nonsense", true),
            ("Basic YWxpY2U6d3Jvbmc=", false),
            (token.as_str(), false),
            ("Bearer", false),
        ] {
            let answer = ask(authorization)?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{authorization}");
            let challenge = answer.header("www-authenticate");
            let invalid = challenge.contains("invalid_token");
            assert_eq!(invalid, told, "{authorization}: {challenge}");
            assert_eq!(answer.error()?.0, "UNAUTHORIZED");
        }
    }
    Ok(())
}

#[test]
fn groups_reach_the_policy() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = Settings {
            version,
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings)?;
        for (user, packages, status) in [
            ("alice", "sqlite", StatusCode::OK),
            ("bob", "sqlite", StatusCode::FORBIDDEN),
            ("alice", "rsync", StatusCode::FORBIDDEN),
            ("bob", "rsync", StatusCode::OK),
            ("alice", "hello", StatusCode::OK),
            ("bob", "hello", StatusCode::OK),
        ] {
            let token = gateway.token(user)?;
            let answer = gateway.manifest(packages, &token)?;
            assert_eq!(
                answer.status,
                status,
                "{user} {packages}: {}",
                answer.text()
            );
        }
    }
    Ok(())
}

/// What a list of texts looks like when Envoy hands it to the filter.
fn encoded(items: &[&str]) -> String {
    let number = |number: usize| (number as u32).to_le_bytes().map(char::from);
    let mut text: String = number(items.len()).into_iter().collect();
    for item in items {
        text.extend([number(item.len()), number(0)].concat());
    }
    for item in items {
        text.push_str(item);
        text.push_str("\0\0");
    }
    text
}

#[test]
fn claims_of_another_kind_are_nobodys_groups() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = Settings {
            version,
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings)?;
        let builder = Issuer::with_key(&gateway.token_key(), None)?;
        let ask = |groups: &Value| {
            let token = builder.sign(&builders(&json!({"groups": groups})))?;
            gateway.manifest("sqlite", &token)
        };
        // One odd item makes no other one unreadable.
        for groups in [json!(["staff", "data-team"]), json!([7, "data-team"])] {
            let good = ask(&groups)?;
            assert_eq!(good.status, StatusCode::OK, "{groups}: {}", good.text());
        }
        for groups in [
            json!("data-team"),
            json!(encoded(&["data-team"])),
            json!(encoded(&["data-team", "staff"])),
            json!([encoded(&["data-team"])]),
            json!({"data-team": "data-team"}),
            json!({"data-team": ""}),
            json!({"data-team": null}),
            json!({"0": "data-team"}),
            json!({"0": "data-team", "data-team": ""}),
            // With empty values, a map reaches the filter as a list of its keys does.
            json!({"": "", "0": "", "data-team": ""}),
            json!({"": "", "0": "", "1": "", "data-team": ""}),
            json!({"": "", "data-team": ""}),
            json!([["data-team"]]),
            json!([{"data-team": ""}]),
            json!(7),
            json!(true),
            json!([]),
            json!({}),
            json!(null),
        ] {
            let answer = ask(&groups)?;
            assert!(
                answer.status.is_client_error(),
                "{groups}: {}",
                answer.text()
            );
        }
    }
    Ok(())
}

#[test]
fn nothing_that_a_client_writes_stands_for_its_token() -> Result<()> {
    // By the claims themselves, and by a header that `jwt_authn` makes of one.
    let by_claims = EnvoyConfig::corporate_gateway();
    let claim = json!({"header_name": "x-user", "claim_name": "sub"});
    let by_header = by_claims
        .clone()
        .builder_tokens(json!({"claim_to_headers": [claim]}))
        .rules(|rules| {
            assert_eq!(rules[1]["name"], "data-team");
            rules[1]["subject"] = json!({"header": {"name": "x-user", "glob": "alice"}});
        });
    for config in [by_claims, by_header] {
        let settings = Settings {
            config,
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings)?;
        let (alice, bob) = (gateway.token("alice")?, gateway.token("bob")?);
        let good = gateway.manifest("sqlite", &alice)?;
        assert_eq!(good.status, StatusCode::OK, "{}", good.text());
        // Without the claim at all, a header that a client sends must not stand in for it.
        let builder = Issuer::with_key(&gateway.token_key(), None)?;
        let nobody = builder.sign(&builders(&json!({"sub": null, "groups": null})))?;
        let groups = base64url(r#"{"sub": "alice", "groups": ["data-team"]}"#);
        for header in [
            "x-user: alice",
            "X-User: alice",
            "x-groups: data-team",
            "x-jwt-payload: {\"groups\": [\"data-team\"]}",
            &format!("x-jwt-payload: {groups}"),
            &format!("x-envoy-jwt-payload: {groups}"),
            "nixgate-token: the-token-of-the-tests",
            "nixgate-facts: [{\"tags\": [\"latest\"], \"system\": \"x86_64-linux\"}]",
            "x-forwarded-client-cert: URI=spiffe://corp/data-team",
            "x-envoy-original-path: /v2/hello/manifests/latest",
            &format!("x-authorization: Bearer {alice}"),
            &format!("cookie: authorization=Bearer {alice}"),
        ] {
            for (token, status) in [
                (None, StatusCode::UNAUTHORIZED),
                (Some(&bob), StatusCode::FORBIDDEN),
                (Some(&nobody), StatusCode::FORBIDDEN),
            ] {
                let token = token.map(String::as_str);
                let path = "/v2/sqlite/manifests/latest";
                let answer = gateway.request(&Method::GET, path, token, &[header])?;
                assert_eq!(answer.status, status, "{header}: {}", answer.text());
            }
        }
    }
    Ok(())
}

#[test]
fn blobs_and_their_ranges_are_behind_the_login() -> Result<()> {
    let gateway = shared();
    let token = gateway.token("alice")?;
    let manifest = gateway.manifest("hello", &token)?;
    let manifest: Value = serde_json::from_slice(&manifest.body)?;
    let config = manifest["config"]["digest"].as_str().context("a digest")?;
    let path = format!("/v2/hello/blobs/{config}");
    let range = ["range: bytes=2-5"];
    let part = gateway.request(&Method::GET, &path, Some(&token), &range)?;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    let whole = gateway.get(&path, Some(&token))?;
    assert_eq!(part.body, whole.body[2..6]);

    for method in [Method::GET, Method::HEAD] {
        let refused = gateway.request(&method, &path, None, &range)?;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }
    Ok(())
}

#[test]
fn a_claim_of_another_type_refuses_and_opens_nothing() -> Result<()> {
    for version in ENVOY_VERSIONS {
        // `everybody` may have htop and tree; who is in a team not the one, and who is in none not
        // the other.
        let team = json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": "*-team"}});
        let hard = [
            json!({"name": "hard", "subject": team, "deny": ["htop"]}),
            json!({"name": "team", "subject": {"not": team}, "deny": ["tree"]}),
        ];
        let config = EnvoyConfig::corporate_gateway().rules(|rules| {
            rules.splice(..0, hard);
        });
        let gateway = Gateway::start(&Settings {
            version,
            config,
            ..Settings::default()
        })?;
        let builder = Issuer::with_key(&gateway.token_key(), None)?;
        let may = |groups: &Value, packages: &str| -> Result<bool> {
            let token = builder.sign(&builders(&json!({"groups": groups})))?;
            let answer = gateway.manifest(packages, &token)?;
            let status = answer.status;
            let is_refused = status == StatusCode::FORBIDDEN;
            assert!(is_refused || status == StatusCode::OK, "{}", answer.text());
            Ok(!is_refused)
        };
        for (groups, htop, tree, sqlite) in [
            (json!(["staff"]), true, false, false),
            (json!([]), true, false, false),
            (json!(["data-team"]), false, true, true),
            // One odd item takes the others nothing.
            (json!([7, "data-team"]), false, true, true),
            // What can't be read may be anything.
            (json!(["staff", 7]), false, false, false),
            (json!("data-team"), false, false, false),
            (json!({"data-team": true}), false, false, false),
            (json!(7), false, false, false),
            (json!(true), false, false, false),
            (json!([["data-team"]]), false, false, false),
            (json!(null), false, false, false),
        ] {
            for (packages, expected) in [("htop", htop), ("tree", tree), ("sqlite", sqlite)] {
                let seen = may(&groups, packages)?;
                assert_eq!(seen, expected, "{packages} for {groups}");
            }
            // What no rule denies, everybody has.
            assert!(may(&groups, "hello")?, "{groups}");
        }
        let stats = gateway.admin().get("/stats/prometheus")?.text();
        for why in ["absent", "unreadable"] {
            let counter = format!(
                "nixgate_edge_unknown_subjects_total{{nixgate_registry=\"nixgate\",nixgate_why=\"{why}\"}}"
            );
            assert!(stats.contains(&counter), "{stats}");
        }
    }
    Ok(())
}
