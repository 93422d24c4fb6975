//! A package set that has never been built, for several builders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use http::Method;
use nixgate_core::wire;
use tempfile::TempDir;

use crate::live::builder::{Settings, TOKEN};
use crate::live::gated_set::GatedSet;
use crate::live::http::{Response, request};
use crate::live::process::run;
use crate::live::{install, scratch};

/// Four packages, two of which need `lib`. An image of both has it in a separate layer, an image of one has
/// it in that package's layer.
const SMALL: &str = r#"{ system ? builtins.currentSystem }:
let
  package = name: needs: derivation {
    name = "@salt@-${name}-1";
    pname = name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" "mkdir -p $out/bin; echo ${toString needs} > $out/bin/${name}" ];
  };
  lib = package "lib" [ ];
in
{
  a = package "a" [ lib ];
  b = package "b" [ lib ];
  c = package "c" [ ];
  d = package "d" [ ];
  cacert = package "cacert" [ ];
  iana-etc = package "iana-etc" [ ];
}
"#;

/// The set, in a new folder, whose name is in the packages' names so that they have never been built.
#[derive(Debug)]
pub struct UnbuiltSet {
    folder: TempDir,
    salt: String,
}

impl UnbuiltSet {
    /// Writes a set of four packages, `a` to `d`.
    ///
    /// # Errors
    /// When it can't.
    pub fn write() -> Result<Self> {
        Self::of(SMALL)
    }

    /// Writes a set with this expression, in which the names of packages have `@salt@`; `@folder@` in it
    /// is the folder of the test's.
    ///
    /// # Errors
    /// When it can't.
    pub fn of(expression: &str) -> Result<Self> {
        let folder = scratch::folder("unbuilt-")?;
        let salt = folder.path().file_name().context("a name")?;
        let salt = salt.to_string_lossy().replace('.', "-");
        let set = folder.path().join("set");
        fs::create_dir(&set)?;
        let expression = expression.replace("@salt@", &salt);
        let expression = expression.replace("@folder@", &folder.path().to_string_lossy());
        fs::write(set.join("default.nix"), expression)?;
        Ok(Self { folder, salt })
    }

    /// A folder of the test's, with the set, the builders' states and their storage.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where all builders store images.
    pub fn storage(&self) -> PathBuf {
        self.folder().join("storage")
    }

    /// A builder with its own state and the shared storage.
    ///
    /// # Errors
    /// When its folder can't be made.
    pub fn builder(&self, name: &str) -> Result<Settings> {
        let state = self.folder().join(name);
        fs::create_dir_all(&state)?;
        let settings = Settings {
            package_set: self.folder.path().join("set"),
            state,
            environment: Vec::new(),
        };
        Ok(settings.with("STORAGE_PATH", self.storage()))
    }

    /// The same, whose builds see the folder of the test's.
    ///
    /// # Errors
    /// When Nix's options for this machine can't be found out.
    pub fn open_builder(&self, name: &str) -> Result<Settings> {
        let options = GatedSet::nix_options_for(self.folder())?;
        Ok(self.builder(name)?.with("NIXGATE_NIX_OPTIONS", options))
    }

    /// Deletes the packages from the store, like the garbage collector.
    ///
    /// # Errors
    /// When a gc root keeps them, or there are none.
    pub fn collect(&self) -> Result<()> {
        let ours = self.packages()?;
        ensure!(!ours.is_empty(), "there is nothing to collect");
        run(install::nix("nix-store")?.arg("--delete").args(&ours))?;
        ensure!(self.packages()?.is_empty(), "some are still there");
        Ok(())
    }

    /// Those that are in the store.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn packages(&self) -> Result<Vec<PathBuf>> {
        let paths = fs::read_dir("/nix/store")?.map(|entry| entry.map(|entry| entry.path()));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        let ours = |path: &PathBuf| {
            let name = path.to_string_lossy();
            name.contains(&self.salt) && !name.ends_with(".drv")
        };
        Ok(paths.into_iter().filter(ours).collect())
    }
}

/// What a builder says of an image when it has two minutes for it.
///
/// # Errors
/// When there is no answer.
pub fn pull(port: u16, packages: &str) -> Result<Response> {
    let path = format!("/v2/{packages}/manifests/latest");
    let headers = [(wire::TOKEN, TOKEN), ("prefer", "wait=120")];
    request(Method::GET, port, &path, &headers)
}
