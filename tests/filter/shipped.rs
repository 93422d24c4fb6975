//! The Envoy configurations that are shipped: what the filter relies on is in all of them.

use std::fs;
use std::path::{Path, PathBuf};

/// After so many seconds without an answer containerd and Docker hang up.
const CLIENTS_WAIT: u64 = 30;
/// What `hold_seconds` is when it is not given.
const DEFAULT_HOLD: u64 = 20;
/// A callout may take that much longer than the hold.
const CALLOUT_MARGIN: u64 = 5;
/// What a builder takes on, for each of 16 workers, and as many blobs.
const LEAST_OPEN: u64 = 2 * 64 * 16;

/// The text of each example: all its YAML files, comments taken away.
fn examples() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let text = |folder: &PathBuf| -> String {
        let files = entries(folder).into_iter();
        files
            .filter(|file| {
                file.extension()
                    .is_some_and(|extension| extension == "yaml")
            })
            .map(|file| fs::read_to_string(file).expect("the file can be read"))
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let examples = entries(&folder).into_iter().map(|folder| {
        let text = text(&folder);
        (folder, text)
    });
    examples
        .filter(|(_, text)| text.contains("filters.http.wasm"))
        .collect()
}

/// The numbers that a key has, wherever it stands.
fn numbers(text: &str, key: &str) -> Vec<u64> {
    let values = text.split(key).skip(1);
    values
        .map(|value| {
            let value = value.trim_start_matches(['"', ':', ' ']);
            let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect("a number follows the key")
        })
        .collect()
}

#[test]
fn a_filter_that_dies_is_replaced_and_lets_nothing_through_meanwhile() {
    let examples = examples();
    assert!(!examples.is_empty());
    for (example, text) in examples {
        assert!(text.contains("failure_policy: FAIL_RELOAD"), "{example:?}");
        let reload = "reload_config: { backoff: { base_interval: 0.01s } }";
        assert!(text.contains(reload), "{example:?}");
        assert!(text.contains("vm_id: nixgate"), "{example:?}");
        assert!(!text.contains("fail_open"), "{example:?}");
    }
}

#[test]
fn routes_outlast_the_hold_and_not_the_clients() {
    for (example, text) in examples() {
        let mut holds = numbers(&text, "hold_seconds");
        if holds.is_empty() {
            holds.push(DEFAULT_HOLD);
        }
        let routes = text.replace("common_http_protocol_options: { idle_timeout:", "");
        let timeouts = numbers(&routes, "idle_timeout");
        assert!(!timeouts.is_empty(), "{example:?}");
        for hold in holds {
            for timeout in &timeouts {
                let fits = hold + CALLOUT_MARGIN < *timeout && *timeout < CLIENTS_WAIT;
                assert!(fits, "{example:?}: {hold} s, {timeout} s");
            }
        }
    }
}

/// The builder closes connections that have idled for this long.
const BUILDER_WAITS: u64 = 30;

#[test]
fn connections_to_the_builder_are_given_up_before_it_does() {
    for (example, text) in examples() {
        let timeouts = numbers(&text, "common_http_protocol_options: { idle_timeout");
        assert!(!timeouts.is_empty(), "{example:?}");
        let soon = timeouts.iter().all(|timeout| *timeout < BUILDER_WAITS);
        assert!(soon, "{example:?}: {timeouts:?}");
    }
}

#[test]
fn clients_may_stop_reading_for_longer_than_by_default() {
    for (example, text) in examples() {
        let timeouts = numbers(&text, "delayed_close_timeout");
        let enough = timeouts.iter().all(|timeout| *timeout >= 30);
        assert!(!timeouts.is_empty() && enough, "{example:?}: {timeouts:?}");
    }
}

#[test]
fn as_many_requests_may_be_open_as_images_are_held() {
    for (example, text) in examples() {
        for bound in ["max_connections", "max_pending_requests", "max_requests"] {
            let values = numbers(&text, bound);
            let enough = values.iter().all(|value| *value >= LEAST_OPEN);
            assert!(
                !values.is_empty() && enough,
                "{example:?}: {bound} {values:?}"
            );
        }
    }
}
