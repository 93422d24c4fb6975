//! The logs of edge and builder, as a log service reads them.

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{builder, envoy, poll};
use serde_json::Value;

/// The lines of a log that are JSON.
fn json(log: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Asserts that a line has what log services look for.
fn is_whole(line: &Value) -> Result<()> {
    for name in ["severity", "time", "message", "service"] {
        let text = line[name].as_str();
        let text = text.with_context(|| format!("{name} of {line}"))?;
        assert!(!text.is_empty(), "{name} of {line}");
    }
    let severity = line["severity"].as_str().unwrap_or_default();
    let severities = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
    assert!(severities.contains(&&*severity.to_uppercase()), "{line}");
    let time = line["time"].as_str().unwrap_or_default();
    let zone = time.ends_with('Z') || time.rfind(['+', '-']) == Some(time.len() - 6);
    assert!(time.as_bytes().get(10) == Some(&b'T') && zone, "{line}");
    Ok(())
}

#[test]
fn the_builders_lines_name_the_request_of_the_edge_that_began_a_build() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = envoy::Settings {
            version,
            ..envoy::Settings::default()
        };
        let (stack, _set) = Stack::gated(settings, &[("NIXGATE_LOG_FORMAT", "json")])?;
        let path = "/v2/broken/manifests/latest";
        let answer = stack.get(&format!("{path}?private_token=abcdef"))?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let access = poll::until("the access log has the request", || {
            let lines = json(&stack.envoy.log());
            lines.into_iter().find(|line| line["path"] == path)
        })?;
        is_whole(&access)?;
        assert_eq!(access["status"], 403, "{access}");
        assert_eq!(access["message"], format!("GET {path} 403"));
        assert_eq!(access["outcome"], "refused");
        assert!(
            !stack.envoy.log().contains("abcdef"),
            "{}",
            stack.envoy.log()
        );

        let lines = json(&stack.builder.log());
        assert_eq!(lines.len(), stack.builder.log().lines().count());
        for line in &lines {
            is_whole(line)?;
        }
        let said = |message: &str| {
            let line = lines.iter().find(|line| line["message"] == message);
            line.with_context(|| format!("{message} in\n{}", stack.builder.log()))
        };
        for message in ["building", "not built", "a request was refused"] {
            assert_eq!(said(message)?["request_id"], access["request_id"]);
        }
        let failed = said("not built")?;
        assert_eq!(failed["severity"], "WARNING");
        assert!(
            failed["error"]
                .as_str()
                .is_some_and(|error| error.contains("broken"))
        );
        assert_eq!(said("the builder is ready")?["severity"], "INFO");
    }
    Ok(())
}

#[test]
fn both_halves_say_of_which_sources_they_are() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = envoy::Settings {
            version,
            ..envoy::Settings::default()
        };
        let stack = Stack::with(settings, |state| {
            Ok(builder::Settings::new(state)?.with("NIXGATE_LOG_FORMAT", "json"))
        })?;
        let answer = stack.builder.get("/v2/")?;
        let version = answer.header("nixgate-builder");
        let (_, sources) = version
            .split_once('+')
            .context("a release and its sources")?;
        assert_eq!(sources.len(), 12, "{version}");
        for line in json(&stack.builder.log()) {
            assert_eq!(line["version"], version);
        }
        let edge = json(&stack.envoy.log());
        let configured = edge.iter().find(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains(&format!("nixgate {version}: builder cluster"))
        });
        is_whole(configured.with_context(|| stack.envoy.log())?)?;
    }
    Ok(())
}

#[test]
fn a_builder_that_can_not_start_says_so_in_its_log() -> Result<()> {
    let nowhere = nixgate_tests::live::scratch::folder("nowhere-")?;
    let settings = builder::Settings::new(nowhere.path())?
        .with("NIXGATE_LOG_FORMAT", "json")
        .with("NIXGATE_MAX_LAYERS", "1000");
    let error = builder::Builder::start(&settings)
        .err()
        .context("it ends")?;
    let log = format!("{error:#}");
    let lines = json(&log);
    let line = lines.iter().find(|line| line["severity"] == "CRITICAL");
    let line = line.with_context(|| log.clone())?;
    is_whole(line)?;
    assert!(
        line["error"]
            .as_str()
            .is_some_and(|error| error.contains("NIXGATE_MAX_LAYERS"))
    );
    Ok(())
}
