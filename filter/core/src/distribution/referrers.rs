//! The referrers of a manifest (distribution spec, "Listing Referrers"): signatures, SBOMs, provenance.
//! nixgate makes none and accepts no pushes, so each list is empty.
//!
//! An empty list is better than the 404 that the spec allows: after a 404 clients request the tag
//! `sha256-<hex>` as well.

use serde_json::json;

/// The media type of an OCI image index, which a list of referrers is.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The body of a list without any referrers.
pub fn no_referrers() -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": [] })
        .to_string()
        .into_bytes()
}
