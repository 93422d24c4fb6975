//! Where the things are that `make test` installed and built.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::live::process;

/// The Envoys that are tested, newest first.
pub const ENVOY_VERSIONS: [&str; 2] = ["1.40.0", "1.36.2"];

/// The repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// `make`'s STATE_DIR.
pub fn state_dir() -> PathBuf {
    folder("STATE_DIR").unwrap_or_else(|| root().join(".nixgate"))
}

/// `make`'s TOOLS_DIR.
pub fn tools_dir() -> PathBuf {
    folder("TOOLS_DIR").unwrap_or_else(|| state_dir().join("tools"))
}

// What `make` was given is relative to the repository, where it was called.
fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(|value| root().join(value))
}

/// The Envoy binary of a version.
///
/// # Errors
/// When it isn't installed.
pub fn envoy(version: &str) -> Result<PathBuf> {
    installed(tools_dir().join("bin").join(format!("envoy-{version}")))
}

/// A Node.js that Nix has not built.
///
/// # Errors
/// When it isn't installed.
pub fn foreign_node() -> Result<PathBuf> {
    Ok(installed(tools_dir().join("bin/foreign-node"))?.canonicalize()?)
}

/// The folder of a real nixpkgs, of today, if whoever runs the tests names one; else says what is skipped.
pub fn real_nixpkgs() -> Option<PathBuf> {
    let folder = folder("NIXGATE_TEST_NIXPKGS");
    if folder.is_none() {
        eprintln!("SKIPPED: what needs a real nixpkgs. NIXGATE_TEST_NIXPKGS=<folder> names one");
    }
    folder
}

/// The embedded package set, with its indexes.
///
/// # Errors
/// When it isn't prepared.
pub fn debian_set() -> Result<PathBuf> {
    let set = state_dir().join("debian");
    installed(set.join("index-amd64.json"))?;
    Ok(set.canonicalize()?)
}

/// The builder, as it is shipped.
///
/// # Errors
/// When it isn't built.
pub fn builder() -> Result<PathBuf> {
    installed(target_dir().join("release/nixgate"))
}

/// The filter, as it is shipped.
///
/// # Errors
/// When it isn't built.
pub fn filter() -> Result<PathBuf> {
    installed(target_dir().join("wasm32-wasip1/wasm/nixgate_filter.wasm"))
}

fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

fn installed(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{} is missing: `make test` installs and builds all that the end-to-end tests need",
        path.display()
    );
    Ok(path)
}

/// The options with which `make run` has the builder call Nix on this machine.
///
/// # Errors
/// When the script that knows them fails.
pub fn nix_options() -> Result<String> {
    let mut script = Command::new("bash");
    script
        .args([
            "-c",
            ". scripts/common.sh; . scripts/nix.sh; nix_options true",
        ])
        .current_dir(root());
    Ok(process::run(&mut script)?.trim().to_owned())
}

/// A Nix that is tested.
#[derive(Clone, Debug)]
pub struct NixPrograms {
    /// What `nix --version` prints.
    pub version: String,
    /// The folder of its programs, if it isn't PATH's.
    folder: Option<PathBuf>,
}

impl NixPrograms {
    fn of(folder: Option<PathBuf>) -> Result<Self> {
        let mut programs = Self {
            version: String::new(),
            folder,
        };
        let version = process::run(programs.command("nix").arg("--version"))?;
        version.trim().clone_into(&mut programs.version);
        Ok(programs)
    }

    /// A PATH on which its programs come first.
    pub fn path(&self) -> OsString {
        let mut path = OsString::new();
        if let Some(folder) = &self.folder {
            path.push(folder);
            path.push(":");
        }
        path.push(env::var_os("PATH").unwrap_or_default());
        path
    }

    /// One of its programs, whose own children find the others.
    pub fn command(&self, program: &str) -> Command {
        let program = self
            .folder
            .as_ref()
            .map_or_else(|| PathBuf::from(program), |folder| folder.join(program));
        let mut command = Command::new(program);
        command.env("PATH", self.path());
        command
    }
}

/// Every Nix that is tested: that of PATH, and that which `make test` installs where PATH's is too old for
/// nixpkgs. On Debian 12 these are the oldest supported one and one of today's.
///
/// # Errors
/// When one is missing.
pub fn nixes() -> Result<Vec<NixPrograms>> {
    let mut script = Command::new("bash");
    script
        .args([
            "-c",
            ". scripts/common.sh; . scripts/nix.sh; modern_nix_on_path || modern_nix_folder",
        ])
        .env("TOOLS_DIR", tools_dir())
        .current_dir(root());
    let folder = process::run(&mut script)?;
    let mut nixes = vec![NixPrograms::of(None)?];
    if !folder.trim().is_empty() {
        let folder = installed(folder.trim().into())?;
        nixes.push(NixPrograms::of(Some(folder))?);
    }
    Ok(nixes)
}

/// A Nix that nixpkgs works with.
///
/// # Errors
/// When there is none.
pub fn modern_nix() -> Result<NixPrograms> {
    nixes()?.pop().context("there is no Nix")
}

/// A program of Nix with those options.
///
/// # Errors
/// When they can't be found out.
pub fn nix(program: &str) -> Result<Command> {
    with_options(Command::new(program))
}

/// The same for a program of another Nix.
///
/// # Errors
/// When they can't be found out.
pub fn with_options(mut command: Command) -> Result<Command> {
    for option in nix_options()?
        .split(';')
        .filter(|option| !option.is_empty())
    {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        command.args(["--option", name, value]);
    }
    Ok(command)
}
