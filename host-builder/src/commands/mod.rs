//! What the `nixgate` command does, a module for each subcommand.

mod build;
mod envoy;
mod explain;
mod policy;
mod progress;
mod recipes;
mod serve;
mod target;
mod warm;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::{ServeArgs, without_empty_variable};
use crate::nix::{ProbeSandboxArgs, probe_sandbox};
use crate::process::{GitCredentialArgs, git_credential};
use crate::telemetry::logging::{LogFormat, VERSION};

use build::BuildCommand;
use envoy::EnvoyCommand;
use explain::ExplainCommand;
use policy::PolicyCommand;
use recipes::RecipesCommand;
use warm::WarmArgs;

/// A container registry whose image names are package lists.
#[derive(Parser)]
#[command(version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands, as they were written.
#[derive(Subcommand)]
pub enum Command {
    /// Build and serve images, behind Envoy with the nixgate filter
    Serve(Box<ServeArgs>),
    /// Build one image, without a server, and print its digest
    Build(Box<BuildCommand>),
    /// Tell where an image's files and variables come from, and what it lacks of its packages
    Explain(Box<ExplainCommand>),
    /// Check the configuration of an Envoy that nixgate is added to
    #[command(subcommand)]
    Envoy(EnvoyCommand),
    /// Check, explain and test policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Check recipes, the images that have names of their own
    #[command(subcommand)]
    Recipes(RecipesCommand),
    /// Build ahead what a policy allows, so that first pulls find it built
    Warm(Box<WarmArgs>),
    /// Answer git, which asks for credentials of a host: how git gets those of NIXGATE_NETRC
    #[command(hide = true)]
    GitCredential(GitCredentialArgs),
    /// Run in a build of Nix and say what that can do: how the builder finds out
    #[command(hide = true)]
    ProbeSandbox(ProbeSandboxArgs),
}

impl Command {
    /// Reads the arguments and the environment of the process, which ends when they are wrong.
    pub fn parse() -> Self {
        let command = without_empty_variables(Cli::command());
        let cli = Cli::from_arg_matches(&command.get_matches());
        cli.unwrap_or_else(|error| error.exit()).command
    }

    /// The least severe lines of the log, unless `RUST_LOG` says otherwise, and how they are written if
    /// that was said. Only the server has a log: the other commands are for people, and print what there
    /// is to say.
    pub fn log(&self) -> (&'static str, Option<LogFormat>) {
        match self {
            Self::Serve(arguments) => ("info", arguments.log_format),
            _ => ("error", Some(LogFormat::Text)),
        }
    }
}

/// Runs a command until it is done or `stop` is; false when it has found something to correct and
/// printed it.
///
/// # Errors
/// When the command can't be carried out; the error says what to do.
pub async fn run(command: Command, stop: impl Future<Output = ()>) -> Result<bool> {
    match command {
        Command::Serve(arguments) => {
            serve::run(arguments.validate()?, stop).await?;
            Ok(true)
        }
        Command::Build(command) => build::run(*command, stop).await,
        Command::Explain(command) => explain::run(*command, stop).await,
        Command::Envoy(command) => tokio::select! {
            result = envoy::run(command) => result,
            () = stop => Ok(false),
        },
        Command::Policy(command) => tokio::select! {
            result = policy::run(command) => result,
            () = stop => Ok(false),
        },
        Command::Recipes(command) => recipes::run(&command),
        Command::Warm(arguments) => warm::run(*arguments, stop).await,
        Command::GitCredential(arguments) => git_credential(&arguments).map(|()| true),
        Command::ProbeSandbox(arguments) => probe_sandbox(&arguments).map(|()| true),
    }
}

fn progress_bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    // The templates are constant; without one, the bar has a default style.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// In every subcommand.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(without_empty_variable)
        .mut_subcommands(without_empty_variables)
}
