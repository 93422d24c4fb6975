//! A separate Nix store for a test, with a daemon, and builders that are not root.
//!
//! ```text
//!   builder ── as USER ── socket ──► nix-daemon ── as root ──► /nix, builds as nixbld1 …
//!      │                                                         │
//!      └──── in one mount namespace (see `namespace`) ───────────┘
//!            /nix   an empty store               /mnt   the test's files for the builder
//!            /etc/passwd, /etc/group             with the users
//! ```
//!
//! The machine's own store is not affected.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::live::builder::{Builder, Settings};
use crate::live::process::{Process, run};
use crate::live::{install, namespace, scratch};

/// The builder's user, for `nix.conf`.
pub const USER: &str = "nixgate-test";
/// Whom Debian gives no number of, less those that Nix's installers take.
const USER_IDS: std::ops::Range<u32> = 31_000..59_000;
/// How many numbers a daemon has: the builder's, that of the group that builds, and its users'.
const IDS_EACH: u32 = 8;
/// Where the test's folder is, for the builder.
const SEEN: &str = "/mnt";

/// A daemon that answers.
#[derive(Debug)]
pub struct NixDaemon {
    process: Process,
    users: Users,
    // Last: it is removed when nothing uses it any more.
    state: TempDir,
}

impl NixDaemon {
    /// Starts a daemon with these lines in its `nix.conf`, which the builder reads as well.
    ///
    /// # Errors
    /// When it does not start, with its log.
    pub fn start(settings: &str) -> Result<Self> {
        Self::start_by(Command::new("nix-daemon"), settings)
    }

    /// The same, in a network of its own in which nothing is, not even loopback.
    ///
    /// # Errors
    /// When it does not start, with its log.
    pub fn start_without_network(settings: &str) -> Result<Self> {
        let mut daemon = Command::new("unshare");
        daemon.args(["--net", "nix-daemon"]);
        Self::start_by(daemon, settings)
    }

    fn start_by(mut daemon: Command, settings: &str) -> Result<Self> {
        let state = scratch::folder("daemon-")?;
        let at = |path: &str| state.path().join(path);
        for folder in ["nix/store", "nix/var", "mnt/conf", "mnt/home", "mnt/set"] {
            fs::create_dir_all(at(folder))?;
        }
        let users = Users::new();
        for folder in ["mnt", "mnt/home"] {
            chown(at(folder), Some(users.builder()), Some(users.builder()))?;
        }
        // The checkout may be where the user sees nothing.
        fs::copy(install::builder()?, at("mnt/nixgate"))?;
        // The test's packages are made by the machine's shell.
        let folders = ["/bin", "/usr", "/lib", "/lib64"];
        let folders = folders.into_iter().filter(|path| Path::new(path).exists());
        let config = format!(
            "build-users-group = nixgate-build\nsubstituters =\nsandbox-paths = {}\n{settings}\n",
            folders.collect::<Vec<_>>().join(" ")
        );
        fs::write(at("mnt/conf/nix.conf"), config)?;
        users.write(state.path())?;

        daemon.env("NIX_CONF_DIR", Path::new(SEEN).join("conf"));
        daemon.env_remove("NIX_REMOTE");
        let own = [at("nix"), at("mnt"), at("passwd"), at("group")];
        let places = ["/nix", SEEN, "/etc/passwd", "/etc/group"].map(Path::new);
        let mounts: Vec<_> = own.iter().map(PathBuf::as_path).zip(places).collect();
        let daemon = namespace::with_mounts(&mounts, &daemon);
        let mut process = Process::start(&daemon, &at("daemon.log"))?;
        let socket = at("nix/var/nix/daemon-socket/socket");
        process.until("nix-daemon listens", |_| socket.exists().then_some(()))?;
        Ok(Self {
            process,
            users,
            state,
        })
    }

    /// The folder that is `/mnt` for builder and daemon.
    pub fn folder(&self) -> PathBuf {
        self.state.path().join("mnt")
    }

