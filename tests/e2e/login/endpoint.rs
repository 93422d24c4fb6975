//! The challenge and `/v2/token`, as the distribution spec's token authentication has them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::live::builder::{self, Builder, TOKEN};
use nixgate_tests::live::gateway::{Gateway, Settings};
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::poll;
use nixgate_tests::live::process::run;
use nixgate_tests::live::scratch;
use nixgate_tests::live::stack::Stack;
use serde_json::Value;

use super::shared;

fn token_of(answer: &Response) -> Result<Value> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    Ok(serde_json::from_slice(&answer.body)?)
}

#[test]
fn every_path_challenges_and_the_realm_is_the_configurations() -> Result<()> {
    let gateway = shared();
    let challenge = format!(
        "Bearer realm=\"https://{}/v2/token\",service=\"nixgate\"",
        gateway.registry()
    );
    for path in [
        "/v2/",
        "/v2",
        "/v2/hello/manifests/latest",
        "/v2/hello/tags/list",
        "/v2/_catalog",
        // Near the one path that is open, and not it.
        "/v2/token/",
        "/v2/token/x",
        "/v2//token",
        "/v2/./token",
        "/v2/%74oken",
        "/V2/token",
        "/v2/token;x",
        "/",
    ] {
        for method in [Method::GET, Method::HEAD, Method::PUT] {
            let host = ["host: evil.example", "x-forwarded-host: evil.example"];
            let answer = gateway.request(&method, path, None, &host)?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            let told: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
            assert_eq!(told, [&*challenge], "{method} {path}");
            let version = answer.header("docker-distribution-api-version");
            assert_eq!(version, "registry/2.0");
            if method != Method::HEAD {
                assert_eq!(answer.error()?.0, "UNAUTHORIZED");
            }
        }
    }
    Ok(())
}

#[test]
fn get_head_and_post_give_tokens_and_nothing_else_does() -> Result<()> {
    let gateway = shared();
    let password = gateway.password("alice")?;
    let credentials = format!("alice:{password}");
    let query = "/v2/token?account=alice&service=nixgate&scope=repository%3Ahello%3Apull";
    let got = token_of(&gateway.curl(query, &["--user", &credentials])?)?;
    assert_eq!(got["token"], got["access_token"]);
    assert_eq!(got["expires_in"], 900);
    assert!(
        got["issued_at"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z'))
    );

    let head = gateway.curl(query, &["--head", "--user", &credentials])?;
    assert_eq!(head.status, StatusCode::OK);
    let head = gateway.request(&Method::HEAD, query, None, &[])?;
    assert_eq!(head.status, StatusCode::UNAUTHORIZED);

    // As containerd does first.
    let form = format!("password={password}");
    let form = |grant: &str| {
        let grant = format!("grant_type={grant}&service=nixgate&client_id=c&username=alice");
        gateway.curl("/v2/token", &["--data", &grant, "--data-urlencode", &form])
    };
    let posted = token_of(&form("password")?)?;
    let token = posted["access_token"].as_str().context("a token")?;
    assert_eq!(gateway.get("/v2/", Some(token))?.status, StatusCode::OK);
    assert_eq!(form("refresh_token")?.status, StatusCode::UNAUTHORIZED);
    let huge = gateway.files().join("huge");
    fs::write(&huge, "a".repeat(100_000))?;
    let huge = format!("@{}", huge.display());
    let huge = gateway.curl("/v2/token", &["--data", &huge])?;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(huge.error()?.0, "UNAUTHORIZED");

    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = gateway.request(&method, "/v2/token", None, &[])?;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.header("allow"), "GET, HEAD, POST");
    }
    Ok(())
}

