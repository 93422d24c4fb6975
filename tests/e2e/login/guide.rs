//! The guide to a policy, as a reader would paste it, and the configurations of the page on the audit
//! log, as far as programs that are here can read them.
//!
//! A block marked `sh` is run as a whole. When the block after it is marked `text`, its lines have to
//! be in what the commands print. Logs and statistics are written with a delay, so a block is run
//! again until they are there; none of them minds.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::envoy_config::{self, EnvoyConfig, FilterConfig};
use nixgate_tests::live::gateway::{Gateway, Settings};
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::process::run;
use nixgate_tests::live::{poll, scratch};
use serde_json::{Value, json};

/// The blocks of a page: what they are marked as, and what is in them.
fn blocks(page: &str) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(install::root().join(page)).with_context(|| page.to_owned())?;
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(mark) => {
                inside = !inside;
                if inside {
                    blocks.push((mark.to_owned(), String::new()));
                }
            }
            None if inside => {
                let (_, block) = blocks.last_mut().context("a block has begun")?;
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
    }
    Ok(blocks)
}

#[test]
fn the_guide_leads_from_nothing_to_an_enforced_policy() -> Result<()> {
    let gateway = Gateway::start(&Settings::default())?;
    let path = |path: &std::path::Path| path.display().to_string();
    let replaced = [
        (
            ".nixgate/gateway/envoy-access.log",
            path(gateway.log_file()),
        ),
        (
            ".nixgate/gateway/envoy-admin.sock",
            path(gateway.admin().socket()),
        ),
        (".nixgate/gateway", path(&gateway.files())),
        ("127.0.0.1:8443", gateway.registry()),
        ("target/release/nixgate", path(&install::builder()?)),
    ];
    let here = |text: &str| {
        let replaced = replaced.iter();
        replaced.fold(text.to_owned(), |text, (shown, ours)| {
            text.replace(shown, ours)
        })
    };
    // What the command takes where nothing else is said.
    let defaults = format!(
        "policy apply --filter {}/filter.yaml --admin unix:{}",
        path(&gateway.files()),
        path(gateway.admin().socket())
    );
    let blocks = blocks("docs/src/policy-guide.md")?;
    let mut pasted = 0;
    for (index, (mark, commands)) in blocks.iter().enumerate() {
        if mark != "sh" {
            continue;
        }
        pasted += 1;
        let commands = here(commands).replace("policy apply", &defaults);
        let shown = blocks.get(index + 1).filter(|(mark, _)| mark == "text");
        let shown = shown.map_or("", |(_, text)| text);
        poll::until(
            &format!("a reader sees\n{shown}after pasting\n{commands}"),
            || {
                let output = Command::new("bash")
                    .args(["-euo", "pipefail", "-c", &commands])
                    .current_dir(install::root())
                    .output()
                    .ok()?;
                let printed = String::from_utf8_lossy(&output.stdout)
                    + String::from_utf8_lossy(&output.stderr);
                let sees = |line: &str| {
                    printed.contains(line)
                // A policy that Envoy has already is one that it took when this was run before.
                || line.starts_with("Envoy has taken")
                };
                (output.status.success() && shown.lines().all(sees)).then_some(())
            },
        )?;
    }
    assert!(pasted >= 10, "only {pasted} blocks");
    Ok(())
}

/// Gives the gateway a policy. The exit status, and what the command says.
fn apply(gateway: &Gateway, policy: &str) -> Result<(Option<i32>, String)> {
    let file = gateway.files().join("next.json");
    fs::write(&file, policy)?;
    let output = Command::new(install::builder()?)
        .args(["policy", "apply", "--filter"])
        .arg(gateway.files().join("filter.yaml"))
        .args([
            "--admin",
            &format!("unix:{}", gateway.admin().socket().display()),
        ])
        .arg(file)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), said.into_owned()))
}

