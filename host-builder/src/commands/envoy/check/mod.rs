//! The checks: a function of what was read, without any effect.
//!
//! ```text
//!   plugin     the filter's file, settings, module and VM
//!   placement  which requests pass the filter, and between which others it stands
//!   routing    timeouts, retries and headers of the registry's routes
//!   limits     listeners, connection managers, the builder's cluster, Envoy as a whole
//!   replies    Envoy's own answers
//!   logs       access logs
//! ```

mod limits;
mod logs;
mod placement;
mod plugin;
mod replies;
mod routing;

use std::collections::BTreeMap;

use super::chains::Scene;
use super::finding::{Findings, Report};
use super::gather::{Document, gather};

/// What is known of a module's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Module {
    /// It can't be read, and why.
    Unreadable(String),
    /// It is no WebAssembly.
    NotWasm,
    /// Its version: that of this program, another one, or none that can be found.
    Version(Option<String>),
}

/// A file that the configuration names and that is not a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadFile {
    /// The file.
    pub(super) file: String,
    /// Where it is named.
    pub(super) place: String,
    /// What is wrong with it.
    pub(super) problem: String,
}

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) documents: Vec<Document>,
    pub(super) bad_files: Vec<BadFile>,
    /// By their names in the configuration.
    pub(super) modules: BTreeMap<String, Module>,
    /// Counts of updates that a running Envoy has taken and refused.
    pub(super) stats: BTreeMap<String, u64>,
    /// The version of this program.
    pub(super) version: &'static str,
}

/// Everything that is missing or dangerous for the filter of this name.
pub(super) fn check(sources: &Sources, name: &str) -> Report {
    let all = gather(&sources.documents);
    let scene = Scene::new(&all, name);
    let mut found = Findings::default();
    plugin::check(&scene, sources, name, &mut found);
    placement::check(&scene, &mut found);
    routing::check(&scene, &mut found);
    limits::check(&scene, &mut found);
    replies::check(&scene, &mut found);
    logs::check(&scene, &mut found);
    found.finish()
}

#[cfg(test)]
mod tests;
