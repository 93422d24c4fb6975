//! The `nixgate` command.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use nixgate::build::{self, BuildCommand};
use nixgate::config::{self, ServeArgs};
use nixgate::logging::{self, CRITICAL, LogFormat};
use nixgate::nix::{self, GitCredentialArgs, ProbeSandboxArgs};
use nixgate::policy::{self, PolicyCommand};
use nixgate::recipes::{self, RecipesCommand};
use nixgate::redact::{keep_environment, redact};
use nixgate::warm::{self, WarmArgs};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// A container registry whose image names are package lists.
#[derive(Parser)]
#[command(version = logging::VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build and serve images, behind Envoy with the nixgate filter
    Serve(Box<ServeArgs>),
    /// Build one image, without a server, and print its digest
    Build(Box<BuildCommand>),
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

/// How long the end of the process waits for threads that pack or hash, which can't be told to end.
const LAST_WAIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let Cli { command } = parse();
    keep_environment(std::env::vars_os());
    let format = match &command {
        Command::Serve(arguments) => logging::start("info", arguments.log_format),
        // They are for people, and report by themselves what there is to say.
        Command::Build(_)
        | Command::Policy(_)
        | Command::Recipes(_)
        | Command::Warm(_)
        | Command::GitCredential(_)
        | Command::ProbeSandbox(_) => logging::start("error", Some(LogFormat::Text)),
    };
    let result = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(run(command));
        runtime.shutdown_timeout(LAST_WAIT);
        result
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        // What is wrong has been printed.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let error = redact(&format!("{error:#}"));
            match format {
                LogFormat::Json => tracing::error!(target: CRITICAL, error, "the builder ends"),
                // For a person, who has no use for a backtrace: the error says what to do.
                LogFormat::Text => eprintln!("nixgate: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Cli {
    let command = without_empty_variables(Cli::command());
    let arguments = command.get_matches();
    Cli::from_arg_matches(&arguments).unwrap_or_else(|error| error.exit())
}

/// In every subcommand.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(config::without_empty_variable)
        .mut_subcommands(without_empty_variables)
}

/// False when the command has found something to mend.
async fn run(command: Command) -> Result<bool> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    };
    match command {
        Command::Serve(arguments) => {
            nixgate::run(arguments.validate()?, stop).await?;
            Ok(true)
        }
        Command::Build(command) => build::run(*command, stop).await,
        Command::Policy(command) => tokio::select! {
            result = policy::run(command) => result,
            () = stop => Ok(false),
        },
        Command::Recipes(command) => recipes::run(&command),
        Command::Warm(arguments) => warm::run(*arguments, stop).await,
        Command::GitCredential(arguments) => nix::git_credential(&arguments).map(|()| true),
        Command::ProbeSandbox(arguments) => nix::probe_sandbox(&arguments).map(|()| true),
    }
}
