//! A requested image: its name, its definition, and its storage keys.
//!
//! ```text
//!   shell/git ──► NamedImage ── with a package set ──► ImageRequest ──► storage keys
//!   corp/ci  ──► its recipe ──┘
//! ```

mod name;
pub(crate) mod recipes;

use std::sync::Arc;

use nixgate_core::distribution::MediaType;
use nixgate_core::package_set::System;

use crate::fingerprint::Fingerprint;
use crate::layer::ENCODER_ID;
use crate::layering::Layering;
use crate::source::Pin;
use crate::storage::Key;

use recipes::Recipe;

pub(crate) use name::NamedImage;

/// Must change whenever the same packages give another image: by the order of layers, the files of
/// every image, or the config.
const LAYOUT: &str = "3";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageRequest {
    /// The source of the package set, and its configuration ([`Sources::identity`](crate::source::Sources::identity)).
    pub(crate) source: String,
    pub(crate) pin: Pin,
    pub(crate) system: System,
    /// Attribute paths in lower case, sorted.
    pub(crate) packages: Vec<String>,
    /// Whether it starts the shell, which is among the packages.
    pub(crate) shell: bool,
    /// Including the layer of symlinks.
    pub(crate) max_layers: usize,
    pub(crate) layering: Layering,
    /// For an image with an opaque name.
    pub(crate) recipe: Option<Arc<Recipe>>,
}

impl ImageRequest {
    /// A named image, from a pinned package set of a source with this identity. `max_layers` is the default for images whose recipe says
    /// nothing.
    pub(crate) fn new(
        source: String,
        pin: Pin,
        image: &NamedImage,
        layering: Layering,
        max_layers: usize,
    ) -> Self {
        let recipe = image.recipe.clone();
        let own = recipe.as_ref().and_then(|recipe| recipe.max_layers());
        Self {
            source,
            pin,
            system: image.system,
            packages: image.packages.packages().map(str::to_owned).collect(),
            shell: image.packages.has_shell(),
            max_layers: own.unwrap_or(max_layers),
            layering,
            recipe,
        }
    }

    /// The image's name, if that is not a list of its packages.
    pub(crate) fn opaque_name(&self) -> Option<&str> {
        self.recipe.as_ref().map(|recipe| recipe.name.as_str())
    }

    /// The folder of its name in `links/` and `facts/` of storage.
    pub(crate) fn link_folder(&self) -> String {
        let name = self.opaque_name();
        link_folder(&self.source, self.system, &self.packages, name)
    }

    /// Identifies the build: a hash of everything that changes the image.
    pub(crate) fn fingerprint(&self) -> String {
        self.fingerprint_of_kind("image-2").hex()
    }

    pub(crate) fn manifest_key(&self, media_type: MediaType) -> Key {
        let fingerprint = self.fingerprint_of_kind("manifest-2");
        Key::manifest(&fingerprint.part(media_type.as_str()).hex())
    }

    /// Identifies a package: a hash of everything that decides what its attribute path is.
    pub(crate) fn package_fingerprint(&self, name: &str) -> String {
        Fingerprint::new("package-3")
            .part(&self.source)
            .part(&self.pin.revision)
            .part(self.system.nix())
            .part(name)
            .hex()
    }

    /// The key of a package's record.
    pub(crate) fn package_key(&self, name: &str) -> Key {
        Key::package(&self.package_fingerprint(name))
    }

    fn fingerprint_of_kind(&self, kind: &str) -> Fingerprint {
        let plain = Fingerprint::new(kind)
            .part(LAYOUT)
            .part(ENCODER_ID)
            .part(self.max_layers.to_string())
            .part(self.layering.id())
            .part(&self.source)
            .part(&self.pin.revision)
            .part(self.system.nix())
            .list(self.packages.iter());
        match &self.recipe {
            None => plain,
            // The name is part of it, since equal recipes with two names are published twice.
            Some(recipe) => plain.part(recipe.name.as_str()).part(recipe.fingerprint()),
        }
    }
}

/// The folder of an image's name in storage, whatever its package set is pinned to. The source is part
/// of it, since builders with different sources may share storage. An opaque name's folder does not
/// depend on its recipe, which may change.
pub(crate) fn link_folder(
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
            layering: Layering::default(),
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
        expect_test::expect!["3c97d64b46686986f66a5d3eda4ca9ee0fc50b8a6c52f93b8f39cccb558212d3"]
            .assert_eq(&request().fingerprint());
    }

    #[test]
    fn everything_that_changes_the_image_changes_its_key() {
        let first = request();
        let mut same = request();
        same.pin.path = "/elsewhere".into();
        assert_eq!(first.fingerprint(), same.fingerprint());
        let mut keys = BTreeSet::from([first.fingerprint()]);
        let changes: [fn(&mut ImageRequest); 9] = [
            |image| image.source = "t".to_owned(),
            |image| image.pin.revision = "s".to_owned(),
            |image| image.system = System::Aarch64Linux,
            |image| image.packages = vec!["cacertgit".to_owned()],
            |image| image.packages.truncate(1),
            |image| image.max_layers = 10,
            |image| image.layering = Layering::Sharing,
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
