//! Telemetry through Envoy: statistics, and filter state of each request for access logs.
//!
//! ```text
//!   nixgate_edge_requests_total.route.<route>.outcome.<outcome>   counter
//!   nixgate_edge_judged_total.decision.<decision>.shadow.<shadow> counter, with a policy
//!   nixgate_edge_unknown_subjects_total.why.<why>                 counter, with a policy
//!   nixgate_edge_callout_ms                                       histogram, milliseconds
//!   nixgate_edge_cache_slots                                      gauge, of all workers
//!   nixgate_edge_configuration_refused                            gauge: 1 while the delivered
//!                                                                 configuration is not in force
//!   filter state wasm.nixgate.image, wasm.nixgate.outcome         text, for each request
//!   filter state wasm.nixgate.policy, .rule, .shadow              the same, with a policy
//! ```
//!
//! A plugin with a name has `.registry.<name>` after the name of each statistic: two registries in one Envoy
//! have statistics of their own. Statistics of proxy-wasm have no labels, so the labels are in the name, from which Envoy's `stats_tags`
//! extract them. A counter is defined when it is first used. Then a request costs one host call for it and
//! one for each fact. Repeated answers, possibly tens of thousands a second, are counted here and passed on
//! at the next tick. Nothing in here ever fails a request.

use std::cell::RefCell;
use std::collections::BTreeMap;

use nixgate_core::config::statistics_label;
use nixgate_core::exchange::{Decision, Doubt, Outcome, Record};
use proxy_wasm::types::{LogLevel, MetricType};

use crate::host;

/// A statistic of Envoy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Metric {
    /// A route and the outcome of the request.
    Requests(&'static str, Outcome),
    /// The policy's decision, and whether the policy on trial decides differently.
    Judged(Decision, bool),
    /// Why it is unknown whether a rule applies to the caller.
    Unknown(Doubt),
    CalloutMilliseconds,
    CacheSlots,
    ConfigurationRefused,
}

impl Metric {
    /// The counters of a request.
    fn of(record: &Record) -> impl Iterator<Item = Self> {
        let judgement = record.judgement.as_ref();
        let judged = judgement.map(|one| Self::Judged(one.decision, one.shadow_differs));
        let unknown = judgement.and_then(|one| one.doubt).map(Self::Unknown);
        [Self::Requests(record.route, record.outcome)]
            .into_iter()
            .chain(judged)
            .chain(unknown)
    }

    fn define(self, registry: &str) -> host::Result<u32> {
        let (kind, name, labels) = match self {
            Self::Requests(route, outcome) => {
                let labels = format!(".route.{route}.outcome.{}", outcome.as_str());
                (MetricType::Counter, "requests_total", labels)
            }
            Self::Judged(decision, differs) => {
                let shadow = if differs { DIFFERS } else { "agrees" };
                let labels = format!(".decision.{}.shadow.{shadow}", decision.as_str());
                (MetricType::Counter, "judged_total", labels)
            }
            Self::Unknown(doubt) => {
                let labels = format!(".why.{}", doubt.as_str());
                (MetricType::Counter, "unknown_subjects_total", labels)
            }
            Self::CalloutMilliseconds => (MetricType::Histogram, "callout_ms", String::new()),
            Self::CacheSlots => (MetricType::Gauge, "cache_slots", String::new()),
            Self::ConfigurationRefused => {
                (MetricType::Gauge, "configuration_refused", String::new())
            }
        };
        host::define_metric(kind, &format!("nixgate_edge_{name}{registry}{labels}"))
    }
}

const DIFFERS: &str = "differs";

/// The statistics of one root context.
#[derive(Default)]
pub(crate) struct Telemetry {
    /// The label of the registry, as part of a name.
    registry: String,
    /// The host's ids.
    ids: RefCell<BTreeMap<Metric, u32>>,
    /// Counts since the last tick; never borrowed across a host call.
    pending: RefCell<BTreeMap<Metric, u32>>,
}

impl Telemetry {
    /// The statistics of a plugin.
    pub(crate) fn new(plugin: &str) -> Self {
        Self {
            registry: statistics_label(plugin),
            ..Self::default()
        }
    }

    /// Records whether the delivered configuration is not in force.
    pub(crate) fn configuration_refused(&self, is_refused: bool) {
        let id = self.id(Metric::ConfigurationRefused);
        log_failure(id.and_then(|id| host::record(id, is_refused.into())));
    }

    /// Counts a request, and sets the filter state of the stream in the effective context.
    pub(crate) fn record(&self, record: &Record) {
        Self::set_filter_state(record);
        for counter in Metric::of(record) {
            self.add(counter, 1);
        }
    }

    /// The same for a repeated answer, which is counted at the next tick.
    pub(crate) fn record_repeated(&self, record: &Record) {
        Self::set_filter_state(record);
        let mut pending = self.pending.borrow_mut();
        for counter in Metric::of(record) {
            let count = pending.entry(counter).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Adds the counts since the last tick.
    pub(crate) fn tick(&self) {
        for (counter, count) in self.pending.take() {
            self.add(counter, i64::from(count));
        }
    }

    fn set_filter_state(record: &Record) {
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
            // Access logs write `-` for what is not set.
            if !value.is_empty() {
                log_failure(host::set_filter_state(name, value));
            }
        }
    }

    /// Records the duration of a callout.
    pub(crate) fn callout(&self, milliseconds: u64) {
        let id = self.id(Metric::CalloutMilliseconds);
        log_failure(id.and_then(|id| host::record(id, milliseconds)));
    }

    /// Sets the number of used slots in the shared cache, a gauge of all workers.
    pub(crate) fn slots_used(&self, slots: usize) {
        let id = self.id(Metric::CacheSlots);
        log_failure(id.and_then(|id| host::record(id, slots as u64)));
    }

    /// Adds to the number of used slots.
    pub(crate) fn slots_changed(&self, by: i64) {
        if by != 0 {
            self.add(Metric::CacheSlots, by);
        }
    }

    fn add(&self, metric: Metric, by: i64) {
        log_failure(self.id(metric).and_then(|id| host::increment(id, by)));
    }

    fn id(&self, metric: Metric) -> host::Result<u32> {
        if let Some(id) = self.ids.borrow().get(&metric) {
            return Ok(*id);
        }
        let id = metric.define(&self.registry)?;
        self.ids.borrow_mut().insert(metric, id);
        Ok(id)
    }
}

fn log_failure(result: host::Result<()>) {
    if let Err(error) = result {
        host::log(
            LogLevel::Warn,
            &format!("cannot record a statistic: {error}"),
        );
    }
}
