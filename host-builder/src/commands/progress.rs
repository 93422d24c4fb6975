//! Shows the progress of a build: a bar if stderr is a terminal, else a line for each change.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::commands::progress_bar;
use crate::telemetry::build_log::{BuildLogs, Phase, Snapshot};

const TICK: Duration = Duration::from_millis(100);

/// Removes its bar when it is dropped.
pub(super) struct Display {
    bar: ProgressBar,
    /// The last message, which is not repeated.
    said: RefCell<String>,
}

impl Display {
    pub(super) fn new() -> Self {
        let bar = progress_bar(100, "{bar:30} {percent:>3}%  {elapsed}  {wide_msg}");
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            said: RefCell::default(),
        }
    }

    /// Shows the current step.
    pub(super) fn say(&self, message: &str) {
        if self.said.replace(message.to_owned()) == message {
            return;
        }
        self.bar.set_message(message.to_owned());
        if self.bar.is_hidden() {
            eprintln!("{message}");
        }
    }

    /// Prints a line that stays.
    pub(super) fn note(&self, message: &str) {
        self.bar.set_position(100);
        self.bar.suspend(|| eprintln!("{message}"));
    }

    /// Shows the progress of a build while this is polled.
    pub(super) async fn follow(&self, logs: &BuildLogs, id: &str) -> Infallible {
        loop {
            if let Some(log) = logs.get(id) {
                let snapshot = log.snapshot();
                self.bar.set_position(snapshot.percent.into());
                self.say(&summary(&snapshot));
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One line about a build.
fn summary(snapshot: &Snapshot) -> String {
    match snapshot.phase {
        Phase::Waiting => "waiting".to_owned(),
        Phase::Fetching => "fetching the package set".to_owned(),
        Phase::Evaluating => "evaluating".to_owned(),
        Phase::Building => building(snapshot),
        Phase::Packing => "packing layers".to_owned(),
        Phase::Done => "done".to_owned(),
        Phase::Failed => "failed".to_owned(),
    }
}

fn building(snapshot: &Snapshot) -> String {
    let work = &snapshot.work;
    let mut parts = vec!["building".to_owned()];
    for (counts, done) in [(work.builds, "built"), (work.fetches, "fetched")] {
        if counts.expected > 0 {
            parts.push(format!("{} of {} {done}", counts.done, counts.expected));
        }
    }
    let running: Vec<_> = work.running.iter().map(|one| &*one.derivation).collect();
    if !running.is_empty() {
        parts.push(running.join(" "));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::telemetry::build_log::{BuildLog, Counts, Running, Work};

    #[test]
    fn a_line_says_what_nix_is_doing() {
        let log = BuildLog::new("id", None, &[], "");
        let mut lines = String::new();
        let mut look = || {
            lines.push_str(&summary(&log.snapshot()));
            lines.push('\n');
        };
        look();
        log.enter(Phase::Evaluating);
        look();
        log.enter(Phase::Building);
        look();
        log.set_work(Work {
            builds: Counts {
                done: 3,
                expected: 10,
            },
            fetches: Counts {
                done: 2,
                expected: 2,
            },
            running: ["git-2.39.5", "htop-3.2.2"]
                .map(|name| Running {
                    derivation: name.to_owned(),
                    phase: None,
                })
                .into(),
            ..Work::default()
        });
        look();
        log.enter(Phase::Packing);
        look();
        expect![[r#"
            waiting
            evaluating
            building
            building, 3 of 10 built, 2 of 2 fetched, git-2.39.5 htop-3.2.2
            packing layers
        "#]]
        .assert_eq(&lines);
    }
}
