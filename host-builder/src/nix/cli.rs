//! [`Nix`] by running its programs.
//!
//! Processes are bounded by kind: builds, which take hours, don't delay evaluations; evaluations,
//! which take memory, don't delay builds or queries.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, Semaphore};

use super::advisories::Release;
use super::arguments::{self, EvalPermissions, NixOptions};
use super::caches::{CacheTrouble, Troubles};
use super::enclosure::{self, Proxy};
use super::log::NixLog;
use super::nixpkgs_config::NixpkgsConfig;
use super::output::{self, Attribute, Derivation, Described, Resolution, Version};
use super::overlays::Overlays;
use super::reason::reason;
use super::sandbox::{self, Probe, Sandbox};
use super::told::Told;
use super::{Fetched, Nix, NixError, Writes};
use crate::closure::{Closure, STORE_DIR, StorePath};
use crate::process::{
    self, Command, Limits, Listener, NetworkSettings, ProcessError, Purpose, Tail,
};
use crate::telemetry::build_log::BuildLog;
use crate::telemetry::metrics::{Metrics, OutcomeLabels};
use nixgate_core::package_set::System;

/// For a package set: nixpkgs is 40 MB.
const FETCH_TIMEOUT: Duration = Duration::from_secs(900);
/// For a query of Nix's database.
const QUERY_TIMEOUT: Duration = Duration::from_secs(120);
/// For the readiness check, which takes milliseconds.
const STORE_CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// For an evaluation in the background, of a few hundred packages.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(900);
/// MiB for it, which three hundred packages of nixpkgs need.
const BACKGROUND_MEMORY: u64 = 1024;
/// Of that, what the garbage collector has from the start. It saves a fifth of the time: with Nix's own
/// start, collecting takes a quarter.
const BACKGROUND_HEAP: u64 = 700;
/// How long it waits at most for clients' evaluations and builds. They may go on for hours.
const BACKGROUND_WAIT: Duration = Duration::from_secs(30);
/// How often it looks whether they have ended.
const BACKGROUND_POLL: Duration = Duration::from_millis(200);
/// For all derivations of one image together.
const REALISE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Queries and fetches at once, besides one for each build: two may be fetches of package sets.
const EXTRA_QUERIES: usize = 4;
/// Options that come first, so that the settings' ones win over them.
///
/// Nix remembers for an hour that a cache lacks a path, and for 30 days what it said of one it has. Within
/// these times a package that was pushed, or collected, has another answer. A cache that hangs takes a
/// download of its own 5 minutes, five times; each client is long gone then.
const DEFAULTS: [(&str, &str); 5] = [
    ("narinfo-cache-negative-ttl", "60"),
    ("narinfo-cache-positive-ttl", "3600"),
    ("connect-timeout", "15"),
    ("stalled-download-timeout", "60"),
    ("download-attempts", "3"),
];
/// Options with which Nix builds nothing.
const ONLY_CACHES: [(&str, &str); 2] = [("max-jobs", "0"), ("builders", "")];
/// The first Nix that fetches packages which want to be built on each machine, if it is told to.
const ALWAYS_SUBSTITUTES: Version = Version {
    major: 2,
    minor: 19,
};
/// The folder for the sandbox probe's program, beside the expressions.
const PROBE: &str = "probe";

/// How Nix is run.
#[derive(Clone, Debug)]
pub(crate) struct NixSettings {
    pub(crate) options: NixOptions,
    pub(crate) sandbox: Sandbox,
    /// Refuse a weakness instead of warning about it.
    pub(crate) strict: bool,
    /// A version of Nix that has the security fixes, though its number says otherwise.
    pub(crate) patched: Option<String>,
    /// For one derivation, in seconds.
    pub(crate) derivation_timeout: u64,
    /// For one evaluation.
    pub(crate) eval_timeout: Duration,
    /// For one evaluation, in MiB.
    pub(crate) eval_memory: u64,
    pub(crate) eval_permissions: EvalPermissions,
    pub(crate) nixpkgs_config: NixpkgsConfig,
    /// Fetch packages from binary caches only, and build nothing.
    pub(crate) only_caches: bool,
    pub(crate) network: NetworkSettings,
    /// The one address that Nix and its builds can reach; none leaves them the whole network. Fetching
    /// package sets always has the whole network.
    pub(crate) only_proxy: Option<Proxy>,
    /// Evaluations at once, and as many builds.
    pub(crate) max_concurrent: usize,
}

