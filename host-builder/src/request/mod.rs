//! The image that is asked for: its name, what that means, and the keys by which it is stored.
//!
//! ```text
//!   shell/git ──► NamedImage ── and a package set ──► ImageRequest ──► keys of what is stored
//!   corp/ci  ──► its recipe ──┘
//! ```

mod name;
pub(crate) mod recipes;

use std::sync::Arc;

use nixgate_core::distribution::MediaType;
use nixgate_core::package_set::System;

use crate::fingerprint::Fingerprint;
use crate::layer::ENCODER_ID;
use crate::source::{Pin, Source};
use crate::storage::Key;

use recipes::Recipe;

pub(crate) use name::NamedImage;

/// Changes whenever the same packages make another image: the order of layers, the files that
/// every image has, the config.
const LAYOUT: &str = "1";

/// An image that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageRequest {
    /// What names the source of the package set ([`Source::identity`](crate::source::Source::identity)).
    pub(crate) source: String,
    /// The package set.
    pub(crate) pin: Pin,
    /// The platform.
    pub(crate) system: System,
    /// Attribute paths in lower case, sorted.
    pub(crate) packages: Vec<String>,
    /// The shell is among the packages and is to be started.
    pub(crate) shell: bool,
    /// At most so many layers, that of the symlinks included.
    pub(crate) max_layers: usize,
    /// What defines the image beyond its packages, when it has a name of its own.
    pub(crate) recipe: Option<Arc<Recipe>>,
}

impl ImageRequest {
    /// What is wanted out of that package set of a source. `max_layers` is for images of which
    /// nothing else is said.
    pub(crate) fn new(source: &Source, pin: Pin, wanted: &NamedImage, max_layers: usize) -> Self {
        let NamedImage {
            system,
            packages,
            recipe,
        } = wanted;
        let own = recipe.as_ref().and_then(|recipe| recipe.max_layers());
        Self {
            source: source.identity(),
            pin,
            system: *system,
            packages: packages.packages().map(str::to_owned).collect(),
            shell: packages.has_shell(),
            max_layers: own.unwrap_or(max_layers),
            recipe: recipe.clone(),
        }
    }

    /// The name under which it is asked for, when that is no list of its packages.
    pub(crate) fn opaque_name(&self) -> Option<&str> {
        self.recipe.as_ref().map(|recipe| recipe.name.as_str())
    }

    /// Where its manifests are linked.
    pub(crate) fn link_folder(&self) -> String {
        let name = self.opaque_name();
        link_folder_key(&self.source, self.system, &self.packages, name)
    }

    /// What names the build: everything that changes the image.
    pub(crate) fn fingerprint(&self) -> String {
        self.described("image-2").hex()
    }

    /// Where its manifest is stored.
    pub(crate) fn manifest_key(&self, media_type: MediaType) -> Key {
        Key::manifest(&self.described("manifest-2").part(media_type.as_str()).hex())
    }

    /// What names one of its packages: everything that its attribute path can mean.
    pub(crate) fn package_fingerprint(&self, name: &str) -> String {
        Fingerprint::new("package-2")
            .part(&self.source)
            .part(&self.pin.revision)
            .part(self.system.nix())
            .part(name)
            .hex()
    }

    /// Where the package's record is stored.
    pub(crate) fn package_key(&self, name: &str) -> Key {
        Key::package(&self.package_fingerprint(name))
    }

    fn described(&self, kind: &str) -> Fingerprint {
        let plain = Fingerprint::new(kind)
            .part(LAYOUT)
            .part(ENCODER_ID)
            .part(self.max_layers.to_string())
            .part(&self.source)
            .part(&self.pin.revision)
            .part(self.system.nix())
            .list(self.packages.iter());
        match &self.recipe {
            None => plain,
            // Two names of one recipe are linked apart, so each is published.
            Some(recipe) => plain.part(recipe.name.as_str()).part(recipe.fingerprint()),
        }
    }
}

/// What names an image whatever its package set is pinned to: the folder of its links. Builders of
/// different sources may share storage, and what one links is of no concern to the other. An opaque
/// name stays one whatever its recipe says from day to day.
pub(crate) fn link_folder_key(
    source: &str,
    system: System,
    packages: &[String],
    opaque: Option<&str>,
) -> String {
    match opaque {
        None => Fingerprint::new("link-2")
            .part(source)
            .part(system.nix())
            .list(packages.iter()),
        Some(name) => Fingerprint::new("opaque-link-1").part(source).part(name),
    }
    .hex()
}

#[cfg(test)]
impl ImageRequest {
    /// An image of these packages, for tests.
    pub(crate) fn example(packages: &[&str]) -> Self {
        Self {
            source: "s".to_owned(),
            pin: Pin {
                path: "/".into(),
                revision: "r".to_owned(),
            },
            system: System::X86_64Linux,
            packages: packages.iter().map(|&name| name.to_owned()).collect(),
            shell: false,
            max_layers: 94,
            recipe: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::recipes::Recipes;
    use super::*;

    const CI: &str = r#"{"namespace": "corp",
        "images": {"ci": {"packages": ["git"], "env": {"LANG": "C.UTF-8"}}}}"#;

    fn request() -> ImageRequest {
        ImageRequest::example(&["cacert", "git"])
    }

    fn recipe(json: &str) -> Option<Arc<Recipe>> {
        let recipes = Recipes::parse(json).unwrap();
        recipes.iter().next().cloned()
    }

    #[test]
    fn golden() {
        expect_test::expect!["de43481d3d617a1adb54537b12a17bd4602b819ae735ac15a26fde4d0a4b78cf"]
            .assert_eq(&request().fingerprint());
    }

    #[test]
    fn everything_that_changes_the_image_changes_its_key() {
        let first = request();
        let mut same = request();
        same.pin.path = "/elsewhere".into();
        assert_eq!(first.fingerprint(), same.fingerprint());
        let mut keys = BTreeSet::from([first.fingerprint()]);
        let changes: [fn(&mut ImageRequest); 8] = [
            |image| image.source = "t".to_owned(),
            |image| image.pin.revision = "s".to_owned(),
            |image| image.system = System::Aarch64Linux,
            |image| image.packages = vec!["cacertgit".to_owned()],
            |image| image.packages.truncate(1),
            |image| image.max_layers = 10,
            |image| image.recipe = recipe(CI),
            |image| image.recipe = recipe(&CI.replace("C.UTF-8", "C")),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = request();
            change(&mut other);
            let key = other.fingerprint();
            assert!(keys.insert(key), "change {index}");
        }
        let mut defined = request();
        defined.recipe = recipe(CI);
        let mut changed = request();
        changed.recipe = recipe(&CI.replace("git", "htop"));
        assert_eq!(defined.link_folder(), changed.link_folder());
        assert_ne!(defined.link_folder(), request().link_folder());
        assert_ne!(
            first.manifest_key(MediaType::Oci),
            first.manifest_key(MediaType::Docker)
        );
    }
}
