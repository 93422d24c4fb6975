//! Running a program: with the environment that it needs and no more, both pipes drained at once,
//! time, memory and output bounded, the whole process group ended when nobody waits any more.
//!
//! ```text
//!   spawn ─┬─ stdout ──► kept, up to a limit ──── beyond it ─┐
//!          ├─ stderr ──► its end is kept, and a listener      ├─► TERM to the group, 2 s, KILL
//!          │             hears it as it comes                 │
//!          ├─ memory ──► the kernel refuses more              │   the child is reaped last: until
//!          └─ time ────────────────────────────── over ──────┘   then nobody else gets its number
//! ```

mod command;
mod environment;
pub(crate) mod file_limit;
mod git_credential;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, set_parent_process_death_signal,
    setrlimit, setsid,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;

use crate::telemetry::redact::redact;

pub(crate) use command::Command;
pub(crate) use environment::{Netrc, NetworkSettings, Purpose};
pub(crate) use git_credential::{GitCredentialArgs, git_credential};

/// Most of what a program may print to stdout. The path-info of a closure of 10,000 paths is
/// about 10 MB.
const STDOUT_LIMIT: usize = 64 << 20;
/// How much of stderr is kept: its end, where Nix says what went wrong and repeats the last lines
/// of the log of the derivation that failed.
const STDERR_TAIL: usize = 4 << 10;
/// How long a process group may take to end when it is asked to, before it is made to.
const GRACE: Duration = Duration::from_secs(2);
/// What programs print that got no more memory: Nix itself, its garbage collector, the C++ library
/// and the kernel's words for it.
const NO_MEMORY: [&str; 4] = [
    "out of memory",
    "Out of Memory",
    "bad_alloc",
    "Cannot allocate memory",
];

/// A program that did not do what it was run for.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The program isn't there.
    #[error("{program} is not on PATH: install it on the builder, or correct the builder's PATH")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// The program could not be started or listened to.
    #[error("cannot run {program}: {reason}")]
    NotRun {
        /// Its name.
        program: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The program said no.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// The program took too long and was ended.
    #[error("{program} was ended after {seconds} s: {stderr}")]
    TimedOut {
        /// Its name.
        program: &'static str,
        /// Its limit.
        seconds: u64,
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// The program wanted more memory than it may have.
    #[error("{program} needs more than its limit of {mib} MiB of memory: {stderr}")]
    OutOfMemory {
        /// Its name.
        program: &'static str,
        /// Its limit.
        mib: u64,
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// The program printed too much and was ended.
    #[error("{program} was ended: it printed more than {mib} MiB")]
    TooMuchOutput {
        /// Its name.
        program: &'static str,
        /// Its limit.
        mib: u64,
    },
}

/// What a program may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For how long it may run.
    pub(crate) time: Duration,
    /// How much it may map, in MiB; none leaves it to the machine.
    pub(crate) memory: Option<u64>,
    /// How much it may print to stdout, in bytes.
    pub(crate) output: usize,
}

impl Limits {
    /// So long, and all the memory that there is.
    pub(crate) const fn time(time: Duration) -> Self {
        Self {
            time,
            memory: None,
            output: STDOUT_LIMIT,
        }
    }
}

/// Hears what a program prints to stderr, as it comes.
pub(crate) trait Listener: Send {
    /// The next piece; lines may be cut anywhere.
    fn hear(&mut self, piece: &[u8]);

    /// The end of what it heard, as a person would read it: whole lines.
    fn end(&mut self) -> String;
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// [`ProcessError`]; a failure carries the end of stderr.
pub(crate) async fn run(
    command: Command,
    purpose: Purpose,
    egress: &NetworkSettings,
    limits: Limits,
) -> Result<Vec<u8>, ProcessError> {
    listen(command, purpose, egress, limits, &mut Tail::default()).await
}

/// The same, with somebody who hears stderr.
///
/// # Errors
/// [`ProcessError`]; a failure carries the end of what the listener heard.
pub(crate) async fn listen(
    command: Command,
    purpose: Purpose,
    egress: &NetworkSettings,
    limits: Limits,
    listener: &mut impl Listener,
) -> Result<Vec<u8>, ProcessError> {
    let program = command.program;
    if let Some(netrc) = &egress.netrc {
        git_credential::keep_passwords(&netrc.file);
    }
    let not_run = |error: std::io::Error| ProcessError::NotRun {
        program,
        reason: error.to_string(),
    };
    let arguments = || redact(&format!("{:?}", command.arguments));
    tracing::debug!(program, arguments = arguments(), "starting");
    let mut child = tokio::process::Command::new(program);
    before_exec(&mut child, limits.memory, egress.namespace.clone());
    let mut child = child
        .args(&command.arguments)
        .env_clear()
        .envs(environment::of_children(
            std::env::vars_os(),
            purpose,
            egress,
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ProcessError::Missing { program },
            _ => not_run(error),
        })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut group = Group::of(child);
    let output = {
        let all = async {
            // A pipe that nobody reads fills up and stops its writer for ever. Too much on stdout
            // ends it all; stderr may go on as long as it likes.
            let read = read_limited(stdout, limits.output);
            let (stdout, ()) = tokio::try_join!(read, drain(stderr, listener))?;
            Ok::<_, ReadError>((stdout, group.wait().await?))
        };
        tokio::time::timeout(limits.time, all).await
    };
    let stderr = listener.end();
    let (stdout, status) = match output {
        Ok(Ok(output)) => output,
        Ok(Err(ReadError::TooMuch)) => {
            group.terminate().await;
            let mib = (limits.output >> 20) as u64;
            return Err(ProcessError::TooMuchOutput { program, mib });
        }
        Ok(Err(ReadError::Io(error))) => return Err(not_run(error)),
        Err(_) => {
            group.terminate().await;
            let seconds = limits.time.as_secs();
            return Err(ProcessError::TimedOut {
                program,
                seconds,
                stderr,
            });
        }
    };
    group.forget();
    if status.success() {
        return Ok(stdout);
    }
    Err(match limits.memory {
        Some(mib) if NO_MEMORY.iter().any(|words| stderr.contains(words)) => {
            ProcessError::OutOfMemory {
                program,
                mib,
                stderr,
            }
        }
        _ => ProcessError::Failed {
            program,
            status,
            stderr,
        },
    })
}

/// Puts the child into its network, and has the kernel end it when the builder dies without a chance to: a build that goes on
/// would hold locks that the next builder waits for. And has it refuse memory beyond the limit,
/// which counts what is mapped: Nix's garbage collector maps what it is about to use, and Nix ends
/// with an error when it can't. The limit of open files is as the builder was given it.
///
/// The child has a session of its own. So it has a process group of its own, with the builds that it
/// starts, which end with it; and it has no terminal, on which ssh would ask whoever runs the builder
/// whether a host is to be trusted.
///
/// The signal comes with the end of the *thread* that starts the child. Those that get here live
/// as long as the runtime: its workers, and the one that blocks on it.
#[expect(
    unsafe_code,
    reason = "std has no safe way to say this of a child; a wrapper program would be one more to \
              install"
)]
fn before_exec(
    command: &mut tokio::process::Command,
    memory: Option<u64>,
    network: Option<Arc<OwnedFd>>,
) {
    let limit = memory.map(|mib| {
        let bytes = mib.saturating_mul(1 << 20);
        // Nobody may go beyond what the builder itself was given.
        let bytes = getrlimit(Resource::As)
            .maximum
            .map_or(bytes, |most| most.min(bytes));
        Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        }
    });
    let files = file_limit::of_children();
    // SAFETY: between fork and exec nothing may allocate or lock. These are system calls.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if let Some(network) = &network {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            if let Some(limit) = limit {
                setrlimit(Resource::As, limit)?;
            }
            if let Some(files) = files {
                setrlimit(Resource::Nofile, files)?;
            }
            Ok(())
        });
    }
}

