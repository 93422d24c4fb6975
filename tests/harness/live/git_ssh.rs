//! A git server over ssh: dropbear, with its own host key, home and one authorized key.
//!
//! The server finds authorized keys by the home in `/etc/passwd`, so it sees another one (see [`namespace`]).
//! Debian starts an OpenSSH server on installation, but not dropbear. The client is OpenSSH, as on builders.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::live::process::{Process, run};
use crate::live::{namespace, ports, scratch};

/// The host.
#[derive(Debug)]
pub struct GitSsh {
    process: Process,
    port: u16,
    // Last: it is removed when nothing uses it any more.
    state: TempDir,
}

impl GitSsh {
    /// Starts a server on which only `root` can log in, by key.
    ///
    /// # Errors
    /// When it does not start, with its log.
    pub fn start() -> Result<Self> {
        let state = scratch::folder("git-ssh-")?;
        let folder = state.path();
        let ssh = folder.join("home/.ssh");
        fs::create_dir(folder.join("home"))?;
        fs::DirBuilder::new().mode(0o700).create(&ssh)?;
        for key in ["reader", "stranger"] {
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key)))?;
        }
        fs::copy(folder.join("reader.pub"), ssh.join("authorized_keys"))?;
        let host_key = folder.join("host_key");
        run(Command::new("dropbearkey")
            .args(["-t", "ed25519", "-f"])
            .arg(&host_key))?;
        let passwd = folder.join("passwd");
        let home = folder.join("home");
        let users = fs::read_to_string("/etc/passwd")?;
        let others = users.lines().filter(|line| !line.starts_with("root:"));
        let root = format!("root:x:0:0:root:{}:/bin/sh", home.display());
        let users: Vec<_> = std::iter::once(root.as_str()).chain(others).collect();
        fs::write(&passwd, users.join("\n") + "\n")?;

        let port = ports::free()?;
        let mut dropbear = Command::new("dropbear");
        dropbear.args([
            "-F",
            "-E",
            "-s",
            "-m",
            "-p",
            &format!("127.0.0.1:{port}"),
            "-P",
        ]);
        dropbear.arg(folder.join("pid")).arg("-r").arg(&host_key);
        let mounts = [(passwd.as_path(), Path::new("/etc/passwd"))];
        let dropbear = namespace::with_mounts(&mounts, &dropbear);
        let mut process = Process::start(&dropbear, &folder.join("dropbear.log"))?;
        process.until("dropbear listens", |_| {
            TcpStream::connect(("127.0.0.1", port)).ok()
        })?;
        let public = run(Command::new("dropbearkey")
            .arg("-y")
            .arg("-f")
            .arg(&host_key))?;
        let public = public.lines().find(|line| line.starts_with("ssh-"));
        let known = format!("[127.0.0.1]:{port} {}\n", public.unwrap_or_default());
        fs::write(folder.join("known_hosts"), known)?;
        Ok(Self {
            process,
            port,
            state,
        })
    }

    /// The address of a repository in a folder.
    pub fn repository(&self, path: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, path.display())
    }

    /// The key of `root`.
    pub fn key(&self) -> PathBuf {
        self.state.path().join("reader")
    }

    /// A key that is let in nowhere.
    pub fn stranger(&self) -> PathBuf {
        self.state.path().join("stranger")
    }

    /// Where the host's key is, for clients.
    pub fn known_hosts(&self) -> PathBuf {
        self.state.path().join("known_hosts")
    }

    /// A command of a user whose `~/.ssh` has the key and knows the host.
    ///
    /// # Errors
    /// When that can't be written.
    pub fn at_home(&self, command: &Command) -> Result<Command> {
        let ssh = self.state.path().join("home/.ssh");
        fs::copy(self.key(), ssh.join("id_ed25519"))?;
        fs::set_permissions(ssh.join("id_ed25519"), PermissionsExt::from_mode(0o600))?;
        fs::copy(self.known_hosts(), ssh.join("known_hosts"))?;
        Ok(namespace::within(self.process.id(), 0, command))
    }

    /// What the host logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
