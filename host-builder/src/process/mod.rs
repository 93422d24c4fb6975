//! Runs a program with the environment that it needs, and bounds for its time, memory and output. Ends
//! its whole process group when the caller is dropped.
//!
//! ```text
//!   spawn ─┬─ stdout ──► collected, up to a limit ─ too much ─┐
//!          ├─ stderr ──► a listener, which keeps its end       ├─► TERM to the group, 2 s, KILL
//!          ├─ memory ──► the kernel refuses more               │   the child is reaped last: until
//!          └─ time ─────────────────────────────── over ──────┘   then its pid is not used again
//! ```

mod command;
mod environment;
pub(crate) mod file_limit;
mod git_credential;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, nice,
    set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;

use crate::telemetry::redact::redact;

pub(crate) use command::Command;
pub(crate) use environment::{Netrc, NetworkSettings, Purpose};
pub(crate) use git_credential::{GitCredentialArgs, git_credential};

/// Bytes that a program may print to stdout. The path-info of a closure of 10,000 paths has about 10 MB.
const STDOUT_LIMIT: usize = 64 << 20;
/// Bytes of stderr's end that are kept: there Nix reports the error and the last lines of the failed
/// build's log.
const STDERR_TAIL: usize = 4 << 10;
/// What `nice` adds for work in the background.
const LEAST_PRIORITY: i32 = 19;
/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);
/// Messages of programs that get no more memory: Nix, its heap's garbage collector, the C++ library, the
/// kernel.
const NO_MEMORY: [&str; 4] = [
    "out of memory",
    "Out of Memory",
    "bad_alloc",
    "Cannot allocate memory",
];

/// A program that did not run, or did not succeed. `stderr` is the end of what it printed there.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error(
        "cannot run {program}: it is not on PATH. Install it on the builder, or correct the builder's \
         PATH"
    )]
    Missing { program: &'static str },
    #[error("cannot run {program}: {reason}")]
    NotRun {
        program: &'static str,
        reason: String,
    },
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        program: &'static str,
        status: ExitStatus,
        stderr: String,
    },
    #[error("{program} took longer than its limit of {seconds} s: {stderr}")]
    TimedOut {
        program: &'static str,
        seconds: u64,
        stderr: String,
    },
    #[error("{program} needs more than its limit of {mib} MiB of memory: {stderr}")]
    OutOfMemory {
        program: &'static str,
        mib: u64,
        stderr: String,
    },
    #[error("{program} printed more than its limit of {mib} MiB")]
    TooMuchOutput { program: &'static str, mib: u64 },
}

/// A variable of the Boehm garbage collector, which Nix has.
const INITIAL_HEAP: &str = "GC_INITIAL_HEAP_SIZE";

/// Bounds of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) time: Duration,
    /// Address space in MiB; none leaves it to the machine.
    pub(crate) memory: Option<u64>,
    /// MiB that Nix's garbage collector has from the start, so that it collects less often; none leaves it
    /// to Nix.
    pub(crate) initial_heap: Option<u64>,
    /// Bytes on stdout.
    pub(crate) output: usize,
    /// Whether it yields the processors to whatever else wants them.
    pub(crate) background: bool,
}

impl Limits {
    /// Bounds time and output, not memory.
    pub(crate) const fn time(time: Duration) -> Self {
        Self {
            time,
            memory: None,
            initial_heap: None,
            output: STDOUT_LIMIT,
            background: false,
        }
    }
}

/// Receives stderr while a program runs.
pub(crate) trait Listener: Send {
    /// The next piece, which may begin and end within a line.
    fn hear(&mut self, piece: &[u8]);

