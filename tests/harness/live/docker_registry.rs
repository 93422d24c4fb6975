//! Another registry: Debian's `docker-registry`, for pushes or as a pull-through cache.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

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
        Self::with(folder, &json!({}))
    }

    /// Starts a registry that gets images from the one at a URL, and keeps them.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn pull_through(folder: &Path, url: &str) -> Result<Self> {
        Self::with(folder, &json!({ "proxy": { "remoteurl": url } }))
    }

    fn with(folder: &Path, settings: &Value) -> Result<Self> {
        let port = ports::free()?;
        let config = folder.join("registry.json");
        // JSON is YAML, which the registry reads.
        let mut all = json!({
            "version": 0.1,
            "storage": {
                "filesystem": { "rootdirectory": folder.join("images") },
                // As Debian configures it.
                "cache": { "blobdescriptor": "inmemory" },
            },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        for (key, value) in settings.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        fs::write(&config, all.to_string())?;
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
