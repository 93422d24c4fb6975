//! Keys in the store.

use std::time::SystemTime;

use nixgate_core::distribution::{Digest, Tag};
use object_store::path::Path as ObjectPath;

/// The folders of the store. A key is in one of them, so that what goes through them all
/// ([`Folder::ALL`]) leaves none out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folder {
    Layers,
    Builds,
    Packages,
    Manifests,
    Links,
    Facts,
    Staging,
}

impl Folder {
    pub(super) const ALL: [Self; 7] = [
        Self::Layers,
        Self::Builds,
        Self::Packages,
        Self::Manifests,
        Self::Links,
        Self::Facts,
        Self::Staging,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Builds => "builds",
            Self::Packages => "packages",
            Self::Manifests => "manifests",
            Self::Links => "links",
            Self::Facts => "facts",
            Self::Staging => "staging",
        }
    }

    /// Whether it has a folder of its own for each name of an image.
    pub(super) const fn is_by_name(self) -> bool {
        match self {
            Self::Links | Self::Facts => true,
            Self::Layers | Self::Builds | Self::Packages | Self::Manifests | Self::Staging => false,
        }
    }

    fn path(self) -> ObjectPath {
        ObjectPath::from(self.name())
    }

    fn join(self, name: &str) -> ObjectPath {
        self.path().join(name)
    }
}

/// A key in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(super) ObjectPath);

impl Key {
    /// A blob.
    pub(crate) fn blob(digest: &Digest) -> Self {
        Self(Folder::Layers.join(&digest.hex()))
    }

    /// The blob of a set of store paths.
    pub(crate) fn build(fingerprint: &str) -> Self {
        Self(Folder::Builds.join(fingerprint))
    }

    /// What is known of a package.
    pub(crate) fn package(fingerprint: &str) -> Self {
        Self(Folder::Packages.join(fingerprint))
    }

    /// The manifest of an image.
    pub(crate) fn manifest(fingerprint: &str) -> Self {
        Self(Folder::Manifests.join(fingerprint))
    }

    /// A manifest under its image's name.
    pub(crate) fn link(name: &str, manifest: &Digest) -> Self {
        Self(Folder::Links.join(name).join(manifest.hex()))
    }

    /// What is written to see whether the store can be.
    pub(super) fn probe() -> Self {
        Self(Folder::Staging.join("probe"))
    }

    /// What is known of an image.
    pub(crate) fn record(name: &str, image: &str) -> Self {
        Self(facts(name, Some(image)).join("record"))
    }

    /// The same under a tag by which the image was had.
    pub(crate) fn tagged(name: &str, image: &str, tag: &Tag) -> Self {
        Self(facts(name, Some(image)).join("tags").join(tag.as_str()))
    }
}

/// The folder of what is known of any image.
pub(super) fn all_facts() -> ObjectPath {
    Folder::Facts.path()
}

/// The folder of what is known of the images of a name, or of one of them.
pub(super) fn facts(name: &str, image: Option<&str>) -> ObjectPath {
    let folder = all_facts().join(name);
    match image {
        Some(image) => folder.join(image),
        None => folder,
    }
}

/// An object that says what is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    /// What names the image among those of its name.
    pub(crate) image: String,
    /// The tag under which it says so; none: under none.
    pub(crate) tag: Option<Tag>,
    /// Where it is.
    pub(crate) key: Key,
    /// When it was written.
    pub(crate) written: SystemTime,
}

impl Fact {
    /// The name of whose images what is at a key speaks.
    pub(super) fn name_of(path: &ObjectPath) -> Option<String> {
        path.parts().nth(1).map(|name| name.as_ref().to_owned())
    }

    /// What is at a key, if it is one of [`Key::record`] and [`Key::tagged`].
    pub(super) fn of(path: ObjectPath, written: SystemTime) -> Option<Self> {
        let mut parts = path.parts().skip(2).map(|part| part.as_ref().to_owned());
        let image = parts.next()?;
        let tag = match (parts.next()?.as_str(), parts.next()) {
            ("record", None) => None,
            ("tags", Some(tag)) => Some(Tag::parse(&tag).ok()?),
            _ => return None,
        };
        Some(Self {
            image,
            tag,
            key: Key(path),
            written,
        })
    }
}
