//! Running a Nix program: with the environment that it needs and no more, both pipes drained at
//! once, output bounded, the whole process group ended when nobody waits any more.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::command::Command;
use super::environment;
use super::redact::redact;

/// Most of what a program may print to stdout. The path-info of a closure of 10,000 paths is
/// about 10 MB.
const STDOUT_LIMIT: usize = 64 << 20;
/// How much of stderr is kept: its end, where Nix says what went wrong and repeats the last lines
/// of the log of the derivation that failed.
const STDERR_TAIL: usize = 4 << 10;
/// How the line begins that every version of Nix prints when there is no daemon behind its socket.
/// Lines of the log of a build, which could say anything, begin otherwise.
const NO_DAEMON: &str = "error: cannot connect to socket";

/// What can go wrong with Nix.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NixError {
    /// The program isn't there.
    #[error("{program} is not on PATH: install Nix 2.8 or newer on the builder, or mend its PATH")]
    Missing {
        /// Which one.
        program: &'static str,
    },
    /// The program could not be started or listened to.
    #[error("{program} can't be run: {reason}")]
    NotRun {
        /// Which one.
        program: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The program said no.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Which one.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// There is a Nix, and its daemon does not answer.
    #[error("Nix can't reach its store: start nix-daemon, or mend NIX_REMOTE: {stderr}")]
    NoStore {
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// The program took too long and was ended.
    #[error("{program} was ended after {seconds} s: {stderr}")]
    TimedOut {
        /// Which one.
        program: &'static str,
        /// Its limit.
        seconds: u64,
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// The program's output is not what nixgate knows.
    #[error(
        "{program} printed what nixgate doesn't understand ({reason}): report this, with the version of Nix"
    )]
    NotUnderstood {
        /// Which one.
        program: &'static str,
        /// What was unexpected.
        reason: String,
    },
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// [`NixError`]; a failure carries the end of stderr.
pub async fn run(command: Command, limit: Duration) -> Result<Vec<u8>, NixError> {
    let program = command.program;
    let not_run = |error: std::io::Error| NixError::NotRun {
        program,
        reason: error.to_string(),
    };
    tracing::debug!(program, arguments = ?command.arguments, "starting");
    let mut child = tokio::process::Command::new(program);
    end_with_builder(&mut child);
    let mut child = child
        .args(&command.arguments)
        .env_clear()
        .envs(environment::of_children(std::env::vars_os()))
        // A group of its own: ending Nix must end the builds that it started.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => NixError::Missing { program },
            _ => not_run(error),
        })?;
    let group = Group::of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut log = Tail::default();
    let output = {
        let both = async {
            // A pipe that nobody reads fills up and stops its writer for ever.
            let (stdout, ()) = tokio::join!(read_limited(stdout), log.drain(stderr));
            Ok::<_, std::io::Error>((stdout?, child.wait().await?))
        };
        tokio::time::timeout(limit, both).await
    };
    let stderr = log.text();
    let Ok(output) = output else {
        group.terminate().await;
        let seconds = limit.as_secs();
        return Err(NixError::TimedOut {
            program,
            seconds,
            stderr,
        });
    };
    let (stdout, status) = output.map_err(not_run)?;
    group.forget();
    if status.success() {
        Ok(stdout)
    } else if stderr
        .lines()
        .any(|line| line.trim_start().starts_with(NO_DAEMON))
    {
        Err(NixError::NoStore { stderr })
    } else {
        Err(NixError::Failed {
            program,
            status,
            stderr,
        })
    }
}

/// Has the kernel end the child when the builder dies without a chance to: a build that goes on
/// would hold locks that the next builder waits for.
///
/// The signal comes with the end of the *thread* that starts the child. Those that get here live
/// as long as the runtime: its workers, and the one that blocks on it.
#[expect(
    unsafe_code,
    reason = "std has no safe way to say this of a child; a wrapper program would be one more to \
              install"
)]
fn end_with_builder(command: &mut tokio::process::Command) {
    // SAFETY: between fork and exec nothing may allocate or lock. This is one system call.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}

async fn read_limited(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut output = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(STDOUT_LIMIT as u64 + 1)
            .read_to_end(&mut output)
            .await?;
    }
    if output.len() > STDOUT_LIMIT {
        return Err(std::io::Error::other("it printed too much"));
    }
    Ok(output)
}