#[test]
fn a_policy_that_check_refuses_never_gets_to_envoy() -> Result<()> {
    let gateway = Gateway::start(&Settings::default())?;
    let filter = gateway.files().join("filter.yaml");
    let (token, before) = (gateway.token("alice")?, fs::read_to_string(&filter)?);
    // Of the two lists, the second would leave sqlite to everybody.
    let doubled = r#"{"revision": "dup", "default": "allow", "rules": [
        {"name": "a", "deny": ["sqlite"], "deny": ["nothing"]}]}"#;
    let nested = format!(r#"{{"policy": {doubled}}}"#);
    let silent = r#"{"revision": "bad", "default": "deny", "rules": [{"name": "x"}]}"#;
    for (policy, part) in [
        (doubled, "duplicate field `deny`"),
        (&nested, "duplicate field `deny`"),
        (silent, "it allows and denies nothing"),
    ] {
        let (code, said) = apply(&gateway, policy)?;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(part), "{said}");
        assert_eq!(fs::read_to_string(&filter)?, before);
    }
    // One key less, and it is in force.
    let (code, said) = apply(&gateway, &doubled.replace(r#", "deny": ["nothing"]"#, ""))?;
    assert_eq!(
        (code, said.trim()),
        (Some(0), "Envoy has taken the policy dup")
    );
    poll::until("sqlite is denied", || {
        let answer = gateway.manifest("sqlite", &token).ok()?;
        answer.text().contains("denied by the rule a").then_some(())
    })?;
    let (code, said) = apply(&gateway, &doubled.replace(r#", "deny": ["nothing"]"#, ""))?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("has the policy dup already"), "{said}");
    Ok(())
}

#[test]
fn a_policy_that_envoy_refuses_is_put_back() -> Result<()> {
    let gateway = Gateway::start(&Settings::default())?;
    let filter = gateway.files().join("filter.yaml");
    // What the command can't know: Envoy has no such variable.
    let shipped = FilterConfig::parse(&fs::read_to_string(&filter)?);
    let before = shipped
        .settings(json!({"builder": {"token_env": "OTHER"}}))
        .yaml();
    fs::write(&filter, &before)?;
    let policy = r#"{"revision": "next", "default": "allow", "rules": []}"#;
    let (code, said) = apply(&gateway, policy)?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("keeps the old one"), "{said}");
    assert_eq!(fs::read_to_string(&filter)?, before);
    assert!(gateway.log().contains("OTHER"));
    Ok(())
}

/// Fluent Bit and Vector are not here to ask; of what they read, the syntax is looked at.
#[test]
fn the_configurations_for_shipping_the_log_can_be_read() -> Result<()> {
    let blocks = blocks("docs/src/audit-log.md")?;
    let marked = |mark: &str, part: &str| {
        let mut found = blocks
            .iter()
            .filter(|(other, text)| other == mark && text.contains(part));
        found
            .next()
            .map(|(_, text)| text.as_str())
            .context(format!("{mark} with {part}"))
    };
    let line: Value = serde_json::from_str(marked("json", "request_id")?)?;
    let config = EnvoyConfig::corporate_gateway();
    let fields = config.clone().access_log_fields();
    for (key, _) in line.as_object().context("an object")? {
        assert!(fields.get(key).is_some(), "{key}");
    }
    let toml = "import sys, tomllib; tomllib.loads(sys.argv[1])";
    run(Command::new("python3").args(["-c", toml, marked("toml", "[sinks.siem]")?]))?;

    // Envoy itself reads what is for Envoy.
    let logger = marked("yaml", "OpenTelemetryAccessLogConfig")?;
    let folder = scratch::folder("validate-")?;
    let file = config
        .access_logs(envoy_config::parse(logger))
        .more_clusters(json!([{"name": "otel_collector", "type": "STATIC"}]))
        .module(&install::filter()?)
        .write(folder.path())?;
    for version in ENVOY_VERSIONS {
        run(Command::new(install::envoy(version)?)
            .args(["--mode", "validate", "--disable-hot-restart", "-c"])
            .arg(&file)
            .env("NIXGATE_TOKEN", "only-validating")
            .current_dir(install::root()))?;
    }
    Ok(())
}
