//! Logins that don't end, or fail, are bounded, counted and written down; those of others go on.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::envoy_config::{BUILDER, EnvoyConfig};
use nixgate_tests::live::builder::{self, Builder, TOKEN};
use nixgate_tests::live::gateway::{Gateway, Settings};
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::process::{Process, run};
use nixgate_tests::live::{poll, raw, scratch};
use serde_json::{Value, json};

/// Logins that never end: four addresses with 100 each, as many as one may begin at once.
const ADDRESSES: u16 = 4;
const EACH: u16 = 100;

/// The connections to the builder that this gateway may have. The shipped 4,096 can be held as well,
/// by more addresses and in a minute and a half.
const CONNECTIONS: u16 = 64;

fn gateway(version: &'static str, config: EnvoyConfig) -> Result<Gateway> {
    Gateway::start(&Settings {
        version,
        config,
        ..Settings::default()
    })
}

#[test]
fn logins_that_do_not_end_keep_nobody_from_pulling_or_logging_in() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let few = json!({
            "max_connections": CONNECTIONS,
            "max_pending_requests": CONNECTIONS,
            "max_requests": CONNECTIONS,
        });
        let few = json!({"circuit_breakers": {"thresholds": [few]}});
        let config = EnvoyConfig::corporate_gateway().cluster(BUILDER, few);
        let gateway = gateway(version, config)?;
        let token = gateway.token("alice")?;
        let mut command = Command::new("python3");
        let script = install::root().join("tests/harness/live/slow_posts.py");
        let port = gateway.registry();
        let port = port.rsplit(':').next().context("a port")?;
        command.arg(script);
        command.args([port, &ADDRESSES.to_string(), &EACH.to_string()]);
        let mut posts = Process::start(&command, &gateway.files().join("posts.log"))?;
        let open = u64::from(ADDRESSES * EACH);
        posts.until("the logins are open", |posts| {
            posts.log().contains("logins are open").then_some(())
        })?;
        gateway.admin().wait_until_it_holds(open)?;

        for (user, packages) in [("alice", "sqlite"), ("alice", "tree"), ("alice", "less")] {
            let answer = gateway.manifest(packages, &token)?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            gateway.token(user)?;
            gateway.token("bob")?;
        }
        // Not one of them has reached the builder; each is ended in the end.
        let held = gateway.admin().stat("nixgate_login.upstream_rq_active")?;
        assert_eq!(held, 0);
        gateway.admin().wait_until_it_holds(0)?;
        assert!(gateway.log().contains("\"status\":408"), "{version}");
    }
    Ok(())
}

#[test]
fn the_builder_waits_for_no_form_for_ever() -> Result<()> {
    let folder = scratch::folder("builder-")?;
    let htpasswd = folder.path().join("htpasswd");
    fs::write(
        &htpasswd,
        run(Command::new("htpasswd").args(["-nbBC", "4", "carol", "c"]))?,
    )?;
    let settings = builder::Settings::new(folder.path())?.with("NIXGATE_HTPASSWD", &htpasswd);
    let builder = Builder::start(&settings)?;
    let half = format!(
        "POST /v2/token HTTP/1.1\r\nHost: builder\r\nnixgate-token: {TOKEN}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\ngrant_type="
    );
    let answer = raw::http1(builder.port(), &half)?;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("took more than 10 s"), "{answer}");
    Ok(())
}

#[test]
fn a_failed_login_is_logged_with_its_address_and_the_requests_id() -> Result<()> {
    let gateway = Gateway::start(&Settings::default())?;
    for (user, told) in [("alice", "user=\"alice\""), ("mallory", "no such user")] {
        let spoofed = [
            "nixgate-client-address: 10.6.6.6",
            "x-forwarded-for: 10.6.6.6",
            "x-request-id: 11111111-1111-4111-8111-111111111111",
        ];
        let credentials = format!("{user}:wrong");
        let mut options = vec!["--user", &credentials];
        for header in &spoofed {
            options.extend(["--header", header]);
        }
        let path = format!("/v2/token?account={user}");
        let answer = gateway.curl(&path, &options)?;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        let line = gateway.builder.log();
        let line = line.lines().find(|line| line.contains(told));
        let line = line.context("the failed login is in the log")?.to_owned();
        assert!(line.contains("address=127.0.0.1"), "{line}");
        assert!(
            !line.contains("10.6.6.6") && !line.contains("1111-4111"),
            "{line}"
        );
        // The same id as in the access log.
        poll::until("the access log has the id", || {
            let log = gateway.log();
            let mut lines = log.lines().filter_map(|line| line.parse::<Value>().ok());
            lines.find(|entry| {
                let id = entry["request_id"].as_str();
                entry["status"] == 401 && id.is_some_and(|id| line.contains(id))
            })
        })?;
    }
    Ok(())
}

#[test]
fn addresses_of_one_ipv6_network_are_one_client() -> Result<()> {
    for version in ENVOY_VERSIONS {
        // As behind a balancer, which says who asks.
        let config = EnvoyConfig::corporate_gateway().manager(json!({"xff_num_trusted_hops": 1}));
        let gateway = gateway(version, config)?;
        let ask = |addresses: &mut dyn Iterator<Item = String>| -> Result<Vec<String>> {
            let requests = addresses.map(|address| {
                format!(
                    "url = https://{}/v2/token\noutput = /dev/null\ncacert = {}\n\
                     write-out = \"%{{http_code}}\\n\"\nsilent\nnoproxy = *\n\
                     header = \"X-Forwarded-For: {address}\"\n",
                    gateway.registry(),
                    gateway.ca().join("ca.crt").display()
                )
            });
            let requests = requests.collect::<Vec<_>>().join("next\n");
            let file = gateway.files().join("requests");
            fs::write(&file, requests)?;
            let printed = run(Command::new("curl")
                .args(["--disable", "--config"])
                .arg(&file))?;
            Ok(printed.lines().map(str::to_owned).collect())
        };
        // More than one may ask at once, and than are added while they do.
        let statuses = ask(&mut (1..=400).map(|number| format!("2001:db8:0:1::{number:x}")))?;
        let refused = statuses.iter().filter(|status| *status == "429").count();
        assert!(refused > 0, "none of {} is refused", statuses.len());
        let next = ask(&mut ["2001:db8:0:2::1".to_owned(), "192.0.2.1".to_owned()].into_iter())?;
        assert_eq!(next, ["401", "401"]);
    }
    Ok(())
}

#[test]
fn a_hash_that_takes_seconds_is_warned_of_by_its_user() -> Result<()> {
    let gateway = Gateway::start(&Settings::default())?;
    let htpasswd = gateway.files().join("htpasswd");
    let users = fs::read_to_string(&htpasswd)?;
    // The hash itself is of another cost; none is made here.
    let (_, hash) = users
        .trim()
        .split_once("$10$")
        .context("a hash of cost 10")?;
    let hash = hash.lines().next().unwrap_or_default();
    fs::write(&htpasswd, format!("{users}carol:$2y$16${hash}\n"))?;
    // A file that has changed is read when it has rested.
    let line = poll::until("the builder warns of the hash", || {
        gateway.token("alice").ok()?;
        let log = gateway.builder.log();
        let mut lines = log.lines();
        lines
            .find(|line| line.contains("cost=16"))
            .map(str::to_owned)
    })?;
    assert!(line.contains("WARN") && line.contains("carol"), "{line}");
    assert!(!gateway.builder.log().contains("cost=10"));
    Ok(())
}
