//! A policy beside the recipes: names that no recipe has, and namespaces that the edge would split.

use std::path::Path;

use anyhow::Result;
use nixgate_core::policy::Pattern;

use super::file::PolicyFile;
use crate::request::recipes::RecipeFile;

pub(super) fn findings(file: &PolicyFile, recipes: &Path) -> Result<Vec<String>> {
    let recipes = RecipeFile::open(Some(recipes))?.current();
    let names = || recipes.iter().map(|recipe| recipe.name.as_str());
    let is_unmatched = |pattern: &&Pattern| !names().any(|name| pattern.matches(name));
    let unmatched = file.rules.iter().flat_map(|rule| {
        let sides = [("images", &rule.images), ("deny_images", &rule.deny_images)];
        sides.into_iter().flat_map(move |(key, patterns)| {
            let lost = patterns.iter().filter(is_unmatched);
            lost.map(move |pattern| {
                let (rule, text) = (&rule.name, &pattern.text);
                format!("the rule {rule}: {key}: \"{text}\" matches no recipe")
            })
        })
    });
    // A policy by itself says nothing of the edge's settings.
    let split = recipes
        .namespaces()
        .iter()
        .filter(|namespace| file.is_configuration && !file.opaque_namespaces.contains(namespace));
    let split = split.map(|namespace| {
        format!("opaque_namespaces lacks {namespace}, the namespace of the recipes")
    });
    Ok(split.chain(unmatched).collect())
}
