//! Prometheus metrics of the builder.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// `manifest`, `blob`, `tags`, `referrers`, `token`, `builds`, `base` or `other`.
    pub(crate) route: &'static str,
    /// HTTP status.
    pub(crate) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    pub(crate) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DiskLabels {
    /// `state`, `storage` or `nix_store`.
    pub(crate) place: &'static str,
}

/// The builder's metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) nix_processes: Counter,
    pub(crate) store_checks: Counter,
    pub(crate) background_processes: Counter,
    pub(crate) requests: Family<RequestLabels, Counter>,
    /// `packed`, or `reused` when an earlier image had the same layer.
    pub(crate) layers: Family<OutcomeLabels, Counter>,
    /// `repaired`, or `refused` when Nix could not repair the path.
    pub(crate) altered_paths: Family<OutcomeLabels, Counter>,
    /// By what was wrong: `unavailable`, `lost`, `corrupt` or `unsigned`.
    pub(crate) cache_failures: Family<OutcomeLabels, Counter>,
    pub(crate) free_bytes: Family<DiskLabels, Gauge>,
    index_names: Gauge,
    index_looked_at: Gauge,
    registry: Arc<Registry>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        fn add<M: Metric + Clone + Default>(to: &mut Registry, name: &str, help: &str) -> M {
            let metric = M::default();
            to.register(name, help, metric.clone());
            metric
        }
        let mut registry = Registry::with_prefix("nixgate");
        let to = &mut registry;
        Self {
            nix_processes: add(
                to,
                "nix_processes",
                "Processes of Nix, without readiness checks and the index",
            ),
            store_checks: add(to, "store_checks", "Processes of Nix for readiness checks"),
            background_processes: add(
                to,
                "background_processes",
                "Processes of Nix that make the index of a package set",
            ),
            requests: add(to, "requests", "Requests answered"),
            layers: add(to, "layers", "Layers of the images built"),
            altered_paths: add(
                to,
                "altered_paths",
                "Store paths altered after Nix made them",
            ),
            cache_failures: add(
                to,
                "cache_failures",
                "Paths that a binary cache failed to deliver",
            ),
            free_bytes: add(
                to,
                "free_bytes",
                "Free bytes on the disk of each place with images",
            ),
            index_names: add(
                to,
                "index_names",
                "Names of the newest package set that the index is to have, as far as they are known",
            ),
            index_looked_at: add(
                to,
                "index_looked_at",
                "Names of the newest package set that were looked at for the index",
            ),
            registry: Arc::new(registry),
        }
    }

    /// How far the index of the newest package set is.
    pub(crate) fn index_progress(&self, looked_at: usize, names: usize) {
        let set = |gauge: &Gauge, count: usize| gauge.set(count.try_into().unwrap_or(i64::MAX));
        set(&self.index_looked_at, looked_at);
        set(&self.index_names, names);
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
