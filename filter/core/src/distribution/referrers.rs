//! What refers to a manifest (distribution spec, "Listing Referrers"): signatures, SBOMs,
//! provenance. nixgate makes none of these yet and takes no pushes, so each list is empty.
//!
//! The list is answered all the same, instead of by the 404 that the spec allows: on a 404 clients
//! look for a tag `sha256-<hex>` instead, which costs another request and finds nothing either.

use serde_json::json;

/// The media type of an OCI image index, which a list of referrers is.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The body of a list without any referrers.
pub fn no_referrers() -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": [] })
        .to_string()
        .into_bytes()
}