/// The end of a stream.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    async fn drain(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = [0; 8 << 10];
        while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
            self.0.extend_from_slice(&chunk[..count]);
            if self.0.len() > 2 * STDERR_TAIL {
                self.0.drain(..self.0.len() - STDERR_TAIL);
            }
        }
    }

    /// Whole lines, unless there is but one that is longer than the tail; no credentials.
    fn text(&self) -> String {
        let start = self.0.len().saturating_sub(STDERR_TAIL);
        let text = String::from_utf8_lossy(&self.0[start..]);
        let text = text.trim();
        let cut = text.find('\n').filter(|_| start > 0).unwrap_or(0);
        redact(text[cut..].trim_start())
    }
}

/// The process group of a child; ended when this is dropped before the child has ended.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may have ended just now, which is as well.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks first, since Nix ends its builds and releases its locks when asked, then insists.
    async fn terminate(self) {
        self.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.signal(Signal::KILL);
        self.forget();
    }

    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command {
            program: "sh",
            arguments: vec!["-c".into(), script.into()],
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_flood_on_stderr_blocks_nothing_and_its_end_is_kept() {
        let script =
            "head -c 10000000 /dev/zero | tr '\\0' x >&2; echo the reason >&2; echo out; exit 3";
        match run(shell(script), LONG).await {
            Err(NixError::Failed { stderr, .. }) => {
                assert!(stderr.ends_with("the reason"));
                assert!(stderr.len() <= STDERR_TAIL);
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn success_brings_stdout_alone() {
        assert_eq!(
            run(shell("echo out; echo err >&2"), LONG).await.unwrap(),
            b"out\n"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_is_away_is_told_from_a_failure() {
        // As every Nix from 2.8 on prints it.
        let script = "echo \"error: cannot connect to socket at '/s': No such file\" >&2; exit 1";
        let error = run(shell(script), LONG).await.unwrap_err();
        assert!(matches!(error, NixError::NoStore { .. }), "{error}");
        let script = "echo '> error: cannot connect to socket' >&2; exit 1";
        let error = run(shell(script), LONG).await.unwrap_err();
        assert!(matches!(error, NixError::Failed { .. }), "{error}");
    }

    #[tokio::test]
    async fn programs_get_the_environment_that_is_meant_for_them() {
        assert!(
            std::env::vars().any(|(name, _)| name.starts_with("CARGO")),
            "there is a variable to hold back"
        );
        let output = run(shell("env"), LONG).await.unwrap();
        let output = String::from_utf8(output).unwrap();
        assert!(!output.contains("CARGO"), "{output}");
        assert!(output.contains("PATH="), "{output}");
        assert!(output.contains("GIT_TERMINAL_PROMPT=0"), "{output}");
    }

    #[tokio::test]
    async fn a_missing_program_says_what_to_do() {
        let command = Command {
            program: "nix-that-is-not-there",
            arguments: Vec::new(),
        };
        let error = run(command, LONG).await.unwrap_err();
        assert!(matches!(error, NixError::Missing { .. }));
        assert!(error.to_string().contains("install Nix"));
    }

    #[tokio::test]
    async fn a_timeout_ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", mark.display());
        let error = run(shell(&script), Duration::from_millis(500))
            .await
            .unwrap_err();
        assert!(matches!(error, NixError::TimedOut { .. }), "{error:?}");
        let pid = std::fs::read_to_string(mark).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = std::fs::read_to_string(stat).map_or(true, |stat| stat.contains(") Z "));
        assert!(gone, "the grandchild still runs");
    }
}
