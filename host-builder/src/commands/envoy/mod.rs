//! `nixgate envoy`: what an Envoy's configuration lacks for nixgate.
//!
//! ```text
//!   --admin  ──► /config_dump ─┐
//!                              ├─► documents ──► listeners, clusters, ──► chains, routes, ──► findings
//!   files ──► files they name ─┘                 routes, filters          nixgate's plugin
//!   module of the filter ──► its version ─────────────────────────────────────────────────►
//! ```
//!
//! `read` has all effects; `gather`, `chains`, `plugin` and `check` are functions of what was read.

pub(crate) mod admin;
mod chains;
mod check;
mod finding;
mod gather;
mod node;
mod plugin;
mod read;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use admin::Admin;
use read::{FolderMap, Folders};

/// `nixgate envoy`
#[derive(Subcommand)]
pub enum EnvoyCommand {
    /// Find what is missing or dangerous for nixgate in an Envoy's configuration
    Check(CheckArgs),
}

/// `nixgate envoy check`
#[derive(Args)]
pub struct CheckArgs {
    /// The administration of a running Envoy: `host:port`, or `unix:` and the path of its socket
    #[arg(long, value_name = "ADDRESS", conflicts_with = "files")]
    admin: Option<Admin>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// The filter's name in http_filters
    #[arg(long, value_name = "NAME", default_value = "nixgate")]
    name: String,
    /// The folder that Envoy is started in, to which paths in its configuration are relative
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    directory: PathBuf,
    /// Read files below one folder of the configuration in another: `/etc/envoy=envoy/ingress`; the
    /// first that has the file counts
    #[arg(long = "map", value_name = "FROM=TO")]
    maps: Vec<FolderMap>,
    /// envoy.yaml, files of resources beside it, or a saved /config_dump; the files that they name are
    /// read too
    #[arg(value_name = "FILE", required_unless_present = "admin")]
    files: Vec<PathBuf>,
}

/// Runs a command and prints its result. Returns false after an error among the findings.
pub(crate) async fn run(command: EnvoyCommand) -> Result<bool> {
    let EnvoyCommand::Check(arguments) = command;
    let CheckArgs {
        admin,
        json,
        name,
        directory,
        maps,
        files,
    } = arguments;
    let folders = Folders { directory, maps };
    let sources = match &admin {
        Some(admin) => read::running(admin, &folders).await?,
        None => read::files(&files, &folders)?,
    };
    let report = check::check(&sources, &name);
    match json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{report}"),
    }
    Ok(report.errors == 0)
}
