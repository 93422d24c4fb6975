//! What a repository name asks this builder for.
//!
//! ```text
//!   arm64/shell/git ──ImageName──► Packages ───────────────────┐
//!   corp/ci-base    ──ImageName──► Opaque ──► its recipe ──────┴──► NamedImage { system, packages }
//! ```

use std::sync::Arc;

use nixgate_core::distribution::{Error, Repository};
use nixgate_core::image_name::unknown_image;
use nixgate_core::package_set::System;
use nixgate_core::{ImageName, PackageSet};

use super::link_folder_key;
use super::recipes::{Recipe, Recipes};

/// An image, before it is known out of which package set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedImage {
    /// The platform.
    pub(crate) system: System,
    /// What is in it.
    pub(crate) packages: PackageSet,
    /// What defines it, when that is no list of packages.
    pub(crate) recipe: Option<Arc<Recipe>>,
}

impl NamedImage {
    /// What a repository name means by the recipes that are in force. `default` is the platform of
    /// names that say none.
    ///
    /// # Errors
    /// As [`ImageName::of`]; and [`ErrorKind::ManifestUnknown`] when there is no such recipe.
    ///
    /// [`ErrorKind::ManifestUnknown`]: nixgate_core::distribution::ErrorKind::ManifestUnknown
    pub(crate) fn of(
        repository: &Repository,
        recipes: &Recipes,
        default: System,
    ) -> Result<Self, Error> {
        let (packages, recipe) = match Self::name(repository, recipes)? {
            ImageName::Packages(packages) => (packages, None),
            ImageName::Opaque(name) => {
                let recipe = recipes.find(&name).ok_or_else(|| unknown_image(&name))?;
                (recipe.packages.clone(), Some(Arc::clone(recipe)))
            }
        };
        Ok(Self {
            system: packages.system().unwrap_or(default),
            packages,
            recipe,
        })
    }

    /// What a repository name means, whether or not there is such a recipe.
    ///
    /// # Errors
    /// As [`ImageName::of`]. An edge that knows the namespaces asks for no such name.
    pub(crate) fn name(repository: &Repository, recipes: &Recipes) -> Result<ImageName, Error> {
        ImageName::of(repository, recipes.namespaces()).map_err(|error| {
            let namespace = repository
                .components()
                .find(|component| recipes.namespaces().contains(component));
            match namespace {
                None => error,
                Some(namespace) => Error {
                    message: format!(
                        "{}. If the name was written so, Envoy's filter does not know the \
                         namespace: the registry's administrator has to add {namespace} to its \
                         opaque_namespaces",
                        error.message
                    ),
                    ..error
                },
            }
        })
    }

    /// Where its manifests are linked, whatever the package set of that source is pinned to.
    pub(crate) fn link_folder(&self, source: &str) -> String {
        let packages: Vec<String> = self.packages.packages().map(str::to_owned).collect();
        let name = self.recipe.as_ref().map(|recipe| recipe.name.as_str());
        link_folder_key(source, self.system, &packages, name)
    }

    /// The shortest name that asks for it.
    pub(crate) fn short_name(&self) -> String {
        match &self.recipe {
            Some(recipe) => recipe.name.to_string(),
            None => self.packages.short_name(),
        }
    }
}
