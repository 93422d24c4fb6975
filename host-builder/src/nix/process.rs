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

use super::command::Command;
use super::environment::{self, Egress, Purpose};
use super::netrc;
use crate::file_limit;
use crate::redact::redact;

/// Most of what a program may print to stdout. The path-info of a closure of 10,000 paths is
/// about 10 MB.
const STDOUT_LIMIT: usize = 64 << 20;
/// How much of stderr is kept: its end, where Nix says what went wrong and repeats the last lines
/// of the log of the derivation that failed.
const STDERR_TAIL: usize = 4 << 10;
/// How long a process group may take to end when it is asked to, before it is made to.
const GRACE: Duration = Duration::from_secs(2);
/// How the lines begin that every version of Nix prints when there is no daemon behind its socket,
/// or one that does not let the user in. Lines of the log of a build, which could say anything, begin
/// otherwise.
const NO_DAEMON: [&str; 2] = [
    "error: cannot connect to socket",
    "error: cannot open connection to remote store",
];
/// Where Nix has what it writes to when it works without a daemon.
const STORE: [&str; 2] = ["'/nix/var/", "'/nix/store/.links'"];
/// How the system says that it is somebody else's.
const NOT_OURS: [&str; 3] = [
    "Permission denied",
    "Operation not permitted",
    "Read-only file system",
];
/// What programs print that got no more memory: Nix itself, its garbage collector, the C++ library
/// and the kernel's words for it.
const NO_MEMORY: [&str; 4] = [
    "out of memory",
    "Out of Memory",
    "bad_alloc",
    "Cannot allocate memory",
];

