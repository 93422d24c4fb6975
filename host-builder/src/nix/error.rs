//! What can go wrong with Nix, told from what it prints.

use crate::process::ProcessError;

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
/// What Nix and its database print when a disk is full.
const NO_SPACE: [&str; 2] = ["No space left on device", "database or disk is full"];

/// What can go wrong with Nix.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NixError {
    /// The program isn't there.
    #[error("{program} is not on PATH: install Nix 2.8 or newer on the builder, or mend its PATH")]
    Missing {
        /// Which one.
        program: &'static str,
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
    /// One of its programs did not do what it was run for.
    #[error(transparent)]
    Process(ProcessError),
}

/// Tells apart what Nix says of its store, its home and its disk.
impl From<ProcessError> for NixError {
    fn from(error: ProcessError) -> Self {
        let (program, stderr) = match &error {
            ProcessError::Missing { program } => return Self::Missing { program },
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn a_store_that_is_away_or_somebody_else_s_is_told_from_a_failure() {
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
