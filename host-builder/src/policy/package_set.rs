//! Patterns that match nothing in a package set or among the recipes: misspelt, or of what has gone.
//!
//! Names are looked at two levels deep, as `xorg.xev`; patterns that reach deeper are left out.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use nixgate_core::distribution::Tag;
use nixgate_core::policy::{Glob, Outline, Pattern};

use super::file::PolicyFile;
use crate::catalogue::Catalogue;
use crate::config::BuildSettings;
use crate::nix::{Nix, Processes};
use crate::recipes::RecipeFile;
use crate::source::Sources;
use crate::state_dir::StateDir;
use crate::telemetry::Metrics;

pub(super) async fn findings(file: &PolicyFile, settings: BuildSettings) -> Result<Vec<String>> {
    // A folder of its own: a builder may be running in the one of the settings.
    let folder = tempfile::tempdir().context("can't make a temporary folder")?;
    let state = StateDir::open(folder.path())?;
    let system = settings.system;
    let mut findings = without_recipe(file, settings.recipes.as_deref())?;
    let (nix, sources) = open(settings, &state, folder.path())?;
    let pin = sources.wait_for(&Tag::latest()).await?;
    let mut catalogue = Catalogue::list(nix, &pin.path, system).await?;
    let unmatched: Vec<_> = patterns(&file.rules)
        .filter(|(_, _, pattern)| !is_deep(pattern) && !matches_some(pattern, &catalogue))
        .collect();
    let inside: Vec<&Glob> = unmatched
        .iter()
        .flat_map(|(_, _, pattern)| &pattern.globs)
        .collect();
    catalogue.look_into(&inside).await?;
    let missing = unmatched
        .into_iter()
        .filter(|(_, _, pattern)| !matches_some(pattern, &catalogue));
    let finding = |(rule, key, pattern): (&str, &str, &Pattern)| {
        format!(
            "the rule {rule}: {key}: \"{}\" matches nothing in the package set",
            pattern.text
        )
    };
    findings.extend(missing.map(finding));
    Ok(findings)
}

/// Patterns of opaque names that are no recipe's, where it is known which recipes there are.
fn without_recipe(file: &PolicyFile, recipes: Option<&Path>) -> Result<Vec<String>> {
    if recipes.is_none() {
        return Ok(Vec::new());
    }
    let recipes = RecipeFile::open(recipes)?.current();
    let is_unmatched = |pattern: &&Pattern| {
        let mut names = recipes.iter().map(|recipe| recipe.name.as_str());
        !names.any(|name| pattern.matches(name))
    };
    let findings = file.rules.iter().flat_map(|rule| {
        let images = rule.images.iter().map(|pattern| ("images", pattern));
        let denied = rule.deny_images.iter();
        let all = images.chain(denied.map(|pattern| ("deny_images", pattern)));
        all.filter(|(_, pattern)| is_unmatched(pattern))
            .map(|(key, pattern)| {
                let (rule, text) = (&rule.name, &pattern.text);
                format!("the rule {rule}: {key}: \"{text}\" matches no recipe")
            })
    });
    Ok(findings.collect())
}

fn open(
    settings: BuildSettings,
    state: &StateDir,
    folder: &Path,
) -> Result<(Arc<dyn Nix>, Sources)> {
    let nix: Arc<dyn Nix> = Arc::new(Processes::new(
        settings.nix,
        state.expressions(),
        Metrics::new(),
    ));
    let sources = Sources::new(
        settings.source,
        Arc::clone(&nix),
        settings.any_tag,
        settings.pin,
        folder,
    )?;
    Ok((nix, sources))
}

fn patterns(rules: &[Outline]) -> impl Iterator<Item = (&str, &'static str, &Pattern)> {
    rules.iter().flat_map(|rule| {
        let allow = rule.allow.iter().map(|pattern| ("allow", pattern));
        let deny = rule.deny.iter().map(|pattern| ("deny", pattern));
        allow
            .chain(deny)
            .map(|(key, pattern)| (rule.name.as_str(), key, pattern))
    })
}

fn is_deep(pattern: &Pattern) -> bool {
    let mut globs = pattern.globs.iter();
    globs.any(|glob| glob.to_string().matches('.').count() > 1)
}

fn matches_some(pattern: &Pattern, catalogue: &Catalogue) -> bool {
    catalogue.names().any(|name| pattern.matches(name))
}
