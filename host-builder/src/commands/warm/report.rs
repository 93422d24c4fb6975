//! The report of a run: a progress bar, then a summary.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use indicatif::ProgressBar;
use nixgate_core::distribution::Error;

use super::plan::WarmTarget;
use crate::commands::progress_bar;
use crate::telemetry::redact::redact;

/// The outcome for one image.
#[derive(Debug)]
pub(super) enum WarmOutcome {
    Built,
    Stored,
    /// Only a pattern matches it, and the package set refuses it.
    LeftOut,
    Failed(Error),
}

/// Without a terminal, prints a line for each image instead of the bar.
#[derive(Default)]
pub(super) struct Report {
    bar: Option<ProgressBar>,
    built: usize,
    stored: usize,
    left_out: usize,
    failures: Vec<String>,
    /// Names of which nobody knows whether they are packages, of each package set.
    not_looked_at: BTreeSet<String>,
    stopped: bool,
}

impl Report {
    /// Shows the progress over this number of images.
    pub(super) fn begin(&mut self, images: usize) {
        let template = "{wide_bar} {pos}/{len}, {eta} left  {msg}";
        self.bar = Some(progress_bar(images as u64, template));
    }

    pub(super) fn add(&mut self, target: &WarmTarget, outcome: WarmOutcome) {
        let word = match outcome {
            WarmOutcome::Built => {
                self.built += 1;
                "built"
            }
            WarmOutcome::Stored => {
                self.stored += 1;
                "stored already"
            }
            WarmOutcome::LeftOut => {
                self.left_out += 1;
                "refused by the package set"
            }
            WarmOutcome::Failed(error) => {
                self.failed(&target.to_string(), &error);
                "failed"
            }
        };
        if let Some(bar) = &self.bar {
            bar.set_message(target.name.clone());
            bar.inc(1);
            if bar.is_hidden() {
                let length = bar.length().unwrap_or_default();
                eprintln!("{} of {length}: {target}: {word}", bar.position());
            }
        }
    }

    /// Adds a failure.
    pub(super) fn failed(&mut self, what: &str, error: &Error) {
        self.failures.push(redact(&format!("{what}: {error}")));
        if let Some(bar) = &self.bar {
            bar.println(format!("failed: {what}"));
        }
    }

    /// Counts names that patterns match but that are no packages.
    pub(super) fn left_out(&mut self, names: usize) {
        self.left_out += names;
    }

    /// Adds what [`Listing::not_looked_at`](crate::index::Listing::not_looked_at) says.
    pub(super) fn not_looked_at(&mut self, names: Option<String>) {
        self.not_looked_at.extend(names);
    }

    pub(super) fn stopped(&mut self) {
        self.stopped = true;
    }

    /// Prints the summary. False if an image failed or is left.
    pub(super) fn finish(self) -> bool {
        let mut left = 0;
        if let Some(bar) = &self.bar {
            // Finishing the bar moves its position.
            left = bar
                .length()
                .unwrap_or_default()
                .saturating_sub(bar.position());
            bar.finish_and_clear();
        }
        print!("{}", self.summary(left));
        self.failures.is_empty() && !self.stopped
    }

    fn summary(&self, left: u64) -> String {
        let mut text = String::new();
        for failure in &self.failures {
            text.push_str(&format!("failed: {failure}\n"));
        }
        // Writing to a string does not fail.
        if self.bar.is_some() {
            let (built, stored) = (self.built, self.stored);
            let failed = self.failures.len();
            _ = writeln!(
                text,
                "{built} built, {stored} stored already, {failed} failed"
            );
        }
        if self.left_out > 0 {
            let names = self.left_out;
            _ = writeln!(
                text,
                "{names} left out: they match a pattern, but are no packages or refused by the package set"
            );
        }
        for names in &self.not_looked_at {
            _ = writeln!(text, "{names}");
        }
        if self.stopped {
            _ = writeln!(
                text,
                "stopped with {left} left: the next run continues from here"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use nixgate_core::distribution::{ErrorKind, Tag};
    use nixgate_core::package_set::System;

    use super::*;

    fn target(package: &str) -> WarmTarget {
        WarmTarget {
            is_recipe: false,
            name: package.to_owned(),
            system: System::X86_64Linux,
            tag: Tag::latest(),
            literal: false,
        }
    }

    #[test]
    fn a_summary_counts_and_lists_failures() {
        let mut report = Report::default();
        report.left_out(2);
        report.begin(6);
        report.add(&target("git"), WarmOutcome::Built);
        report.add(&target("htop"), WarmOutcome::Stored);
        report.add(&target("steam"), WarmOutcome::LeftOut);
        let error = Error::new(ErrorKind::BuildFailed, "it does not compile");
        report.add(&target("broken"), WarmOutcome::Failed(error));
        report.stopped();
        expect![[r#"
            failed: broken:latest x86_64-linux: it does not compile
            1 built, 1 stored already, 1 failed
            3 left out: they match a pattern, but are no packages or refused by the package set
            stopped with 2 left: the next run continues from here
        "#]]
        .assert_eq(&report.summary(2));
        assert!(!report.finish());
    }

    #[test]
    fn a_run_without_failures_succeeds() {
        let mut report = Report::default();
        report.begin(1);
        report.add(&target("git"), WarmOutcome::Built);
        expect![[r#"
            1 built, 0 stored already, 0 failed
        "#]]
        .assert_eq(&report.summary(0));
        assert!(report.finish());
    }
}
