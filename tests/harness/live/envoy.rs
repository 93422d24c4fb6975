//! An Envoy with the filter, configured by the files below `envoy/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::envoy_config::{BUILDER, EnvoyConfig, FilterConfig};
use crate::live::admin::Admin;
use crate::live::builder::TOKEN;
use crate::live::process::Process;
use crate::live::{install, poll, ports};

/// Which Envoy to start, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The release.
    pub version: &'static str,
    /// Worker threads. Each has a VM of its own, with its own flights; the cache is shared.
    pub workers: u16,
    /// The filter's module, when it is not the one that is built.
    pub filter: Option<PathBuf>,
    /// The example that it runs.
    pub config: EnvoyConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: install::ENVOY_VERSIONS[0],
            workers: 2,
            filter: None,
            config: EnvoyConfig::standalone(),
        }
    }
}

/// An Envoy that listens.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    port: u16,
    admin: Admin,
    filter_file: PathBuf,
    /// The filter's configuration that it was started with.
    filter: FilterConfig,
}

impl Envoy {
    /// Starts an Envoy in front of a builder's port. Its files are in the folder `state`.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start(settings: Settings, builder_port: u16, state: &Path) -> Result<Self> {
        let (port, admin) = (ports::free()?, Admin::new()?);
        let module = settings.filter.map_or_else(install::filter, Ok)?;
        let config = settings
            .config
            .module(&module)
            .listen(0, port)
            .upstream(BUILDER, builder_port)
            .admin(admin.socket());
        let filter = config.filter().clone();
        let config = config.write(state)?;
        let log = state.join("envoy.log");
        let process = launch(settings.version, settings.workers, &config, &admin, &log)?;
        Ok(Self {
            process,
            port,
            admin,
            filter_file: state.join("filter.yaml"),
            filter,
        })
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its admin page.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// What it logged so far, requests included.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The lines of JSON of its log, requests included.
    pub fn access_log(&self) -> Vec<Value> {
        let log = self.log();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    /// Delivers the filter's configuration that Envoy was started with, with a patch on its settings.
    /// Says whether it is in force.
    ///
    /// # Errors
    /// When Envoy doesn't say anything.
    pub fn deliver(&self, patch: Value) -> Result<bool> {
        let config = self.filter.clone().settings(patch);
        let before = self.deliveries()?;
        let new = self.filter_file.with_extension("new");
        fs::write(&new, config.yaml())?;
        fs::rename(&new, &self.filter_file)?;
        poll::until("Envoy has read the filter's configuration", || {
            (self.deliveries().ok()? > before).then_some(())
        })?;
        Ok(self.stat("configuration_refused.registry.nixgate")? == 0)
    }

    /// How many configurations of the filter it has taken. The filter takes all.
    fn deliveries(&self) -> Result<u64> {
        self.stat("http_filter.nixgate.update_success")
    }

    /// The number of the one statistic whose name ends so.
    ///
    /// # Errors
    /// When there is no such statistic, or Envoy does not answer.
    pub fn stat(&self, name: &str) -> Result<u64> {
        self.admin.stat(name)
    }

    /// Its statistics as Prometheus reads them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn prometheus(&self) -> Result<String> {
        Ok(self.admin.get("/stats/prometheus")?.text())
    }

    /// How much memory it has now, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// How much processor time it has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        self.process.processor_time()
    }

    /// Waits until it holds that many requests of clients.
    ///
    /// # Errors
    /// When it never does.
    pub fn wait_until_it_holds(&self, requests: u64) -> Result<()> {
        self.admin.wait_until_it_holds(requests)
    }
}

/// Starts the Envoy of a version with a configuration, and waits until it listens.
///
/// # Errors
/// When it ends instead, with its log.
pub fn launch(
    version: &str,
    workers: u16,
    config: &Path,
    admin: &Admin,
    log: &Path,
) -> Result<Process> {
    launch_with(
        &["--disable-hot-restart"],
        TOKEN,
        version,
        workers,
        config,
        admin,
        log,
    )
}

/// The same with other options instead, and another token.
///
/// # Errors
/// As [`launch`].
pub fn launch_with(
    options: &[&str],
    token: &str,
    version: &str,
    workers: u16,
    config: &Path,
    admin: &Admin,
    log: &Path,
) -> Result<Process> {
    let mut command = Command::new(install::envoy(version)?);
    command
        .args(options)
        .args(["--log-level", "info"])
        // Tests wait for lines of the access log, which is written each 10 s otherwise.
        .args(["--file-flush-interval-msec", "50"])
        .args(["--concurrency", &workers.to_string(), "-c"])
        .arg(config)
        .env("NIXGATE_TOKEN", token)
        .current_dir(install::root());
    let mut process = Process::start(&command, log)?;
    process.until("Envoy is ready", |_| {
        let answer = admin.get("/ready").ok()?;
        answer.status.is_success().then_some(())
    })?;
    Ok(process)
}
