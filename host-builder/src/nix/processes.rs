//! [`Nix`] by running its programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;

use super::command::{self, Command, NixOptions};
use super::output::{self, Attribute, Derivation, Resolution, Version};
use super::process::{self, NixError};
use super::{Fetched, Nix};
use crate::closure::{Closure, StorePath};
use crate::telemetry::Metrics;
use nixgate_core::package_set::System;

/// Evaluation is one thread of pure computation; what takes longer is a mistake.
const EVALUATION: Duration = Duration::from_secs(300);
/// Fetching a package set: nixpkgs is 40 MB.
const FETCH: Duration = Duration::from_secs(900);
/// Questions to Nix's database.
const QUERY: Duration = Duration::from_secs(120);
/// The one question of readiness, which takes milliseconds.
const STORE_CHECK: Duration = Duration::from_secs(10);
/// All derivations of one image together, whatever each may take.
const REALISE: Duration = Duration::from_secs(24 * 3600);

/// Nix on this machine.
pub struct Processes {
    options: NixOptions,
    /// Seconds for one derivation.
    derivation_timeout: u64,
    expressions: PathBuf,
    metrics: Metrics,
}

impl Processes {
    /// Prepares to run Nix. `derivation_timeout` is in seconds; `expressions` is the folder
    /// with the expressions that Nix is asked with.
    pub fn new(
        options: NixOptions,
        derivation_timeout: u64,
        expressions: PathBuf,
        metrics: Metrics,
    ) -> Self {
        Self {
            options,
            derivation_timeout,
            expressions,
            metrics,
        }
    }

    fn resolver(&self) -> PathBuf {
        self.expressions.join("resolve.nix")
    }

    async fn run(&self, command: Command, limit: Duration) -> Result<Vec<u8>, NixError> {
        self.metrics.nix_processes.inc();
        process::run(command, limit).await
    }
}

fn not_understood(program: &'static str, reason: impl ToString) -> NixError {
    NixError::NotUnderstood {
        program,
        reason: reason.to_string(),
    }
}

impl Nix for Processes {
    fn version(&self) -> BoxFuture<'_, Result<Version, NixError>> {
        Box::pin(async {
            let output = self.run(command::version(), QUERY).await?;
            let text = String::from_utf8_lossy(&output);
            Version::parse(&text).ok_or_else(|| not_understood("nix", format!("{text:?}")))
        })
    }

    fn ask_store(&self) -> BoxFuture<'_, Result<(), NixError>> {
        Box::pin(async {
            // Counted apart: probes come every few seconds, whatever is built.
            self.metrics.store_checks.inc();
            let command = command::ask_store(&self.options);
            process::run(command, STORE_CHECK).await.map(drop)
        })
    }

    fn resolve<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Resolution>, NixError>> {
        Box::pin(async move {
            let command = command::resolve(&self.options, &self.resolver(), source, system, names);
            let program = command.program;
            let output = self.run(command, EVALUATION).await?;
            let found =
                output::resolutions(&output).map_err(|error| not_understood(program, error))?;
            if found.len() != names.len() {
                return Err(not_understood(
                    program,
                    "as many answers as names were expected",
                ));
            }
            Ok(found)
        })
    }

    fn explain<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, NixError>> {
        let command = command::explain(&self.options, &self.resolver(), source, system, name);
        Box::pin(async {
            match self.run(command, EVALUATION).await {
                Ok(_) => Ok(None),
                Err(NixError::Failed { stderr, .. }) => Ok(output::reason(&stderr)),
                Err(error) => Err(error),
            }
        })
    }

    fn look<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        paths: &'a [Vec<String>],
    ) -> BoxFuture<'a, Result<Vec<Attribute>, NixError>> {
        Box::pin(async move {
            let expression = self.expressions.join("attributes.nix");
            let command = command::look(&self.options, &expression, source, system, paths);
            let program = command.program;
            let output = self.run(command, EVALUATION).await?;
            let seen: Vec<Attribute> =
                serde_json::from_slice(&output).map_err(|error| not_understood(program, error))?;
            if seen.len() != paths.len() {
                return Err(not_understood(
                    program,
                    "as many answers as paths were expected",
                ));
            }
            Ok(seen)
        })
    }

    fn realise<'a>(
        &'a self,
        derivations: &'a [Derivation],
        roots: &'a Path,
    ) -> BoxFuture<'a, Result<(), NixError>> {
        let command = command::realise(&self.options, derivations, roots, self.derivation_timeout);
        Box::pin(async { self.run(command, REALISE).await.map(drop) })
    }

    fn closure<'a>(&'a self, roots: &'a [StorePath]) -> BoxFuture<'a, Result<Closure, NixError>> {
        Box::pin(async move {
            let command = command::path_info(&self.options, roots);
            let program = command.program;
            let output = self.run(command, QUERY).await?;
            output::closure(&output, roots).map_err(|reason| not_understood(program, reason))
        })
    }

    fn add_folder<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Fetched, NixError>> {
        Box::pin(async move {
            let command = command::add_folder(&self.options, folder);
            let program = command.program;
            let output = self.run(command, FETCH).await?;
            let path: StorePath =
                serde_json::from_slice(&output).map_err(|error| not_understood(program, error))?;
            Ok(Fetched {
                revision: path.hash_part().to_owned(),
                path: path.to_string().into(),
            })
        })
    }

    fn keep<'a>(&'a self, path: &'a Path, link: &'a Path) -> BoxFuture<'a, Result<(), NixError>> {
        let command = command::keep(&self.options, path, link);
        Box::pin(async { self.run(command, FETCH).await.map(drop) })
    }

    fn fetch_tarball<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Fetched, NixError>> {
        Box::pin(async move {
            let command = command::prefetch_tarball(&self.options, url);
            let program = command.program;
            let output = String::from_utf8_lossy(&self.run(command, FETCH).await?).into_owned();
            match output.lines().collect::<Vec<_>>().as_slice() {
                [hash, path] => Ok(Fetched {
                    path: path.into(),
                    revision: (*hash).to_owned(),
                }),
                _ => Err(not_understood(program, format!("{output:?}"))),
            }
        })
    }

    fn fetch_git<'a>(
        &'a self,
        url: &'a str,
        reference: &'a str,
        commit: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, NixError>> {
        Box::pin(async move {
            let command = command::fetch_git(&self.options, url, reference, commit);
            let program = command.program;
            let output = self.run(command, FETCH).await?;
            let path: PathBuf =
                serde_json::from_slice(&output).map_err(|error| not_understood(program, error))?;
            Ok(Fetched {
                path,
                revision: commit.to_owned(),
            })
        })
    }
}
