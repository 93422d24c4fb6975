//! Errors of Nix, recognised by what it prints.

use super::caches::CacheTrouble;
use crate::process::ProcessError;

/// Every version of Nix begins a line like this when no daemon listens on its socket, or the daemon
/// refuses the user. A build's log, which could say anything, has `>` before its lines.
const NO_DAEMON: [&str; 2] = [
    "error: cannot connect to socket",
    "error: cannot open connection to remote store",
];
/// What Nix writes to when it works without a daemon.
const STORE: [&str; 2] = ["'/nix/var/", "'/nix/store/.links'"];
/// The system's messages when another user owns that.
const NOT_OURS: [&str; 3] = [
    "Permission denied",
    "Operation not permitted",
    "Read-only file system",
];
/// What Nix and its database print when a disk is full.
const NO_SPACE: [&str; 2] = ["No space left on device", "database or disk is full"];

/// A question to Nix that has no answer. `stderr` is the end of what it printed there.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NixError {
    #[error(
        "cannot run {program}: it is not on PATH. Install Nix 2.8 or newer on the builder, or correct \
         the builder's PATH"
    )]
    Missing { program: &'static str },
    /// No daemon answers, or another user owns the store.
    #[error(
        "Nix cannot reach its store. Start nix-daemon and allow the builder's user (allowed-users in \
         nix.conf), or correct NIX_REMOTE; without a daemon, only root or the owner of /nix can use \
         the store. Nix says: {stderr}"
    )]
    NoStore { stderr: String },
    /// This machine has no Nix store. Nix may have made one elsewhere, for this user alone.
    #[error(
        "this machine has no Nix store ({reason}). Install Nix as root, which makes /nix; in a container, \
         mount the /nix of the machine or of the container that runs nix-daemon"
    )]
    NoStoreFolder { reason: String },
    #[error("a disk of the builder is full: free space there. {program} says: {stderr}")]
    NoSpace {
        program: &'static str,
        stderr: String,
    },
    #[error(
        "a signal from outside ended a build: the machine may be short of memory. Nix says: {stderr}"
    )]
    Killed { stderr: String },
    /// The last of the troubles that caches had.
    #[error(
        "{0}. Restore that cache, or remove it from the substituters; the next request tries again"
    )]
    Cache(CacheTrouble),
    /// With the names of the store paths.
    #[error(
        "no binary cache has {}, or all that they need, and NIXGATE_ONLY_FROM_CACHES forbids to build. \
         Push them to a cache, with their dependencies",
        names.join(", ")
    )]
    NotInCaches { names: Vec<String> },
    #[error(
        "Nix has no home folder for the builder's user: set HOME to a folder that this user can \
         write. Nix says: {stderr}"
    )]
    NoHome { stderr: String },
    /// Nix builds nothing at all, in a sandbox or without one.
    #[error("Nix cannot build here ({reason}). {remedy}")]
    CannotBuild {
        reason: String,
        remedy: &'static str,
    },
    #[error(
        "Nix cannot build in a sandbox here ({reason}). Allow the builder to create namespaces, in a \
         container also with an unmasked /proc; or run nix-daemon with sandbox = true in its nix.conf, since it takes that setting only from \
         trusted-users; or pass --allow-unsandboxed (NIXGATE_ALLOW_UNSANDBOXED), with which builds see \
         this machine"
    )]
    NotSandboxed { reason: String },
    #[error(
        "cannot tell whether Nix builds in a sandbox here: the probe, a copy of nixgate with its \
         libraries, did not run in a build ({reason}). Correct that; if a library is missing, install \
         the nixgate that was built for this system (ldd lists what it needs)"
    )]
    ProbeNotRun { reason: String },
    /// Builds run as a user who may write to the store.
    #[error(
        "builds run as a user who can change the outputs of other builds ({reason}). Run nix-daemon as \
         root with build users; or the builder as root with a group nixbld that has members; or pass \
         --allow-shared-build-user (NIXGATE_ALLOW_SHARED_BUILD_USER) and build only packages that you \
         trust"
    )]
    SharedBuildUser { reason: String },
    /// This Nix has known vulnerabilities, or another weakness; `reason` says what to do.
    #[error("NIXGATE_STRICT refuses this: {reason}")]
    TooWeak { reason: String },
    #[error(
        "NIXGATE_PROXY_ONLY cannot be enforced: builds have more network than NIXGATE_PROXY ({reason}). \
         Run the builder as root or with CAP_SYS_ADMIN, and without nix-daemon"
    )]
    NoEnclosure { reason: String },
    #[error(
        "nixgate does not understand the output of {program}: {reason}. Report this, with the version \
         of Nix"
    )]
    NotUnderstood {
        program: &'static str,
        reason: String,
    },
    #[error(
        "the archive of the package set is empty. Check that its server sends it to whoever has nothing \
         yet"
    )]
    EmptyArchive,
    /// An overlay can't be fetched, or lacks its file.
    #[error(
        "cannot use the overlay {overlay}: {reason}. Correct NIXGATE_NIXPKGS_CONFIG, or what it names"
    )]
    Overlay {
        /// Without credentials.
        overlay: String,
        /// For clients too, if it lasts.
        reason: String,
        /// Whether it stays so until somebody acts.
        lasts: bool,
    },
    #[error(transparent)]
    Process(ProcessError),
}

