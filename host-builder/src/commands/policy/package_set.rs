//! Patterns that match nothing in a package set: misspelt, or of packages that were removed.
//!
//! It looks at names of two levels, such as `xorg.xev`, and skips patterns that reach deeper.

use std::sync::Arc;

use anyhow::{Context, Result};
use nixgate_core::distribution::Tag;
use nixgate_core::policy::{Glob, Pattern, Rule};

use super::file::PolicyFile;
use crate::config::{BuildSettings, StorageSettings};
use crate::engine::{open_sources, open_storage};
use crate::files::state_dir::StateDir;
use crate::index::{self, Indexes, Listing};
use crate::storage::Storage;
use crate::telemetry::build_log::BuildLogs;
use crate::telemetry::metrics::Metrics;

pub(super) async fn findings(file: &PolicyFile, settings: BuildSettings) -> Result<Vec<String>> {
    // A builder may be running in the state folder of the settings.
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let state = StateDir::open(folder.path())?;
    let metrics = Metrics::new();
    let (nix, sources) = open_sources(&settings, &state, metrics.clone(), BuildLogs::default())?;
    let pin = sources.wait_for(&Tag::latest()).await?;
    let index = match storage(&settings.storage) {
        Some(storage) => {
            let (nix, folder) = (Arc::clone(&nix), state.indexes());
            let indexes = Indexes::new(nix, storage, sources, folder, metrics, settings.index);
            let index = indexes.of(&pin.revision, settings.system, index::WAIT);
            index.await.ok().flatten()
        }
        None => None,
    };
    let mut listing = Listing::list(index, nix, &pin.path, settings.system).await?;
    let unmatched: Vec<_> = patterns(file.policy.rules())
        .filter(|(_, _, pattern)| !is_deep(pattern) && !matches_some(pattern, &listing))
        .collect();
    let inside: Vec<&Glob> = unmatched
        .iter()
        .flat_map(|(_, _, pattern)| &pattern.globs)
        .collect();
    listing.look_into(&inside).await?;
    // What a pattern matches may be among them, so it is no finding.
    if let Some(names) = listing.not_looked_at() {
        eprintln!("{names}");
    }
    let missing = unmatched
        .into_iter()
        .filter(|(_, _, pattern)| !matches_some(pattern, &listing));
    let finding = |(rule, key, pattern): (&str, &str, &Pattern)| {
        format!(
            "the rule {rule}: {key}: \"{}\" matches nothing in the package set",
            pattern.text
        )
    };
    Ok(missing.map(finding).collect())
}

/// The builder's storage, which may have an index, if this user can open it. None is made for that.
fn storage(settings: &StorageSettings) -> Option<Storage> {
    match settings {
        StorageSettings::Filesystem(folder) if !folder.exists() => None,
        settings => open_storage(settings).ok(),
    }
}

fn patterns(rules: &[Rule]) -> impl Iterator<Item = (&str, &'static str, &Pattern)> {
    rules.iter().flat_map(|rule| {
        let allow = rule.allow.iter().map(|one| (&*rule.name, "allow", one));
        let deny = rule.deny.iter().map(|one| (&*rule.name, "deny", one));
        allow.chain(deny)
    })
}

fn is_deep(pattern: &Pattern) -> bool {
    let mut globs = pattern.globs.iter();
    globs.any(|glob| glob.to_string().matches('.').count() > 1)
}

fn matches_some(pattern: &Pattern, listing: &Listing) -> bool {
    listing.names().any(|name| pattern.matches(name))
}
