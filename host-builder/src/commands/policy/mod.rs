//! `nixgate policy`: checks, explains, tests and applies policies.
//!
//! ```text
//!   check     file ──► lint ───────► rules and patterns without effect
//!                        ├ recipes: patterns and namespaces that don't fit them
//!                        └ package_set: patterns that match nothing in it
//!   explain   file + Given + image ──► Question ──► the decision, package by package
//!   test      cases.yaml ──► many questions, each with the expected decision
//!   apply     file ──► the filter's configuration, which a running Envoy watches
//! ```
//!
//! `nixgate_core::policy` decides, as it does at the edge.

mod apply;
mod cases;
mod entries;
mod explain;
mod file;
mod filter_file;
mod given;
mod lint;
mod package_set;
mod recipes;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use nixgate_core::distribution::Tag;

use crate::config::BuildArgs;

use apply::ApplyArgs;
pub(crate) use file::PolicyFile;
use given::Given;

/// `nixgate policy`
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Find rules without effect, and patterns that match nothing
    Check(Box<CheckArgs>),
    /// Say whether a caller may have an image, and which rules decide
    Explain(ExplainArgs),
    /// Run a file of cases, for the policy's own repository
    Test {
        /// A YAML file with `policy` and `cases`
        cases: PathBuf,
    },
    /// Give a running Envoy another policy, and wait until it takes it
    Apply(ApplyArgs),
}

/// `nixgate policy check`
#[derive(Args)]
pub struct CheckArgs {
    /// A policy, or a filter's configuration with the key `policy`
    policy: PathBuf,
    /// Look up the patterns in the package set that the settings below name
    #[arg(long)]
    package_set: bool,
    #[command(flatten)]
    build: BuildArgs,
}

/// `nixgate policy explain`
#[derive(Args)]
pub struct ExplainArgs {
    /// An attribute of the caller: claim:groups=a,b, header:x-team=a, host=…, address=…, uri_san=…,
    /// user=…; all others are unknown
    #[arg(long = "as", value_name = "ATTRIBUTE=VALUE")]
    given: Vec<Given>,
    /// The tag of the image
    #[arg(long, default_value = "latest")]
    tag: String,
    /// The platform, as Nix calls it, if the name has none
    #[arg(long)]
    system: Option<String>,
    /// A policy, or a filter's configuration with the key `policy`
    policy: PathBuf,
    /// The name of an image, such as shell/git, or of a recipe, such as corp/ci-base
    image: String,
}

/// Runs a command and prints its result. Returns false after a finding, a refusal or a failed case.
pub(crate) async fn run(command: PolicyCommand) -> Result<bool> {
    let (text, good) = match command {
        PolicyCommand::Check(arguments) => check(*arguments).await?,
        PolicyCommand::Explain(arguments) => explain(&arguments)?,
        PolicyCommand::Test { cases } => cases::run(&cases)?,
        PolicyCommand::Apply(arguments) => (apply::run(&arguments).await?, true),
    };
    print!("{text}");
    Ok(good)
}

async fn check(arguments: CheckArgs) -> Result<(String, bool)> {
    let file = PolicyFile::read(&arguments.policy)?;
    let mut findings = lint::findings(&file);
    if let Some(recipes) = &arguments.build.recipes {
        findings.extend(recipes::findings(&file, recipes)?);
    }
    if arguments.package_set {
        let settings = arguments.build.validate()?;
        findings.extend(package_set::findings(&file, settings).await?);
    }
    let path = arguments.policy.display();
    let notes = lint::notes(&file).into_iter();
    let notes = notes.map(|note| format!("note: {note}"));
    let mut text: String = findings
        .iter()
        .cloned()
        .chain(notes)
        .map(|line| format!("{path}: {line}\n"))
        .collect();
    let revision = file.policy.revision();
    let rules = count(file.policy.rules().len(), "rule");
    let found = match findings.len() {
        0 => "nothing to report".to_owned(),
        found => count(found, "finding"),
    };
    text.push_str(&format!("{path}: revision {revision}, {rules}, {found}\n"));
    Ok((text, findings.is_empty()))
}

fn explain(arguments: &ExplainArgs) -> Result<(String, bool)> {
    let file = PolicyFile::read(&arguments.policy)?;
    let given = arguments.given.iter();
    let given = given.map(|Given(attribute, value)| (attribute, value));
    let identity = given::identity(&file.policy, given)?;
    let tag = Tag::parse(&arguments.tag)?;
    let system = arguments.system.as_deref();
    let question = explain::Question::new(&file, &arguments.image, tag, system)?;
    let explanation = explain::explain(&file, &question, &identity);
    Ok((explanation.to_string(), explanation.allows()))
}

fn count(number: usize, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}
