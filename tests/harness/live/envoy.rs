//! An Envoy with the filter, configured by the files below `envoy/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::live::admin::Admin;
use crate::live::builder::TOKEN;
use crate::live::process::Process;
use crate::live::{install, poll, ports};

/// Where a shipped configuration says that the filter's module is.
pub(super) const MODULE: &str = "target/wasm32-wasip1/wasm/nixgate_filter.wasm";
/// Where it says that Envoy's admin page is.
pub(super) const ADMIN: &str = "/run/nixgate/envoy-admin.sock";

/// Which Envoy to start, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The release.
    pub version: &'static str,
    /// Worker threads. Each has a VM of its own, with its own flights; the cache is shared.
    pub workers: u16,
    /// The port of another registry, which has the names that are not below `nix/`.
    pub beside: Option<u16>,
    /// The filter, when it is not the one that is shipped.
    pub filter: Option<PathBuf>,
    /// What the shipped configuration says once, and what this Envoy's says instead.
    pub changes: Vec<(&'static str, String)>,
}

impl Settings {
    /// Has the configuration say something else.
    #[must_use]
    pub fn with(mut self, shipped: &'static str, ours: impl Into<String>) -> Self {
        self.changes.push((shipped, ours.into()));
        self
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: install::ENVOY_VERSIONS[0],
            workers: 2,
            beside: None,
            filter: None,
            changes: Vec::new(),
        }
    }
}

/// An Envoy that listens.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    port: u16,
    admin: Admin,
    filter_config: PathBuf,
    /// The filter's configuration as it is shipped.
    shipped: String,
}

impl Envoy {
    /// Starts an Envoy in front of a builder's port. Its files are in the folder `state`.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start(settings: Settings, builder_port: u16, state: &Path) -> Result<Self> {
        let (port, admin) = (ports::free()?, Admin::new()?);
        let (config, filter_config) = (state.join("envoy.yaml"), state.join("filter.yaml"));
        let mut ports = vec![(8080, port), (8081, builder_port)];
        let module = settings.filter.map_or_else(install::filter, Ok)?;
        let folder = match settings.beside {
            None => "envoy/standalone",
            Some(other) => {
                ports.push((5000, other));
                "envoy/beside-registry"
            }
        };
        let delivered = format!("{folder}/filter.yaml");
        let shipped = render(&delivered, &[], [path(MODULE, &module)])?;
        let mut filter = shipped.clone();
        let at = [path(&delivered, &filter_config), admin.change(ADMIN)];
        let mut rendered = render(&format!("{folder}/envoy.yaml"), &ports, at)?;
        for (shipped, ours) in settings.changes {
            let file = if filter.contains(shipped) {
                &mut filter
            } else {
                &mut rendered
            };
            *file = replace(file, shipped, &ours)?;
        }
        fs::write(&filter_config, filter)?;
        fs::write(&config, rendered)?;
        let log = state.join("envoy.log");
        let process = launch(settings.version, settings.workers, &config, &admin, &log)?;
        Ok(Self {
            process,
            port,
            admin,
            filter_config,
            shipped,
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

    /// Delivers another configuration of the filter: the shipped one with one text for another.
    /// Says whether Envoy took it.
    ///
    /// # Errors
    /// When the shipped one does not have the text, or Envoy doesn't say anything.
    pub fn deliver(&self, shipped: &str, ours: &str) -> Result<bool> {
        let config = replace(&self.shipped, shipped, ours)?;
        let before = self.deliveries()?;
        let new = self.filter_config.with_extension("new");
        fs::write(&new, config)?;
        fs::rename(&new, &self.filter_config)?;
        poll::until("Envoy has read the filter's configuration", || {
            let [taken, refused] = self.deliveries().ok()?;
            (before != [taken, refused]).then_some(taken > before[0])
        })
    }

    /// How many configurations of the filter it has taken, and how many refused.
    fn deliveries(&self) -> Result<[u64; 2]> {
        let count = |name| self.stat(&format!("http_filter.nixgate.{name}"));
        Ok([count("update_success")?, count("update_rejected")?])
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

/// A shipped configuration with other ports and paths.
pub(super) fn render(
    file: &str,
    ports: &[(u16, u16)],
    paths: impl IntoIterator<Item = (String, String)>,
) -> Result<String> {
    let config = fs::read_to_string(install::root().join(file))?;
    let changes = at_ports(ports).chain(paths);
    change(config, changes).with_context(|| format!("in {file}"))
}

/// The change that puts one path in the place of another.
pub(super) fn path(shipped: &str, ours: &Path) -> (String, String) {
    (shipped.to_owned(), ours.display().to_string())
}

/// The changes that put a shipped configuration on other ports.
pub(super) fn at_ports(ports: &[(u16, u16)]) -> impl Iterator<Item = (String, String)> {
    let port = |number| format!("port_value: {number}");
    ports
        .iter()
        .map(move |&(shipped, ours)| (port(shipped), port(ours)))
}

/// A shipped configuration that says something else for each of these texts, which it is to have
/// once.
pub(super) fn change(
    mut config: String,
    changes: impl IntoIterator<Item = (String, String)>,
) -> Result<String> {
    // Marked first: a port that the system chose may be one that is still to be replaced.
    let changes: Vec<_> = changes.into_iter().enumerate().collect();
    for (index, (shipped, _)) in &changes {
        config = replace(&config, shipped, &format!("@{index}@"))?;
    }
    for (index, (_, ours)) in &changes {
        config = config.replace(&format!("@{index}@"), ours);
    }
    Ok(config)
}

fn replace(config: &str, shipped: &str, ours: &str) -> Result<String> {
    ensure!(
        config.matches(shipped).count() == 1,
        "the configuration is to say \"{shipped}\" once: the run script relies on it too"
    );
    Ok(config.replace(shipped, ours))
}
