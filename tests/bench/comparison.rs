//! Two servers that give the same answer, measured in turns.

use std::time::Duration;

use anyhow::Result;

use crate::wrk::{self, Besides, Load};

/// Runs of each side.
pub(crate) const PAIRS: usize = 5;
pub(crate) const RUN: Duration = Duration::from_secs(3);
/// Before the first pair: connections are opened, caches filled.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// The table's head.
pub(crate) const HEAD: &str = "\
| what | connections | ours | theirs | ratio | goal | p99 ours, ms | theirs | ratio |
| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |";

/// Where two sides give the same answer.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) ours: String,
    pub(crate) theirs: String,
    /// What both are sent besides, as `name: value`.
    pub(crate) header: Option<&'static str>,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measure {
    /// Requests a second.
    Requests,
    /// Bytes a second.
    Bytes,
}

impl Measure {
    fn of(self, load: &Load) -> f64 {
        match self {
            Self::Requests => load.requests,
            Self::Bytes => load.bytes,
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Requests => format!("{value:.0}/s"),
            Self::Bytes => format!("{:.0} MB/s", value / 1e6),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) what: &'static str,
    pub(crate) goal: &'static str,
    pub(crate) measure: Measure,
    pub(crate) pair: Pair,
    pub(crate) connections: u16,
    pub(crate) keep_alive: bool,
}

impl Comparison {
    /// What it compares, and how it is asked.
    pub(crate) fn name(&self) -> String {
        format!("{}, {}", self.what, self.kind())
    }

    fn kind(&self) -> String {
        let kind = if self.keep_alive { "kept" } else { "closed" };
        format!("{} {kind}", self.connections)
    }

    /// Measures both sides, and gives the line.
    ///
    /// # Errors
    /// When a side does not answer.
    pub(crate) fn run(&self) -> Result<String> {
        let Pair {
            ours,
            theirs,
            header,
        } = &self.pair;
        let besides = header.map_or(Besides::Nothing, Besides::Header);
        let load =
            |url: &str, time| wrk::run(url, besides, self.connections, self.keep_alive, time);
        load(ours, WARM_UP)?;
        load(theirs, WARM_UP)?;
        let mut pairs = Vec::with_capacity(PAIRS);
        for number in 0..PAIRS {
            // Who goes first changes, lest one side always follows the other's end.
            pairs.push(if number % 2 == 0 {
                let ours = load(ours, RUN)?;
                (ours, load(theirs, RUN)?)
            } else {
                let theirs = load(theirs, RUN)?;
                (load(ours, RUN)?, theirs)
            });
        }
        let medians = |of: &dyn Fn(&Load) -> f64| {
            [
                median(pairs.iter().map(|(ours, _)| of(ours))),
                median(pairs.iter().map(|(_, theirs)| of(theirs))),
                median(pairs.iter().map(|(ours, theirs)| of(ours) / of(theirs))),
            ]
        };
        let [ours, theirs, ratio] = medians(&|load| self.measure.of(load));
        let p99 = match self.measure {
            Measure::Requests => medians(&|load| load.p99).map(|value| format!("{value:.2}")),
            // Of a large blob, hardly one is whole when the time is over.
            Measure::Bytes => ["–"; 3].map(str::to_owned),
        };
        Ok(format!(
            "| {} | {} | {} | {} | **{ratio:.2}** | {} | {} |",
            self.what,
            self.kind(),
            self.measure.show(ours),
            self.measure.show(theirs),
            self.goal,
            p99.join(" | "),
        ))
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
