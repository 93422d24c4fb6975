//! Proves the sandbox: a build, before any other, tries what builds must not be able to do.
//!
//! ```text
//!   program   a copy of nixgate with its libraries, which runs in a sandbox   reads its own files
//!   probe     tries to write, and reports what worked                         inside the build
//!   report    what the probe writes                                           pure
//!   mod       the verdict on this machine                                     pure, except `Outside`
//! ```
//!
//! Settings alone prove nothing. The kernel may refuse namespaces; nix-daemon silently ignores the
//! setting of users whom it does not trust; and in a sandbox whose user owns the store outside, a
//! package can change others. `nix/sandbox.nix` is the derivation.

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
/// A folder in `/` that every machine has, and no sandbox unless `sandbox-paths` adds it.
const WITNESS: &str = "sys";
/// A folder in `/` that every build sees.
const STORE: &str = "nix";
/// What a probe prints that could not try.
const UNTRIED: &str = "cannot probe the sandbox";
/// Last lines of a failed probe's output that a message has, besides all errors.
const LAST_LINES: usize = 8;
/// What Nix prints when it cannot build at all, and what to do. Only of the probe, whose text is ours: a
/// package could print the same.
const CANNOT_BUILD: [(&str, &str); 4] = [
    (
        "specified in 'build-users-group' does not exist",
        BUILD_USERS,
    ),
    ("build users group '", BUILD_USERS),
    (
        "cannot figure out user name",
        "Set USER to the name of the builder's user, or give the user an entry in /etc/passwd",
    ),
    (
        "remounting /nix/store writable",
        "/nix is mounted read-only: mount it read-write; or run nix-daemon, which builds in its place, and \
         set NIX_REMOTE=daemon",
    ),
];
/// The remedy where Nix, as root, has nobody to build as.
const BUILD_USERS: &str = "Nix as root builds as the members of the group that its setting \
    build-users-group names, by default nixbld. Make the group and its users (the documentation has the \
    commands, under \"Build users\"), or correct the setting in nix.conf or NIXGATE_NIX_OPTIONS. Where you \
    trust all packages, build as root: set build-users-group= in NIXGATE_NIX_OPTIONS, and pass \
    --allow-shared-build-user";
/// The weakness when fixed-output builds reach this machine.
const DOWNLOADS_CALL: &str = "packages' downloads (fixed-output builds) reach this machine's loopback. \
    Set NIXGATE_PROXY_ONLY, or deny these addresses to nix-daemon (see \"What downloads reach\" in the \
    documentation)";

/// Whether builds need a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// In a sandbox, or not at all.
    Required {
        /// Builds may run as the user who owns the store, and so can change each other's outputs.
        shared_user: bool,
    },
    /// In a sandbox where that works.
    Wanted,
}

impl Sandbox {
    /// Nix's settings for this.
    pub(super) const fn options(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Required { .. } => [("sandbox", "true"), ("sandbox-fallback", "false")],
            Self::Wanted => [("sandbox", "true"), ("sandbox-fallback", "true")],
        }
    }
}

/// A probe that Nix can build.
pub(super) struct Probe {
    listener: TcpListener,
    pub(crate) trial: Trial,
}

impl Probe {
    /// Prepares a new probe; `folder` is for its program. With `download`, it is a fixed-output build,
    /// which has the network. It connects to the loopback of the namespace, or of this machine.
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

    /// Whether the build, which has ended, connected.
    pub(super) fn was_called(&self) -> bool {
        self.listener.accept().is_ok()
    }
}

pub(super) fn unique() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    format!("{}-{nanoseconds}", std::process::id())
}

/// This machine, to compare a report with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outside {
    /// Whether it has the folder that a build must not see.
    has_witness: bool,
    store: Identity,
    /// A user id.
    store_owner: u32,
}

impl Outside {
    /// # Errors
    /// When this machine has no store.
    pub(super) fn look() -> io::Result<Self> {
        Ok(Self {
            has_witness: Path::new("/").join(WITNESS).exists(),
            store: Identity::of(STORE_DIR.as_ref())?,
            store_owner: std::fs::metadata(STORE_DIR)?.uid(),
        })
    }
}

/// # Errors
/// When the output can't be read, or is no report.
pub(super) fn read(output: &Path) -> io::Result<Report> {
    Ok(serde_json::from_slice(&std::fs::read(output)?)?)
}

