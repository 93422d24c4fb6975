//! An image's documents: config and manifests.
//!
//! ```text
//!   manifest (Docker or OCI) ──▶ config ──▶ diff_ids of the uncompressed layers
//!           │                       └─────▶ environment, command, history, labels
//!           └──▶ layers, by digest of the compressed bytes
//! ```
//!
//! Clients verify digests, so the exact bytes matter: field order, no white space. Both manifests have
//! the same config and layers; they differ in media types and in annotations, which Docker's format
//! lacks.
//!
//! Specs: OCI image spec 1.1 (`config.md`, `manifest.md`, `descriptor.md`), and Docker's "Image
//! Manifest Version 2, Schema 2".

mod config;
mod descriptor;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use nixgate_core::distribution::Digest;
use nixgate_core::package_set::System;
use serde::Serialize;

use crate::layer::Packed;

pub(crate) use config::variables;

/// Layers of an image, including that of the symlinks. Docker's limit is 127.
pub(crate) const MAX_LAYERS: RangeInclusive<usize> = 2..=127;

/// Everything that an image's documents depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageSpec {
    pub(crate) system: System,
    /// Lowest first. The last one has the symlinks.
    pub(crate) layers: Vec<LayerSpec>,
    pub(crate) execution: Execution,
    /// Labels of the config, which `docker inspect` shows.
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotations of the OCI manifest.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// How an image's containers run (OCI image spec, `config.md`, `config`). Empty fields are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Execution {
    /// The default command, or the default arguments of the entrypoint.
    pub(crate) cmd: Vec<String>,
    pub(crate) entrypoint: Vec<String>,
    /// Variables besides those of every image, or in their place.
    pub(crate) env: BTreeMap<String, String>,
    /// `user` or `user:group`.
    pub(crate) user: Option<String>,
    pub(crate) working_dir: Option<String>,
    /// `port/protocol`.
    pub(crate) exposed_ports: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    pub(crate) packed: Packed,
    /// For `docker history`: names of packages.
    pub(crate) contents: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) config: Document,
    pub(crate) docker_manifest: Document,
    pub(crate) oci_manifest: Document,
}

/// A JSON document and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
}

impl Document {
    fn of(value: &impl Serialize) -> Document {
        let bytes = serde_json::to_vec(value)
            .expect("structs of strings, numbers and maps with string keys serialise");
        Document {
            digest: Digest::of(&bytes),
            bytes,
        }
    }
}

impl Image {
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