#[test]
fn wrong_credentials_are_told_in_words_and_stay_out_of_the_logs() -> Result<()> {
    let gateway = Gateway::start(&Settings::default())?;
    let alice = gateway.password("alice")?;
    for (user, password) in [
        ("alice", "hunter2hunter2"),
        ("alice", ""),
        ("hunter2hunter2", alice.as_str()),
        ("bob", alice.as_str()),
        ("ALICE", alice.as_str()),
    ] {
        let answer = gateway.log_in(user, password)?;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{user}");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"nixgate\"");
        let told = (
            "UNAUTHORIZED".to_owned(),
            "wrong user or password".to_owned(),
        );
        assert_eq!(answer.error()?, told);
    }
    // Not Basic, not base64, two at once; and a token of ours is no password.
    let token = gateway.token("alice")?;
    let bearer = format!("authorization: Bearer {token}");
    let basic = "authorization: Basic YWxpY2U6d3Jvbmc=";
    for headers in [
        &[][..],
        &["authorization: Basic %%%"],
        &["authorization: Basic"],
        &[bearer.as_str()],
        &[basic, basic],
    ] {
        let answer = gateway.request(&Method::GET, "/v2/token", None, headers)?;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{headers:?}");
        assert!(answer.error()?.1.contains("user and password are missing"));
    }
    assert_eq!(
        gateway.log_in("alice", &token)?.status,
        StatusCode::UNAUTHORIZED
    );

    for log in [gateway.builder.log(), gateway.log()] {
        for secret in ["hunter2hunter2", &alice, &token, "YWxpY2U6d3Jvbmc"] {
            assert!(!log.contains(secret), "{secret} is in\n{log}");
        }
    }
    assert!(gateway.builder.log().contains("user=\"alice\""));
    Ok(())
}

#[test]
fn the_edges_token_is_the_edges_alone() -> Result<()> {
    let gateway = shared();
    let spoofed = format!("nixgate-token: {TOKEN}");
    for value in [spoofed.as_str(), "nixgate-token: wrong"] {
        // No way around the login, nor into the filter's place.
        let answer = gateway.request(&Method::GET, "/v2/", None, &[value])?;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        // Overwritten: a wrong one keeps nobody from logging in.
        let credentials = format!("bob:{}", gateway.password("bob")?);
        let options = ["--user", &credentials, "--header", value];
        token_of(&gateway.curl("/v2/token", &options)?)?;
        let token = gateway.token("bob")?;
        let denied = "/v2/sqlite/manifests/latest";
        let answer = gateway.request(&Method::GET, denied, Some(&token), &[value])?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
    }
    // The builder gives tokens to the edge alone.
    let direct = request(Method::GET, gateway.builder.port(), "/v2/token", &[])?;
    assert_eq!(direct.status, StatusCode::FORBIDDEN);
    Ok(())
}

#[test]
fn one_address_cannot_try_passwords_without_end() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = Settings {
            version,
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings)?;
        // One process for all of them: the bucket is filled again while they are sent.
        let urls = gateway.files().join("urls");
        let line = format!(
            "url = https://{}/v2/token\noutput = /dev/null\n",
            gateway.registry()
        );
        fs::write(&urls, line.repeat(2000))?;
        let statuses = run(Command::new("curl")
            .args([
                "--disable",
                "--noproxy",
                "*",
                "--silent",
                "--write-out",
                "%{http_code}\n",
            ])
            .arg("--cacert")
            .arg(gateway.ca().join("ca.crt"))
            .arg("--config")
            .arg(&urls))?;
        let refused = statuses.lines().filter(|status| *status == "429").count();
        assert!(
            refused > 0,
            "none of {} was refused",
            statuses.lines().count()
        );
        let (mut told, mut tries) = (gateway.curl("/v2/token", &[])?, 0);
        while told.status != StatusCode::TOO_MANY_REQUESTS && tries < 1000 {
            (told, tries) = (gateway.curl("/v2/token", &[])?, tries + 1);
        }
        assert_eq!(told.error()?.0, "TOOMANYREQUESTS");
        assert_eq!(told.header("retry-after"), "5");
        // What needs no password is not limited.
        let base = gateway.get("/v2/", None)?;
        assert_eq!(base.status, StatusCode::UNAUTHORIZED);
    }
    Ok(())
}

