//! Compares a policy with the recipes: patterns that match no recipe, and namespaces that the edge
//! would split.

use std::path::Path;

use anyhow::Result;
use nixgate_core::policy::Pattern;

use super::file::PolicyFile;
use crate::request::recipes::RecipeFile;

pub(super) fn findings(file: &PolicyFile, recipes: &Path) -> Result<Vec<String>> {
    let recipes = RecipeFile::open(Some(recipes))?.current();
    let is_unmatched = |pattern: &Pattern| {
        let mut names = recipes.iter().map(|recipe| recipe.name.as_str());
        !names.any(|name| pattern.matches(name))
    };
    // A policy by itself has no settings of the edge.
    let mut findings: Vec<String> = recipes
        .namespaces()
        .iter()
        .filter(|namespace| file.is_configuration && !file.opaque_namespaces.contains(namespace))
        .map(|namespace| {
            format!("opaque_namespaces lacks {namespace}, the namespace of the recipes")
        })
        .collect();
    for rule in file.policy.rules() {
        for (key, patterns) in [("images", &rule.images), ("deny_images", &rule.deny_images)] {
            for Pattern { text, .. } in patterns.iter().filter(|one| is_unmatched(one)) {
                findings.push(format!(
                    "the rule {}: {key}: \"{text}\" matches no recipe",
                    rule.name
                ));
            }
        }
    }
    Ok(findings)
}
