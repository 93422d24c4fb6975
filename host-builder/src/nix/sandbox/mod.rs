//! What builds can do to the machine and to each other: found out by building, once, before anything
//! else is built.
//!
//! ```text
//!   program   this program, with all that it needs to run in a sandbox        reads its own files
//!   probe     what it does there: tries to write, and says what worked        inside of the build
//!   report    what is said                                                    pure
//!   here      what that says of this machine: may builds be trusted to it?    pure, but for `Outside`
//! ```
//!
//! Settings alone prove nothing. The kernel may refuse namespaces, a daemon of Nix takes this setting
//! from trusted users only and ignores it from others without a word, and a sandbox whose user owns the
//! store outside keeps no package from changing another. `nix/sandbox.nix` is the derivation that tells.

mod probe;
mod program;
mod report;

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::NixError;
use super::arguments::Trial;
use super::enclosure;
use super::log::plain;
use crate::closure::STORE_DIR;
use crate::process::ProcessError;

use report::{Identity, Report};

pub(crate) use probe::{ProbeSandboxArgs, probe_sandbox};

/// The name of the subcommand that a build runs.
const COMMAND: &str = "probe-sandbox";
/// What a build must not see, of all that is in the root folder: every machine has it, and no sandbox
/// unless it is told to (`sandbox-paths`).
const WITNESS: &str = "sys";
/// What every build sees there.
const STORE: &str = "nix";
/// What a probe says that could not try.
const UNTRIED: &str = "the sandbox can't be tried";
/// Of what a probe that failed and Nix have said, so many lines are told, besides errors.
const LAST_LINES: usize = 8;
/// What is wrong where builds of known output reach the machine.
const DOWNLOADS_CALL: &str = "packages' downloads (fixed-output builds) reach this machine's loopback: \
    set NIXGATE_PROXY_ONLY, or deny the addresses to nix-daemon (see \"What downloads reach\" in the \
    documentation)";
/// The number of root.
const ROOT: u32 = 0;

/// What builds have to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// In a sandbox, or not at all.
    Required {
        /// Builds may run as the user who owns the store, and so change what others have built.
        shared_user: bool,
    },
    /// In a sandbox where one can be had.
    Wanted,
}

impl Sandbox {
    /// Nix's settings that say so.
    pub(super) const fn options(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Required { .. } => [("sandbox", "true"), ("sandbox-fallback", "false")],
            Self::Wanted => [("sandbox", "true"), ("sandbox-fallback", "true")],
        }
    }
}

/// What a probe is built with.
pub(super) struct Probe {
    listener: TcpListener,
    /// How Nix is asked for it.
    pub(crate) trial: Trial,
}

impl Probe {
    /// Prepares one that nobody has tried before; `folder` is for the program that it runs. With
    /// `download` it is a build that has the network. The loopback that it calls is that of the
    /// namespace, or this machine's.
    ///
    /// # Errors
    /// When the program can't be copied, or nothing can listen on loopback.
    pub(super) fn new(
        folder: &Path,
        download: bool,
        namespace: Option<Arc<OwnedFd>>,
    ) -> io::Result<Self> {
        let program = program::copy(folder)?;
        let listener = enclosure::listen(namespace)?;
        let port = listener.local_addr()?.port().to_string();
        let unique = unique();
        let mut arguments = program.arguments;
        arguments.extend([COMMAND.to_owned(), port]);
        arguments.extend(download.then(|| unique.clone()));
        Ok(Self {
            listener,
            trial: Trial {
                unique,
                folder: folder.to_owned(),
                program: program.file,
                arguments,
                download,
            },
        })
    }

    /// Whether the build that has ended called.
    pub(super) fn was_called(&self) -> bool {
        self.listener.accept().is_ok()
    }
}

fn unique() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    format!("{}-{nanoseconds}", std::process::id())
}

/// What has to be known of the machine to understand a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outside {
    /// Whether there is what a build must not see.
    has_witness: bool,
    /// The folder of the machine's store.
    store: Identity,
    /// Whom it belongs to.
    store_owner: u32,
}

impl Outside {
    /// Looks at this machine.
    ///
    /// # Errors
    /// When it has no store.
    pub(super) fn look() -> io::Result<Self> {
        Ok(Self {
            has_witness: Path::new("/").join(WITNESS).exists(),
            store: Identity::of(STORE_DIR.as_ref())?,
            store_owner: std::fs::metadata(STORE_DIR)?.uid(),
        })
    }
}

/// Reads what a probe wrote.
///
/// # Errors
/// When it can't be read, or is no report.
pub(super) fn read(output: &Path) -> io::Result<Report> {
    Ok(serde_json::from_slice(&std::fs::read(output)?)?)
}

