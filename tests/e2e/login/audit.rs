//! The audit log: what the gateway writes of each decision, as a SIEM would read it.

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::live::gateway::{Gateway, Settings};
use nixgate_tests::live::http::Response;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::poll;
use serde_json::{Value, json};

use super::shared;

/// The line of a decision, once it is written.
fn line(gateway: &Gateway, decision: &str) -> Result<Value> {
    poll::until("the decision is in the audit log", || {
        let lines = lines(gateway);
        lines
            .into_iter()
            .find(|line| line["request_id"] == decision)
    })
}

/// All that is in the access log. Envoy's own messages, which are in the same file here, are no
/// JSON.
fn lines(gateway: &Gateway) -> Vec<Value> {
    let log = gateway.log();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).expect("a line of the access log is JSON"))
        .collect()
}

/// The id that a refusal quotes.
fn decision(refusal: &Response) -> Result<String> {
    let body: Value = serde_json::from_slice(&refusal.body)?;
    let id = body["errors"][0]["detail"]["decision"].as_str();
    let id = id.context("the detail has the decision")?;
    assert!(refusal.error()?.1.contains(id), "{body}");
    Ok(id.to_owned())
}

#[test]
fn both_teams_decisions_are_in_the_audit_log() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = Settings {
            version,
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings)?;
        for (user, group, theirs, anothers) in [
            ("alice", "data-team", "sqlite", "rsync"),
            ("bob", "web-team", "rsync", "sqlite"),
        ] {
            let token = gateway.token(user)?;
            let refusal = gateway.manifest(anothers, &token)?;
            assert_eq!(refusal.status, StatusCode::FORBIDDEN, "{}", refusal.text());
            let refused = line(&gateway, &decision(&refusal)?)?;
            let image = |package: &str| {
                let mut packages = ["cacert", "iana-etc", package];
                packages.sort_unstable();
                packages.join("/")
            };
            for (key, expected) in [
                ("subject", json!(user)),
                ("groups", json!([group])),
                ("issuer", json!("nixgate")),
                ("address", json!("127.0.0.1")),
                ("image", json!(image(anothers))),
                ("outcome", json!("denied")),
                ("policy", json!("1")),
                ("status", json!(403)),
                ("path", json!(format!("/v2/{anothers}/manifests/latest"))),
            ] {
                assert_eq!(refused[key], expected, "{key} of {refused}");
            }
            // No rule of this policy denies: what nobody allows is denied by none.
            assert_eq!(refused["rule"], Value::Null);
            let time = refused["time"].as_str().context("a time")?;
            assert!(time.ends_with('Z') && time.contains('T'), "{time}");

            let answer = gateway.manifest(theirs, &token)?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            let allowed = poll::until("what was allowed is in the audit log", || {
                let mut lines = lines(&gateway).into_iter();
                lines.find(|line| line["image"] == image(theirs) && line["status"] == 200)
            })?;
            assert_eq!(allowed["subject"], user);
            assert_eq!(allowed["policy"], "1");
            assert_eq!(allowed["outcome"], "miss");
        }
    }
    Ok(())
}

#[test]
fn nobody_chooses_the_id_of_a_decision_or_writes_lines_of_the_log() -> Result<()> {
    let gateway = shared();
    let token = gateway.token("bob")?;
    let chosen = "11111111-1111-4111-8111-111111111111";
    let headers = [
        &format!("x-request-id: {chosen}") as &str,
        "user-agent: x\", \"outcome\": \"hit",
    ];
    let path = "/v2/sqlite/manifests/latest";
    let refusal = gateway.request(&Method::GET, path, Some(&token), &headers)?;
    let id = decision(&refusal)?;
    assert_ne!(id, chosen);
    let line = line(gateway, &id)?;
    assert_eq!(line["outcome"], "denied");
    assert_eq!(line["client"], "x\", \"outcome\": \"hit");
    Ok(())
}
