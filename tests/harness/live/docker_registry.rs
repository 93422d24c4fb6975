//! Another registry: Debian's `docker-registry`, which takes pushes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::live::http::get;
use crate::live::ports;
use crate::live::process::Process;

/// A registry that answers.
#[derive(Debug)]
pub struct DockerRegistry {
    _process: Process,
    port: u16,
}

impl DockerRegistry {
    /// Starts a registry without images, whose files are in `folder`.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start(folder: &Path) -> Result<Self> {
        let port = ports::free()?;
        let config = folder.join("registry.json");
        // JSON is YAML, which the registry reads.
        let settings = serde_json::json!({
            "version": 0.1,
            "storage": {
                "filesystem": { "rootdirectory": folder.join("images") },
                // As Debian configures it.
                "cache": { "blobdescriptor": "inmemory" },
            },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        fs::write(&config, settings.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        let mut process = Process::start(&command, &folder.join("registry.log"))?;
        process.until("docker-registry answers", |_| {
            let answer = get(port, "/v2/").ok()?;
            answer.status.is_success().then_some(())
        })?;
        Ok(Self {
            _process: process,
            port,
        })
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }
}
