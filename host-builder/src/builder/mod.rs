//! From a package set to a published image.
//!
//! ```text
//!   server ──► Coalesce ──► NixBuilder
//!              one build     packages → plan → layers → publish
//!              per image,      │                  └── pack what nobody has packed yet
//!              outliving       └── records, or Nix: resolve → realise → closure
//!              its callers                          in turns, fair between rules
//! ```
//!
//! A build's result is not handed over: it is published, and whoever waited reads it from storage
//! as everybody will from then on.

mod coalesce;
mod failures;
mod layers;
mod nix_builder;
mod packages;
mod resolve;
mod rule;
pub mod similar;
mod turnstile;

use futures::future::BoxFuture;
use nixgate_core::PackageSet;
use nixgate_core::distribution::{Error, MediaType};
use nixgate_core::package_set::System;

use crate::fingerprint::Fingerprint;
use crate::layer::ENCODER_ID;
use crate::source::{Pin, Source};
use crate::storage::Key;

pub use coalesce::{Coalesce, Progress};
pub use nix_builder::NixBuilder;
pub use rule::Rule;

/// Changes whenever the same packages make another image: the order of layers, the files that
/// every image has, the config.
const LAYOUT: &str = "1";

/// An image that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// What names the source of the package set ([`Source::identity`](crate::source::Source::identity)).
    pub source: String,
    /// The package set.
    pub pin: Pin,
    /// The platform.
    pub system: System,
    /// Attribute paths in lower case, sorted.
    pub packages: Vec<String>,
    /// The shell is among the packages and is to be started.
    pub shell: bool,
    /// At most so many layers, that of the symlinks included.
    pub max_layers: usize,
}

impl ImageRequest {
    /// The image of these packages out of that package set of a source.
    pub fn new(
        source: &Source,
        pin: Pin,
        system: System,
        packages: &PackageSet,
        max_layers: usize,
    ) -> Self {
        Self {
            source: source.identity(),
            pin,
            system,
            packages: packages.packages().map(str::to_owned).collect(),
            shell: packages.has_shell(),
            max_layers,
        }
    }

    /// What names the build: everything that changes the image.
    pub fn fingerprint(&self) -> String {
        self.described("image-2").hex()
    }

    /// Where its manifest is stored.
    pub fn manifest_key(&self, media_type: MediaType) -> Key {
        Key::manifest(&self.described("manifest-2").part(media_type.as_str()).hex())
    }

    /// What names one of its packages: everything that its attribute path can mean.
    pub fn package_fingerprint(&self, name: &str) -> String {
        Fingerprint::new("package-1")
            .part(&self.source)
            .part(&self.pin.revision)
            .part(self.system.nix())
            .part(name)
            .hex()
    }

    /// Where the package's record is stored.
    pub fn package_key(&self, name: &str) -> Key {
        Key::package(&self.package_fingerprint(name))
    }

    fn described(&self, kind: &str) -> Fingerprint {
        Fingerprint::new(kind)
            .part(LAYOUT)
            .part(ENCODER_ID)
            .part(self.max_layers.to_string())
            .part(&self.source)
            .part(&self.pin.revision)
            .part(self.system.nix())
            .list(self.packages.iter())
    }
}

/// What names an image whatever its package set is pinned to: the folder of its links. Builders of
/// different sources may share storage, and what one links is of no concern to the other.
pub fn link_folder(source: &str, system: System, packages: &[String]) -> String {
    Fingerprint::new("link-2")
        .part(source)
        .part(system.nix())
        .list(packages.iter())
        .hex()
}

/// Whatever makes images.
pub trait Builder: Send + Sync + 'static {
    /// Builds and publishes an image, in the turns of the rule that wants it.
    fn build<'a>(
        &'a self,
        image: &'a ImageRequest,
        rule: &'a Rule,
    ) -> BoxFuture<'a, Result<(), Error>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ImageRequest {
        ImageRequest {
            source: "s".to_owned(),
            pin: Pin {
                path: "/a".into(),
                revision: "r".to_owned(),
            },
            system: System::X86_64Linux,
            packages: vec!["cacert".to_owned(), "git".to_owned()],
            shell: false,
            max_layers: 94,
        }
    }

    #[test]
    fn golden() {
        expect_test::expect!["9c1783b47ecc3c9ea3cc8563b1ca5c139233659c2dc3c153d7d9203f413e87bc"]
            .assert_eq(&request().fingerprint());
    }

    #[test]
    fn everything_that_changes_the_image_changes_its_key() {
        let first = request();
        let mut same = request();
        same.pin.path = "/elsewhere".into();
        assert_eq!(first.fingerprint(), same.fingerprint());
        let changes: [fn(&mut ImageRequest); 6] = [
            |image| image.source = "t".to_owned(),
            |image| image.pin.revision = "s".to_owned(),
            |image| image.system = System::Aarch64Linux,
            |image| image.packages = vec!["cacertgit".to_owned()],
            |image| image.packages.truncate(1),
            |image| image.max_layers = 10,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = request();
            change(&mut other);
            assert_ne!(first.fingerprint(), other.fingerprint(), "change {index}");
        }
        assert_ne!(
            first.manifest_key(MediaType::Oci),
            first.manifest_key(MediaType::Docker)
        );
    }
}
