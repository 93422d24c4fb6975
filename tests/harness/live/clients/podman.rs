//! podman: pulls images and runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::live::process::run;
use crate::live::scratch;

/// A podman with no image yet.
#[derive(Debug)]
pub struct Podman {
    folder: TempDir,
    run: TempDir,
}

impl Podman {
    /// A podman with storage of its own.
    ///
    /// # Errors
    /// When its folder can't be made.
    pub fn new() -> Result<Self> {
        let podman = Self {
            folder: scratch::folder("podman-")?,
            run: scratch::run_folder()?,
        };
        // podman refuses to look into a file that isn't there.
        fs::write(podman.credentials(), "{}")?;
        Ok(podman)
    }

    fn command(&self) -> Command {
        let run = |name: &str| self.run.path().join(name);
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.folder.path().join("root"));
        command.arg("--runroot").arg(run("root"));
        command.arg("--tmpdir").arg(run("tmp"));
        // None of these asks for systemd, which containers and CI machines lack.
        command.args(["--storage-driver", "overlay", "--runtime", "runc"]);
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command
    }

    /// Logs in to a registry whose certificate the authority in the folder `ca` signed.
    ///
    /// # Errors
    /// When podman fails, with what it printed.
    pub fn login(&self, registry: &str, user: &str, password: &str, ca: &Path) -> Result<()> {
        run(self
            .command()
            .args(["login", "--username", user, "--password", password])
            .arg("--cert-dir")
            .arg(ca)
            .arg("--authfile")
            .arg(self.credentials())
            .arg(registry))?;
        Ok(())
    }

    /// Pulls an image from a registry to which it has logged in.
    ///
    /// # Errors
    /// When podman fails.
    pub fn pull_logged_in(&self, image: &str, ca: &Path) -> Result<()> {
        run(self
            .command()
            .args(["pull", "--quiet", "--cert-dir"])
            .arg(ca)
            .arg("--authfile")
            .arg(self.credentials())
            .arg(image))?;
        Ok(())
    }

    fn credentials(&self) -> PathBuf {
        self.folder.path().join("auth.json")
    }

    /// Pulls an image.
    ///
    /// # Errors
    /// When podman fails.
    pub fn pull(&self, image: &str) -> Result<()> {
        run(self
            .command()
            .args(["pull", "--quiet", "--tls-verify=false", image]))?;
        Ok(())
    }

    /// Takes an image out of the layout in `folder` that is called `layout`, and returns its id.
    ///
    /// # Errors
    /// When podman fails.
    pub fn pull_layout(&self, folder: &Path, layout: &str, tag: &str) -> Result<String> {
        // By a short name: podman makes a reference of the path, which must be in lower case.
        let image = format!("oci:{layout}:{tag}");
        let mut pull = self.command();
        pull.args(["pull", "--quiet", &image]).current_dir(folder);
        Ok(run(&mut pull)?.trim().to_owned())
    }

    /// Mounts an image that was pulled, and returns the folder.
    ///
    /// # Errors
    /// When podman fails.
    pub fn mount_image(&self, image: &str) -> Result<String> {
        let folder = run(self.command().args(["image", "mount", image]))?;
        Ok(folder.trim().to_owned())
    }

    /// The images of a registry whose names have a word in them.
    ///
    /// # Errors
    /// When podman fails.
    pub fn search(&self, registry: &str, word: &str) -> Result<Vec<String>> {
        let printed = run(self
            .command()
            .args(["search", "--tls-verify=false", "--format", "{{.Name}}"])
            .arg(format!("{registry}/{word}")))?;
        Ok(printed.lines().map(str::to_owned).collect())
    }

    /// Runs a command in a container of an image that was pulled.
    ///
    /// # Errors
    /// When the command or podman fails, with what was printed.
    pub fn run(&self, image: &str, command: &[&str]) -> Result<String> {
        self.run_with(&["--network=none"], image, command)
    }

    /// As [`Podman::run`], with options of `podman run`.
    ///
    /// # Errors
    /// When the command or podman fails, with what was printed.
    pub fn run_with(&self, options: &[&str], image: &str, command: &[&str]) -> Result<String> {
        run(self
            .command()
            .args(["run", "--rm", "--pull=never"])
            // podman raises these limits to its own, which not every root may do.
            .args([
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=1024:1024",
            ])
            .args(options)
            .arg(image)
            .args(command))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        scratch::unmount(self.folder.path());
        scratch::unmount(self.run.path());
    }
}
