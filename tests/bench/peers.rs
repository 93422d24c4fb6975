//! What the edge is measured against: an Envoy without the filter.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use nixgate_tests::live::admin::Admin;
use nixgate_tests::live::envoy::launch;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::ports;
use nixgate_tests::live::process::Process;

/// A server on loopback.
pub(crate) struct Peer {
    pub(crate) port: u16,
    _process: Process,
    _admin: Admin,
}

/// An Envoy with `peers.yaml`, in which each of these words is replaced.
pub(crate) fn envoy(words: &[(&str, &str)], workers: u16, state: &Path) -> Result<Peer> {
    let (port, admin) = (ports::free()?, Admin::new()?);
    let mut config = include_str!("peers.yaml").to_owned();
    let own = [
        ("ENVOY_PORT", port.to_string()),
        ("ADMIN_SOCKET", admin.socket().display().to_string()),
    ];
    let own = own.iter().map(|(word, value)| (*word, value.as_str()));
    for (word, value) in own.chain(words.iter().copied()) {
        ensure!(config.contains(word), "peers.yaml has no {word}");
        config = config.replace(word, value);
    }
    let file = state.join("peers.yaml");
    fs::write(&file, config)?;
    // As the harness starts the Envoy that has the filter.
    let log = state.join("peers.log");
    let process = launch(ENVOY_VERSIONS[0], workers, &file, &admin, &log)?;
    Ok(Peer {
        port,
        _process: process,
        _admin: admin,
    })
}