/// Nix on this machine.
pub(crate) struct NixCli {
    settings: NixSettings,
    /// Those of the settings, and those that follow from other settings.
    options: NixOptions,
    /// The folder with our Nix expressions.
    expressions: PathBuf,
    overlays: Overlays,
    metrics: Metrics,
    troubles: Troubles,
    /// That of the first answer.
    known_version: OnceCell<Version>,
    /// Set once the sandbox is proven.
    trusted: OnceCell<()>,
    /// The network of processes that reach only the proxy.
    enclosed: OnceCell<NetworkSettings>,
    // As many as `builder::fair_semaphore` admits, which decides the order: with fewer permits here,
    // the order would be first come, first served again.
    evaluations: Semaphore,
    builds: Semaphore,
    queries: Semaphore,
    /// One evaluation in the background.
    background: Semaphore,
}

impl NixCli {
    /// The folder `overlays` is for links of overlays.
    pub(crate) fn new(
        settings: NixSettings,
        expressions: &Path,
        overlays: PathBuf,
        metrics: Metrics,
    ) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut options = NixOptions(DEFAULTS.map(owned).into());
        options.0.extend(settings.options.0.iter().cloned());
        if settings.only_caches {
            options.0.extend(ONLY_CACHES.map(owned));
        }
        // Last, so that they win.
        let own = settings.sandbox.options();
        let own = own.map(owned);
        let netrc = settings.network.netrc.as_ref();
        let netrc = netrc.map(|netrc| ("netrc-file".to_owned(), netrc.file.display().to_string()));
        options.0.extend(own.into_iter().chain(netrc));
        let max_concurrent = settings.max_concurrent;
        let overlays = Overlays::new(overlays, settings.nixpkgs_config.overlays.clone());
        Self {
            settings,
            options,
            expressions: expressions.to_owned(),
            overlays,
            metrics,
            troubles: Troubles::default(),
            known_version: OnceCell::new(),
            trusted: OnceCell::new(),
            enclosed: OnceCell::new(),
            evaluations: Semaphore::new(max_concurrent),
            builds: Semaphore::new(max_concurrent),
            queries: Semaphore::new(max_concurrent + EXTRA_QUERIES),
            background: Semaphore::new(1),
        }
    }

    /// The network for this purpose; opens the enclosed one when it is first needed.
    async fn network(&self, purpose: Purpose) -> Result<&NetworkSettings, NixError> {
        let network = &self.settings.network;
        let (Purpose::Nix, Some(proxy)) = (purpose, &self.settings.only_proxy) else {
            return Ok(network);
        };
        let open = || async {
            enclosure::open(network, proxy).map_err(|error| NixError::NoEnclosure {
                reason: error.to_string(),
            })
        };
        self.enclosed.get_or_try_init(open).await
    }

    async fn run(
        &self,
        command: Command,
        purpose: Purpose,
        semaphore: &Semaphore,
        limits: Limits,
    ) -> Result<Vec<u8>, NixError> {
        let mut tail = Tail::default();
        self.listen(command, purpose, semaphore, limits, &mut tail)
            .await
    }

    async fn listen(
        &self,
        command: Command,
        purpose: Purpose,
        semaphore: &Semaphore,
        limits: Limits,
        listener: &mut impl Listener,
    ) -> Result<Vec<u8>, NixError> {
        let permit = semaphore.acquire().await;
        let _permit = permit.map_err(|error| not_run(command.program, error))?;
        match limits.background {
            true => self.metrics.background_processes.inc(),
            false => self.metrics.nix_processes.inc(),
        };
        let network = self.network(purpose).await?;
        Ok(process::listen(command, purpose, network, limits, listener).await?)
    }

    async fn query(&self, command: Command) -> Result<Vec<u8>, NixError> {
        let limits = Limits::time(QUERY_TIMEOUT);
        self.run(command, Purpose::Nix, &self.queries, limits).await
    }

    async fn fetch(&self, command: Command) -> Result<Vec<u8>, NixError> {
        let limits = Limits::time(FETCH_TIMEOUT);
        self.run(command, Purpose::Fetch, &self.queries, limits)
            .await
    }

    /// Runs Nix code of a package set.
    async fn evaluate(&self, command: Command) -> Result<Vec<u8>, NixError> {
        if self.settings.eval_permissions.import_from_derivation {
            self.check_sandbox().await?;
        }
        let limits = Limits {
            memory: Some(self.settings.eval_memory),
            ..Limits::time(self.settings.eval_timeout)
        };
        self.run(command, Purpose::Nix, &self.evaluations, limits)
            .await
    }

    async fn evaluation(
        &self,
        expression: &str,
        source: &Path,
        system: System,
    ) -> Result<Command, NixError> {
        let permissions = &self.settings.eval_permissions;
        self.permitted(permissions, expression, source, system)
            .await
    }

    async fn permitted(
        &self,
        permissions: &EvalPermissions,
        expression: &str,
        source: &Path,
        system: System,
    ) -> Result<Command, NixError> {
        let overlays = self.overlays.stored(self).await?;
        let expression = self.expressions.join(expression);
        let evaluation =
            arguments::evaluate(&self.options, permissions, &expression, source, system);
        let config = &self.settings.nixpkgs_config;
        Ok(arguments::configured(evaluation, config, &overlays))
    }

    /// Waits for clients' evaluations and builds, for a while.
    async fn idle(&self) {
        let most = self.settings.max_concurrent;
        let is_idle = |semaphore: &Semaphore| semaphore.available_permits() >= most;
        let idle = async {
            while !(is_idle(&self.evaluations) && is_idle(&self.builds)) {
                tokio::time::sleep(BACKGROUND_POLL).await;
            }
        };
        // Nobody waits for the background.
        let _ = tokio::time::timeout(BACKGROUND_WAIT, idle).await;
    }

    async fn build(&self, command: Command, log: &BuildLog) -> Result<(), NixError> {
        // At the builder's start, Nix may not have been there to check.
        self.check_sandbox().await?;
        let (limits, mut log) = (Limits::time(REALISE_TIMEOUT), NixLog::new(log));
        let built = self.listen(command, Purpose::Nix, &self.builds, limits, &mut log);
        let built = built.await;
        self.report_troubles(log.troubles());
        match built {
            Err(NixError::Process(ProcessError::Failed { stderr, .. }))
                if output::killed(&stderr) =>
            {
                Err(NixError::Killed { stderr })
            }
            Err(NixError::Process(error @ ProcessError::Failed { .. })) => {
                // Without a signature, Nix builds the package, and that may fail. Where it can't, nothing
                // else is to blame.
                let is_to_blame =
                    |one: &&CacheTrouble| one.kind.passes() || self.settings.only_caches;
                let trouble = log.troubles().iter().rev().find(is_to_blame);
                Err(trouble.map_or(NixError::Process(error), |trouble| {
                    NixError::Cache(trouble.clone())
                }))
            }
            other => other.map(drop),
        }
    }

    /// Logs the last trouble of each cache, counts all, and remembers them.
    fn report_troubles(&self, troubles: &[CacheTrouble]) {
        let mut told: Vec<&str> = Vec::new();
        for trouble in troubles.iter().rev() {
            let outcome = trouble.kind.label();
            let counter = &self.metrics.cache_failures;
            counter.get_or_create(&OutcomeLabels { outcome }).inc();
            let cache = trouble.cache.as_str();
            if told.contains(&cache) {
                continue;
            }
            told.push(cache);
            tracing::warn!(
                cache,
                path = trouble.path,
                reason = trouble.reason,
                "a binary cache failed"
            );
            self.troubles.remember(trouble);
        }
    }

    /// The options for builds.
    async fn build_options(&self) -> Result<NixOptions, NixError> {
        let mut options = self.options.clone();
        // An older one would warn of an unknown setting.
        let ask = || async { Ok::<_, NixError>(self.version().await?.version) };
        if *self.known_version.get_or_try_init(ask).await? >= ALWAYS_SUBSTITUTES {
            let always = ("always-allow-substitutes".to_owned(), "true".to_owned());
            options.0.insert(0, always);
        }
        Ok(options)
    }

    /// Builds two probes: one that reports what a build can do, and one that has the network.
    async fn probe_sandbox(&self, shared_user: bool) -> Result<(), NixError> {
        let (report, called) = self.try_build(false).await?;
        let report = report.and_then(|output| {
            sandbox::read(&output).map_err(|error| not_understood("nix-build", error))
        });
        let outside = sandbox::Outside::look().map_err(|error| NixError::NoStoreFolder {
            reason: format!("{STORE_DIR}: {error}"),
        })?;
        sandbox::verdict(report, called, outside, shared_user)?;
        let (built, called) = self.try_build(true).await?;
        let enclosed = self.settings.only_proxy.is_some();
        match sandbox::downloads(built.map(drop), called, enclosed)? {
            Some(weakness) => self.report_weakness(&weakness),
            None => Ok(()),
        }
    }

    /// Builds a probe: its output, and whether it reached the loopback of this machine, or of the
    /// enclosed network.
    async fn try_build(
        &self,
        download: bool,
    ) -> Result<(Result<PathBuf, NixError>, bool), NixError> {
        let folder = self.expressions.join(PROBE);
        let namespace = self.network(Purpose::Nix).await?.namespace.clone();
        let probe = tokio::task::spawn_blocking(move || Probe::new(&folder, download, namespace));
        let probe = probe.await.map_err(probe_not_run)?.map_err(probe_not_run)?;
        let expression = self.expressions.join("sandbox.nix");
        let command = arguments::probe_sandbox(&self.options, &expression, &probe.trial);
        let built = self.query(command).await;
        let output = built.map(|output| String::from_utf8_lossy(&output).trim().into());
        Ok((output, probe.was_called()))
    }

    /// Logs a weakness; an error with `strict`.
    fn report_weakness(&self, reason: &str) -> Result<(), NixError> {
        if self.settings.strict {
            return Err(NixError::TooWeak {
                reason: reason.to_owned(),
            });
        }
        tracing::warn!("{reason}");
        Ok(())
    }
}

