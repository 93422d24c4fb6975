//! What the edge is measured against, each started from its own program on a free port.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow, ensure};
use http::Method;
use nixgate_tests::live::http::request;
use nixgate_tests::live::process::Process;
use nixgate_tests::live::{install, poll, ports};

/// A server on loopback.
pub(crate) struct Peer {
    pub(crate) port: u16,
    _process: Process,
}

/// Starts a server and waits until it answers on `probe`, whatever it says.
fn start(command: &Command, port: u16, probe: u16, log: &Path) -> Result<Peer> {
    let mut process = Process::start(command, log)?;
    poll::until("the peer answers", || {
        if let Ok(Some(status)) = process.ended() {
            let log = process.log();
            return Some(Err(anyhow!("{command:?}: {status}\n{log}")));
        }
        let answer = request(Method::GET, probe, "/ready", &[]).ok()?;
        // Envoy is there before it is ready.
        (!answer.status.is_server_error()).then_some(Ok(()))
    })??;
    Ok(Peer {
        port,
        _process: process,
    })
}

/// An Envoy with `peers.yaml`, in which each of these words is replaced.
pub(crate) fn envoy(words: &[(&str, &str)], workers: u16, state: &Path) -> Result<Peer> {
    let (port, admin) = (ports::free()?, ports::free()?);
    let mut config = include_str!("peers.yaml").to_owned();
    let own = [
        ("ENVOY_PORT", port.to_string()),
        ("ADMIN_PORT", admin.to_string()),
    ];
    let own = own.iter().map(|(word, value)| (*word, value.as_str()));
    for (word, value) in own.chain(words.iter().copied()) {
        ensure!(config.contains(word), "peers.yaml has no {word}");
        config = config.replace(word, value);
    }
    let file = state.join("peers.yaml");
    fs::write(&file, config)?;
    let mut command = Command::new(install::envoy(install::ENVOY_VERSIONS[0])?);
    // As the harness starts the Envoy that has the filter.
    command
        .args(["--disable-hot-restart", "--log-level", "info"])
        .args(["--file-flush-interval-msec", "50"])
        .args(["--concurrency", &workers.to_string(), "-c"])
        .arg(&file);
    start(&command, port, admin, &state.join("peers.log"))
}

/// nginx, which serves the files of a folder with as many workers as it likes.
pub(crate) fn nginx(folder: &Path, state: &Path) -> Result<Peer> {
    let port = ports::free()?;
    let file = state.join("nginx.conf");
    let (folder, state) = (folder.display(), state.display());
    let config = format!(
        "daemon off; worker_processes auto; user root; pid {state}/nginx.pid;
        error_log stderr warn;
        events {{ worker_connections 1024; }}
        http {{
          access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
          default_type application/octet-stream;
          server {{ listen 127.0.0.1:{port}; root {folder}; }}
        }}\n"
    );
    fs::write(&file, config)?;
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(&file);
    start(&command, port, port, &file.with_extension("log"))
}
