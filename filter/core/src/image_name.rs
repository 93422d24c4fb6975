//! The meaning of a repository name: a list of packages, or an image defined by a recipe.
//!
//! ```text
//!   shell/git/htop ────────────► Packages   split, expanded, sorted (package_set)
//!   corp/ci-base   ──corp is───► Opaque     neither split nor sorted: the name of a recipe,
//!                opaque                     of which the builder alone knows the contents
//! ```
//!
//! Which first components are *opaque namespaces* is a setting of the edge and of the builder. In a
//! list of packages such a component is refused wherever it stands, since the sorted form of the list
//! could begin with it: a name means one thing, to the edge, to the builder and to the policy. Where
//! edge and builder do not agree on the namespaces, the facts of an image tell, and a policy refuses
//! it.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::json;

use crate::PackageSet;
use crate::distribution::{Error, ErrorKind, Repository};
use crate::package_set;

/// First components of names that are not lists of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpaqueNamespaces(BTreeSet<String>);

impl OpaqueNamespaces {
    /// Checks the components.
    ///
    /// # Errors
    /// [`ErrorKind::NameInvalid`] for a name of several components, and for a component that the
    /// canonical form of a list of packages may have.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let names = names.into_iter().map(|name| {
            let repository = Repository::parse(&name)?;
            if repository.components().nth(1).is_some() || package_set::has_meaning(&name) {
                return Err(Error::name_invalid(format!(
                    "\"{name}\" can't be an opaque namespace: choose a single component that is no \
                     platform, no meta-package or member of one, and no package that every image has"
                )));
            }
            Ok(name)
        });
        Ok(Self(names.collect::<Result<_, _>>()?))
    }

    /// Whether names that begin with this component are opaque.
    pub fn contains(&self, component: &str) -> bool {
        self.0.contains(component)
    }

    /// The components, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// A requested image, in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageName {
    /// An image of these packages.
    Packages(PackageSet),
    /// An image of a recipe with this name.
    Opaque(Repository),
}

impl ImageName {
    /// Parses a repository name.
    ///
    /// # Errors
    /// [`ErrorKind::NameInvalid`] as [`PackageSet::of`]; for a namespace alone, and for one among
    /// packages.
    pub fn of(repository: &Repository, opaque: &OpaqueNamespaces) -> Result<Self, Error> {
        let mut components = repository.components();
        let first = components.next().filter(|&first| opaque.contains(first));
        match (first, components.next()) {
            (Some(_), Some(_)) => return Ok(Self::Opaque(repository.clone())),
            (Some(namespace), None) => {
                return Err(Error::name_invalid(format!(
                    "{namespace} is a namespace, not an image: ask for {namespace}/<image>"
                )));
            }
            (None, _) => {}
        }
        if let Some(namespace) = repository.components().find(|&one| opaque.contains(one)) {
            return Err(Error::name_invalid(format!(
                "{namespace} is a namespace, not a package: ask for {namespace}/<image>, without \
                 packages"
            )));
        }
        PackageSet::of(repository).map(Self::Packages)
    }

    /// The packages of a list; none for an opaque name.
    pub const fn packages(&self) -> Option<&PackageSet> {
        match self {
            Self::Packages(packages) => Some(packages),
            Self::Opaque(_) => None,
        }
    }

    /// How many different packages the client wrote into `repository` ([`package_set::written`]); none
    /// for an opaque name.
    pub fn written(&self, repository: &Repository) -> usize {
        match self {
            Self::Packages(_) => package_set::written(repository),
            Self::Opaque(_) => 0,
        }
    }
}

/// The canonical repository name, which parses to the same.
impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages(packages) => packages.fmt(f),
            Self::Opaque(name) => name.fmt(f),
        }
    }
}

impl From<PackageSet> for ImageName {
    fn from(packages: PackageSet) -> Self {
        Self::Packages(packages)
    }
}

/// The error for an opaque name without a recipe, and for one that a policy hides.
pub fn unknown_image(name: &Repository) -> Error {
    let message = format!(
        "there is no image {name}: the registry's administrator defines the images of this \
         namespace. Check the name, or ask for the image to be added"
    );
    Error::new(ErrorKind::ManifestUnknown, message)
        .with_detail(json!({ "unknown": [name.as_str()] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corp() -> OpaqueNamespaces {
        OpaqueNamespaces::new(["corp".to_owned(), "aaa".to_owned()]).unwrap()
    }

    fn meaning(name: &str) -> Result<ImageName, Error> {
        ImageName::of(&Repository::parse(name).unwrap(), &corp())
    }

    #[test]
    fn names_of_a_namespace_are_neither_split_nor_sorted() {
        for name in ["corp/ci-base", "corp/shell/git", "corp/a/a", "aaa/arm64"] {
            let meaning = meaning(name).unwrap();
            assert!(matches!(meaning, ImageName::Opaque(_)), "{name}");
            assert_eq!(meaning.to_string(), name);
            assert_eq!(meaning.written(&Repository::parse(name).unwrap()), 0);
            assert_eq!(meaning.packages(), None);
        }
    }

    #[test]
    fn all_others_are_lists_of_packages() {
        for name in ["git", "corpus/git", "shell/ci-base"] {
            let repository = Repository::parse(name).unwrap();
            let packages = PackageSet::of(&repository).unwrap();
            let meaning = meaning(name).unwrap();
            assert_eq!(meaning.to_string(), packages.to_string());
            assert_eq!(meaning.packages(), Some(&packages));
            let again = Repository::parse(&meaning.to_string()).unwrap();
            assert_eq!(ImageName::of(&again, &corp()).unwrap(), meaning);
        }
        let name = Repository::parse("corp/git").unwrap();
        let none = OpaqueNamespaces::default();
        assert_eq!(none.iter().count(), 0);
        assert!(matches!(
            ImageName::of(&name, &none),
            Ok(ImageName::Packages(_))
        ));
    }

    #[test]
    fn a_namespace_is_no_package() {
        // Sorted, the second would begin with the namespace.
        for name in ["corp", "git/aaa", "git/corp/ci-base", "arm64/corp/x"] {
            let error = meaning(name).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NameInvalid, "{name}");
            assert!(error.message.contains("namespace"), "{error}");
        }
    }

    #[test]
    fn what_can_be_no_namespace_is_refused() {
        for name in [
            "",
            "Corp",
            "a/b",
            "shell",
            "builder",
            "ci",
            "arm64",
            "cacert",
            "nano",
            "stdenv.cc",
            "gnutar",
        ] {
            let error = OpaqueNamespaces::new([name.to_owned()]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NameInvalid, "{name}");
        }
    }
}