enum ReadError {
    TooMuch,
    Io(std::io::Error),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

async fn read_limited(
    pipe: Option<impl AsyncRead + Unpin>,
    limit: usize,
) -> Result<Vec<u8>, ReadError> {
    let mut output = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit as u64 + 1).read_to_end(&mut output).await?;
    }
    match output.len() > limit {
        true => Err(ReadError::TooMuch),
        false => Ok(output),
    }
}

async fn drain(
    pipe: Option<impl AsyncRead + Unpin>,
    listener: &mut impl Listener,
) -> Result<(), ReadError> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut chunk = [0; 8 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        listener.hear(&chunk[..count]);
    }
    Ok(())
}

/// The end of a stream.
#[derive(Default)]
pub(crate) struct Tail(Vec<u8>);

impl Listener for Tail {
    fn hear(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
        if self.0.len() > 4 * STDERR_TAIL {
            self.0.drain(..self.0.len() - 2 * STDERR_TAIL);
        }
    }

    /// Whole lines, unless there is but one that is longer than the tail; no secrets. Those go before
    /// it is cut: half of one is not known for what it is.
    fn end(&mut self) -> String {
        let text = redact(&String::from_utf8_lossy(&self.0));
        let text = text.trim();
        let start = text.ceil_char_boundary(text.len().saturating_sub(STDERR_TAIL));
        let text = &text[start..];
        let cut = text.find('\n').filter(|_| start > 0).unwrap_or(0);
        text[cut..].trim_start().to_owned()
    }
}

/// A child and its process group; ended when this is dropped before the child has ended.
///
/// The child is reaped after its group was made to end, so that nobody else has its number while
/// that is used.
struct Group(Option<(Child, Pid)>);

impl Group {
    fn of(child: Child) -> Self {
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Self(pid.map(|pid| (child, pid)))
    }

    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        match &mut self.0 {
            Some((child, _)) => child.wait().await,
            None => Err(std::io::Error::other("it has ended before")),
        }
    }

    async fn terminate(mut self) {
        if let Some((child, group)) = self.0.take() {
            end(child, group).await;
        }
    }

    /// It has ended by itself.
    fn forget(mut self) {
        self.0 = None;
    }
}

/// Asks first, since Nix ends its builds and releases its locks when asked, then insists.
async fn end(mut child: Child, group: Pid) {
    signal(group, Signal::TERM);
    tokio::time::sleep(GRACE).await;
    signal(group, Signal::KILL);
    let _ = child.wait().await;
}

fn signal(group: Pid, signal: Signal) {
    // It may have ended just now, which is as well.
    let _ = kill_process_group(group, signal);
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some((child, group)) = self.0.take() else {
            return;
        };
        // At once: when the builder itself ends, no task runs any more.
        signal(group, Signal::TERM);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end(child, group));
        }
    }
}

#[cfg(test)]
mod tests;
