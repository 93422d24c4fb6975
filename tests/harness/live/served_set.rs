//! A package set that a test writes, and a builder that serves it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use tempfile::TempDir;

use crate::live::builder::{Builder, Settings};
use crate::live::{install, scratch};

/// A builder that serves a package set of the test's.
#[derive(Debug)]
pub struct ServedSet {
    /// The builder.
    pub builder: Builder,
    /// The folder of the set.
    pub set: PathBuf,
    settings: Settings,
    state: TempDir,
}

impl ServedSet {
    /// `packages` is Nix: attributes, in the scope of each other and of `package = name: script: …`.
    ///
    /// # Errors
    /// When the builder doesn't start.
    pub fn start(packages: &str, settings: impl FnOnce(Settings) -> Settings) -> Result<Self> {
        let state = scratch::folder("set-")?;
        let set = state.path().join("set");
        fs::create_dir(&set)?;
        write(&set, packages)?;
        let plain = Settings {
            package_set: set.clone(),
            state: state.path().to_path_buf(),
            environment: Vec::new(),
        };
        let plain = plain.with("NIXGATE_NIX_OPTIONS", install::nix_options()?);
        let settings = settings(plain);
        let builder = Builder::start(&settings)?;
        Ok(Self {
            builder,
            set,
            settings,
            state,
        })
    }

    /// Ends the builder and starts another one on the same storage, which pins the set anew; its
    /// packages are these.
    ///
    /// # Errors
    /// When the builder doesn't start.
    pub fn restart(self, packages: &str) -> Result<Self> {
        let Self {
            builder,
            set,
            settings,
            state,
        } = self;
        // Another one may not use the state folder as long as this one lives.
        drop(builder);
        write(&set, packages)?;
        let builder = Builder::start(&settings)?;
        Ok(Self {
            builder,
            set,
            settings,
            state,
        })
    }

    /// Status and text of the answer to a pull, however long that takes.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn pull(&self, name: &str) -> Result<(StatusCode, String)> {
        let path = format!("/v2/{name}/manifests/latest");
        loop {
            let answer = self.builder.get(&path)?;
            if answer.status != StatusCode::TEMPORARY_REDIRECT {
                return Ok((answer.status, answer.text()));
            }
        }
    }

    /// Pulls an image that can be had.
    ///
    /// # Errors
    /// When it can't.
    pub fn pulls(&self, name: &str) -> Result<()> {
        let (status, text) = self.pull(name)?;
        ensure!(status == StatusCode::OK, "{name}: {status} {text}");
        Ok(())
    }

    /// The link that keeps the pinned package set, and the set in the store.
    ///
    /// # Errors
    /// When there is none.
    pub fn root(&self) -> Result<(PathBuf, PathBuf)> {
        let folder = self.state.path().join("builder/sources");
        let link = fs::read_dir(folder)?.next().context("a link")??.path();
        let path = fs::read_link(&link)?;
        Ok((link, path))
    }

    /// The builder's folder, which builds must not see.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// The folder in which images are stored.
    pub fn storage(&self) -> PathBuf {
        self.state.path().join("storage")
    }
}

fn write(set: &Path, packages: &str) -> Result<()> {
    let unique = set.display();
    let expression = format!(
        r#"{{ system ? builtins.currentSystem }}:
let
  package = name: script: derivation {{
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    # No earlier test has built it already.
    unique = "{unique}";
    args = [ "-c" script ];
  }};
in
rec {{
  cacert = package "cacert" "mkdir -p $out/etc";
  iana-etc = package "iana-etc" "mkdir -p $out/etc";
  {packages}
}}
"#
    );
    Ok(fs::write(set.join("default.nix"), expression)?)
}
