//! Where the things are that `make test` installed and built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

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

/// A program of Nix with those options.
///
/// # Errors
/// When they can't be found out.
pub fn nix(program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    for option in nix_options()?
        .split(';')
        .filter(|option| !option.is_empty())
    {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        command.args(["--option", name, value]);
    }
    Ok(command)
}