fn not_run(program: &'static str, reason: impl ToString) -> NixError {
    NixError::Process(ProcessError::NotRun {
        program,
        reason: reason.to_string(),
    })
}

fn probe_not_run(reason: impl ToString) -> NixError {
    not_run("the sandbox probe", reason)
}

fn not_understood(program: &'static str, reason: impl ToString) -> NixError {
    NixError::NotUnderstood {
        program,
        reason: reason.to_string(),
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

fn parse<T: DeserializeOwned>(program: &'static str, json: &[u8]) -> Result<T, NixError> {
    serde_json::from_slice(json).map_err(|error| not_understood(program, error))
}

/// Checks that an evaluation answers each question.
fn expect_answers<T>(answers: Vec<T>, questions: usize) -> Result<Vec<T>, NixError> {
    if answers.len() != questions {
        let reason = format!("{questions} answers expected, {} found", answers.len());
        return Err(not_understood("nix-instantiate", reason));
    }
    Ok(answers)
}

#[async_trait]
impl Nix for NixCli {
    async fn version(&self) -> Result<Release, NixError> {
        let output = self.query(arguments::version()).await?;
        let text = String::from_utf8_lossy(&output);
        Release::parse(&text).ok_or_else(|| not_understood("nix", format!("{text:?}")))
    }

    async fn ask_store(&self) -> Result<(), NixError> {
        // Counted apart: readiness checks come every few seconds, whatever is built. And without a
        // permit: a busy builder is ready.
        self.metrics.store_checks.inc();
        let command = arguments::ask_store(&self.options);
        let network = self.network(Purpose::Nix).await?;
        let limits = Limits::time(STORE_CHECK_TIMEOUT);
        let answer = process::run(command, Purpose::Nix, network, limits).await;
        Ok(answer.map(drop)?)
    }

    fn cache_troubles(&self) -> Vec<(Duration, CacheTrouble)> {
        self.troubles.recent()
    }

    async fn check_sandbox(&self) -> Result<(), NixError> {
        let prove = || async {
            let release = self.version().await?;
            // Builds ask for it too.
            let _ = self.known_version.set(release.version);
            let weakness = release.weakness(self.settings.patched.as_deref());
            weakness.map_or(Ok(()), |weakness| self.report_weakness(&weakness))?;
            match self.settings.sandbox {
                // Nothing is built.
                _ if self.settings.only_caches => Ok(()),
                Sandbox::Required { shared_user } => self.probe_sandbox(shared_user).await,
                Sandbox::Wanted => Ok(()),
            }
        };
        self.trusted.get_or_try_init(prove).await.copied()
    }

    async fn resolve(
        &self,
        source: &Path,
        system: System,
        names: &[String],
        writes: Writes,
    ) -> Result<Vec<Resolution>, NixError> {
        let evaluation = self.evaluation("resolve.nix", source, system).await?;
        let output = self
            .evaluate(arguments::resolve(evaluation, names, writes))
            .await?;
        // A set is tried with no names, once.
        if names.is_empty() && !self.overlays.is_empty() && output::ignores_overlays(&output) {
            tracing::warn!(
                set = %source.display(),
                "the package set takes no overlays: those of NIXGATE_NIXPKGS_CONFIG have no effect on it"
            );
        }
        let found = output::resolutions(&output);
        let found = found.map_err(|error| not_understood("nix-instantiate", error))?;
        expect_answers(found, names.len())
    }

    async fn explain(
        &self,
        source: &Path,
        system: System,
        name: &str,
    ) -> Result<Option<String>, NixError> {
        let evaluation = self.evaluation("resolve.nix", source, system).await?;
        match self.evaluate(arguments::explain(evaluation, name)).await {
            Ok(_) => Ok(None),
            Err(NixError::Process(ProcessError::Failed { stderr, .. })) => Ok(reason(&stderr)),
            Err(error) => Err(error),
        }
    }

    async fn look(
        &self,
        source: &Path,
        system: System,
        paths: &[Vec<String>],
    ) -> Result<Vec<Attribute>, NixError> {
        let evaluation = self.evaluation("attributes.nix", source, system).await?;
        let output = self.evaluate(arguments::look(evaluation, paths)).await?;
        expect_answers(parse("nix-instantiate", &output)?, paths.len())
    }

    async fn describe(
        &self,
        source: &Path,
        system: System,
        paths: &[Vec<String>],
    ) -> (Vec<Described>, Result<(), NixError>) {
        self.idle().await;
        // Building whatever some package of the set imports is nothing for the background.
        let permissions = EvalPermissions {
            import_from_derivation: false,
            ..self.settings.eval_permissions.clone()
        };
        let word = sandbox::unique();
        let evaluation = self.permitted(&permissions, "attributes.nix", source, system);
        let evaluation = match evaluation.await {
            Ok(evaluation) => evaluation,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let command = arguments::describe(evaluation, paths, &word);
        let memory = self.settings.eval_memory.min(BACKGROUND_MEMORY);
        let limits = Limits {
            memory: Some(memory),
            initial_heap: Some(memory * BACKGROUND_HEAP / BACKGROUND_MEMORY),
            background: true,
            ..Limits::time(BACKGROUND_TIMEOUT)
        };
        let mut told = Told::new(&word);
        let ended = self
            .listen(command, Purpose::Nix, &self.background, limits, &mut told)
            .await;
        let answers = told.into_answers();
        let missing = paths.len().checked_sub(answers.len());
        let ended = match (ended, missing) {
            (Ok(_), Some(0)) => Ok(()),
            (Ok(_), _) | (Err(_), None) => {
                let reason = format!("{} answers expected, {} found", paths.len(), answers.len());
                Err(not_understood("nix-instantiate", reason))
            }
            (Err(error), Some(_)) => Err(error),
        };
        (answers, ended)
    }

    async fn realise(
        &self,
        derivations: &[Derivation],
        roots: &Path,
        log: &BuildLog,
    ) -> Result<(), NixError> {
        if self.settings.only_caches {
            return self.substitute(derivations, roots, log).await;
        }
        let timeout = self.settings.derivation_timeout;
        let options = self.build_options().await?;
        let command = arguments::realise(&options, derivations, roots, timeout);
        self.build(command, log).await
    }

    async fn substitute(
        &self,
        derivations: &[Derivation],
        roots: &Path,
        log: &BuildLog,
    ) -> Result<(), NixError> {
        let timeout = self.settings.derivation_timeout;
        let options = self.build_options().await?;
        let command = arguments::substitute(&options, derivations, roots, timeout);
        match self.build(command, log).await {
            Err(NixError::Process(error @ ProcessError::Failed { .. })) => {
                let outputs = derivations.iter().flat_map(|one| &one.outputs);
                let is_missing = |path: &StorePath| !path.on_disk(Path::new("/")).exists();
                let missing = outputs.filter(|one| is_missing(&one.path));
                let names: Vec<_> = missing.map(|one| one.path.name().to_owned()).collect();
                // Something is there that Nix has not registered.
                match names.is_empty() {
                    true => Err(NixError::Process(error)),
                    false => Err(NixError::NotInCaches { names }),
                }
            }
            other => other,
        }
    }

    async fn repair(&self, paths: &[StorePath], log: &BuildLog) -> Result<(), NixError> {
        let timeout = self.settings.derivation_timeout;
        let command = arguments::repair(&self.options, paths, timeout);
        self.build(command, log).await
    }

    async fn closure(&self, roots: &[StorePath]) -> Result<Closure, NixError> {
        let output = self
            .query(arguments::path_info(&self.options, roots))
            .await?;
        output::closure(&output, roots).map_err(|reason| not_understood("nix", reason))
    }

    async fn add_folder(&self, folder: &Path) -> Result<Fetched, NixError> {
        let output = self
            .fetch(arguments::add_folder(&self.options, folder))
            .await?;
        parse::<StorePath>("nix-instantiate", &output).map(Fetched::from)
    }

    async fn keep(&self, path: &Path, link: &Path) -> Result<(), NixError> {
        let command = arguments::keep(&self.options, path, link);
        self.fetch(command).await.map(drop)
    }

    async fn fetch_tarball(&self, url: &str, log: &BuildLog) -> Result<Fetched, NixError> {
        let command = arguments::prefetch_tarball(&self.options, url);
        let (limits, mut log) = (Limits::time(FETCH_TIMEOUT), NixLog::of_source(log));
        let fetched = self.listen(command, Purpose::Fetch, &self.queries, limits, &mut log);
        let output = String::from_utf8_lossy(&fetched.await?).into_owned();
        match output.lines().collect::<Vec<_>>().as_slice() {
            // Nix makes an empty folder of a server's `304`, as if it had the archive already.
            [_, path] if is_empty(Path::new(path)) => Err(NixError::EmptyArchive),
            [hash, path] => Ok(Fetched {
                path: path.into(),
                revision: (*hash).to_owned(),
            }),
            _ => Err(not_understood("nix-prefetch-url", format!("{output:?}"))),
        }
    }

    async fn fetch_archive(&self, url: &str, sha256: &str) -> Result<Fetched, NixError> {
        let command = arguments::fetch_archive(&self.options, url, sha256);
        let path = parse("nix-instantiate", &self.fetch(command).await?)?;
        Ok(Fetched {
            path,
            revision: sha256.to_owned(),
        })
    }

    async fn fetch_flake(&self, url: &str, dir: &str) -> Result<Fetched, NixError> {
        let archive = self
            .fetch(arguments::archive_flake(&self.options, url))
            .await?;
        let archive = String::from_utf8_lossy(&archive);
        let expression = self.expressions.join("flake.nix");
        let command = arguments::pin_flake(&self.options, &expression, archive.trim(), dir);
        let output = self.query(command).await?;
        parse::<StorePath>("nix-instantiate", &output).map(Fetched::from)
    }

    async fn git(&self, arguments: Vec<OsString>, limit: Duration) -> Result<Vec<u8>, NixError> {
        let command = Command::new("git").args(arguments);
        let (network, limits) = (&self.settings.network, Limits::time(limit));
        Ok(process::run(command, Purpose::Fetch, network, limits).await?)
    }

    async fn fetch_git(
        &self,
        url: &str,
        reference: &str,
        commit: &str,
    ) -> Result<Fetched, NixError> {
        let command = arguments::fetch_git(&self.options, url, reference, commit);
        let path = parse("nix-instantiate", &self.fetch(command).await?)?;
        Ok(Fetched {
            path,
            revision: commit.to_owned(),
        })
    }
}
