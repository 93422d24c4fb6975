//! An edge, and the answers of a builder.

use nixgate_core::distribution::Digest;
use nixgate_core::signature::SigningKey;
use nixgate_tests::envoy_config::merge;
use nixgate_tests::wasm_host::{Host, Outcome, Response, Root, Stream};
use serde_json::Value;

pub(crate) const TOKEN: &str = "s3cret";
pub(crate) const CONFIGURATION: &str =
    r#"{"builder": {"cluster": "builder", "token_env": "TOKEN"}, "hold_seconds": 20}"#;
pub(crate) const GIT: &str = "/v2/git/manifests/latest";
pub(crate) const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// [`CONFIGURATION`] with a patch.
pub(crate) fn configured(patch: Value) -> String {
    let mut configuration = serde_json::from_str(CONFIGURATION).expect("JSON");
    merge(&mut configuration, patch);
    configuration.to_string()
}

/// What the builder gets instead of the token.
pub(crate) fn signed(method: &str, path: &str, at: u64) -> String {
    SigningKey::new(&Digest::of(TOKEN.as_bytes())).sign(method, path, at)
}

/// A host with one VM, configured.
pub(crate) fn edge() -> (Host, Root) {
    let mut host = Host::new(&[("TOKEN", TOKEN)]);
    let root = host.start(CONFIGURATION);
    (host, root)
}

/// A response that bears the builder's mark.
pub(crate) fn builder(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let own = [
        (":status", status.to_string()),
        ("nixgate-builder", "0.1.0".to_owned()),
    ];
    let more = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Response {
        headers: own
            .into_iter()
            .chain(more)
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .collect(),
        body: body.to_vec(),
    }
}

/// A manifest that may be kept for five minutes.
pub(crate) fn manifest(body: &[u8]) -> Response {
    let digest = Digest::of(body).to_string();
    let headers = [
        ("docker-content-digest", digest.as_str()),
        ("content-type", OCI),
        ("cache-control", "max-age=300"),
    ];
    builder(200, &headers, body)
}

pub(crate) fn building() -> Response {
    builder(202, &[("nixgate-building-for", "7")], b"")
}

/// An answer that Envoy itself gives to a callout.
pub(crate) fn envoys_own(status: u16) -> Response {
    Response {
        headers: vec![(":status".to_owned(), status.to_string().into_bytes())],
        body: b"upstream connect error".to_vec(),
    }
}

pub(crate) fn statuses(host: &mut Host, streams: &[Stream]) -> Vec<u32> {
    streams
        .iter()
        .map(|&stream| host.reply(stream).status)
        .collect()
}

pub(crate) fn is_paused(host: &mut Host, stream: Stream) -> bool {
    host.outcome(stream) == Outcome::Paused
}
