//! [`Nix`] by running its programs.
//!
//! However many ask, so many processes run at once and no more, each kind for itself: builds that
//! take hours keep no name from being looked up, and evaluations, which take memory, keep no build
//! from being asked about.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{OnceCell, Semaphore};

use super::advisories::Release;
use super::arguments::{self, EvalPermissions, NixOptions};
use super::enclosure::{self, Proxy};
use super::log::NixLog;
use super::output::{self, Attribute, Derivation, Resolution};
use super::sandbox::{self, Probe, Sandbox};
use super::{Fetched, Nix, NixError};
use crate::closure::{Closure, StorePath};
use crate::process::{self, Command, Limits, NetworkSettings, ProcessError, Purpose};
use crate::telemetry::build_log::BuildLog;
use crate::telemetry::metrics::Metrics;
use nixgate_core::package_set::System;

/// Fetching a package set: nixpkgs is 40 MB.
const FETCH: Duration = Duration::from_secs(900);
/// Questions to Nix's database.
const QUERY: Duration = Duration::from_secs(120);
/// The one question of readiness, which takes milliseconds.
const STORE_CHECK: Duration = Duration::from_secs(10);
/// All derivations of one image together, whatever each may take.
const REALISE: Duration = Duration::from_secs(24 * 3600);
/// Questions and fetches at once, beyond one for each build: two may be fetches of package sets.
const QUESTIONS: usize = 4;
/// The folder for the program that shows what builds can do, beside the expressions.
const PROBE: &str = "probe";
/// How Nix is run.
#[derive(Clone, Debug)]
pub(crate) struct NixSettings {
    /// Settings that every process is given.
    pub(crate) options: NixOptions,
    /// What builds have to be like.
    pub(crate) sandbox: Sandbox,
    /// Refuse what is less safe than it could be, instead of saying so.
    pub(crate) strict: bool,
    /// A release of Nix that its makers have mended, though its number says otherwise.
    pub(crate) patched: Option<String>,
    /// Seconds for one derivation.
    pub(crate) derivation_timeout: u64,
    /// How long an evaluation may take.
    pub(crate) eval_time: Duration,
    /// How much memory it may take, in MiB.
    pub(crate) eval_memory: u64,
    /// What Nix code of a package set may do meanwhile.
    pub(crate) freedom: EvalPermissions,
    /// How Nix and git reach the network.
    pub(crate) egress: NetworkSettings,
    /// What alone Nix and builds reach, if not everything; what fetches package sets is as ever.
    pub(crate) only: Option<Proxy>,
    /// Evaluations at once, and as many builds.
    pub(crate) at_once: usize,
}

/// Nix on this machine.
pub(crate) struct NixCli {
    settings: NixSettings,
    /// Those of the settings, and what follows from the others.
    options: NixOptions,
    expressions: PathBuf,
    metrics: Metrics,
    trusted: OnceCell<()>,
    /// How what is in the network of its own reaches the proxy.
    enclosed: OnceCell<NetworkSettings>,
    // As many as images have turns at a time (`builder::turnstile`), which is where it is decided whose
    // turn it is: these bound what else asks Nix. With fewer, who comes first would be first again.
    evaluations: Semaphore,
    builds: Semaphore,
    questions: Semaphore,
}

impl NixCli {
    /// Prepares to run Nix; `expressions` is the folder with the expressions that Nix is asked with.
    pub(crate) fn new(settings: NixSettings, expressions: PathBuf, metrics: Metrics) -> Self {
        let mut options = settings.options.clone();
        // Last, so that they win.
        let own = settings.sandbox.options();
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let netrc = settings.egress.netrc.as_ref();
        let netrc = netrc.map(|netrc| ("netrc-file".to_owned(), netrc.file.display().to_string()));
        options.0.extend(own.into_iter().chain(netrc));
        let at_once = settings.at_once;
        Self {
            settings,
            options,
            expressions,
            metrics,
            trusted: OnceCell::new(),
            enclosed: OnceCell::new(),
            evaluations: Semaphore::new(at_once),
            builds: Semaphore::new(at_once),
            questions: Semaphore::new(at_once + QUESTIONS),
        }
    }

