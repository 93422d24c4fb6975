//! Which failure of what a build uses is which error.
//!
//! A client is shown what Nix printed in one case alone: when a package's build failed, by its
//! last lines. Everything else that Nix prints is about this machine, and goes to the log.

use std::path::Path;

use nixgate_core::distribution::{Error, ErrorKind};

use crate::closure::StorePath;
use crate::layer::{Altered, PackError};
use crate::nix::NixError;
use crate::process::ProcessError;
use crate::source::Pin;
use crate::storage::StorageError;
use crate::telemetry::logging::chain;

pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, format!("the builder failed: {error}"))
}

/// Characters of a file's name that a message has.
const FILE_SHOWN: usize = 200;

/// Why an image was not made.
#[derive(Debug)]
pub(super) enum Failure {
    /// Store paths are not what Nix made, which may be repaired.
    Altered(Vec<Altered>),
    /// What its caller is told.
    Told(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<PackError> for Failure {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Altered(altered) => Self::Altered(altered),
            // As what the package set refuses, and remembered like that.
            PackError::Unfit { path, file, reason } => Self::Told(Error::new(
                ErrorKind::Denied,
                format!(
                    "{} can't be in an image, tell its maintainers: its file {}: {reason}",
                    path.name(),
                    shown(&file)
                ),
            )),
            PackError::Read { .. } | PackError::Write(_) => {
                Self::Told(Error::new(ErrorKind::BuilderUnready, error.to_string()))
            }
        }
    }
}

/// A file's name as a message can have it: names may be as long as the kernel takes them, and hold what
/// moves a terminal's cursor.
fn shown(file: &Path) -> String {
    let text = file.to_string_lossy();
    let beginning: String = text.chars().take(FILE_SHOWN).collect();
    let more = match beginning.len() < text.len() {
        true => "…",
        false => "",
    };
    let plain = beginning.replace(char::is_control, "\u{fffd}");
    format!("{plain}{more}")
}

/// Packages are not what Nix made, and could not be repaired.
pub(super) fn altered<'a>(paths: impl Iterator<Item = &'a StorePath>) -> Error {
    let names: Vec<_> = paths.map(StorePath::name).collect();
    let message = format!(
        "{}: files in the builder's Nix store are not what was built, and could not be repaired, so \
         that the image is not served; the registry's administrator finds the paths, and what to do, \
         in the builder's log",
        names.join(", ")
    );
    Error::new(ErrorKind::PackageAltered, message)
}

pub(super) fn storage(error: StorageError) -> Error {
    Error::new(ErrorKind::BuilderUnready, error.to_string())
}

/// The state folder can't be written.
pub(super) fn state_folder(error: std::io::Error) -> Error {
    let message = format!("the state folder can't be written: {error}");
    Error::new(ErrorKind::BuilderUnready, message)
}

