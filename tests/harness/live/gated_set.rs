//! A package set whose builds wait for the test, so that tests of a running build need no sleeps.
//!
//! | package | its build |
//! | --- | --- |
//! | `gated` | signals its start, then waits until the test opens the gate |
//! | `doomed` | the same, and then fails |
//! | `broken` | prints a line and fails |
//! | `large` | writes 44 MiB that can't be compressed |
//! | `cacert`, `iana-etc` | are in every image, and empty here |
//!
//! The derivations contain the path of the set's folder, so that no earlier test has built them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::live::sign::Sign;
use crate::live::{builder, install};

/// What the failing build prints.
pub const BROKEN_LOG: &str = "this build fails on purpose";

/// The set, in a folder of the test's.
#[derive(Debug)]
pub struct GatedSet {
    folder: PathBuf,
    started: Sign,
}

impl GatedSet {
    /// Writes the set into `folder`, which is to exist.
    ///
    /// # Errors
    /// When it can't.
    pub fn write(folder: &Path) -> Result<Self> {
        let folder = &folder.canonicalize()?;
        let set = Self {
            folder: folder.join("gated-set"),
            started: Sign::new(&folder.join("started"))?,
        };
        fs::create_dir(&set.folder)?;
        let gate = folder.display();
        fs::write(
            set.folder.join("default.nix"),
            format!(
                r#"{{ system ? builtins.currentSystem }}:
let
  package = name: script: derivation {{
    name = "${{name}}-1";
    pname = name;
    version = "1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    gate = "{gate}";
    args = [ "-c" script ];
  }};
  wait = ''
    echo > "$gate/started"
    until test -e "$gate/open"; do sleep 0.02; done
  '';
in
{{
  gated = package "gated" ''
    ${{wait}}
    mkdir -p $out/bin
    echo gated > $out/bin/gated
  '';
  doomed = package "doomed" ''
    ${{wait}}
    echo {BROKEN_LOG} >&2
    exit 1
  '';
  broken = package "broken" "echo {BROKEN_LOG} >&2; exit 1";
  large = package "large" "mkdir $out; head -c 46137344 /dev/urandom > $out/noise";
  cacert = package "cacert" "mkdir -p $out/etc";
  iana-etc = package "iana-etc" "mkdir -p $out/etc";
}}
"#
            ),
        )?;
        Ok(set)
    }

    /// The folder with the set's `default.nix`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A builder's settings that serve this set from `state`.
    ///
    /// # Errors
    /// When Nix's options for this machine can't be found out.
    pub fn settings(&self, state: &Path) -> Result<builder::Settings> {
        let settings = builder::Settings {
            package_set: self.folder.clone(),
            state: state.to_path_buf(),
            environment: Vec::new(),
        };
        Ok(settings.with("NIXGATE_NIX_OPTIONS", self.nix_options()?))
    }

    /// Nix's options for this set.
    ///
    /// # Errors
    /// When Nix's options for this machine can't be found out.
    pub fn nix_options(&self) -> Result<OsString> {
        Self::nix_options_for(self.folder.parent().unwrap_or(&self.folder))
    }

    /// Nix's options for a set that was written into `folder`: builds see that, which their sandbox
    /// would hide, since the gate is in it.
    ///
    /// # Errors
    /// When Nix's options for this machine can't be found out.
    pub fn nix_options_for(folder: &Path) -> Result<OsString> {
        let with_gate = format!("sandbox-paths={} ", folder.canonicalize()?.display());
        Ok(install::nix_options()?
            .replace("sandbox-paths=", &with_gate)
            .into())
    }

    /// Waits until the build of `gated` or `doomed` runs.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn wait_for_start(&self) -> Result<()> {
        self.started.wait("the gated build runs")
    }

    /// Lets that build end.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn open(&self) -> Result<()> {
        Ok(fs::write(self.gate("open"), "")?)
    }

    fn gate(&self, name: &str) -> PathBuf {
        self.folder.with_file_name(name)
    }
}
