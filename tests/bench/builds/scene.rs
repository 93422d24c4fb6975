//! The package set, and builders that have seen as much of it as is wanted.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use nixgate_tests::live::builder::{self, Builder, TOKEN};
use nixgate_tests::live::http::request;
use nixgate_tests::live::process::run;
use nixgate_tests::live::{install, scratch};
use tempfile::TempDir;

/// A folder with everything in it.
pub(crate) struct Scene {
    folder: TempDir,
    salt: String,
}

impl Scene {
    /// Writes the package set, whose packages nobody has built: they are called after the folder.
    pub(crate) fn set() -> Result<Self> {
        let folder = scratch::folder("bench-builds-")?;
        let salt = folder.path().file_name().context("a name")?;
        let salt = salt.to_string_lossy().replace('.', "-");
        let set = folder.path().join("set");
        fs::create_dir(&set)?;
        let expression = include_str!("set.nix").replace("@salt@", &salt);
        fs::write(set.join("default.nix"), expression)?;
        Ok(Self { folder, salt })
    }

    /// A builder with a state of its own, and storage that it may share.
    pub(crate) fn builder(
        &self,
        name: &str,
        storage: &str,
        environment: &[(&'static str, &str)],
    ) -> Result<Builder> {
        let state = self.folder.path().join(name);
        fs::create_dir(&state)?;
        let mut settings = builder::Settings {
            package_set: self.folder.path().join("set"),
            state,
            environment: Vec::new(),
        }
        .with("STORAGE_PATH", self.folder.path().join(storage));
        for &(name, value) in environment {
            settings = settings.with(name, value);
        }
        Builder::start(&settings)
    }

    /// Takes all of the set's packages from the Nix store. No builder runs.
    pub(crate) fn empty_store(&self) -> Result<()> {
        for state in fs::read_dir(self.folder.path())? {
            let kept = state?.path().join("builder/kept");
            if kept.exists() {
                fs::remove_dir_all(kept)?;
            }
        }
        let paths = fs::read_dir("/nix/store")?.map(|entry| entry.map(|entry| entry.path()));
        let paths = paths.collect::<Result<Vec<PathBuf>, _>>()?;
        let ours = paths.iter().filter(|path| {
            let name = path.to_string_lossy();
            name.contains(&self.salt) && !name.ends_with(".drv")
        });
        run(install::nix("nix-store")?.arg("--delete").args(ours))?;
        Ok(())
    }
}

/// Has a builder answer with an image's manifest.
pub(crate) fn pull(builder: &Builder, image: &str) -> Result<()> {
    let path = format!("/v2/{image}/manifests/latest");
    let headers = [(nixgate_core::wire::TOKEN, TOKEN), ("prefer", "wait=120")];
    let answer = request(Method::GET, builder.port(), &path, &headers)?;
    ensure!(
        answer.status == StatusCode::OK,
        "{image}: {} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}
