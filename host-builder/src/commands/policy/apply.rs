//! `nixgate policy apply`: gives a running Envoy another policy.
//!
//! ```text
//!   policy.json ──► read and compiled ──────────┐
//!   filter.yaml ──► settings, in their order ───┤
//!                                               ▼
//!                   new settings, checked as the filter checks them
//!                                               │ temporary file, renamed onto filter.yaml
//!                                               ▼
//!                   Envoy reads the file, and counts it as taken or refused
//! ```
//!
//! The check reads what the filter will read, byte for byte: the file gets the policy's own text
//! ([`super::filter_file`]). A policy that the filter would refuse is not written. When the filter refuses it
//! all the same (it is of another version), the old file comes back.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nixgate_core::config::statistics_label;
use tempfile::NamedTempFile;

use crate::commands::envoy::admin::{Admin, AdminClient};

use super::file::PolicyFile;
use super::filter_file::{plugin_name, with_policies};

/// Envoy takes milliseconds to read the file.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two requests to Envoy's administration.
const PAUSE: Duration = Duration::from_millis(50);

/// `nixgate policy apply`
#[derive(Args)]
pub struct ApplyArgs {
    /// A policy on trial beside it; the configuration loses its own when left out
    #[arg(long, value_name = "POLICY")]
    shadow: Option<PathBuf>,
    /// The filter's configuration, which Envoy watches
    #[arg(
        long,
        value_name = "FILE",
        default_value = ".nixgate/gateway/filter.yaml"
    )]
    filter: PathBuf,
    /// The address of Envoy's administration: `host:port`, or `unix:` and the path of its socket
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "unix:.nixgate/gateway/envoy-admin.sock"
    )]
    admin: Admin,
    /// The filter's name in http_filters, which its configuration has too
    #[arg(long, value_name = "NAME", default_value = "nixgate")]
    name: String,
    /// A policy, or a filter's configuration with the key `policy`
    policy: PathBuf,
}

pub(super) async fn run(arguments: &ApplyArgs) -> Result<String> {
    let (filter, name) = (&arguments.filter, &*arguments.name);
    let policy = PolicyFile::read(&arguments.policy)?;
    let shadow = arguments.shadow.as_deref().map(PolicyFile::read);
    let shadow = shadow.transpose()?;
    let shadow = shadow.as_ref().map(|one| &*one.json);
    let revision = policy.policy.revision();
    let at = || format!("the filter's configuration {}", filter.display());
    let old = fs::read_to_string(filter).with_context(at)?;
    let new = with_policies(&old, name, &policy.json, shadow).with_context(at)?;
    let envoy = Envoy {
        admin: AdminClient::new(&arguments.admin)?,
        name,
        label: statistics_label(&plugin_name(&old, name)?),
    };
    let before = envoy.deliveries().await?;
    if new == old {
        return Ok(format!(
            "{} has the policy {revision} already\n",
            filter.display()
        ));
    }
    replace(filter, &new).with_context(at)?;
    if let Err(error) = envoy.takes(filter, before).await {
        replace(filter, &old).with_context(at)?;
        return Err(error.context("the policy is not applied; the old file is back"));
    }
    Ok(format!("Envoy has taken the policy {revision}\n"))
}

struct Envoy<'a> {
    admin: AdminClient<'a>,
    /// The filter's.
    name: &'a str,
    /// The label of the filter's statistics.
    label: String,
}

/// The numbers of filter configurations that Envoy has taken and refused.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Deliveries {
    taken: u64,
    refused: u64,
}

impl Envoy<'_> {
    /// Waits until Envoy takes the file.
    async fn takes(&self, filter: &Path, before: Deliveries) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let after = self.deliveries().await?;
            ensure!(
                after.refused == before.refused,
                "Envoy refuses the policy and keeps the old one; read its log"
            );
            if after.taken != before.taken {
                ensure!(
                    !self.is_refused_by_the_filter().await?,
                    "the filter refuses the policy and keeps the old one; read Envoy's log"
                );
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "Envoy has not read {} within {} s: give --filter the file that envoy.yaml names",
                filter.display(),
                PATIENCE.as_secs()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether the configuration that Envoy has is not in force. A filter of an older version has no such
    /// gauge; Envoy refuses what that filter refuses.
    async fn is_refused_by_the_filter(&self) -> Result<bool> {
        let stats = self
            .admin
            .get("/stats?filter=nixgate_edge_configuration_refused")
            .await?;
        let gauge = "wasmcustom.nixgate_edge_configuration_refused";
        let refused = format!("{gauge}{}: 1", self.label);
        Ok(stats.lines().any(|line| line == refused))
    }

    async fn deliveries(&self) -> Result<Deliveries> {
        let stats = self
            .admin
            .get("/stats?filter=extension_config_discovery")
            .await?;
        let count = |event: &str| {
            let name = format!(
                "extension_config_discovery.http_filter.{}.{event}",
                self.name
            );
            let mut stats = stats.lines().filter_map(|line| line.rsplit_once(": "));
            let found = stats.find(|(stat, _)| *stat == name);
            let found = found.and_then(|(_, count)| count.parse().ok());
            found.with_context(|| {
                format!(
                    "Envoy has no filter named {} that it configures from a file: give --name the \
                     filter's name in http_filters",
                    self.name
                )
            })
        };
        Ok(Deliveries {
            taken: count("update_success")?,
            refused: count("update_rejected")?,
        })
    }
}

/// Replaces a file at once, so that Envoy never reads half of it. Its owner and mode stay.
fn replace(path: &Path, text: &str) -> Result<()> {
    let old = fs::metadata(path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut new = NamedTempFile::with_prefix_in(".filter-", folder.unwrap_or(Path::new(".")))?;
    new.write_all(text.as_bytes())?;
    let made = new.as_file().metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        let (uid, gid) = (old.uid(), old.gid());
        fchown(new.as_file(), Some(uid), Some(gid)).with_context(|| {
            format!(
                "cannot keep its owner {uid} and group {gid}: run the command as root, or as \
                 its owner in that group"
            )
        })?;
    }
    new.as_file().set_permissions(old.permissions())?;
    new.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