    /// A builder that serves the folder [`set`](Self::folder) below that one.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn builder(&self, environment: &[(&'static str, &str)]) -> Result<Builder> {
        self.builder_as(self.users.builder(), environment)
    }

    /// The same, as root.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn builder_as_root(&self, environment: &[(&'static str, &str)]) -> Result<Builder> {
        self.builder_as(0, environment)
    }

    fn builder_as(&self, user: u32, environment: &[(&'static str, &str)]) -> Result<Builder> {
        let mut settings = Settings {
            package_set: Path::new(SEEN).join("set"),
            state: self.folder(),
            environment: Vec::new(),
        };
        for (name, value) in [
            ("NIXGATE_STATE_DIR", "/mnt/state"),
            ("STORAGE_PATH", "/mnt/storage"),
            ("HOME", "/mnt/home"),
            ("USER", USER),
            ("LOGNAME", USER),
            ("XDG_CACHE_HOME", ""),
            ("NIX_CONF_DIR", "/mnt/conf"),
            ("NIX_REMOTE", "daemon"),
            // All that there is to say is in nix.conf.
            ("NIXGATE_NIX_OPTIONS", ""),
        ]
        .iter()
        .chain(environment)
        {
            settings = settings.with(name, value);
        }
        Builder::start_as(&settings, |command| {
            let mut seen = Command::new(Path::new(SEEN).join("nixgate"));
            seen.args(command.get_args());
            seen.envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
            Ok(namespace::within(self.process.id(), user, &seen))
        })
    }

    /// Runs a program of Nix as root, on this store.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub fn nix(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments).env("NIX_CONF_DIR", "/mnt/conf");
        command.env("NIX_REMOTE", "");
        run(&mut namespace::within(self.process.id(), 0, &command))
    }

    /// Collects garbage. No process counts as a root: links have to do, whoever still runs.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub fn collect_garbage(&self) -> Result<()> {
        // Nix looks for roots in what every process of the machine has mapped.
        let alone = ["--pid", "--fork", "--mount-proc", "nix-collect-garbage"];
        self.nix("unshare", &alone).map(drop)
    }

    /// Whether the store has a path.
    pub fn has(&self, path: &Path) -> bool {
        let below = path.strip_prefix("/nix").unwrap_or(path);
        self.state.path().join("nix").join(below).exists()
    }

    /// The store paths that links in a folder of the builder's keep.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn kept(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let folder = self.folder().join("state").join(folder);
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let links = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut kept = Vec::new();
        for entry in links.collect::<Result<Vec<_>, _>>()? {
            if entry.is_symlink() {
                kept.push(fs::read_link(entry)?);
            } else if entry.is_dir() {
                let below = entry.strip_prefix(self.folder().join("state"))?;
                kept.extend(self.kept(&below.to_string_lossy())?);
            }
        }
        Ok(kept)
    }
}

/// The users of one daemon. Each daemon has others: before a build and after it, Nix kills whatever
/// runs as the user that builds, and those of another store too.
#[derive(Debug)]
struct Users {
    first: u32,
}

impl Users {
    fn new() -> Self {
        static DAEMONS: AtomicU32 = AtomicU32::new(0);
        // Test binaries that run at the same time start at different places.
        let daemon = std::process::id().wrapping_mul(61);
        let daemon = daemon.wrapping_add(DAEMONS.fetch_add(1, Ordering::Relaxed));
        let places = (USER_IDS.end - USER_IDS.start) / IDS_EACH;
        Self {
            first: USER_IDS.start + daemon % places * IDS_EACH,
        }
    }

    fn builder(&self) -> u32 {
        self.first
    }

    /// Writes `/etc/passwd` and `/etc/group` with them.
    fn write(&self, folder: &Path) -> Result<()> {
        let mut passwd = fs::read_to_string("/etc/passwd")?;
        let mut group = fs::read_to_string("/etc/group")?;
        let (builder, builders) = (self.builder(), self.first + 1);
        passwd += &format!("{USER}:x:{builder}:{builder}::{SEEN}/home:/bin/sh\n");
        group += &format!("{USER}:x:{builder}:\n");
        let ids = self.first + 2..self.first + IDS_EACH;
        let names = ids.map(|id| (format!("nixgate-build-{id}"), id));
        let names: Vec<_> = names.collect();
        for (name, id) in &names {
            passwd += &format!("{name}:x:{id}:{builders}::/var/empty:/usr/sbin/nologin\n");
        }
        let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
        group += &format!("nixgate-build:x:{builders}:{}\n", names.join(","));
        fs::write(folder.join("passwd"), passwd)?;
        Ok(fs::write(folder.join("group"), group)?)
    }
}
