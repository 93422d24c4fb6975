//! Manifests (OCI image spec, `manifest.md`; Docker's schema 2).

use std::collections::BTreeMap;

use serde::Serialize;

use super::descriptor::{Descriptor, Format};
use super::{Document, ImageSpec};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest<'a> {
    schema_version: u8,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a BTreeMap<String, String>>,
}

impl Manifest<'_> {
    pub(super) fn new<'a>(format: &Format, config: &Document, spec: &'a ImageSpec) -> Manifest<'a> {
        let annotate = format.has_annotations && !spec.annotations.is_empty();
        Manifest {
            schema_version: 2,
            media_type: format.manifest,
            config: format.describe_config(config),
            layers: spec
                .layers
                .iter()
                .map(|layer| format.describe_layer(layer))
                .collect(),
            annotations: annotate.then_some(&spec.annotations),
        }
    }
}
