//! What a repository name means: a list of packages, or an image that somebody has defined.
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

/// First components of names that are no lists of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpaqueNamespaces(BTreeSet<String>);

impl OpaqueNamespaces {
    /// Checks the components.
    ///
    /// # Errors
    /// [`ErrorKind::NameInvalid`] for what is no single component of a name, and for those that the
    /// canonical form of a list of packages may have, whoever wrote what.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let names = names.into_iter().map(|name| {
            let repository = Repository::parse(&name)?;
            if repository.components().nth(1).is_some() || package_set::has_meaning(&name) {
                return Err(Error::new(
                    ErrorKind::NameInvalid,
                    format!(
                        "\"{name}\" can't be an opaque namespace: it must be one component, and \
                         neither a meta-package nor a package of one, a platform, or a package that every \
                         image has"
                    ),
                ));
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

/// What is asked for, in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageName {
    /// An image of these packages.
    Packages(PackageSet),
    /// An image that is defined elsewhere under this name.
    Opaque(Repository),
}

impl ImageName {
    /// What a repository name means.
    ///
    /// # Errors
    /// [`ErrorKind::NameInvalid`] as [`PackageSet::of`]; for a namespace that nothing follows, and
    /// for one that stands among packages.
    pub fn of(repository: &Repository, opaque: &OpaqueNamespaces) -> Result<Self, Error> {
        let mut components = repository.components();
        let first = components.next().filter(|&first| opaque.contains(first));
        match (first, components.next()) {
            (Some(_), Some(_)) => return Ok(Self::Opaque(repository.clone())),
            (Some(namespace), None) => {
                return Err(Error::new(
                    ErrorKind::NameInvalid,
                    format!(
                        "{namespace} is a namespace and no image: ask for one that is in it, \
                         {namespace}/<image>"
                    ),
                ));
            }
            (None, _) => {}
        }
        if let Some(namespace) = repository.components().find(|&one| opaque.contains(one)) {
            return Err(Error::new(
                ErrorKind::NameInvalid,
                format!(
                    "{namespace} is a namespace and no package: names of images in it begin with \
                     it, {namespace}/<image>, and can't be combined with packages"
                ),
            ));
        }
        PackageSet::of(repository).map(Self::Packages)
    }

    /// The packages, when the name says them.
    pub const fn packages(&self) -> Option<&PackageSet> {
        match self {
            Self::Packages(packages) => Some(packages),
            Self::Opaque(_) => None,
        }
    }

    /// How many different packages the client wrote, whose words `repository` is: see
    /// [`package_set::written`]. An opaque name says none.
    pub fn written(&self, repository: &Repository) -> usize {
        match self {
            Self::Packages(_) => package_set::written(repository),
            Self::Opaque(_) => 0,
        }
    }
}

/// The canonical repository name, which means the same again.
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

/// What is told of an opaque name that means nothing; and, where a refusal is to look like that, of
/// one that does.
pub fn unknown_image(name: &Repository) -> Error {
    let message = format!(
        "there is no image {name}: images of this namespace are defined by the registry's \
         administrator. Look at the name, or ask for the image to be added"
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
            "arm64",
            "cacert",
            "nano",
            "stdenv.cc",
        ] {
            let error = OpaqueNamespaces::new([name.to_owned()]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NameInvalid, "{name}");
        }
    }
}
