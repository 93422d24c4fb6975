//! What becomes of a run: a bar while it lasts, a summary when it ends.

use std::fmt::Write as _;

use indicatif::{ProgressBar, ProgressStyle};
use nixgate_core::distribution::Error;

use super::plan::Wish;
use crate::telemetry::redact::redact;

/// What became of an image.
#[derive(Debug)]
pub(super) enum Outcome {
    Built,
    /// It was there already.
    Stored,
    /// A pattern matched it, and the package set refuses it.
    LeftOut,
    Failed(Error),
}

/// See the module. Nothing is drawn where stderr is no terminal: there, each image is a line.
#[derive(Default)]
pub(super) struct Report {
    bar: Option<ProgressBar>,
    built: usize,
    stored: usize,
    left_out: usize,
    failures: Vec<String>,
    stopped: bool,
}

impl Report {
    /// Shows how far a run over so many images is.
    pub(super) fn begin(&mut self, images: usize) {
        let bar = ProgressBar::new(images as u64);
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}, {eta} left  {msg}");
        // It is a constant, and the bar has a style of its own.
        if let Ok(style) = style {
            bar.set_style(style);
        }
        self.bar = Some(bar);
    }

    pub(super) fn add(&mut self, wish: &Wish, outcome: Outcome) {
        let word = match outcome {
            Outcome::Built => {
                self.built += 1;
                "built"
            }
            Outcome::Stored => {
                self.stored += 1;
                "stored already"
            }
            Outcome::LeftOut => {
                self.left_out += 1;
                "refused by the package set"
            }
            Outcome::Failed(error) => {
                self.failed(&wish.to_string(), &error);
                "failed"
            }
        };
        if let Some(bar) = &self.bar {
            bar.set_message(wish.name.clone());
            bar.inc(1);
            if bar.is_hidden() {
                let length = bar.length().unwrap_or_default();
                eprintln!("{} of {length}: {wish}: {word}", bar.position());
            }
        }
    }

    /// Notes what could not be had.
    pub(super) fn failed(&mut self, what: &str, error: &Error) {
        self.failures.push(redact(&format!("{what}: {error}")));
        if let Some(bar) = &self.bar {
            bar.println(format!("failed: {what}"));
        }
    }

    /// Notes names that patterns match and that are no packages.
    pub(super) fn left_out(&mut self, names: usize) {
        self.left_out += names;
    }

    /// Notes that the run ends before its time.
    pub(super) fn stopped(&mut self) {
        self.stopped = true;
    }

    /// Prints the summary. False when something failed, or is left.
    pub(super) fn finish(self) -> bool {
        let mut left = 0;
        if let Some(bar) = &self.bar {
            // Before it is finished, which moves it to its end.
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
                "{names} left out, which patterns match: no packages, or refused by the package set"
            );
        }
        if self.stopped {
            _ = writeln!(
                text,
                "stopped with {left} left: the next run goes on from here"
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

    fn wish(package: &str) -> Wish {
        Wish {
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
        report.add(&wish("git"), Outcome::Built);
        report.add(&wish("htop"), Outcome::Stored);
        report.add(&wish("steam"), Outcome::LeftOut);
        let error = Error::new(ErrorKind::BuildFailed, "it does not compile");
        report.add(&wish("broken"), Outcome::Failed(error));
        report.stopped();
        expect![[r#"
            failed: broken:latest x86_64-linux: it does not compile
            1 built, 1 stored already, 1 failed
            3 left out, which patterns match: no packages, or refused by the package set
            stopped with 2 left: the next run goes on from here
        "#]]
        .assert_eq(&report.summary(2));
        assert!(!report.finish());
    }

    #[test]
    fn nothing_to_complain_of() {
        let mut report = Report::default();
        report.begin(1);
        report.add(&wish("git"), Outcome::Built);
        expect![[r#"
            1 built, 0 stored already, 0 failed
        "#]]
        .assert_eq(&report.summary(0));
        assert!(report.finish());
    }
}
