//! The record of a published image: facts beyond its manifest, by which the edge applies its policy.
//!
//! ```text
//!   build ──► ImageRecord { system, packages, opaque_name, names, origin, contents, blobs }
//!               │ before the manifests
//!               ▼
//!   facts/<name>/<image>/record ──copied when a tag is used──► facts/<name>/<image>/tags/<tag>
//!               │                                                        │
//!               └─ a blob, a digest: one listing, then each once ◄───────┤
//!                                            the same tag: one read ◄────┘
//! ```
//!
//! An image's id is a hash of its blobs, which are the same in both manifests, so both lead to one
//! record. An image whose record is missing or damaged does not count as published: a pull by tag
//! builds it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;
use nixgate_core::distribution::{Digest, Tag};
use nixgate_core::package_set::System;
use nixgate_core::policy::{Contents, FactRules, ImageFacts};
use serde::{Deserialize, Serialize};

use crate::closure::{Closure, StorePath};
use crate::fingerprint::Fingerprint;
use crate::nix::Derivation;
use crate::request::ImageRequest;
use crate::storage::{Key, Storage, StorageError};
use crate::telemetry::logging::chain;

/// Identifies an image among those of one name.
pub(crate) type ImageId = String;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) system: System,
    /// Attribute paths in lower case, sorted.
    #[serde(default)]
    pub(crate) packages: Vec<String>,
    /// The image's name, if that is not a list of its packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) opaque_name: Option<String>,
    /// From attribute path to `pname`, where they differ.
    names: BTreeMap<String, String>,
    /// None in records of older versions: then it is unknown which other names the packages have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
    contents: Contents,
    /// With sizes in bytes.
    blobs: BTreeMap<Digest, u64>,
}

/// Where an image's packages are from: by this, their other names are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The path of the package set in the Nix store, and its revision.
    pub(crate) set: PathBuf,
    pub(crate) revision: String,
    /// The outputs of each package that the image has.
    pub(crate) outputs: BTreeMap<String, BTreeSet<StorePath>>,
}

impl ImageRecord {
    /// The record of an image; `derivations` has one for each package, in order.
    pub(crate) fn new(
        image: &ImageRequest,
        derivations: &[&Derivation],
        closure: &Closure,
        manifest: &[u8],
    ) -> Self {
        let outputs = image.packages.iter().zip(derivations);
        let outputs = outputs.map(|(asked, derivation)| {
            let outputs = derivation.outputs.iter().map(|one| one.path.clone());
            (asked.clone(), outputs.collect())
        });
        let origin = Origin {
            set: image.pin.path.clone(),
            revision: image.pin.revision.clone(),
            outputs: outputs.collect(),
        };
        let names = image.packages.iter().zip(derivations);
        let names = names.map(|(asked, derivation)| (asked, derivation.pname.to_lowercase()));
        let licences = derivations.iter().flat_map(|one| &one.licences);
        let closure: BTreeSet<&str> = closure.paths().keys().map(StorePath::name).collect();
        Self {
            system: image.system,
            packages: image.packages.clone(),
            opaque_name: image.opaque_name().map(str::to_owned),
            names: names
                .filter(|(asked, pname)| *asked != pname)
                .map(|(asked, pname)| (asked.clone(), pname))
                .collect(),
            origin: Some(origin),
            contents: Contents {
                licences: licences.cloned().collect(),
                insecure: derivations.iter().any(|one| one.insecure),
                closure: closure.into_iter().map(str::to_owned).collect(),
            },
            blobs: blobs_of(manifest),
        }
    }

    pub(crate) fn image_id(&self) -> ImageId {
        id(&self.blobs)
    }

    /// The size of a blob in bytes, if the image has it.
    pub(crate) fn size(&self, blob: &Digest) -> Option<u64> {
        self.blobs.get(blob).copied()
    }

    /// The number of digests and names held, as a measure of memory.
    pub(crate) fn weight(&self) -> usize {
        let contents = self.contents.licences.len() + self.contents.closure.len();
        let outputs = self
            .origin
            .iter()
            .flat_map(|origin| origin.outputs.values());
        let outputs: usize = outputs.map(|outputs| 1 + outputs.len()).sum();
        self.packages.len() + self.names.len() + outputs + contents + self.blobs.len()
    }

    /// The `pname` of a package, if that is not its name.
    pub(crate) fn real_name(&self, package: &str) -> Option<&str> {
        self.names.get(package).map(String::as_str)
    }

    /// The facts for the edge, with the tags by which the image was pulled, and the other names of its packages
    /// if these are known.
    pub(crate) fn facts(
        &self,
        tags: BTreeSet<Tag>,
        rules: &FactRules,
        others: Option<BTreeMap<String, BTreeSet<String>>>,
    ) -> ImageFacts {
        let names_unknown = others.is_none();
        let mut others = others.unwrap_or_default();
        for (package, pname) in &self.names {
            let others = others.entry(package.clone()).or_default();
            others.insert(pname.clone());
        }
        let names = others.into_iter().flat_map(|(package, others)| {
            let names = others.into_iter();
            names.map(move |other| (package.clone(), other))
        });
        ImageFacts {
            tags,
            system: self.system,
            names: names.collect(),
            names_unknown,
            unsettled: false,
            matched: rules.matched(&self.contents),
            packages: self
                .opaque_name
                .as_ref()
                .map(|_| self.packages.iter().cloned().collect()),
        }
    }

    /// Reads a record; none if it is damaged.
    ///
    /// # Errors
    /// When storage can't be read.
    pub(crate) async fn read(storage: &Storage, key: &Key) -> Result<Option<Self>, StorageError> {
        let json = storage.get(key).await?;
        Ok(json.and_then(|json| {
            let record = serde_json::from_slice(&json).inspect_err(|error| {
                tracing::warn!(
                    ?key,
                    error = chain(error),
                    "rebuilding an image with a damaged record"
                );
            });
            record.ok()
        }))
    }

    /// # Errors
    /// When storage can't be written.
    pub(crate) async fn write(&self, storage: &Storage, key: &Key) -> Result<(), StorageError> {
        let json = serde_json::to_vec(self).map_err(std::io::Error::from)?;
        storage.put(key, Bytes::from(json)).await
    }
}

/// The id of a manifest's image.
pub(crate) fn image_of(manifest: &[u8]) -> ImageId {
    id(&blobs_of(manifest))
}

/// The blobs of a manifest in either format, with their sizes: its config and its layers. None if the
/// manifest is damaged.
pub(crate) fn blobs_of(manifest: &[u8]) -> BTreeMap<Digest, u64> {
    #[derive(Deserialize)]
    struct Descriptor {
        digest: Digest,
        size: u64,
    }
    #[derive(Deserialize)]
    struct Manifest {
        config: Descriptor,
        layers: Vec<Descriptor>,
    }
    let manifest: Option<Manifest> = serde_json::from_slice(manifest).ok();
    manifest
        .into_iter()
        .flat_map(|Manifest { config, layers }| [config].into_iter().chain(layers))
        .map(|Descriptor { digest, size }| (digest, size))
        .collect()
}

fn id(blobs: &BTreeMap<Digest, u64>) -> ImageId {
    let digests = blobs.keys().map(Digest::as_bytes);
    Fingerprint::new("blobs-1").list(digests).hex()
}

#[cfg(test)]
impl ImageRecord {
    pub(crate) fn example(blobs: &[(Digest, u64)]) -> Self {
        Self {
            system: System::X86_64Linux,
            packages: Vec::new(),
            opaque_name: None,
            names: BTreeMap::new(),
            origin: None,
            contents: Contents::default(),
            blobs: blobs.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