    fn resolver(&self) -> PathBuf {
        self.expressions.join("resolve.nix")
    }

    /// How what is run for this reaches the network.
    async fn egress(&self, purpose: Purpose) -> Result<&NetworkSettings, NixError> {
        let egress = &self.settings.egress;
        let (Purpose::Nix, Some(proxy)) = (purpose, &self.settings.only) else {
            return Ok(egress);
        };
        let open = || async {
            enclosure::open(egress, proxy).map_err(|error| NixError::NoEnclosure {
                reason: error.to_string(),
            })
        };
        self.enclosed.get_or_try_init(open).await
    }

    /// Runs Nix code of a package set.
    async fn evaluate(&self, command: Command) -> Result<Vec<u8>, NixError> {
        let limits = Limits {
            memory: Some(self.settings.eval_memory),
            ..Limits::time(self.settings.eval_time)
        };
        if self.settings.freedom.import_from_derivation {
            self.check_sandbox().await?;
        }
        let _turn = turn(&self.evaluations, command.program).await?;
        self.metrics.nix_processes.inc();
        let egress = self.egress(Purpose::Nix).await?;
        Ok(process::run(command, Purpose::Nix, egress, limits).await?)
    }

    /// Asks the store.
    async fn ask(&self, command: Command) -> Result<Vec<u8>, NixError> {
        self.run(command, Purpose::Nix, QUERY).await
    }

    /// Fetches a package set.
    async fn fetch(&self, command: Command) -> Result<Vec<u8>, NixError> {
        self.run(command, Purpose::Fetch, FETCH).await
    }

    async fn run(
        &self,
        command: Command,
        purpose: Purpose,
        time: Duration,
    ) -> Result<Vec<u8>, NixError> {
        let _turn = turn(&self.questions, command.program).await?;
        self.metrics.nix_processes.inc();
        let limits = Limits::time(time);
        let egress = self.egress(purpose).await?;
        Ok(process::run(command, purpose, egress, limits).await?)
    }

    /// Has Nix build.
    async fn build(&self, command: Command, log: &BuildLog) -> Result<(), NixError> {
        // Nix may not have been there to ask when the builder started.
        self.check_sandbox().await?;
        let _turn = turn(&self.builds, command.program).await?;
        self.metrics.nix_processes.inc();
        let egress = self.egress(Purpose::Nix).await?;
        let limits = Limits::time(REALISE);
        let mut heard = NixLog::new(log);
        let done = process::listen(command, Purpose::Nix, egress, limits, &mut heard).await;
        match done.map_err(NixError::from) {
            Err(NixError::Process(ProcessError::Failed { stderr, .. }))
                if output::killed(&stderr) =>
            {
                Err(NixError::Killed { stderr })
            }
            other => other.map(drop),
        }
    }

    /// Has a build say what it can do, and then one that has the network.
    async fn probe_sandbox(&self, shared_user: bool) -> Result<(), NixError> {
        let (report, called) = self.try_build(false).await?;
        let report = report.and_then(|output| {
            sandbox::read(&output).map_err(|error| not_understood("nix-build", error))
        });
        let outside = sandbox::Outside::look().map_err(not_tried)?;
        sandbox::verdict(report, called, outside, shared_user)?;
        let (built, called) = self.try_build(true).await?;
        let enclosed = self.settings.only.is_some();
        match sandbox::downloads(built.map(drop), called, enclosed)? {
            Some(weakness) => self.weak(&weakness),
            None => Ok(()),
        }
    }

