//! Errors of Nix, packing and storage as errors for clients.
//!
//! A client sees output of Nix only when a package's build fails: its last lines. Other output is about
//! this machine, and goes to the log.

use std::path::Path;

use nixgate_core::distribution::{Error, ErrorKind};

use crate::closure::StorePath;
use crate::layer::{Altered, PackError};
use crate::nix::NixError;
use crate::process::ProcessError;
use crate::source::Pin;
use crate::telemetry::logging::chain;

/// Characters of a file's name in a message.
const MAX_NAME: usize = 200;

/// Why an image was not made.
#[derive(Debug)]
pub(super) enum Failure {
    /// Store paths were altered; Nix may be able to repair them.
    Altered(Vec<Altered>),
    /// The error for the client.
    Client(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Client(error.into())
    }
}

impl From<PackError> for Failure {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Altered(altered) => Self::Altered(altered),
            // Lasts, like a package that the package set refuses.
            PackError::Unfit { path, file, reason } => {
                let (package, file) = (path.name(), printable(&file));
                let message = format!(
                    "{package} cannot be in an image because of its file {file}: {reason}. Tell the \
                     package's maintainers"
                );
                Self::Client(Error::new(ErrorKind::Denied, message))
            }
            PackError::Read { .. } | PackError::Write(_) => {
                Self::Client(Error::new(ErrorKind::BuilderUnready, error.to_string()))
            }
        }
    }
}

/// A file's name for a message: bounded, and without control characters.
fn printable(file: &Path) -> String {
    let text = file.to_string_lossy();
    let beginning: String = text.chars().take(MAX_NAME).collect();
    let more = match beginning.len() < text.len() {
        true => "…",
        false => "",
    };
    let plain = beginning.replace(char::is_control, "\u{fffd}");
    format!("{plain}{more}")
}

pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, format!("the builder failed: {error}"))
}

/// For store paths that were altered and could not be repaired.
pub(super) fn altered<'a>(paths: impl Iterator<Item = &'a StorePath>) -> Error {
    let names: Vec<_> = paths.map(StorePath::name).collect();
    let message = format!(
        "{}: files in the builder's Nix store were altered and could not be repaired, so no image is made \
         of them. Tell the registry's administrator: the builder's log has the paths and what to do",
        names.join(", ")
    );
    Error::new(ErrorKind::PackageAltered, message)
}

pub(super) fn state_folder(error: std::io::Error) -> Error {
    let message = format!("cannot write the state folder: {error}. Check NIXGATE_STATE_DIR");
    Error::new(ErrorKind::BuilderUnready, message)
}

/// For a query that failed.
pub(super) fn query(error: NixError) -> Error {
    let kind = match &error {
        NixError::Missing { .. }
        | NixError::Process(ProcessError::Missing { .. } | ProcessError::NotRun { .. })
        | NixError::NoStore { .. }
        | NixError::NoStoreFolder { .. }
        | NixError::NoHome { .. }
        | NixError::CannotBuild { .. }
        | NixError::NotSandboxed { .. }
        | NixError::ProbeNotRun { .. }
        | NixError::SharedBuildUser { .. }
        | NixError::NoEnclosure { .. }
        | NixError::EmptyArchive
        | NixError::Overlay { .. }
        | NixError::TooWeak { .. } => ErrorKind::BuilderUnready,
        // The cache's fault, and never remembered as the package's. Its URL is for the administrator.
        NixError::Cache(trouble) => {
            tracing::warn!(error = chain(&error), "a package was not made");
            let message = format!(
                "a binary cache failed ({}), so a package could not be fetched. Try again later; if it \
                 stays so, tell the registry's administrator: the builder's log names the cache",
                trouble.kind.label()
            );
            return Error::new(ErrorKind::CacheFailed, message);
        }
        // Lasts, like a package that the package set refuses.
        NixError::NotInCaches { .. } => ErrorKind::Denied,
        // A package may be the cause: it can fill the disk, or end as if something killed it.
        NixError::NoSpace { .. } | NixError::Killed { .. } => ErrorKind::BuildBroken,
        NixError::Process(
            ProcessError::TimedOut { .. }
            | ProcessError::OutOfMemory { .. }
            | ProcessError::TooMuchOutput { .. }
            | ProcessError::Failed { .. },
        )
        | NixError::NotUnderstood { .. } => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}

/// For an evaluation that failed without naming the package at fault.
pub(super) fn evaluation(error: NixError, set: &Pin) -> Error {
    let NixError::Process(process_error) = &error else {
        return query(error);
    };
    let (kind, problem, step) = match process_error {
        ProcessError::Failed { .. } => (
            ErrorKind::BuildFailed,
            "failed".to_owned(),
            "The builder's log has the reason",
        ),
        ProcessError::TimedOut { seconds, .. } => (
            ErrorKind::BuildTimedOut,
            format!("took longer than {seconds} s"),
            "If you need all, ask the registry's administrator to raise NIXGATE_EVAL_TIMEOUT",
        ),
        ProcessError::OutOfMemory { mib, .. } => (
            ErrorKind::BuildFailed,
            format!("took more than {mib} MiB of memory"),
            "If you need all, ask the registry's administrator to raise NIXGATE_EVAL_MEMORY",
        ),
        ProcessError::TooMuchOutput { mib, .. } => (
            ErrorKind::BuildFailed,
            format!("printed more than {mib} MiB"),
            "Tell the package set's maintainers",
        ),
        ProcessError::Missing { .. } | ProcessError::NotRun { .. } => return query(error),
    };
    let revision = &set.revision;
    tracing::warn!(%revision, error = chain(&error), "cannot evaluate the package set");
    let message = format!(
        "evaluating the package set {revision} for these packages {problem}. Leave out one package after \
         the other to find the one at fault. {step}"
    );
    Error::new(kind, message)
}

/// For a build that failed.
pub(super) fn realisation(error: NixError) -> Error {
    /// nix-store's exit status is 100 plus bits: bit 0 says that a derivation took too long.
    const TIMED_OUT: i32 = 101;
    let kind = match &error {
        NixError::Process(ProcessError::TimedOut { .. }) => ErrorKind::BuildTimedOut,
        NixError::Process(ProcessError::Failed { status, .. }) => match status.code() {
            Some(TIMED_OUT) => ErrorKind::BuildTimedOut,
            Some(_) => ErrorKind::BuildFailed,
            // A signal ended Nix, perhaps since a package took too much memory.
            None => ErrorKind::BuildBroken,
        },
        _ => return query(error),
    };
    if kind == ErrorKind::BuildTimedOut {
        tracing::warn!(error = chain(&error), "a package took too long to build");
        let message =
            "a package took longer to build than NIX_TIMEOUT allows. The builder's log names it";
        return Error::new(kind, message);
    }
    Error::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Unfit;

    /// A signal, in place of an exit code.
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
    fn an_exceeded_limit_names_the_limit_and_the_next_step() {
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
            (query(failed(1)), ErrorKind::Internal),
            (query(no_store()), ErrorKind::BuilderUnready),
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
    fn a_failure_to_pack_is_the_package_s_or_the_machine_s() {
        let path: StorePath = format!("/nix/store/{}-git-2", "0".repeat(32))
            .parse()
            .unwrap();
        let told = |error: PackError| match Failure::from(error) {
            Failure::Client(error) => error,
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
        assert!(printable(Path::new(&long)).len() < 300);
        assert_eq!(printable(Path::new("a\u{1b}b")), "a\u{fffd}b");
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
