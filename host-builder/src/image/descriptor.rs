//! Descriptors: a manifest's references to the config and the layers (OCI image spec, `descriptor.md`).

use serde::Serialize;

use super::{Document, LayerSpec};
use nixgate_core::distribution::{Digest, MediaType};

/// A manifest format and its media types.
pub(super) struct Format {
    pub(super) manifest: &'static str,
    config: &'static str,
    layer: &'static str,
    pub(super) has_annotations: bool,
}

pub(super) const DOCKER: Format = Format {
    manifest: MediaType::Docker.as_str(),
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    has_annotations: false,
};

pub(super) const OCI: Format = Format {
    manifest: MediaType::Oci.as_str(),
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
    has_annotations: true,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: &'static str,
    digest: Digest,
    size: u64,
}

impl Format {
    pub(super) fn describe_config(&self, config: &Document) -> Descriptor {
        Descriptor {
            media_type: self.config,
            digest: config.digest,
            size: config.bytes.len() as u64,
        }
    }

    pub(super) fn describe_layer(&self, layer: &LayerSpec) -> Descriptor {
        Descriptor {
            media_type: self.layer,
            digest: layer.packed.digest,
            size: layer.packed.size,
        }
    }
}
