//! The image config (OCI image spec, `config.md`). Docker reads the same bytes under its own media type.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Execution, ImageSpec, LayerSpec};
use nixgate_core::distribution::Digest;

/// The epoch: with the real time, no two builds would have the same digest.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// OpenSSL, curl, git and Python find certificates by `SSL_CERT_FILE`; programs of nixpkgs, and Nix, first
/// by `NIX_SSL_CERT_FILE`. The file belongs to `cacert`, which every image has.
const ENV: [(&str, &str); 3] = [
    ("PATH", "/bin:/sbin:/usr/bin"),
    ("SSL_CERT_FILE", "/etc/ssl/certs/ca-bundle.crt"),
    ("NIX_SSL_CERT_FILE", "/etc/ssl/certs/ca-bundle.crt"),
];

#[derive(Debug, Serialize)]
pub(super) struct Config<'a> {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    config: Parameters<'a>,
    rootfs: RootFs<'a>,
    history: Vec<History>,
}

/// The parameters of a container, with the names of Docker's API.
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

/// Go's `struct{}`: in JSON, a set is a map to it.
#[derive(Debug, Serialize)]
struct Nothing {}

#[derive(Debug, Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<&'a Digest>,
}

/// Docker refuses an image without one entry for each layer.
#[derive(Debug, Serialize)]
struct History {
    created: &'static str,
    created_by: String,
}

impl Config<'_> {
    pub(super) fn new(spec: &ImageSpec) -> Config<'_> {
        let packed = spec.layers.iter().map(|layer| &layer.packed);
        Config {
            created: CREATED,
            architecture: spec.system.architecture(),
            os: "linux",
            config: Parameters::new(&spec.execution, &spec.labels),
            rootfs: RootFs {
                kind: "layers",
                diff_ids: packed.map(|packed| &packed.diff_id).collect(),
            },
            history: spec.layers.iter().map(History::new).collect(),
        }
    }
}

impl<'a> Parameters<'a> {
    fn new(execution: &'a Execution, labels: &'a BTreeMap<String, String>) -> Self {
        let ports = execution.exposed_ports.iter();
        Self {
            user: execution.user.as_deref(),
            exposed_ports: ports.map(|port| (port.as_str(), Nothing {})).collect(),
            env: variables(&execution.env),
            entrypoint: &execution.entrypoint,
            cmd: &execution.cmd,
            working_dir: execution.working_dir.as_deref(),
            labels,
        }
    }
}

/// The variables of every image, which may be overridden, then the others.
pub(crate) fn variables(given: &BTreeMap<String, String>) -> Vec<String> {
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
