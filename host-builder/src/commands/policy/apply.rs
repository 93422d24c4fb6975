//! `nixgate policy apply`: gives a running Envoy another policy.
//!
//! ```text
//!   policy.json ──► read and checked as by `check` ──┐
//!   filter.yaml ──► settings, in their order ────────┤
//!                                                    ▼
//!                   the whole, checked as the filter checks it
//!                                                    │ beside the old one, renamed onto it
//!                                                    ▼
//!                   Envoy reads it, and counts it as taken or refused
//! ```
//!
//! What is checked is what the filter will read, byte for byte: the policy is put there as it was
//! written. Nothing is written that the filter would refuse, and what Envoy refuses all the same (a
//! filter of another version) is put back.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nixgate_core::config::Config;
use reqwest::Client;

use super::entries::entries;
use super::file::PolicyFile;

/// How long Envoy may take to read the file; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one answer of its administration may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What stands before the filter's configuration.
const BLOCK: &str = "value: |";
/// By how much its lines are further in than the line above, and its keys than its braces.
const INDENT: usize = 2;

/// `nixgate policy apply`
#[derive(Args)]
pub struct ApplyArgs {
    /// A policy on trial beside it; without one, none is
    #[arg(long, value_name = "POLICY")]
    shadow: Option<PathBuf>,
    /// The filter's configuration, which Envoy watches
    #[arg(
        long,
        value_name = "FILE",
        default_value = ".nixgate/gateway/filter.yaml"
    )]
    filter: PathBuf,
    /// Where Envoy's administration is: `host:port`, or `unix:` and the path of its socket
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "unix:.nixgate/gateway/envoy-admin.sock"
    )]
    admin: Admin,
    /// A policy, or a filter's configuration with the key `policy`
    policy: PathBuf,
}

/// Where Envoy's administration is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Admin {
    /// At an address.
    Tcp(String),
    /// At a socket.
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
            false => Err("host:port, such as 127.0.0.1:9901, or unix:/path/of/a/socket".to_owned()),
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

/// Applies a policy, and says what came of it.
pub(super) async fn run(arguments: &ApplyArgs) -> Result<String> {
    let ApplyArgs {
        policy,
        shadow,
        filter,
        admin,
    } = arguments;
    let policy = PolicyFile::read(policy)?;
    let shadow = shadow.as_deref().map(PolicyFile::read).transpose()?;
    let revision = policy.policy.revision();
    let at = || format!("the filter's configuration {}", filter.display());
    let old = fs::read_to_string(filter).with_context(at)?;
    let new = with_policies(&old, &policy.json, shadow.as_ref().map(|one| &*one.json))
        .with_context(at)?;
    let envoy = Envoy::at(admin)?;
    let before = envoy.deliveries().await?;
    if new == old {
        return Ok(format!(
            "{} has the policy {revision} already\n",
            filter.display()
        ));
    }
    put(filter, &new).with_context(at)?;
    if let Err(error) = envoy.takes(filter, before).await {
        put(filter, &old).with_context(at)?;
        return Err(error.context("the policy is not applied, and the file is as it was"));
    }
    Ok(format!("Envoy has taken the policy {revision}\n"))
}

/// The administration of an Envoy.
struct Envoy<'a> {
    client: Client,
    admin: &'a Admin,
}

/// How many configurations of the filter Envoy has taken, and how many refused.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Deliveries {
    taken: u64,
    refused: u64,
}

impl<'a> Envoy<'a> {
    fn at(admin: &'a Admin) -> Result<Self> {
        // It is on this machine, or in its network.
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

    /// Waits until it has taken the file.
    async fn takes(&self, filter: &Path, before: Deliveries) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let after = self.deliveries().await?;
            ensure!(
                after.refused == before.refused,
                "Envoy refuses the policy and keeps the one it has; its log says why"
            );
            if after.taken != before.taken {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "Envoy has not read {}: is it the file that envoy.yaml names?",
                filter.display()
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
                "Envoy's administration at {} gives no answer: --admin says where it is",
                self.admin
            )
        })?;
        let count = |name: &str| {
            let mut stats = stats.lines().filter_map(|line| line.rsplit_once(": "));
            let found = stats.find(|(stat, _)| stat.rsplit('.').next() == Some(name));
            let found = found.and_then(|(_, count)| count.parse().ok());
            found.context("Envoy gets no configuration of a filter named nixgate from a file")
        };
        Ok(Deliveries {
            taken: count("update_success")?,
            refused: count("update_rejected")?,
        })
    }
}

/// The file with other policies, by which the filter would go; its other settings and its comments
/// stay.
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
    // The variable's value is Envoy's.
    Config::parse(settings.as_bytes(), |_| Some("token".to_owned()))?;
    let settings = indent(&settings, block.indent + INDENT);
    Ok(format!("{}{settings}\n{}", block.before, block.after))
}

/// The lines of a file that hold the filter's configuration, and those around them.
struct Block<'a> {
    before: &'a str,
    text: &'a str,
    after: &'a str,
    /// Of the line above.
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
            bail!("it must have one line `{BLOCK}`, with the settings below it as JSON");
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

/// The text without what all of its lines begin with.
fn dedent(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let common = lines.map(indent_of).min().unwrap_or(0);
    let lines = text
        .lines()
        .map(|line| line.get(common..).unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

/// A value whose first line is not indented, with the last one flush with it.
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

/// Writes beside the file and renames, so that Envoy never finds half of it.
fn put(path: &Path, text: &str) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::metadata(path)?.permissions())?;
    fs::rename(new, path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
