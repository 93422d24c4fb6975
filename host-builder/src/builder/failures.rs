//! Which failure of what a build uses is which error.
//!
//! A client is shown what Nix printed in one case alone: when a package's build failed, by its
//! last lines. Everything else that Nix prints is about this machine, and goes to the log.

use nixgate_core::distribution::{Error, ErrorKind};

use crate::nix::NixError;
use crate::storage::StorageError;

pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, format!("the builder failed: {error}"))
}

pub(super) fn storage(error: StorageError) -> Error {
    Error::new(ErrorKind::BuilderUnready, error.to_string())
}

/// A question to Nix failed.
pub(super) fn question(error: NixError) -> Error {
    let kind = match &error {
        NixError::Missing { .. } | NixError::NotRun { .. } | NixError::NoStore { .. } => {
            ErrorKind::BuilderUnready
        }
        NixError::TimedOut { .. } | NixError::Failed { .. } | NixError::NotUnderstood { .. } => {
            ErrorKind::Internal
        }
    };
    Error::new(kind, error.to_string())
}

/// Evaluating failed in a way that Nix can't tie to one of the names.
pub(super) fn evaluation(error: NixError) -> Error {
    let (kind, message) = match &error {
        NixError::Failed { .. } => (
            ErrorKind::BuildFailed,
            "the package set can't be evaluated for these packages: leave one out after the other \
             to find which it is; the builder's log has Nix's reason",
        ),
        NixError::TimedOut { .. } => (
            ErrorKind::BuildTimedOut,
            "evaluating the package set for these packages took too long; the builder's log has \
             what Nix printed",
        ),
        _ => return question(error),
    };
    tracing::warn!("{error}");
    Error::new(kind, message)
}

/// Building failed: Nix's exit status says how.
pub(super) fn realisation(error: NixError) -> Error {
    /// Bit 0 of nix-store's status, over a base of 100: a derivation took too long.
    const TIMED_OUT: i32 = 101;
    match &error {
        NixError::Failed { status, .. } if status.code() == Some(TIMED_OUT) => timed_out(&error),
        NixError::TimedOut { .. } => timed_out(&error),
        NixError::Failed { .. } => Error::new(ErrorKind::BuildFailed, error.to_string()),
        _ => question(error),
    }
}

fn timed_out(error: &NixError) -> Error {
    tracing::warn!("{error}");
    Error::new(
        ErrorKind::BuildTimedOut,
        "a package took longer to build than NIX_TIMEOUT allows; the builder's log says which",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: i32) -> NixError {
        use std::os::unix::process::ExitStatusExt;
        NixError::Failed {
            program: "nix",
            status: std::process::ExitStatus::from_raw(code << 8),
            stderr: "the last lines".to_owned(),
        }
    }

    #[test]
    fn each_failure_of_nix_is_an_error_of_its_own() {
        let missing = || NixError::Missing { program: "nix" };
        let no_store = || NixError::NoStore {
            stderr: "the last lines".to_owned(),
        };
        for (error, kind) in [
            (realisation(failed(100)), ErrorKind::BuildFailed),
            (realisation(failed(1)), ErrorKind::BuildFailed),
            (realisation(failed(101)), ErrorKind::BuildTimedOut),
            (realisation(missing()), ErrorKind::BuilderUnready),
            (realisation(no_store()), ErrorKind::BuilderUnready),
            (evaluation(failed(1)), ErrorKind::BuildFailed),
            (evaluation(no_store()), ErrorKind::BuilderUnready),
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
        assert!(!shown(evaluation(failed(1))));
    }
}
