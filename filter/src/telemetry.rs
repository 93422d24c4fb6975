//! What the filter tells operators of its work, through Envoy: statistics, and a few facts of each
//! request that access logs can show.
//!
//! ```text
//!   nixgate_edge_requests_total.route.<route>.outcome.<outcome>   counter
//!   nixgate_edge_judged_total.decision.<decision>.shadow.<shadow> counter, with a policy
//!   nixgate_edge_unknown_subjects_total.why.<why>                 counter, with a policy
//!   nixgate_edge_callout_ms                                       histogram, milliseconds
//!   nixgate_edge_cache_slots                                      gauge, of all workers
//!   filter state wasm.nixgate.image, wasm.nixgate.outcome         text, of a request
//!   filter state wasm.nixgate.policy, .rule, .shadow              the same, with a policy
//! ```
//!
//! Statistics of proxy-wasm have no labels, so these are in the name, from which Envoy's
//! `stats_tags` take them. A counter is defined when it is first needed: a request then costs one
//! host call for it and one for each fact. Repeated answers, of which there may be tens of thousands
//! a second, are counted here and told at the next tick. Nothing in here ever fails a request.

use std::cell::RefCell;
use std::collections::BTreeMap;

use nixgate_core::exchange::{Decision, Doubt, Outcome, Record};
use proxy_wasm::types::{LogLevel, MetricType};

use crate::host;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Counter {
    /// A route and what became of the request.
    Requests(&'static str, Outcome),
    /// What the policy said, and whether the one on trial says otherwise.
    Judged(Decision, bool),
    /// Why it could not be known whether a rule is for the caller.
    Unknown(Doubt),
}

impl Counter {
    fn of(record: &Record) -> impl Iterator<Item = Self> {
        let judgement = record.judgement.as_ref();
        let judged = judgement.map(|one| Self::Judged(one.decision, one.shadow_differs));
        let unknown = judgement.and_then(|one| one.doubt).map(Self::Unknown);
        [Self::Requests(record.route, record.outcome)]
            .into_iter()
            .chain(judged)
            .chain(unknown)
    }

    fn name(self) -> String {
        match self {
            Self::Requests(route, outcome) => {
                let outcome = outcome.as_str();
                format!("nixgate_edge_requests_total.route.{route}.outcome.{outcome}")
            }
            Self::Judged(decision, differs) => {
                let decision = decision.as_str();
                let shadow = if differs { DIFFERS } else { "agrees" };
                format!("nixgate_edge_judged_total.decision.{decision}.shadow.{shadow}")
            }
            Self::Unknown(doubt) => {
                format!("nixgate_edge_unknown_subjects_total.why.{}", doubt.as_str())
            }
        }
    }
}

const DIFFERS: &str = "differs";

const SLOTS: &str = "nixgate_edge_cache_slots";

/// The statistics of one root context.
#[derive(Default)]
pub(crate) struct Telemetry {
    counters: RefCell<BTreeMap<Counter, u32>>,
    /// What was not told yet; borrowed for no host call.
    untold: RefCell<BTreeMap<Counter, u32>>,
    callout: RefCell<Option<u32>>,
    slots: RefCell<Option<u32>>,
}

impl Telemetry {
    /// Counts a request and notes its facts on the stream of the effective context.
    pub(crate) fn note(&self, record: &Record) {
        Self::note_facts(record);
        for counter in Counter::of(record) {
            self.count(counter, 1);
        }
    }

    /// The same for an answer that is repeated, which is counted at the next tick.
    pub(crate) fn note_repeated(&self, record: &Record) {
        Self::note_facts(record);
        let mut untold = self.untold.borrow_mut();
        for counter in Counter::of(record) {
            let count = untold.entry(counter).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Tells what was counted since the last tick.
    pub(crate) fn tick(&self) {
        for (counter, count) in self.untold.take() {
            self.count(counter, count);
        }
    }

    fn note_facts(record: &Record) {
        let outcome = record.outcome.as_str();
        let facts = [
            ("nixgate.image", &*record.image),
            ("nixgate.outcome", outcome),
        ];
        let judged = record.judgement.as_ref().map(|one| {
            [
                ("nixgate.policy", &*one.policy),
                ("nixgate.rule", &*one.rule),
                (
                    "nixgate.shadow",
                    if one.shadow_differs { DIFFERS } else { "" },
                ),
            ]
        });
        for (name, value) in facts.into_iter().chain(judged.into_iter().flatten()) {
            // What is not set is written as `-`.
            if !value.is_empty() {
                tell(host::set_filter_state(name, value));
            }
        }
    }

    fn count(&self, counter: Counter, by: u32) {
        let known = self.counters.borrow().get(&counter).copied();
        let counter = known.map_or_else(|| self.define(counter), Ok);
        tell(counter.and_then(|metric| host::increment(metric, i64::from(by))));
    }

    /// Notes how long a callout took.
    pub(crate) fn callout(&self, milliseconds: u64) {
        let name = "nixgate_edge_callout_ms";
        let metric = defined(&self.callout, MetricType::Histogram, name);
        tell(metric.and_then(|metric| host::record(metric, milliseconds)));
    }

    /// Sets how many slots of the shared cache are in use. The gauge is one for all workers.
    pub(crate) fn slots_used(&self, slots: usize) {
        let metric = defined(&self.slots, MetricType::Gauge, SLOTS);
        tell(metric.and_then(|metric| host::record(metric, slots as u64)));
    }

    /// Notes that more slots are in use, or fewer.
    pub(crate) fn slots_changed(&self, by: i64) {
        if by != 0 {
            let metric = defined(&self.slots, MetricType::Gauge, SLOTS);
            tell(metric.and_then(|metric| host::increment(metric, by)));
        }
    }

    fn define(&self, counter: Counter) -> host::Result<u32> {
        let metric = host::define_metric(MetricType::Counter, &counter.name())?;
        self.counters.borrow_mut().insert(counter, metric);
        Ok(metric)
    }
}

/// The number of a metric, which is defined when it is first needed.
fn defined(known: &RefCell<Option<u32>>, kind: MetricType, name: &str) -> host::Result<u32> {
    if let Some(metric) = *known.borrow() {
        return Ok(metric);
    }
    let metric = host::define_metric(kind, name)?;
    known.replace(Some(metric));
    Ok(metric)
}

fn tell(result: host::Result<()>) {
    if let Err(error) = result {
        host::log(LogLevel::Warn, &format!("a statistic is missing: {error}"));
    }
}
