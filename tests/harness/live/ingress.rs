//! An ingress that has services of others, by `envoy/existing-ingress/`: before nixgate came to it,
//! and with nixgate.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use http::Method;
use serde_json::json;

use crate::envoy_config::{BUILDER, EnvoyConfig};
use crate::live::admin::Admin;
use crate::live::envoy::launch;
use crate::live::http::{Response, request};
use crate::live::process::Process;
use crate::live::{install, ports};

/// What stands in the log, at the level `trace`, when Envoy has the VM make a context.
const CONTEXT: &str = "[host->vm] proxy_on_context_create(";

/// How to start an ingress.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The release.
    pub version: &'static str,
    /// Worker threads.
    pub workers: u16,
    /// The port of the service behind `app.corp`.
    pub app: u16,
    /// The port of nixgate's builder; none before nixgate came.
    pub builder: Option<u16>,
    /// Whether the filter's configuration is one that the filter refuses.
    pub refused: bool,
    /// Log each call into the filter's VM.
    pub trace: bool,
}

/// An ingress that answers.
#[derive(Debug)]
pub struct Ingress {
    process: Process,
    port: u16,
    _admin: Admin,
}

impl Ingress {
    /// Starts an ingress, whose files are in the folder `state`.
    ///
    /// # Errors
    /// When it ends instead, with its log.
    pub fn start(settings: Settings, state: &Path) -> Result<Self> {
        let (port, admin) = (ports::free()?, Admin::new()?);
        let (name, config) = match settings.builder {
            None => ("before", EnvoyConfig::ingress_before_nixgate(settings.app)),
            Some(builder) => {
                let config = EnvoyConfig::existing_ingress(settings.app)
                    .module(&install::filter()?)
                    .upstream(BUILDER, builder);
                let config = match settings.refused {
                    true => config.settings(json!({"hold_seconds": 60})),
                    false => config,
                };
                ("with", config)
            }
        };
        let folder = state.join(format!("ingress-{name}"));
        fs::create_dir_all(&folder)?;
        let config = config.listen(0, port).admin(admin.socket());
        let file = config.write(&folder)?;
        let log = folder.with_extension("log");
        let process = launch(settings.version, settings.workers, &file, &admin, &log)?;
        if settings.trace {
            admin.post("/logging?wasm=trace")?;
        }
        Ok(Self {
            process,
            port,
            _admin: admin,
        })
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A request for a service by its host.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: Method, host: &str, path: &str) -> Result<Response> {
        request(method, self.port, path, &[("host", host)]).with_context(|| format!("{host}{path}"))
    }

    /// What it logged so far, requests included.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// How many contexts of requests the filter's VM has made, when calls are logged. Each worker
    /// has a context of the filter itself besides, which has no parent.
    pub fn contexts(&self) -> usize {
        let log = self.process.log();
        let calls = log.lines().filter_map(|line| line.split_once(CONTEXT));
        calls
            .filter(|(_, arguments)| !arguments.contains(", 0)"))
            .count()
    }
}
