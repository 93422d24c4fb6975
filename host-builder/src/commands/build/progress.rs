//! How far a build is: a bar where stderr is a terminal, else a line whenever there is something new.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::telemetry::build_log::{BuildLogs, Counts, Phase, Snapshot};

/// How often a build is looked at.
const TICK: Duration = Duration::from_millis(100);

/// See the module. The bar is gone when this is dropped.
pub(super) struct Display {
    bar: ProgressBar,
    /// What was said last, which need not be said again.
    said: RefCell<String>,
}

impl Display {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(100);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {elapsed}  {wide_msg}");
        // It is a constant, and the bar has a style of its own.
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            said: RefCell::default(),
        }
    }

    /// Says what is going on.
    pub(super) fn say(&self, what: &str) {
        if self.said.replace(what.to_owned()) == what {
            return;
        }
        self.bar.set_message(what.to_owned());
        if self.bar.is_hidden() {
            eprintln!("{what}");
        }
    }

    /// Says what was reached, which stays there when the bar is gone.
    pub(super) fn note(&self, what: &str) {
        self.bar.set_position(100);
        self.bar.suspend(|| eprintln!("{what}"));
    }

    /// Shows how far a build is, for as long as this is polled.
    pub(super) async fn follow(&self, logs: &BuildLogs, id: &str) -> Infallible {
        loop {
            if let Some(log) = logs.get(id) {
                let snapshot = log.snapshot();
                self.bar.set_position(snapshot.percent.into());
                self.say(&described(&snapshot));
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

/// What a build is doing, in a line.
fn described(snapshot: &Snapshot) -> String {
    match snapshot.phase {
        Phase::Waiting => "waiting".to_owned(),
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
        let Counts {
            done: count,
            expected,
        } = counts;
        if expected > 0 {
            parts.push(format!("{count} of {expected} {done}"));
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
    use crate::telemetry::build_log::{BuildLog, Running, Work};

    #[test]
    fn a_line_says_what_nix_is_doing() {
        let log = BuildLog::new("id", None, &[], "");
        let mut lines = String::new();
        let mut look = || {
            lines.push_str(&described(&log.snapshot()));
            lines.push('\n');
        };
        look();
        log.enter(Phase::Evaluating);
        look();
        log.enter(Phase::Building);
        look();
        log.work(Work {
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
