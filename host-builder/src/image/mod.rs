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

use nixgate_core::distribution::Digest;
use serde::Serialize;

pub use config::Architecture;

/// All that decides what an image's documents say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// What its programs run on.
    pub architecture: Architecture,
    /// Lowest first. The last one is that of the links.
    pub layers: Vec<LayerSpec>,
    /// How its containers run.
    pub execution: Execution,
    /// Labels of the config: what `docker inspect` shows.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the OCI manifest.
    pub annotations: BTreeMap<String, String>,
}

/// How the containers of an image run (OCI image spec, `config.md`, `config`). What is empty is left
/// out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Execution {
    /// What runs when nobody says what should, or the arguments of the entrypoint.
    pub cmd: Vec<String>,
    /// What runs in any case.
    pub entrypoint: Vec<String>,
    /// Variables beside those that every image has, or instead of them.
    pub env: BTreeMap<String, String>,
    /// `user` or `user:group`.
    pub user: Option<String>,
    /// An absolute path.
    pub working_dir: Option<String>,
    /// `port/protocol`.
    pub exposed_ports: BTreeSet<String>,
}

/// A layer as the documents speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSpec {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the compressed archive.
    pub digest: Digest,
    /// Bytes of the compressed archive.
    pub size: u64,
    /// What is in it, for `docker history`: names of packages, say.
    pub contents: Vec<String>,
}

/// The documents of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The config, the same for both manifests.
    pub config: Document,
    /// The manifest in Docker's format.
    pub docker_manifest: Document,
    /// The manifest in OCI's format.
    pub oci_manifest: Document,
}

/// A JSON document and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The bytes that the digest is of.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
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
    pub fn new(spec: &ImageSpec) -> Image {
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
