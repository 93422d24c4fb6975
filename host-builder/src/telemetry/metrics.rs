//! What the builder counts for its operators: Prometheus metrics.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of [`Metrics::requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// `manifest`, `blob`, `tags`, `referrers`, `token`, `builds`, `base` or `other`.
    pub(crate) route: &'static str,
    /// HTTP status.
    pub(crate) status: u16,
}

/// Labels of [`Metrics::layers`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LayerLabels {
    /// `packed`, or `reused` when an earlier image had the same layer.
    pub(crate) outcome: &'static str,
}

/// Labels of [`Metrics::free_bytes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DiskLabels {
    /// `state`, `storage` or `nix_store`.
    pub(crate) place: &'static str,
}

/// Labels of [`Metrics::altered_paths`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AlteredLabels {
    /// `repaired`, or `refused` when that could not be done.
    pub(crate) outcome: &'static str,
}

/// The builder's counters. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// NixCli of Nix that were started, other than [`Metrics::store_checks`].
    pub(crate) nix_processes: Counter,
    /// NixCli of Nix that were started to find out whether the builder is ready.
    pub(crate) store_checks: Counter,
    /// Requests that were answered.
    pub(crate) requests: Family<RequestLabels, Counter>,
    /// Layers that images were made of.
    pub(crate) layers: Family<LayerLabels, Counter>,
    /// Store paths that were found to be changed after Nix had made them.
    pub(crate) altered_paths: Family<AlteredLabels, Counter>,
    /// What is free on the disks that images take room on, when it was last looked at.
    pub(crate) free_bytes: Family<DiskLabels, Gauge>,
    registry: Arc<Registry>,
}

impl Metrics {
    /// Fresh counters.
    #[expect(
        clippy::new_without_default,
        reason = "counters are made once, on purpose"
    )]
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("nixgate");
        let nix_processes = Counter::default();
        let store_checks = Counter::default();
        let requests = Family::default();
        let layers = Family::default();
        let altered_paths = Family::default();
        let free_bytes = Family::default();
        registry.register(
            "nix_processes",
            "NixCli of Nix started, other than for readiness",
            nix_processes.clone(),
        );
        registry.register(
            "store_checks",
            "NixCli of Nix started for readiness",
            store_checks.clone(),
        );
        registry.register("requests", "Requests answered", requests.clone());
        registry.register("layers", "Layers of the images built", layers.clone());
        registry.register(
            "altered_paths",
            "Store paths found to be changed after Nix made them",
            altered_paths.clone(),
        );
        registry.register(
            "free_bytes",
            "Bytes free on the disk of each place that images take room in",
            free_bytes.clone(),
        );
        Self {
            nix_processes,
            store_checks,
            requests,
            layers,
            altered_paths,
            free_bytes,
            registry: Arc::new(registry),
        }
    }

    /// The counters in the text format of Prometheus.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