/// A question to Nix failed.
pub(super) fn question(error: NixError) -> Error {
    let kind = match &error {
        NixError::Missing { .. }
        | NixError::Process(ProcessError::Missing { .. })
        | NixError::Process(ProcessError::NotRun { .. })
        | NixError::NoStore { .. }
        | NixError::NoHome { .. }
        | NixError::NotSandboxed { .. }
        | NixError::ProbeNotRun { .. }
        | NixError::SharedBuildUser { .. }
        | NixError::NoEnclosure { .. }
        | NixError::TooWeak { .. } => ErrorKind::BuilderUnready,
        // A package may be the cause, or say so: it fills the disk, or ends by itself as if it were killed.
        NixError::NoSpace { .. } | NixError::Killed { .. } => ErrorKind::BuildBroken,
        NixError::Process(ProcessError::TimedOut { .. })
        | NixError::Process(ProcessError::OutOfMemory { .. })
        | NixError::Process(ProcessError::TooMuchOutput { .. })
        | NixError::Process(ProcessError::Failed { .. })
        | NixError::NotUnderstood { .. } => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}

/// Evaluating this package set failed in a way that Nix can't tie to one of the names.
pub(super) fn evaluation(error: NixError, set: &Pin) -> Error {
    let revision = &set.revision;
    let find = "leave one package out after the other to find which it is";
    let (kind, message) = match &error {
        NixError::Process(ProcessError::Failed { .. }) => (
            ErrorKind::BuildFailed,
            format!(
                "the package set {revision} can't be evaluated for these packages: {find}; the \
                 builder's log has Nix's reason"
            ),
        ),
        NixError::Process(ProcessError::TimedOut { seconds, .. }) => (
            ErrorKind::BuildTimedOut,
            format!(
                "evaluating the package set {revision} for these packages took longer than \
                 {seconds} s: {find}; if all are needed, the registry's administrator can raise \
                 NIXGATE_EVAL_TIMEOUT"
            ),
        ),
        NixError::Process(ProcessError::OutOfMemory { mib, .. }) => (
            ErrorKind::BuildFailed,
            format!(
                "evaluating the package set {revision} for these packages took more than {mib} MiB \
                 of memory: {find}; if all are needed, the registry's administrator can raise \
                 NIXGATE_EVAL_MEMORY"
            ),
        ),
        NixError::Process(ProcessError::TooMuchOutput { mib, .. }) => (
            ErrorKind::BuildFailed,
            format!(
                "what the package set {revision} says of these packages is longer than {mib} MiB: \
                 {find}, and tell the package set's maintainers"
            ),
        ),
        _ => return question(error),
    };
    tracing::warn!(
        %revision,
        error = chain(&error),
        "the package set can't be evaluated"
    );
    Error::new(kind, message)
}

/// Building failed: Nix's exit status says how.
pub(super) fn realisation(error: NixError) -> Error {
    /// Bit 0 of nix-store's status, over a base of 100: a derivation took too long.
    const TIMED_OUT: i32 = 101;
    match &error {
        NixError::Process(ProcessError::Failed { status, .. })
            if status.code() == Some(TIMED_OUT) =>
        {
            timed_out(&error)
        }
        NixError::Process(ProcessError::TimedOut { .. }) => timed_out(&error),
        // Somebody or something killed it, which the memory that a package takes may be the reason for.
        NixError::Process(ProcessError::Failed { status, .. }) if status.code().is_none() => {
            Error::new(ErrorKind::BuildBroken, error.to_string())
        }
        NixError::Process(ProcessError::Failed { .. }) => {
            Error::new(ErrorKind::BuildFailed, error.to_string())
        }
        _ => question(error),
    }
}

fn timed_out(error: &NixError) -> Error {
    tracing::warn!(error = chain(error), "a package took too long to build");
    Error::new(
        ErrorKind::BuildTimedOut,
        "a package took longer to build than NIX_TIMEOUT allows; the builder's log says which",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Unfit;

    /// Instead of a code: it was killed by this signal.
    const KILLED: i32 = 9;

    fn failed(code: i32) -> NixError {
        use std::os::unix::process::ExitStatusExt;
        NixError::Process(ProcessError::Failed {
            program: "nix",
            // A signal's number is below the exit code.
            status: std::process::ExitStatus::from_raw(match code {
                KILLED => KILLED,
                code => code << 8,
            }),
            stderr: "the last lines".to_owned(),
        })
    }

    fn set() -> Pin {
        Pin {
            path: "/".into(),
            revision: "of-monday".to_owned(),
        }
    }

    #[test]
    fn what_took_too_much_says_of_what_and_what_to_do() {
        let (program, stderr) = ("nix-instantiate", "the last lines".to_owned());
        let late = NixError::Process(ProcessError::TimedOut {
            program,
            seconds: 60,
            stderr: stderr.clone(),
        });
        let greedy = NixError::Process(ProcessError::OutOfMemory {
            program,
            mib: 4096,
            stderr,
        });
        let wordy = NixError::Process(ProcessError::TooMuchOutput { program, mib: 64 });
        for (error, kind, parts) in [
            (
                late,
                ErrorKind::BuildTimedOut,
                ["60 s", "NIXGATE_EVAL_TIMEOUT"],
            ),
            (
                greedy,
                ErrorKind::BuildFailed,
                ["4096 MiB", "NIXGATE_EVAL_MEMORY"],
            ),
            (wordy, ErrorKind::BuildFailed, ["64 MiB", "maintainers"]),
        ] {
            let error = evaluation(error, &set());
            assert_eq!(error.kind, kind, "{error}");
            for part in parts.into_iter().chain(["of-monday"]) {
                assert!(error.message.contains(part), "{part}: {error}");
            }
            assert!(!error.message.contains("the last lines"), "{error}");
        }
    }

    #[test]
    fn each_failure_of_nix_is_an_error_of_its_own() {
        let missing = || NixError::Missing { program: "nix" };
        let no_store = || NixError::NoStore {
            stderr: "the last lines".to_owned(),
        };
        let full = || NixError::NoSpace {
            program: "nix",
            stderr: "the last lines".to_owned(),
        };
        let killed = NixError::Killed {
            stderr: "the last lines".to_owned(),
        };
        for (error, kind) in [
            (realisation(full()), ErrorKind::BuildBroken),
            (realisation(killed), ErrorKind::BuildBroken),
            (evaluation(full(), &set()), ErrorKind::BuildBroken),
            (realisation(failed(100)), ErrorKind::BuildFailed),
            (realisation(failed(1)), ErrorKind::BuildFailed),
            (realisation(failed(101)), ErrorKind::BuildTimedOut),
            (realisation(failed(KILLED)), ErrorKind::BuildBroken),
            (realisation(missing()), ErrorKind::BuilderUnready),
            (realisation(no_store()), ErrorKind::BuilderUnready),
            (evaluation(failed(1), &set()), ErrorKind::BuildFailed),
            (evaluation(no_store(), &set()), ErrorKind::BuilderUnready),
            (question(failed(1)), ErrorKind::Internal),
            (question(no_store()), ErrorKind::BuilderUnready),
        ] {
            assert_eq!(error.kind, kind, "{error}");
        }
    }

    #[test]
    fn only_a_failed_build_tells_what_nix_printed() {
        let shown = |error: Error| error.message.contains("the last lines");
        assert!(shown(realisation(failed(100))));
        assert!(!shown(realisation(failed(101))));
        assert!(!shown(evaluation(failed(1), &set())));
    }

    #[test]
    fn what_can_not_be_packed_is_the_package_s_fault_or_the_machine_s() {
        let path: StorePath = format!("/nix/store/{}-git-2", "0".repeat(32))
            .parse()
            .unwrap();
        let told = |error: PackError| match Failure::from(error) {
            Failure::Told(error) => error,
            Failure::Altered(altered) => panic!("{altered:?}"),
        };
        let unfit = told(PackError::Unfit {
            path: path.clone(),
            file: "share/.wh.x".into(),
            reason: Unfit::ReservedName,
        });
        assert!(unfit.kind == ErrorKind::Denied && unfit.kind.lasts());
        for part in ["git-2", "share/.wh.x", "names that begin with .wh."] {
            assert!(unfit.message.contains(part), "{part}: {unfit}");
        }
        let long = "x".repeat(4000);
        assert!(shown(Path::new(&long)).len() < 300);
        assert_eq!(shown(Path::new("a\u{1b}b")), "a\u{fffd}b");
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        for error in [
            PackError::Write(full()),
            PackError::Read {
                path: "/srv".into(),
                source: full(),
            },
        ] {
            assert_eq!(told(error).kind, ErrorKind::BuilderUnready);
        }
        let altered = altered([&path].into_iter());
        assert!(altered.kind.is_transient() && !altered.kind.lasts());
        assert!(altered.message.starts_with("git-2: "), "{altered}");
        assert!(!altered.message.contains("/nix/store"), "{altered}");
    }
}