    /// Builds a probe: its output, and whether it called: this machine, or into the network that
    /// builds are to be in.
    async fn try_build(
        &self,
        download: bool,
    ) -> Result<(Result<PathBuf, NixError>, bool), NixError> {
        let folder = self.expressions.join(PROBE);
        let namespace = self.egress(Purpose::Nix).await?.namespace.clone();
        let probe = tokio::task::spawn_blocking(move || Probe::new(&folder, download, namespace));
        let probe = probe.await.map_err(not_tried)?.map_err(not_tried)?;
        let expression = self.expressions.join("sandbox.nix");
        let command = arguments::probe_sandbox(&self.options, &expression, &probe.trial);
        let built = self.run(command, Purpose::Nix, QUERY).await;
        let output = built.map(|output| String::from_utf8_lossy(&output).trim().into());
        Ok((output, probe.was_called()))
    }

    /// What is less than it should be, and yet works: told, and refused by who is strict.
    fn weak(&self, reason: &str) -> Result<(), NixError> {
        if self.settings.strict {
            return Err(NixError::TooWeak {
                reason: reason.to_owned(),
            });
        }
        tracing::warn!("{reason}");
        Ok(())
    }
}

fn not_tried(reason: impl ToString) -> NixError {
    NixError::Process(ProcessError::NotRun {
        program: "the build that shows what builds can do",
        reason: reason.to_string(),
    })
}

async fn turn<'a>(
    turns: &'a Semaphore,
    program: &'static str,
) -> Result<tokio::sync::SemaphorePermit<'a>, NixError> {
    let turn = turns.acquire().await;
    turn.map_err(|error| {
        NixError::Process(ProcessError::NotRun {
            program,
            reason: error.to_string(),
        })
    })
}

fn not_understood(program: &'static str, reason: impl ToString) -> NixError {
    NixError::NotUnderstood {
        program,
        reason: reason.to_string(),
    }
}

