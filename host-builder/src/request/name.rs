//! The meaning of a repository name.
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

use super::link_folder;
use super::recipes::{Recipe, Recipes};

/// An image without a package set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedImage {
    pub(crate) system: System,
    pub(crate) packages: PackageSet,
    /// For an opaque name.
    pub(crate) recipe: Option<Arc<Recipe>>,
}

impl NamedImage {
    /// Looks up a repository name. `default` is the platform of names without one.
    ///
    /// # Errors
    /// As [`ImageName::of`]; and [`ErrorKind::ManifestUnknown`] without such a recipe.
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

    /// Parses a repository name, without looking up a recipe.
    ///
    /// # Errors
    /// As [`ImageName::of`]. An edge that knows the namespaces never sends such a name.
    pub(crate) fn name(repository: &Repository, recipes: &Recipes) -> Result<ImageName, Error> {
        ImageName::of(repository, recipes.namespaces()).map_err(|error| {
            let namespace = repository
                .components()
                .find(|component| recipes.namespaces().contains(component));
            match namespace {
                None => error,
                Some(namespace) => Error {
                    message: format!(
                        "{}. If you did write that name, Envoy's filter does not know its namespace: \
                         ask the registry's administrator to add {namespace} to opaque_namespaces",
                        error.message
                    ),
                    ..error
                },
            }
        })
    }

    /// The folder of this name in storage, for any pin of a source.
    pub(crate) fn link_folder(&self, source: &str) -> String {
        let packages: Vec<String> = self.packages.packages().map(str::to_owned).collect();
        let name = self.recipe.as_ref().map(|recipe| recipe.name.as_str());
        link_folder(source, self.system, &packages, name)
    }

    /// The shortest name of the image.
    pub(crate) fn short_name(&self) -> String {
        match &self.recipe {
            Some(recipe) => recipe.name.to_string(),
            None => self.packages.short_name(),
        }
    }
}
