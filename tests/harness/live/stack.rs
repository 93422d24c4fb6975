//! All that a pull needs: a builder, and an Envoy in front of it.

use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use crate::live::builder::{self, Builder};
use crate::live::envoy::{self, Envoy};
use crate::live::gated_set::GatedSet;
use crate::live::http::{self, Response};
use crate::live::scratch;

/// A registry on loopback.
#[derive(Debug)]
pub struct Stack {
    /// The front.
    pub envoy: Envoy,
    /// What is behind it.
    pub builder: Builder,
    // Last: it is removed when nothing writes to it any more.
    state: TempDir,
}

impl Stack {
    /// The newest Envoy, the Debian set, files as storage; nothing built yet.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start() -> Result<Self> {
        Self::with(envoy::Settings::default(), builder::Settings::new)
    }

    /// As [`Stack::start`] with another Envoy, and a builder's settings made for the given folder.
    ///
    /// # Errors
    /// When something does not start.
    pub fn with(
        envoy: envoy::Settings,
        builder: impl FnOnce(&Path) -> Result<builder::Settings>,
    ) -> Result<Self> {
        let state = scratch::folder("stack-")?;
        let settings = builder(state.path())?;
        Self::start_in(state, envoy, &settings)
    }

    fn start_in(
        state: TempDir,
        envoy: envoy::Settings,
        builder: &builder::Settings,
    ) -> Result<Self> {
        let builder = Builder::start(builder)?;
        let envoy = Envoy::start(envoy, builder.port(), state.path())?;
        Ok(Self {
            envoy,
            builder,
            state,
        })
    }

    /// The folder with the builder's state and, in `storage`, its storage.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// A registry that serves a [`GatedSet`], with variables of the builder besides.
    ///
    /// # Errors
    /// When something does not start.
    pub fn gated(
        envoy: envoy::Settings,
        environment: &[(&'static str, &str)],
    ) -> Result<(Self, GatedSet)> {
        let state = scratch::folder("stack-")?;
        let set = GatedSet::write(state.path())?;
        let mut settings = set.settings(state.path())?;
        for (name, value) in environment {
            settings = settings.with(name, value);
        }
        Ok((Self::start_in(state, envoy, &settings)?, set))
    }

    /// The same registry, whose builder has been stopped: what Envoy can do alone. The state is
    /// gone when what this returns is dropped.
    pub fn without_builder(self) -> (Envoy, TempDir) {
        let Self {
            envoy,
            builder,
            state,
        } = self;
        drop(builder);
        (envoy, state)
    }

    /// What a client pulls to get these packages.
    pub fn image(&self, packages: &str) -> String {
        format!("127.0.0.1:{}/{packages}", self.envoy.port())
    }

    /// GET through Envoy.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        http::get(self.envoy.port(), path)
    }

    /// The digest of an image, built when need be.
    ///
    /// # Errors
    /// When the answer is no manifest.
    pub fn digest(&self, packages: &str) -> Result<String> {
        let answer = self.get(&format!("/v2/{packages}/manifests/latest"))?;
        anyhow::ensure!(
            answer.status.is_success(),
            "{packages}: {} {}\n{}",
            answer.status,
            answer.text(),
            self.builder.log()
        );
        Ok(answer.header("docker-content-digest").to_owned())
    }
}
