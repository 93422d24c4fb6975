//! Envoy's admin page, on a socket as in the shipped configurations.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use http::Method;
use tempfile::TempDir;

use crate::live::http::{Response, request_to};
use crate::live::{poll, scratch};

/// The admin page of one Envoy.
#[derive(Debug)]
pub struct Admin {
    socket: PathBuf,
    // The socket's folder.
    _folder: TempDir,
}

impl Admin {
    /// A place for the socket of an Envoy that is to be started.
    ///
    /// # Errors
    /// When there can't be one.
    pub fn new() -> Result<Self> {
        let folder = scratch::run_folder()?;
        Ok(Self {
            socket: folder.path().join("admin.sock"),
            _folder: folder,
        })
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        request_to(&self.socket, Method::GET, path)
    }

    /// The number of the one statistic whose name ends so.
    ///
    /// # Errors
    /// When there is no such statistic, or Envoy does not answer.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.get("/stats")?.text();
        let mut found = stats.lines().filter_map(|line| line.rsplit_once(": "));
        let (_, value) = found
            .find(|(stat, _)| stat.ends_with(name))
            .with_context(|| format!("no statistic {name} in\n{stats}"))?;
        value.parse().with_context(|| format!("{name} is {value}"))
    }

    /// Waits until Envoy holds that many requests of clients.
    ///
    /// # Errors
    /// When it never does.
    pub fn wait_until_it_holds(&self, requests: u64) -> Result<()> {
        poll::until(&format!("Envoy holds {requests} requests"), || {
            (self.active_requests().ok()? == requests).then_some(())
        })
    }

    /// How many requests of clients Envoy holds now.
    fn active_requests(&self) -> Result<u64> {
        let stats = self.get("/stats?filter=downstream_rq_active")?.text();
        // One line for the listener's requests, one for the admin's own, which this is.
        let line = stats
            .lines()
            .find(|line| line.starts_with("http.") && !line.starts_with("http.admin."))
            .with_context(|| format!("no count of requests in {stats:?}"))?;
        let count = line.rsplit(' ').next().unwrap_or_default();
        count
            .parse()
            .with_context(|| format!("not a count: {line}"))
    }

    /// POST without a body, by which Envoy is told to do something.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, path: &str) -> Result<Response> {
        request_to(&self.socket, Method::POST, path)
    }
}