    /// The last lines, as text for an error.
    fn end(&mut self) -> String;
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// [`ProcessError`]; a failure carries the end of stderr.
pub(crate) async fn run(
    command: Command,
    purpose: Purpose,
    network: &NetworkSettings,
    limits: Limits,
) -> Result<Vec<u8>, ProcessError> {
    listen(command, purpose, network, limits, &mut Tail::default()).await
}

/// Like [`run`], with a listener for stderr.
///
/// # Errors
/// [`ProcessError`]; a failure carries the end that the listener returns.
pub(crate) async fn listen(
    command: Command,
    purpose: Purpose,
    network: &NetworkSettings,
    limits: Limits,
    listener: &mut impl Listener,
) -> Result<Vec<u8>, ProcessError> {
    let program = command.program;
    if let Some(netrc) = &network.netrc {
        git_credential::keep_passwords(&netrc.file);
    }
    let not_run = |error: std::io::Error| ProcessError::NotRun {
        program,
        reason: error.to_string(),
    };
    let arguments = || redact(&format!("{:?}", command.arguments));
    tracing::debug!(program, arguments = arguments(), "starting");
    let mut child = tokio::process::Command::new(program);
    before_exec(&mut child, limits, network.namespace.clone());
    let mut child = child
        .args(&command.arguments)
        .env_clear()
        .envs(environment::of_child(std::env::vars_os(), purpose, network))
        .envs(
            limits
                .initial_heap
                .map(|mib| (INITIAL_HEAP, format!("{mib}M"))),
        )
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
    let ended = {
        let all = async {
            // Both pipes are read at once, since a full pipe stops its writer.
            let stdout = async {
                let output = read_limited(stdout, limits.output).await.map_err(not_run)?;
                let mib = (limits.output >> 20) as u64;
                output.ok_or(ProcessError::TooMuchOutput { program, mib })
            };
            let stderr = async {
                drain(stderr, listener).await;
                Ok(())
            };
            let (stdout, ()) = tokio::try_join!(stdout, stderr)?;
            Ok::<_, ProcessError>((stdout, group.wait().await.map_err(not_run)?))
        };
        tokio::time::timeout(limits.time, all).await
    };
    let stderr = listener.end();
    let ended = ended.unwrap_or_else(|_| {
        Err(ProcessError::TimedOut {
            program,
            seconds: limits.time.as_secs(),
            stderr: stderr.clone(),
        })
    });
    let (stdout, status) = match ended {
        Ok(output) => output,
        Err(error) => {
            group.terminate().await;
            return Err(error);
        }
    };
    group.disarm();
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

/// Prepares the child between fork and exec:
///
/// - A session of its own: its process group has the builds that it starts, and without a terminal ssh
///   can't ask whether to trust a host.
/// - The kernel ends it if the builder is killed: otherwise it would hold locks that the next builder
///   waits for. The signal comes when the *thread* that starts the child ends; these threads live as
///   long as the runtime.
/// - Its network namespace.
/// - A limit of mapped memory: Nix's heap maps only memory that it is about to use, and Nix reports an
///   error when it gets none.
/// - The limit of open files that the builder had at its start.
/// - The least priority, for work in the background.
#[expect(
    unsafe_code,
    reason = "std has no safe way for this, and a wrapper program would have to be installed"
)]
fn before_exec(
    command: &mut tokio::process::Command,
    limits: Limits,
    network: Option<Arc<OwnedFd>>,
) {
    let limit = limits.memory.map(|mib| {
        let bytes = mib.saturating_mul(1 << 20);
        // The builder's own hard limit can't be exceeded.
        let bytes = getrlimit(Resource::As)
            .maximum
            .map_or(bytes, |most| most.min(bytes));
        Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        }
    });
    let files = file_limit::of_child();
    // SAFETY: between fork and exec nothing may allocate or lock, and this makes only system calls.
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
            if limits.background {
                yield_processors()?;
            }
            if let Some(files) = files {
                setrlimit(Resource::Nofile, files)?;
            }
            Ok(())
        });
    }
}

/// Gives this process and its children the least priority. Allocates nothing.
///
/// With Linux's autogroups, which most distributions turn on, sessions share the processors, and `nice`
/// counts among the processes of one alone.
fn yield_processors() -> std::io::Result<()> {
    nice(LEAST_PRIORITY)?;
    let session = rustix::fs::open(c"/proc/self/autogroup", OFlags::WRONLY, Mode::empty());
    if let Ok(session) = session {
        // Where there are none, it changes nothing.
        let _ = rustix::io::write(&session, b"19");
    }
    Ok(())
}

/// None if there is more than the limit.
async fn read_limited(
    pipe: Option<impl AsyncRead + Unpin>,
    limit: usize,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit as u64 + 1).read_to_end(&mut output).await?;
    }
    Ok((output.len() <= limit).then_some(output))
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, listener: &mut impl Listener) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0; 8 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        listener.hear(&chunk[..count]);
    }
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

    /// Whole lines, unless the last one is longer than the tail; without secrets, which are redacted
    /// before the cut, since half a secret is not recognised.
    fn end(&mut self) -> String {
        let text = redact(&String::from_utf8_lossy(&self.0));
        let text = text.trim();
        let start = text.ceil_char_boundary(text.len().saturating_sub(STDERR_TAIL));
        let text = &text[start..];
        let cut = text.find('\n').filter(|_| start > 0).unwrap_or(0);
        text[cut..].trim_start().to_owned()
    }
}

/// A child and its process group, which is ended when this is dropped, unless disarmed.
///
/// The child is reaped after its group was signalled, so that no other group has its number by then.
struct Group(Option<(Child, Pid)>);

impl Group {
    fn of(child: Child) -> Self {
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Self(pid.map(|pid| (child, pid)))
    }

    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        match &mut self.0 {
            Some((child, _)) => child.wait().await,
            None => Err(std::io::Error::other("it has no process id")),
        }
    }

    async fn terminate(mut self) {
        if let Some((child, group)) = self.0.take() {
            end(child, group).await;
        }
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

/// TERM lets Nix end its builds and release its locks.
async fn end(mut child: Child, group: Pid) {
    signal(group, Signal::TERM);
    tokio::time::sleep(GRACE).await;
    signal(group, Signal::KILL);
    let _ = child.wait().await;
}

fn signal(group: Pid, signal: Signal) {
    // Fails if the group has just ended.
    let _ = kill_process_group(group, signal);
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some((child, group)) = self.0.take() else {
            return;
        };
        // Not in the task, since none runs when the builder ends.
        signal(group, Signal::TERM);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end(child, group));
        }
    }
}

#[cfg(test)]
mod tests;
