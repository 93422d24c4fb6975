//! The set of `tests/nixpkgs-shaped`, in a folder of the test's, with packages that were never built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::live::builder::Settings;
use crate::live::install::{self, NixPrograms};
use crate::live::process::run;
use crate::live::scratch;

/// A copy of the set.
#[derive(Debug)]
pub struct ShapedSet {
    folder: TempDir,
}

impl ShapedSet {
    /// Copies the set, and salts its derivations.
    ///
    /// # Errors
    /// When it can't.
    pub fn write() -> Result<Self> {
        let folder = scratch::folder("shaped-")?;
        let set = Self { folder };
        run(Command::new("cp")
            .arg("--recursive")
            .arg(install::root().join("tests/nixpkgs-shaped"))
            .arg(set.path()))?;
        let salt = format!("{:?}", set.folder.path().display().to_string());
        fs::write(set.path().join("salt.nix"), salt)?;
        Ok(set)
    }

    /// The folder with its `default.nix`.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("set")
    }

    /// A folder of the test's, in which the set is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Generates so many attributes besides.
    ///
    /// # Errors
    /// When it can't.
    pub fn scale(&self, attributes: usize) -> Result<()> {
        Ok(fs::write(
            self.path().join("scale.nix"),
            attributes.to_string(),
        )?)
    }

    /// Refuses a Nix that is older.
    ///
    /// # Errors
    /// When it can't.
    pub fn require_nix(&self, version: &str) -> Result<()> {
        let minimum = self.path().join("lib/minimum.nix");
        Ok(fs::write(minimum, format!("{version:?}"))?)
    }

    /// A builder that serves the set, with its state in a new folder of this name.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn builder(&self, name: &str) -> Result<Settings> {
        let state = self.folder().join(name);
        fs::create_dir_all(state.join("home"))?;
        let settings = Settings {
            package_set: self.path(),
            state: state.clone(),
            environment: Vec::new(),
        };
        // Nix remembers there what caches said.
        let home = state.join("home");
        Ok(settings
            .with("HOME", &home)
            .with("XDG_CACHE_HOME", home.join(".cache")))
    }

    /// Builds packages outside of any builder: all outputs.
    ///
    /// # Errors
    /// When Nix fails.
    pub fn build(&self, nix: &NixPrograms, attributes: &[&str]) -> Result<Vec<PathBuf>> {
        let set = self.path();
        let wanted = attributes.join(" ");
        let expression = format!(
            "with import {} {{ system = \"x86_64-linux\"; config = {{ }}; overlays = [ ]; }}; \
             builtins.concatMap (package: map (output: package.${{output}}) package.outputs) [ {wanted} ]",
            set.display()
        );
        let mut command = install::with_options(nix.command("nix-build"))?;
        let built = run(command.args(["--no-out-link", "--expr", &expression]))?;
        Ok(built.lines().map(PathBuf::from).collect())
    }

    /// Deletes paths, all that they need, and all that needs that, from the store, like the garbage
    /// collector.
    ///
    /// # Errors
    /// When a gc root keeps them.
    pub fn collect(&self, paths: &[PathBuf]) -> Result<()> {
        let mut found: Vec<String> = Vec::new();
        for relation in ["--requisites", "--referrers-closure"] {
            let mut query = Command::new("nix-store");
            query.args(["--query", relation]).args(paths).args(&found);
            found = run(&mut query)?.lines().map(str::to_owned).collect();
        }
        run(Command::new("nix-store").arg("--delete").args(&found))?;
        ensure!(
            !paths.iter().any(|path| path.exists()),
            "some are still there"
        );
        Ok(())
    }
}
