//! nginx, which serves the files of a folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::live::http::get;
use crate::live::ports;
use crate::live::process::Process;

/// An nginx that answers.
#[derive(Debug)]
pub struct Nginx {
    _process: Process,
    port: u16,
}

impl Nginx {
    /// Serves the files of `folder` with as many workers as nginx likes; its own files are in
    /// `state`.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start(folder: &Path, state: &Path) -> Result<Self> {
        Self::with(folder, state, "")
    }

    /// The same for a user with a password, and for nobody else.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn with_password(folder: &Path, state: &Path, user: &str, password: &str) -> Result<Self> {
        let file = state.join("nginx.users");
        fs::write(&file, format!("{user}:{{PLAIN}}{password}\n"))?;
        let file = file.display();
        let settings = format!("auth_basic files; auth_basic_user_file {file};");
        Self::with(folder, state, &settings)
    }

    fn with(folder: &Path, state: &Path, settings: &str) -> Result<Self> {
        let port = ports::free()?;
        let file = state.join("nginx.conf");
        let (folder, files) = (folder.display(), state.display());
        let config = format!(
            "daemon off; worker_processes auto; user root; pid {files}/nginx.pid;
            error_log stderr warn;
            events {{ worker_connections 1024; }}
            http {{
              access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
              default_type application/octet-stream;
              server {{ listen 127.0.0.1:{port}; root {folder}; {settings} }}
            }}\n"
        );
        fs::write(&file, config)?;
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(&file);
        let mut process = Process::start(&command, &file.with_extension("log"))?;
        process.until("nginx answers", |_| get(port, "/").ok())?;
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