impl Nix for NixCli {
    fn version(&self) -> BoxFuture<'_, Result<Release, NixError>> {
        Box::pin(async {
            let output = self.ask(arguments::version()).await?;
            let text = String::from_utf8_lossy(&output);
            Release::parse(&text).ok_or_else(|| not_understood("nix", format!("{text:?}")))
        })
    }

    fn ask_store(&self) -> BoxFuture<'_, Result<(), NixError>> {
        Box::pin(async {
            // Counted apart: probes come every few seconds, whatever is built.
            self.metrics.store_checks.inc();
            let command = arguments::ask_store(&self.options);
            let egress = self.egress(Purpose::Nix).await?;
            let limits = Limits::time(STORE_CHECK);
            let answer = process::run(command, Purpose::Nix, egress, limits).await;
            Ok(answer.map(drop)?)
        })
    }

    fn check_sandbox(&self) -> BoxFuture<'_, Result<(), NixError>> {
        Box::pin(async {
            let prove = || async {
                let holes = self
                    .version()
                    .await?
                    .holes(self.settings.patched.as_deref());
                holes.map_or(Ok(()), |holes| self.weak(&holes))?;
                match self.settings.sandbox {
                    Sandbox::Required { shared_user } => self.probe_sandbox(shared_user).await,
                    Sandbox::Wanted => Ok(()),
                }
            };
            self.trusted.get_or_try_init(prove).await.copied()
        })
    }

    fn resolve<'a>(
        &'a self,
        source: &'a Path,
        system: System,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Resolution>, NixError>> {
        Box::pin(async move {
            let (options, freedom) = (&self.options, &self.settings.freedom);
            let resolver = self.resolver();
            let command = arguments::resolve(options, freedom, &resolver, source, system, names);
            let program = command.program;
            let output = self.evaluate(command).await?;
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
        let (options, freedom) = (&self.options, &self.settings.freedom);
        let command = arguments::explain(options, freedom, &self.resolver(), source, system, name);
        Box::pin(async {
            match self.evaluate(command).await {
                Ok(_) => Ok(None),
                Err(NixError::Process(ProcessError::Failed { stderr, .. })) => {
                    Ok(output::reason(&stderr))
                }
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
            let (options, freedom) = (&self.options, &self.settings.freedom);
            let command = arguments::look(options, freedom, &expression, source, system, paths);
            let program = command.program;
            let output = self.evaluate(command).await?;
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
        log: &'a BuildLog,
    ) -> BoxFuture<'a, Result<(), NixError>> {
        let timeout = self.settings.derivation_timeout;
        let command = arguments::realise(&self.options, derivations, roots, timeout);
        Box::pin(self.build(command, log))
    }

    fn repair<'a>(
        &'a self,
        paths: &'a [StorePath],
        log: &'a BuildLog,
    ) -> BoxFuture<'a, Result<(), NixError>> {
        let timeout = self.settings.derivation_timeout;
        let command = arguments::repair(&self.options, paths, timeout);
        Box::pin(self.build(command, log))
    }

    fn closure<'a>(&'a self, roots: &'a [StorePath]) -> BoxFuture<'a, Result<Closure, NixError>> {
        Box::pin(async move {
            let command = arguments::path_info(&self.options, roots);
            let program = command.program;
            let output = self.ask(command).await?;
            output::closure(&output, roots).map_err(|reason| not_understood(program, reason))
        })
    }

    fn add_folder<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Fetched, NixError>> {
        Box::pin(async move {
            let command = arguments::add_folder(&self.options, folder);
            let program = command.program;
            let output = self.fetch(command).await?;
            let path: StorePath =
                serde_json::from_slice(&output).map_err(|error| not_understood(program, error))?;
            Ok(Fetched {
                revision: path.hash_part().to_owned(),
                path: path.to_string().into(),
            })
        })
    }

    fn keep<'a>(&'a self, path: &'a Path, link: &'a Path) -> BoxFuture<'a, Result<(), NixError>> {
        let command = arguments::keep(&self.options, path, link);
        Box::pin(async { self.fetch(command).await.map(drop) })
    }

    fn fetch_tarball<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Fetched, NixError>> {
        Box::pin(async move {
            let command = arguments::prefetch_tarball(&self.options, url);
            let program = command.program;
            let output = String::from_utf8_lossy(&self.fetch(command).await?).into_owned();
            match output.lines().collect::<Vec<_>>().as_slice() {
                [hash, path] => Ok(Fetched {
                    path: path.into(),
                    revision: (*hash).to_owned(),
                }),
                _ => Err(not_understood(program, format!("{output:?}"))),
            }
        })
    }

    fn fetch_flake<'a>(
        &'a self,
        url: &'a str,
        dir: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, NixError>> {
        Box::pin(async move {
            let archive = self
                .fetch(arguments::archive_flake(&self.options, url))
                .await?;
            let archive = String::from_utf8_lossy(&archive);
            let expression = self.expressions.join("flake.nix");
            let command = arguments::pin_flake(&self.options, &expression, archive.trim(), dir);
            let program = command.program;
            let output = self.ask(command).await?;
            let path: StorePath =
                serde_json::from_slice(&output).map_err(|error| not_understood(program, error))?;
            Ok(Fetched {
                revision: path.hash_part().to_owned(),
                path: path.to_string().into(),
            })
        })
    }

    fn git<'a>(
        &'a self,
        arguments: Vec<OsString>,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Vec<u8>, NixError>> {
        let program = "git";
        let command = Command { program, arguments };
        Box::pin(async move {
            let (egress, limits) = (&self.settings.egress, Limits::time(limit));
            Ok(process::run(command, Purpose::Fetch, egress, limits).await?)
        })
    }

    fn fetch_git<'a>(
        &'a self,
        url: &'a str,
        reference: &'a str,
        commit: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, NixError>> {
        Box::pin(async move {
            let command = arguments::fetch_git(&self.options, url, reference, commit);
            let program = command.program;
            let output = self.fetch(command).await?;
            let path: PathBuf =
                serde_json::from_slice(&output).map_err(|error| not_understood(program, error))?;
            Ok(Fetched {
                path,
                revision: commit.to_owned(),
            })
        })
    }
}
