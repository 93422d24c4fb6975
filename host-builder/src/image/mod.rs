//! An image's documents: config, manifests and the descriptors that tie them together.
//!
//! ```text
//!   manifest (Docker or OCI) ──▶ config ──▶ diff_ids of the uncompressed layers
//!           │                       └─────▶ environment, command, history, labels
//!           └──▶ layers, by digest of the compressed bytes
//! ```
//!
//! A client that is told a document's digest will have these bytes and no others, so the bytes are
//! the contract: field order, no white space, nothing optional that is sometimes there. Both
//! manifests name the same config and the same layers; they differ in media types and in
//! annotations, which Docker's format does not have.
//!
//! Specs: OCI image spec 1.1 (`config.md`, `manifest.md`, `descriptor.md`), and Docker's "Image
//! Manifest Version 2, Schema 2".

mod config;
mod descriptor;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use nixgate_core::distribution::Digest;
use serde::Serialize;

pub(crate) use config::Architecture;

/// Layers that an image may have, that of the symlinks included: Docker stops at 127.
pub(crate) const MAX_LAYERS: RangeInclusive<usize> = 2..=127;

/// All that decides what an image's documents say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageSpec {
    /// What its programs run on.
    pub(crate) architecture: Architecture,
    /// Lowest first. The last one is that of the links.
    pub(crate) layers: Vec<LayerSpec>,
    /// How its containers run.
    pub(crate) execution: Execution,
    /// Labels of the config: what `docker inspect` shows.
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotations of the OCI manifest.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// How the containers of an image run (OCI image spec, `config.md`, `config`). What is empty is left
/// out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Execution {
    /// What runs when nobody says what should, or the arguments of the entrypoint.
    pub(crate) cmd: Vec<String>,
    /// What runs in any case.
    pub(crate) entrypoint: Vec<String>,
    /// Variables beside those that every image has, or instead of them.
    pub(crate) env: BTreeMap<String, String>,
    /// `user` or `user:group`.
    pub(crate) user: Option<String>,
    /// An absolute path.
    pub(crate) working_dir: Option<String>,
    /// `port/protocol`.
    pub(crate) exposed_ports: BTreeSet<String>,
}

/// A layer as the documents speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    /// Digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Digest of the compressed archive.
    pub(crate) digest: Digest,
    /// Bytes of the compressed archive.
    pub(crate) size: u64,
    /// What is in it, for `docker history`: names of packages, say.
    pub(crate) contents: Vec<String>,
}

/// The documents of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// The config, the same for both manifests.
    pub(crate) config: Document,
    /// The manifest in Docker's format.
    pub(crate) docker_manifest: Document,
    /// The manifest in OCI's format.
    pub(crate) oci_manifest: Document,
}

/// A JSON document and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// The bytes that the digest is of.
    pub(crate) bytes: Vec<u8>,
    /// Their digest.
    pub(crate) digest: Digest,
}

impl Document {
    fn of(value: &impl Serialize) -> Document {
        let bytes = serde_json::to_vec(value)
            .expect("structs of strings, numbers and maps with string keys are always JSON");
        Document {
            digest: Digest::of(&bytes),
            bytes,
        }
    }
}

impl Image {
    /// Writes the documents.
    pub(crate) fn new(spec: &ImageSpec) -> Image {
        let config = Document::of(&config::Config::new(spec));
        let manifest = |format| Document::of(&manifest::Manifest::new(format, &config, spec));
        Image {
            docker_manifest: manifest(&descriptor::DOCKER),
            oci_manifest: manifest(&descriptor::OCI),
            config,
        }
    }
}

#[cfg(test)]
mod tests;
