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
//! The check reads what the filter will read, byte for byte: the file gets the policy's own text. A
//! policy that the filter would refuse is not written. When Envoy refuses it all the same (its filter
//! is of another version), the old file comes back.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nixgate_core::config::Config;
use reqwest::Client;
use tempfile::NamedTempFile;

use super::entries::entries;
use super::file::PolicyFile;

/// Envoy takes milliseconds to read the file.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two requests to Envoy's administration.
const PAUSE: Duration = Duration::from_millis(50);
/// For one answer of Envoy's administration.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The line above the filter's settings.
const BLOCK: &str = "value: |";
/// The indent of the settings in the block, and of the keys in the settings.
const INDENT: usize = 2;

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
    /// A policy, or a filter's configuration with the key `policy`
    policy: PathBuf,
}

/// The address of Envoy's administration.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Admin {
    Tcp(String),
    Unix(PathBuf),
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        let is_address = text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && is_port(port));
        match is_address {
            true => Ok(Self::Tcp(text.to_owned())),
            false => {
                Err("give host:port, such as 127.0.0.1:9901, or unix:/path/of/a/socket".to_owned())
            }
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) async fn run(arguments: &ApplyArgs) -> Result<String> {
    let filter = &arguments.filter;
    let policy = PolicyFile::read(&arguments.policy)?;
    let shadow = arguments.shadow.as_deref().map(PolicyFile::read);
    let shadow = shadow.transpose()?;
    let revision = policy.policy.revision();
    let at = || format!("the filter's configuration {}", filter.display());
    let old = fs::read_to_string(filter).with_context(at)?;
    let new = with_policies(&old, &policy.json, shadow.as_ref().map(|one| &*one.json))
        .with_context(at)?;
    let envoy = Envoy::at(&arguments.admin)?;
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
    client: Client,
    admin: &'a Admin,
}

/// The numbers of filter configurations that Envoy has taken and refused.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Deliveries {
    taken: u64,
    refused: u64,
}

impl<'a> Envoy<'a> {
    fn at(admin: &'a Admin) -> Result<Self> {
        // The administration is never behind a proxy.
        let client = Client::builder().no_proxy().timeout(TIMEOUT);
        let client = match admin {
            Admin::Tcp(_) => client,
            Admin::Unix(path) => client.unix_socket(path.as_path()),
        };
        Ok(Self {
            client: client.build()?,
            admin,
        })
    }

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

    async fn deliveries(&self) -> Result<Deliveries> {
        let host = match self.admin {
            Admin::Tcp(address) => address,
            Admin::Unix(_) => "envoy",
        };
        let url = format!("http://{host}/stats?filter=http_filter.nixgate.update");
        let ask = async {
            let answer = self.client.get(url).send().await?.error_for_status()?;
            answer.text().await
        };
        let stats = ask.await.with_context(|| {
            format!(
                "cannot ask Envoy's administration at {}: give --admin its address",
                self.admin
            )
        })?;
        let count = |name: &str| {
            let mut stats = stats.lines().filter_map(|line| line.rsplit_once(": "));
            let found = stats.find(|(stat, _)| stat.rsplit('.').next() == Some(name));
            let found = found.and_then(|(_, count)| count.parse().ok());
            found.context("Envoy has no filter named nixgate that it configures from a file")
        };
        Ok(Deliveries {
            taken: count("update_success")?,
            refused: count("update_rejected")?,
        })
    }
}

/// The file with other policies, checked; its other settings and its comments stay.
fn with_policies(file: &str, policy: &str, shadow: Option<&str>) -> Result<String> {
    let block = Block::find(file)?;
    let settings = dedent(block.text);
    let mut texts = entries(&settings)?;
    texts.retain(|(key, _)| key != "shadow");
    match texts.iter_mut().find(|(key, _)| key == "policy") {
        Some((_, old)) => *old = policy,
        None => texts.push(("policy".to_owned(), policy)),
    }
    texts.extend(shadow.map(|shadow| ("shadow".to_owned(), shadow)));
    let entries: Vec<String> = texts
        .into_iter()
        .map(|(key, value)| {
            let key = serde_json::to_string(&key)?;
            Ok(indent(&format!("{key}: {}", flush(value)), INDENT))
        })
        .collect::<Result<_>>()?;
    let settings = format!("{{\n{}\n}}", entries.join(",\n"));
    // Only Envoy has the variable of the token.
    Config::parse(settings.as_bytes(), |_| Some("token".to_owned()))?;
    let settings = indent(&settings, block.indent + INDENT);
    Ok(format!("{}{settings}\n{}", block.before, block.after))
}

/// The lines of a file that have the filter's settings, and those around them.
struct Block<'a> {
    before: &'a str,
    text: &'a str,
    after: &'a str,
    /// The indent of the line above.
    indent: usize,
}

impl<'a> Block<'a> {
    fn find(file: &'a str) -> Result<Self> {
        let mut starts = file.match_indices(BLOCK).filter_map(|(at, _)| {
            let line = file.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
            let is_alone = file.get(line..at)?.trim().is_empty();
            let end = at + BLOCK.len();
            let rest = file.get(end..)?.strip_prefix('\n')?;
            is_alone.then_some((at - line, file.len() - rest.len()))
        });
        let (Some((indent, start)), None) = (starts.next(), starts.next()) else {
            bail!("it must have one line `{BLOCK}` with the settings as JSON below it");
        };
        let (before, rest) = file.split_at(start);
        let is_inside = |line: &&str| line.trim().is_empty() || indent_of(line) > indent;
        let length = rest
            .split_inclusive('\n')
            .take_while(is_inside)
            .map(str::len)
            .sum();
        let (text, after) = rest.split_at(length);
        Ok(Self {
            before,
            text,
            after,
            indent,
        })
    }
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The text without the indent that all of its lines have.
fn dedent(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let common = lines.map(indent_of).min().unwrap_or(0);
    let lines = text
        .lines()
        .map(|line| line.get(common..).unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

/// A value with its last line as little indented as its first.
fn flush(value: &str) -> String {
    let Some((first, rest)) = value.split_once('\n') else {
        return value.to_owned();
    };
    format!("{}\n{}", first.trim_end(), dedent(rest).trim_end())
}

fn indent(text: &str, by: usize) -> String {
    let lines = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.map(|line| format!("{:by$}{line}", "")).collect();
    lines.join("\n")
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