/// What Nix and its database print when a disk is full.
const NO_SPACE: [&str; 2] = ["No space left on device", "database or disk is full"];

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
    /// There is a Nix, and its daemon does not answer, or its store is somebody else's.
    #[error(
        "Nix can't reach its store: start nix-daemon and let the builder's user in (allowed-users in \
         nix.conf), or mend NIX_REMOTE; without a daemon, only root or the owner of /nix can use the \
         store: {stderr}"
    )]
    NoStore {
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// A disk is full.
    #[error("{program} found no room on a disk of the builder's: {stderr}")]
    NoSpace {
        /// Which one.
        program: &'static str,
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// Something ended a build.
    #[error(
        "a build was ended by a signal from outside: the machine may be short of memory: {stderr}"
    )]
    Killed {
        /// The end of what Nix printed to stderr.
        stderr: String,
    },
    /// Nix has nowhere to keep what it keeps for a user.
    #[error(
        "Nix finds no home of the user that the builder runs as: set HOME to a folder that this user \
         may write: {stderr}"
    )]
    NoHome {
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// Builds would see this machine, or do something to it.
    #[error(
        "Nix can't build in a sandbox here ({reason}): let the builder make namespaces; or run \
         nix-daemon with sandbox = true in its nix.conf, since it takes that from nobody who is not \
         among its trusted-users; or pass --allow-unsandboxed (NIXGATE_ALLOW_UNSANDBOXED) to let \
         builds see this machine"
    )]
    NotSandboxed {
        /// How that was found out.
        reason: String,
    },
    /// Nothing was learned of the sandbox.
    #[error(
        "whether Nix builds in a sandbox here is not known: the program that tries it, a copy of nixgate \
         with its libraries, did not run in a build ({reason}): mend what that names; where it is a \
         library, install the nixgate that was built for this system (ldd names what it needs)"
    )]
    ProbeNotRun {
        /// What was said of it.
        reason: String,
    },
    /// Builds run as somebody who may write to the store.
    #[error(
        "builds run as a user who may change what other builds have made ({reason}): run nix-daemon \
         as root with build users, or the builder as root with a group nixbld that has members, or \
         pass --allow-shared-build-user (NIXGATE_ALLOW_SHARED_BUILD_USER) and build nothing but \
         packages that you trust"
    )]
    SharedBuildUser {
        /// How that was found out.
        reason: String,
    },
    /// This Nix has holes that are known, or can't be trusted for another reason.
    #[error("{reason}, and NIXGATE_STRICT is set")]
    TooWeak {
        /// What is missing, and what to do.
        reason: String,
    },
    /// Builds were to have a network of their own.
    #[error(
        "NIXGATE_PROXY_ONLY is set, and builds have no network with NIXGATE_PROXY alone ({reason}): run \
         the builder as root or with CAP_SYS_ADMIN, and without nix-daemon"
    )]
    NoEnclosure {
        /// What is in the way.
        reason: String,
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
    /// The program wanted more memory than it may have.
    #[error("{program} wanted more than its {mib} MiB of memory: {stderr}")]
    OutOfMemory {
        /// Which one.
        program: &'static str,
        /// Its limit.
        mib: u64,
        /// The end of what it printed to stderr.
        stderr: String,
    },
    /// The program printed too much and was ended.
    #[error("{program} was ended when it had printed {mib} MiB")]
    TooMuchOutput {
        /// Which one.
        program: &'static str,
        /// Its limit.
        mib: u64,
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

/// What a program may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For how long it may run.
    pub time: Duration,
    /// How much it may map, in MiB; none leaves it to the machine.
    pub memory: Option<u64>,
    /// How much it may print to stdout, in bytes.
    pub output: usize,
}

impl Limits {
    /// So long, and all the memory that there is.
    pub(super) const fn time(time: Duration) -> Self {
        Self {
            time,
            memory: None,
            output: STDOUT_LIMIT,
        }
    }
}

/// Hears what a program prints to stderr, as it comes.
pub(super) trait Listener: Send {
    /// The next piece; lines may be cut anywhere.
    fn hear(&mut self, piece: &[u8]);

    /// The end of what it heard, as a person would read it: whole lines.
    fn end(&mut self) -> String;
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// [`NixError`]; a failure carries the end of stderr.
pub(super) async fn run(
    command: Command,
    purpose: Purpose,
    egress: &Egress,
    limits: Limits,
) -> Result<Vec<u8>, NixError> {
    listen(command, purpose, egress, limits, &mut Tail::default()).await
}

/// The same, with somebody who hears stderr.
///
/// # Errors
/// [`NixError`]; a failure carries the end of what the listener heard.
pub(super) async fn listen(
    command: Command,
    purpose: Purpose,
    egress: &Egress,
    limits: Limits,
    listener: &mut impl Listener,
) -> Result<Vec<u8>, NixError> {
    let program = command.program;
    if let Some(netrc) = &egress.netrc {
        netrc::keep_passwords(&netrc.file);
    }
    let not_run = |error: std::io::Error| NixError::NotRun {
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
            std::io::ErrorKind::NotFound => NixError::Missing { program },
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
            return Err(NixError::TooMuchOutput { program, mib });
        }
        Ok(Err(ReadError::Io(error))) => return Err(not_run(error)),
        Err(_) => {
            group.terminate().await;
            let seconds = limits.time.as_secs();
            return Err(NixError::TimedOut {
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
        _ if has_no_home(&stderr) => NixError::NoHome { stderr },
        _ if has_no_store(&stderr) => NixError::NoStore { stderr },
        _ if has_no_space(&stderr) => NixError::NoSpace { program, stderr },
        Some(mib) if NO_MEMORY.iter().any(|words| stderr.contains(words)) => {
            NixError::OutOfMemory {
                program,
                mib,
                stderr,
            }
        }
        _ => NixError::Failed {
            program,
            status,
            stderr,
        },
    })
}

fn has_no_store(stderr: &str) -> bool {
    stderr.lines().map(str::trim_start).any(|line| {
        let begins = |begin: &&str| line.starts_with(*begin);
        let has = |words: &&str| line.contains(*words);
        NO_DAEMON.iter().any(begins)
            || (begins(&"error: ") && STORE.iter().any(has) && NOT_OURS.iter().any(has))
    })
}

/// Lines of the log of a build, which could say anything, begin with `>`.
fn has_no_space(stderr: &str) -> bool {
    let mut lines = stderr.lines().map(str::trim_start);
    lines.any(|line| !line.starts_with('>') && NO_SPACE.iter().any(|words| line.contains(words)))
}

/// Nobody's, or one that can't be written: Nix keeps there what it has fetched.
fn has_no_home(stderr: &str) -> bool {
    let mut lines = stderr.lines().map(str::trim_start);
    stderr.contains("cannot determine user's home directory")
        || lines.any(|line| {
            line.starts_with("error: creating directory")
                && line.contains("/.cache")
                && NOT_OURS.iter().any(|words| line.contains(words))
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
pub(super) struct Tail(Vec<u8>);

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