#[test]
fn users_and_groups_change_without_a_restart() -> Result<()> {
    let gateway = Gateway::start(&Settings::default())?;
    let htpasswd = gateway.files().join("htpasswd");
    let users = fs::read_to_string(&htpasswd)?;
    let carol = run(Command::new("htpasswd").args(["-nbBC", "4", "carol", "new"]))?;
    fs::write(&htpasswd, format!("{users}{carol}"))?;
    fs::write(gateway.files().join("groups"), "data-team: carol\n")?;
    // At the builder: before it is a limit on logins.
    let log_in = || {
        let carol = ("authorization", "Basic Y2Fyb2w6bmV3");
        let edge = (nixgate_core::wire::TOKEN, TOKEN);
        request(
            Method::GET,
            gateway.builder.port(),
            "/v2/token",
            &[edge, carol],
        )
    };
    let got = poll::until("the files are read again", || {
        let answer = log_in().ok()?;
        (answer.status == StatusCode::OK).then_some(answer)
    })?;
    let got = token_of(&got)?;
    let token = got["token"].as_str().context("a token")?;
    let found = gateway.manifest("sqlite", token)?;
    assert_eq!(found.status, StatusCode::OK, "{}", found.text());
    // Out of the group since.
    let alice = gateway.token("alice")?;
    let refused = gateway.manifest("sqlite", &alice)?;
    assert_eq!(refused.error()?.0, "DENIED");

    // One that is wrong changes nothing, and is told.
    let still = |file: &str, content: &str, told: &str| -> Result<()> {
        let path = gateway.files().join(file);
        fs::write(&path, content)?;
        poll::until(&format!("the builder says: {told}"), || {
            let answer = token_of(&log_in().ok()?).ok()?;
            let answer = gateway.manifest("sqlite", answer["token"].as_str()?);
            assert_eq!(answer.ok()?.status, StatusCode::OK, "{content:?}");
            gateway.builder.log().contains(told).then_some(())
        })
    };
    let mallory = "mallory:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n";
    still("htpasswd", mallory, "line 1 has no bcrypt hash")?;
    // So is half of one, which would be a file of fewer users and groups.
    still("groups", "web-team: b", "may be incomplete")?;
    still("htpasswd", users.trim_end(), "/htpasswd: its last line")?;
    Ok(())
}

#[test]
fn the_certificate_is_renewed_without_a_restart() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let gateway = Gateway::start(&Settings {
            version,
            ..Settings::default()
        })?;
        gateway.renew_certificate()?;
        // curl trusts the new authority alone.
        poll::until("Envoy has the new certificate", || {
            let answer = gateway.get("/v2/", None).ok()?;
            (answer.status == StatusCode::UNAUTHORIZED).then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn without_users_there_is_no_login() -> Result<()> {
    let state = scratch::folder("builder-")?;
    let builder = Builder::start(&builder::Settings::new(state.path())?)?;
    let (code, message) = builder.get("/v2/token")?.error()?;
    assert_eq!(code, "NAME_UNKNOWN");
    assert!(message.contains("NIXGATE_HTPASSWD"), "{message}");
    let keys = builder.get("/.well-known/jwks.json")?;
    assert_eq!(keys.status, StatusCode::NOT_FOUND);

    // A file that is wrong ends the start.
    let htpasswd = state.path().join("htpasswd");
    fs::write(&htpasswd, "# staff\nalice:$apr1$secret\n")?;
    let second = scratch::folder("builder-")?;
    let settings = builder::Settings::new(second.path())?.with("NIXGATE_HTPASSWD", &htpasswd);
    let error = format!(
        "{:#}",
        Builder::start(&settings).expect_err("it does not start")
    );
    assert!(
        error.contains("htpasswd") && error.contains("line 2"),
        "{error}"
    );
    assert!(!error.contains("$apr1"), "{error}");
    Ok(())
}

#[test]
fn the_edge_without_a_login_has_no_such_path() -> Result<()> {
    let stack = Stack::start()?;
    let answer = stack.get("/v2/token")?;
    assert_eq!(answer.error()?.0, "NAME_UNKNOWN");
    Ok(())
}
