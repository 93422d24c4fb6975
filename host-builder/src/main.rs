//! The `nixgate` command.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use nixgate::{CRITICAL, Command, LogFormat, keep_environment, redact, start_log};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// How long the end of the process waits for threads that pack or hash, which can't be told to end.
const LAST_WAIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let command = Command::parse();
    keep_environment(std::env::vars_os());
    let (level, format) = command.log();
    let format = start_log(level, format);
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

/// Until it is done, or the process is told to stop.
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
    nixgate::run(command, stop).await
}
