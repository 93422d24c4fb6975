//! containerd and its `ctr`: what Docker and Kubernetes pull and run images with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::live::process::{self, Process};
use crate::live::scratch;

/// A containerd with no image yet.
#[derive(Debug)]
pub struct Containerd {
    _daemon: Process,
    folder: TempDir,
    run: TempDir,
}

impl Containerd {
    /// Starts a containerd with folders and a socket of its own.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start() -> Result<Self> {
        let folder = scratch::folder("containerd-")?;
        let run = scratch::run_folder()?;
        let path = |name: &str| folder.path().join(name);
        let socket = socket(&run);
        let config = path("config.toml");
        fs::write(
            &config,
            format!(
                "version = 2\nroot = {:?}\nstate = {:?}\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                 [grpc]\naddress = {:?}\n",
                path("root"),
                run.path().join("state"),
                socket
            ),
        )?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config);
        let mut daemon = Process::start(&command, &path("log"))?;
        daemon.until("containerd answers", |_| {
            let mut version = Command::new("ctr");
            version.arg("--address").arg(&socket).arg("version");
            process::run(&mut version).ok()
        })?;
        Ok(Self {
            _daemon: daemon,
            folder,
            run,
        })
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(socket(&self.run));
        command
    }

    /// Pulls an image; its reference needs a tag.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn pull(&self, image: &str) -> Result<()> {
        process::run(self.ctr().args(["images", "pull", "--plain-http", image]))?;
        Ok(())
    }

    /// Takes the images of an archive (an OCI image layout as tar, say), and says what it calls them.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn import(&self, archive: &Path) -> Result<Vec<String>> {
        process::run(self.ctr().args(["images", "import"]).arg(archive))?;
        let names = process::run(self.ctr().args(["images", "list", "--quiet"]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Pulls an image as a user; the folder `hosts` says how the registry is reached (`hosts.toml`).
    ///
    /// # Errors
    /// When ctr fails.
    pub fn pull_as(&self, image: &str, user: &str, password: &str, hosts: &Path) -> Result<()> {
        process::run(
            self.ctr()
                .args(["images", "pull", "--user"])
                .arg(format!("{user}:{password}"))
                .arg("--hosts-dir")
                .arg(hosts)
                .arg(image),
        )?;
        Ok(())
    }

    /// Runs a command in a container of an image that was pulled.
    ///
    /// # Errors
    /// When the command or ctr fails, with what was printed.
    pub fn run(&self, image: &str, command: &[&str]) -> Result<String> {
        process::run(
            self.ctr()
                .args(["run", "--rm", image, "test"])
                .args(command),
        )
    }
}

fn socket(run: &TempDir) -> PathBuf {
    run.path().join("socket")
}

impl Drop for Containerd {
    fn drop(&mut self) {
        scratch::unmount(self.folder.path());
        scratch::unmount(self.run.path());
    }
}