/// Judges the sandbox by a probe; `called` says whether it reached this machine's loopback. Only a probe
/// that was built proves anything: a build can fail for many reasons.
///
/// # Errors
/// [`NixError::NotSandboxed`] or [`NixError::SharedBuildUser`] with everything that the probe could do,
/// [`NixError::ProbeNotRun`], or Nix's own error.
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
            "Nix was told to use one, but a build saw this machine's /{WITNESS}"
        ));
    }
    if !outside.has_witness {
        return not_sandboxed(format!(
            "it cannot be proven: this machine has no /{WITNESS} that a build could see"
        ));
    }
    if !report.root.contains(STORE) {
        return not_sandboxed(format!(
            "it cannot be proven: a build saw no /{STORE}, but {:?}",
            report.root
        ));
    }
    let owns_store = report
        .user
        .is_none_or(|user| user == outside.store_owner || user == 0);
    let mut could = Vec::new();
    if report.store == Some(outside.store) {
        could.push(format!("write to this machine's {STORE_DIR}"));
    }
    if !owns_store && !report.inputs.is_empty() {
        could.push(format!("change its inputs ({})", list(&report.inputs)));
    }
    if !report.mounts.is_empty() {
        could.push(format!(
            "write to {}, to which Nix's sandbox-paths give access: remove that from sandbox-paths, deny \
             it to the build users, or mount it read-only for the builder (this does not help with \
             sockets and devices)",
            list(&report.mounts)
        ));
    }
    if called {
        could.push("connect to this machine's loopback".to_owned());
    }
    if !could.is_empty() {
        return not_sandboxed(format!("a build could {}", could.join("; it could ")));
    }
    if owns_store && !shared_user {
        return Err(NixError::SharedBuildUser {
            reason: match (report.user, report.inputs.as_slice()) {
                (Some(user), []) => format!("a build ran as user {user}"),
                (Some(user), inputs) => format!(
                    "a build ran as user {user} and could change {}",
                    list(inputs)
                ),
                (None, _) => "the user of a build is unknown".to_owned(),
            },
        });
    }
    Ok(())
}

/// Judges the network of downloads by a probe with the network: a weakness to report, if there is one.
/// With `enclosed`, `called` says that the probe reached a listener inside the enclosed network, which
/// proves that it is in there.
///
/// # Errors
/// [`NixError::NoEnclosure`] when they have to be enclosed and that is not proven, or Nix's own error.
pub(super) fn downloads(
    built: Result<(), NixError>,
    called: bool,
    enclosed: bool,
) -> Result<Option<String>, NixError> {
    let failed = match built {
        Ok(()) => None,
        Err(NixError::Process(ProcessError::Failed { stderr, .. })) => Some(summary(&stderr)),
        Err(error) => return Err(error),
    };
    match (enclosed, called, failed) {
        (false, true, _) => Ok(Some(DOWNLOADS_CALL.to_owned())),
        (false, false, None) | (true, true, None) => Ok(None),
        (false, false, Some(reason)) => Ok(Some(format!(
            "cannot tell whether packages' downloads (fixed-output builds) reach this machine's loopback: \
             the probe failed ({reason})"
        ))),
        (true, _, Some(reason)) => Err(NixError::NoEnclosure {
            reason: format!("the probe failed: {reason}"),
        }),
        (true, false, None) => Err(NixError::NoEnclosure {
            reason: "nix-daemon, which has its own network, built a download".to_owned(),
        }),
    }
}

fn list(paths: &[std::path::PathBuf]) -> String {
    let paths = paths.iter().map(|path| path.display().to_string());
    paths.collect::<Vec<_>>().join(" ")
}

/// Why a probe failed. If its program did not run, that says nothing about the sandbox.
fn failure(stderr: &str) -> NixError {
    let text = plain(stderr);
    for (words, remedy) in CANNOT_BUILD {
        let errors = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("error:"));
        if let Some(reason) = errors.map(str::trim).find(|line| line.contains(words)) {
            let reason = reason.to_owned();
            return NixError::CannotBuild { reason, remedy };
        }
    }
    let reason = summary(stderr);
    match ran(stderr) {
        true => NixError::NotSandboxed { reason },
        false => NixError::ProbeNotRun { reason },
    }
}

/// Whether a probe's program may have run. Nix exits with 1 when it can't make a sandbox; a loader that
/// does not find a library exits with another code.
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

/// The output of Nix and a failed build in one line: all errors, and the last lines, in which the program
/// says why it failed.
fn summary(stderr: &str) -> String {
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
