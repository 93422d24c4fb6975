//! The package set, and builders that have seen as much of it as is wanted.

use std::fs;

use anyhow::{Result, ensure};
use http::StatusCode;
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::unbuilt_set::{self, UnbuiltSet};

/// A folder with everything in it.
pub(crate) struct Scene(UnbuiltSet);

impl Scene {
    /// Writes the package set.
    pub(crate) fn set() -> Result<Self> {
        UnbuiltSet::of(include_str!("set.nix")).map(Self)
    }

    /// A builder with a state of its own, and storage that it may share.
    pub(crate) fn builder(
        &self,
        name: &str,
        storage: &str,
        environment: &[(&'static str, &str)],
    ) -> Result<Builder> {
        let settings = self.0.builder(name)?;
        let mut settings = settings.with("STORAGE_PATH", self.0.folder().join(storage));
        for &(name, value) in environment {
            settings = settings.with(name, value);
        }
        Builder::start(&settings)
    }

    /// Takes all of the set's packages from the Nix store. No builder runs.
    pub(crate) fn empty_store(&self) -> Result<()> {
        for state in fs::read_dir(self.0.folder())? {
            let kept = state?.path().join("builder/kept");
            if kept.exists() {
                fs::remove_dir_all(kept)?;
            }
        }
        self.0.collect()
    }
}

/// Has a builder answer with an image's manifest.
pub(crate) fn pull(builder: &Builder, image: &str) -> Result<()> {
    let answer = unbuilt_set::pull(builder.port(), image)?;
    ensure!(
        answer.status == StatusCode::OK,
        "{image}: {} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}