/// Whether builds are confined, by what one of them could do; `called` says whether it called this
/// machine's loopback. Only a build that worked proves it: one may fail for many a reason.
///
/// # Errors
/// [`NixError::NotSandboxed`] or [`NixError::SharedBuildUser`] with all that a build could do,
/// [`NixError::ProbeNotRun`], or the error by which Nix could not be asked.
pub(super) fn verdict(
    report: Result<Report, NixError>,
    called: bool,
    outside: Outside,
    shared_user: bool,
) -> Result<(), NixError> {
    let not_sandboxed = |reason: String| Err(NixError::NotSandboxed { reason });
    let report = match report {
        Err(NixError::Process(ProcessError::Failed { stderr, .. })) => {
            return Err(failure(&stderr));
        }
        Err(error) => return Err(error),
        Ok(report) => report,
    };
    if report.root.contains(WITNESS) {
        return not_sandboxed(format!(
            "Nix was told to use one, and a build saw this machine's /{WITNESS}"
        ));
    }
    if !outside.has_witness {
        return not_sandboxed(format!(
            "whether it does can't be told: this machine has no /{WITNESS} that a build could see"
        ));
    }
    if !report.root.contains(STORE) {
        return not_sandboxed(format!(
            "whether it does can't be told: a build saw no /{STORE}, but {:?}",
            report.root
        ));
    }
    let owns_store = report
        .user
        .is_none_or(|user| user == outside.store_owner || user == ROOT);
    let mut could = Vec::new();
    if report.store == Some(outside.store) {
        could.push(format!("write to this machine's {STORE_DIR}"));
    }
    if !owns_store && !report.inputs.is_empty() {
        could.push(format!("change its inputs ({})", list(&report.inputs)));
    }
    if !report.mounts.is_empty() {
        could.push(format!(
            "write to {}, which Nix's sandbox-paths show it: mount that read-only for the builder (which \
             does not help with sockets and devices), take it from build users, or leave it out of \
             sandbox-paths",
            list(&report.mounts)
        ));
    }
    if called {
        could.push("call this machine's loopback".to_owned());
    }
    if !could.is_empty() {
        return not_sandboxed(format!("a build could {}", could.join("; it could ")));
    }
    if owns_store && !shared_user {
        return Err(NixError::SharedBuildUser {
            reason: match (report.user, report.inputs.as_slice()) {
                (Some(user), []) => format!("a build ran as user {user}"),
                (Some(user), inputs) => format!(
                    "a build ran as user {user}, and could change {}",
                    list(inputs)
                ),
                (None, _) => "as whom a build ran can't be told".to_owned(),
            },
        });
    }
    Ok(())
}

/// What downloads reach, by what became of one that tried to call: the weakness to tell of, if there is
/// one. With `enclosed`, the one who is called is inside of the network that has the proxy alone.
///
/// # Errors
/// [`NixError::NoEnclosure`] when they are to be in that network and it is not proved that they are, or
/// the error by which Nix could not be asked.
pub(super) fn downloads(
    built: Result<(), NixError>,
    called: bool,
    enclosed: bool,
) -> Result<Option<String>, NixError> {
    let failed = match built {
        Ok(()) => None,
        Err(NixError::Process(ProcessError::Failed { stderr, .. })) => Some(told(&stderr)),
        Err(error) => return Err(error),
    };
    match (enclosed, called, failed) {
        (false, true, _) => Ok(Some(DOWNLOADS_CALL.to_owned())),
        (false, false, None) | (true, true, None) => Ok(None),
        (false, false, Some(reason)) => Ok(Some(format!(
            "whether packages' downloads (fixed-output builds) reach this machine's loopback is not \
             known, since the one that tries it failed ({reason})"
        ))),
        // More was promised.
        (true, _, Some(reason)) => Err(NixError::NoEnclosure {
            reason: format!("the download that tries it failed: {reason}"),
        }),
        (true, false, None) => Err(NixError::NoEnclosure {
            reason: "a download was built outside of it: by a nix-daemon, which has a network of its own"
                .to_owned(),
        }),
    }
}

fn list(paths: &[std::path::PathBuf]) -> String {
    let paths = paths.iter().map(|path| path.display().to_string());
    paths.collect::<Vec<_>>().join(" ")
}

/// Why a probe failed. Where its program did not run, that says nothing of the sandbox.
fn failure(stderr: &str) -> NixError {
    let reason = told(stderr);
    match ran(stderr) {
        true => NixError::NotSandboxed { reason },
        false => NixError::ProbeNotRun { reason },
    }
}

/// Whether a probe's program may have run. What makes a sandbox ends with 1 where it can't, and a
/// loader that does not find a library with another number.
fn ran(stderr: &str) -> bool {
    let exit = |line: &str| {
        let (_, rest) = line.split_once("failed with exit code ")?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        digits?.parse::<u32>().ok()
    };
    !stderr.lines().any(|line| {
        exit(line).is_some_and(|code| code != 1)
            || [UNTRIED, "failed due to signal ", "executing '"]
                .iter()
                .any(|words| line.contains(words))
    })
}

/// What Nix and the build say that went wrong, in one line: all errors, and the last lines whatever
/// they are, since a program that fails says why in words of its own.
fn told(stderr: &str) -> String {
    let text = plain(stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.collect();
    let last = lines.len().saturating_sub(LAST_LINES);
    let kept = lines.iter().enumerate().filter_map(|(number, line)| {
        let error = line.strip_prefix("error:").map(str::trim);
        error.or((number >= last).then_some(line))
    });
    kept.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
