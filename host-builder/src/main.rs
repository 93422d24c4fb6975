//! The `nixgate` command.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use nixgate::config::{self, ServeArgs};
use nixgate::telemetry;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// A container registry whose image names are package lists.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build and serve images, behind Envoy with the nixgate filter
    Serve(Box<ServeArgs>),
}

/// How long the end of the process waits for threads that pack or hash, which can't be told to end.
const LAST_WAIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let Cli { command } = parse();
    telemetry::start_logging();
    let result = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(run(command));
        runtime.shutdown_timeout(LAST_WAIT);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // For a person, who has no use for a backtrace: the error says what to do.
        Err(error) => {
            eprintln!("nixgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Cli {
    let command = Cli::command().mut_subcommand("serve", |serve| {
        serve.mut_args(config::without_empty_variable)
    });
    let arguments = command.get_matches();
    Cli::from_arg_matches(&arguments).unwrap_or_else(|error| error.exit())
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(arguments) => {
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
            nixgate::run(arguments.validate()?, stop).await
        }
    }
}
