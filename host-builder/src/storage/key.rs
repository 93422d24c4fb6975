//! Keys in storage.

use std::time::SystemTime;

use nixgate_core::distribution::{Digest, Tag};
use object_store::path::Path as ObjectPath;

// The folders of storage.
const LAYERS: &str = "layers";
const BUILDS: &str = "builds";
const PACKAGES: &str = "packages";
const MANIFESTS: &str = "manifests";
const LINKS: &str = "links";
const FACTS: &str = "facts";
const INDEXES: &str = "indexes";
const STAGING: &str = "staging";

/// Folders without subfolders.
pub(super) const FLAT_FOLDERS: [&str; 6] = [LAYERS, BUILDS, PACKAGES, MANIFESTS, INDEXES, STAGING];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(super) ObjectPath);

impl Key {
    pub(crate) fn blob(digest: &Digest) -> Self {
        Self(path(LAYERS, &digest.hex()))
    }

    /// The record of a layer.
    pub(crate) fn build(fingerprint: &str) -> Self {
        Self(path(BUILDS, fingerprint))
    }

    /// The record of a package.
    pub(crate) fn package(fingerprint: &str) -> Self {
        Self(path(PACKAGES, fingerprint))
    }

    /// The index of a package set.
    pub(crate) fn index(fingerprint: &str) -> Self {
        Self(path(INDEXES, fingerprint))
    }

    pub(crate) fn manifest(fingerprint: &str) -> Self {
        Self(path(MANIFESTS, fingerprint))
    }

    /// A manifest in the folder of its image's name.
    pub(crate) fn link(name: &str, manifest: &Digest) -> Self {
        Self(path(LINKS, name).join(manifest.hex()))
    }

    /// An object to test writing.
    pub(super) fn probe() -> Self {
        Self(path(STAGING, "probe"))
    }

    /// The record of an image.
    pub(crate) fn record(name: &str, image: &str) -> Self {
        Self(facts(name, Some(image)).join("record"))
    }

    /// The copy of an image's record for a tag.
    pub(crate) fn tagged(name: &str, image: &str, tag: &Tag) -> Self {
        Self(facts(name, Some(image)).join("tags").join(tag.as_str()))
    }
}

fn path(folder: &str, name: &str) -> ObjectPath {
    ObjectPath::from(folder).join(name)
}

/// The folder of all images' records.
pub(super) fn all_facts() -> ObjectPath {
    ObjectPath::from(FACTS)
}

/// The folder of the records of a name's images, or of one image.
pub(super) fn facts(name: &str, image: Option<&str>) -> ObjectPath {
    let folder = all_facts().join(name);
    match image {
        Some(image) => folder.join(image),
        None => folder,
    }
}

/// A stored record of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    /// The image's id.
    pub(crate) image: String,
    /// Set in the copy for a tag.
    pub(crate) tag: Option<Tag>,
    pub(crate) key: Key,
    pub(crate) written: SystemTime,
}

impl Fact {
    /// The folder of the image's name.
    pub(super) fn name_of(path: &ObjectPath) -> Option<String> {
        path.parts().nth(1).map(|name| name.as_ref().to_owned())
    }

    /// Parses a key of [`Key::record`] or [`Key::tagged`].
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
