//! dockerd, for `docker` on the command line.

use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::live::process::{self, Process};
use crate::live::scratch;

/// A dockerd with no image yet.
#[derive(Debug)]
pub struct Docker {
    _daemon: Process,
    folder: TempDir,
    run: TempDir,
}

impl Docker {
    /// Starts a dockerd with folders and a socket of its own, and without networks: it pulls and
    /// runs, and touches nothing of the machine's.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start() -> Result<Self> {
        let folder = scratch::folder("docker-")?;
        let run = scratch::run_folder()?;
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(folder.path().join("data"));
        command.arg("--exec-root").arg(run.path().join("exec"));
        command.arg("--pidfile").arg(run.path().join("pid"));
        command
            .args(["--host", &host(&run)])
            .args(["--storage-driver=overlay2", "--bridge=none"])
            .args(["--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        let mut daemon = Process::start(&command, &folder.path().join("log"))?;
        let host = host(&run);
        daemon.until("dockerd answers", |_| {
            let mut version = Command::new("docker");
            process::run(version.env("DOCKER_HOST", &host).arg("version")).ok()
        })?;
        Ok(Self {
            _daemon: daemon,
            folder,
            run,
        })
    }

    /// The value of `DOCKER_HOST` for this daemon.
    pub fn host(&self) -> String {
        host(&self.run)
    }

    /// Runs `docker` with these arguments and returns what it printed.
    ///
    /// # Errors
    /// When docker fails.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let config = self.folder.path().join("config");
        let mut command = Command::new("docker");
        // Where `docker login` keeps what it was told.
        command.arg("--config").arg(config);
        process::run(command.env("DOCKER_HOST", self.host()).args(arguments))
    }
}

fn host(run: &TempDir) -> String {
    format!("unix://{}", run.path().join("socket").display())
}

impl Drop for Docker {
    fn drop(&mut self) {
        scratch::unmount(self.folder.path());
        scratch::unmount(self.run.path());
    }
}
