//! The image config: what runs, where and as what, and which layers it is made of (OCI image spec,
//! `config.md`). Docker reads the same bytes under its own media type.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Execution, ImageSpec, LayerSpec};
use nixgate_core::distribution::Digest;

/// All images were made at the epoch: with a true time, no two builds would agree.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Programs look for certificates in many places; OpenSSL, curl, git and Python agree on this
/// variable. The file is that of `cacert`, which every image holds.
const ENV: [(&str, &str); 2] = [
    ("PATH", "/bin:/sbin:/usr/bin"),
    ("SSL_CERT_FILE", "/etc/ssl/certs/ca-bundle.crt"),
];

/// What an image's programs run on, by the names that OCI has taken from Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Architecture {
    /// 64-bit x86; Nix calls it `x86_64-linux`.
    Amd64,
    /// 64-bit Arm; Nix calls it `aarch64-linux`.
    Arm64,
}

#[derive(Debug, Serialize)]
pub(super) struct Config<'a> {
    created: &'static str,
    architecture: Architecture,
    os: &'static str,
    config: Parameters<'a>,
    rootfs: RootFs<'a>,
    history: Vec<History>,
}

/// The parameters of a container. Names as in Docker's API, hence the case.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Parameters<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<&'a str, Nothing>,
    env: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

/// What Go's `struct{}` is in JSON: a set is a map to it.
#[derive(Debug, Serialize)]
struct Nothing {}

#[derive(Debug, Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<&'a Digest>,
}

/// Where a layer comes from; as many entries as layers, or Docker refuses the image.
#[derive(Debug, Serialize)]
struct History {
    created: &'static str,
    created_by: String,
}

impl Config<'_> {
    pub(super) fn new(spec: &ImageSpec) -> Config<'_> {
        Config {
            created: CREATED,
            architecture: spec.architecture,
            os: "linux",
            config: Parameters::new(&spec.execution, &spec.labels),
            rootfs: RootFs {
                kind: "layers",
                diff_ids: spec.layers.iter().map(|layer| &layer.diff_id).collect(),
            },
            history: spec.layers.iter().map(History::new).collect(),
        }
    }
}

impl<'a> Parameters<'a> {
    fn new(execution: &'a Execution, labels: &'a BTreeMap<String, String>) -> Self {
        let Execution {
            cmd,
            entrypoint,
            env,
            user,
            working_dir,
            exposed_ports,
        } = execution;
        Self {
            user: user.as_deref(),
            exposed_ports: exposed_ports
                .iter()
                .map(|port| (port.as_str(), Nothing {}))
                .collect(),
            env: variables(env),
            entrypoint,
            cmd,
            working_dir: working_dir.as_deref(),
            labels,
        }
    }
}

/// What every image has, each by its own value or the one given here, and then the others.
fn variables(given: &BTreeMap<String, String>) -> Vec<String> {
    let usual = ENV.iter().map(|&(name, value)| {
        let value = given.get(name).map_or(value, String::as_str);
        format!("{name}={value}")
    });
    let is_usual = |name: &str| ENV.iter().any(|(usual, _)| *usual == name);
    let others = given.iter().filter(|(name, _)| !is_usual(name));
    usual
        .chain(others.map(|(name, value)| format!("{name}={value}")))
        .collect()
}

impl History {
    fn new(layer: &LayerSpec) -> History {
        History {
            created: CREATED,
            created_by: format!("nixgate: {}", layer.contents.join(" ")),
        }
    }
}
