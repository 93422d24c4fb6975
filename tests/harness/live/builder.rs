//! A builder: the real binary, with real Nix.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};

use crate::live::http::{Response, request};
use crate::live::install::NixPrograms;
use crate::live::process::Process;
use crate::live::{install, ports};

/// The secret that tests give to Envoy and builder.
pub const TOKEN: &str = "the-token-of-the-tests";

/// How to start a builder.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the package set is.
    pub package_set: PathBuf,
    /// The builder's state and, on the filesystem, its storage.
    pub state: PathBuf,
    /// Variables beyond these, or instead of them.
    pub environment: Vec<(&'static str, OsString)>,
}

impl Settings {
    /// The Debian set, stored on the filesystem below `state`.
    ///
    /// # Errors
    /// When the set isn't prepared.
    pub fn new(state: &Path) -> Result<Self> {
        Ok(Self {
            package_set: install::debian_set()?,
            state: state.to_path_buf(),
            environment: Vec::new(),
        })
    }

    /// Sets a variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// Has it use this Nix.
    #[must_use]
    pub fn with_nix(self, nix: &NixPrograms) -> Self {
        self.with("PATH", nix.path())
    }
}

/// A builder that answers.
#[derive(Debug)]
pub struct Builder {
    process: Process,
    port: u16,
}

impl Builder {
    /// Starts a builder and waits until it is alive; it may not be ready.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start(settings: &Settings) -> Result<Self> {
        Self::start_as(settings, Ok)
    }

    /// The same, by another command: of another user, or where other files are. A wrapper has to
    /// have the command's variables and to become the command.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start_as(
        settings: &Settings,
        wrap: impl FnOnce(Command) -> Result<Command>,
    ) -> Result<Self> {
        let port = ports::free()?;
        let mut command = Command::new(install::builder()?);
        command
            .arg("serve")
            .current_dir(&settings.state)
            .env("PORT", port.to_string())
            .env("NIXGATE_TOKEN", TOKEN)
            .env("NIXGATE_STATE_DIR", settings.state.join("builder"))
            .env("NIXERY_STORAGE_BACKEND", "filesystem")
            .env("STORAGE_PATH", settings.state.join("storage"))
            .env("NIXERY_PKGS_PATH", &settings.package_set)
            .env("NIXGATE_NIX_OPTIONS", install::nix_options()?)
            .env("RUST_LOG", "info")
            // As on a terminal, for those who read why a test failed.
            .env("NIXGATE_LOG_FORMAT", "text")
            .envs(
                settings
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            );
        let log = settings.state.join("builder.log");
        let mut process = Process::start(&wrap(command)?, &log)?;
        process.until("the builder answers", |_| {
            let answer = request(Method::GET, port, "/healthz", &[]).ok()?;
            answer.status.is_success().then_some(())
        })?;
        Ok(Self { process, port })
    }

    /// Kills it and all that it has started, as a machine that loses its power does.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill(self) -> Result<()> {
        self.process.signal_group("KILL")
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A request with the edge's token.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        request(
            Method::GET,
            self.port,
            path,
            &[(nixgate_core::wire::TOKEN, TOKEN)],
        )
    }

    /// Why it is not ready, which it says.
    ///
    /// # Errors
    /// When it is ready.
    pub fn unready(&self) -> Result<String> {
        let ready = self.get("/readyz")?;
        let (status, text) = (ready.status, ready.text());
        ensure!(
            status == StatusCode::SERVICE_UNAVAILABLE,
            "it is ready: {text}"
        );
        Ok(text)
    }

    /// The sum of a counter over all series that have these labels (as written: `route="blob"`).
    ///
    /// # Errors
    /// When the builder does not have the counter.
    pub fn counter(&self, name: &str, labels: &[&str]) -> Result<u64> {
        let metrics = request(Method::GET, self.port, "/metrics", &[])?.text();
        anyhow::ensure!(
            metrics.contains(&format!("# TYPE {}", name.trim_end_matches("_total"))),
            "no counter {name} in\n{metrics}"
        );
        metrics
            .lines()
            .filter(|line| {
                line.split(['{', ' ']).next() == Some(name)
                    && labels.iter().all(|label| line.contains(label))
            })
            .map(|line| {
                let value = line.rsplit(' ').next().unwrap_or_default();
                value
                    .parse::<u64>()
                    .with_context(|| format!("not a counter: {line}"))
            })
            .sum()
    }

    /// How many Nix processes it started so far.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn nix_processes(&self) -> Result<u64> {
        self.counter("nixgate_nix_processes_total", &[])
    }

    /// How many requests for manifests it answered so far.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn manifest_requests(&self) -> Result<u64> {
        self.counter("nixgate_requests_total", &["route=\"manifest\""])
    }
}
