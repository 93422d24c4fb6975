//! wrk, the load generator.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixgate_tests::live::{install, process};

/// What clients accept: one header is enough for every side.
const ACCEPT: &str = "Accept: application/vnd.oci.image.manifest.v1+json";

/// What one run of wrk saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) requests: f64,
    /// Bytes a second, headers included.
    pub(crate) bytes: f64,
    /// Milliseconds within which 99 of 100 answers came.
    pub(crate) p99: f64,
}

/// What is sent besides.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Besides<'a> {
    /// Nothing.
    Nothing,
    /// A header, as `name: value`.
    Header(&'a str),
    /// Another caller's name with each request.
    Callers,
}

/// Asks for a URL over `connections` connections at once, for a time.
///
/// # Errors
/// When wrk fails, or an answer is an error.
pub(crate) fn run(
    url: &str,
    besides: Besides<'_>,
    connections: u16,
    keep_alive: bool,
    duration: Duration,
) -> Result<Load> {
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "1", "--latency", "--header", ACCEPT])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", duration.as_secs())])
        // A large blob takes its time.
        .args(["--timeout", "30s"]);
    match besides {
        Besides::Nothing => {}
        Besides::Header(header) => {
            command.args(["--header", header]);
        }
        Besides::Callers => {
            let script = install::root().join("tests/bench/callers.lua");
            command.arg("--script").arg(script);
        }
    }
    if !keep_alive {
        command.args(["--header", "Connection: close"]);
    }
    let report = process::run(command.arg(url))?;
    ensure!(
        !report.contains("Non-2xx or 3xx"),
        "{url} was answered with errors:\n{report}"
    );
    parse(&report).with_context(|| format!("wrk reported something else than expected:\n{report}"))
}

fn parse(report: &str) -> Option<Load> {
    let value = |label: &str| {
        report
            .lines()
            .find_map(|line| line.trim().strip_prefix(label))
            .map(str::trim)
    };
    Some(Load {
        requests: value("Requests/sec:")?.parse().ok()?,
        bytes: scaled(
            value("Transfer/sec:")?,
            &[
                ("GB", (1_u64 << 30) as f64),
                ("MB", (1_u64 << 20) as f64),
                ("KB", 1024.0),
                ("B", 1.0),
            ],
        )?,
        p99: scaled(
            value("99%")?,
            &[("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)],
        )?,
    })
}

/// A number with one of these units.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units.iter().find_map(|(unit, scale)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * scale)
    })
}