impl From<ProcessError> for NixError {
    fn from(error: ProcessError) -> Self {
        let (program, stderr) = match &error {
            ProcessError::Missing { program } if program.starts_with("nix") => {
                return Self::Missing { program };
            }
            ProcessError::Failed {
                program, stderr, ..
            }
            | ProcessError::OutOfMemory {
                program, stderr, ..
            } => (*program, stderr.clone()),
            _ => return Self::Process(error),
        };
        if has_no_home(&stderr) {
            Self::NoHome { stderr }
        } else if has_no_store(&stderr) {
            Self::NoStore { stderr }
        } else if has_no_space(&stderr) {
            Self::NoSpace { program, stderr }
        } else {
            Self::Process(error)
        }
    }
}

fn lines(stderr: &str) -> impl Iterator<Item = &str> {
    stderr.lines().map(str::trim_start)
}

fn has_any(line: &str, words: &[&str]) -> bool {
    words.iter().any(|words| line.contains(words))
}

fn has_no_store(stderr: &str) -> bool {
    lines(stderr).any(|line| {
        NO_DAEMON.iter().any(|begin| line.starts_with(begin))
            || (line.starts_with("error: ") && has_any(line, &STORE) && has_any(line, &NOT_OURS))
    })
}

/// Lines of a build's log, which could say anything, begin with `>`.
fn has_no_space(stderr: &str) -> bool {
    lines(stderr).any(|line| !line.starts_with('>') && has_any(line, &NO_SPACE))
}

/// Nix caches downloads in the home folder, which may be missing or read-only.
fn has_no_home(stderr: &str) -> bool {
    stderr.contains("cannot determine user's home directory")
        || lines(stderr).any(|line| {
            line.starts_with("error: creating directory")
                && line.contains("/.cache")
                && has_any(line, &NOT_OURS)
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn an_unreachable_store_differs_from_a_failed_program() {
        let fails = |said: &str| {
            NixError::from(ProcessError::Failed {
                program: "nix-store",
                status: ExitStatus::from_raw(1 << 8),
                stderr: said.to_owned(),
            })
        };
        for said in [
            // As every Nix from 2.8 on prints it.
            "error: cannot connect to socket at '/s': No such file",
            "error: cannot open connection to remote store 'daemon': error: writing to file: Broken pipe",
            "error: could not set permissions on '/nix/var/nix/profiles/per-user' to 755: Operation not \
             permitted",
            "error: creating directory '/nix/store/.links': Permission denied",
        ] {
            let error = fails(said);
            assert!(matches!(error, NixError::NoStore { .. }), "{error}");
        }
        for said in [
            "error:\u{1b}[0m cannot determine user's home directory",
            "error: creating directory '//.cache': Permission denied",
        ] {
            let error = fails(said);
            assert!(matches!(error, NixError::NoHome { .. }), "{error}");
        }
        for said in [
            "> error: cannot connect to socket",
            "error: opening file '/nix/store/x': Permission denied",
            "error: builder for 'x' failed\n  > cp: error writing x: No space left on device",
        ] {
            let error = fails(said);
            assert!(
                matches!(error, NixError::Process(ProcessError::Failed { .. })),
                "{error}"
            );
        }
        for said in [
            "error: creating directory '/.cache': No space left on device",
            "error: executing SQLite query: database or disk is full",
        ] {
            let error = fails(said);
            assert!(matches!(error, NixError::NoSpace { .. }), "{error}");
        }
    }
}
