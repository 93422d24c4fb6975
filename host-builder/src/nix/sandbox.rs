//! Whether Nix builds in a sandbox: found out by building, once, before anything else is built.
//!
//! Settings alone prove nothing. The kernel may refuse namespaces, and a daemon of Nix takes this
//! setting from trusted users only, and ignores it from others without a word. `nix/sandbox.nix` has
//! the two derivations that tell.

use std::time::{SystemTime, UNIX_EPOCH};

use super::NixError;
use super::activity::plain;

/// What builds have to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// In a sandbox, or not at all.
    Required,
    /// In a sandbox where one can be had.
    Wanted,
}

impl Sandbox {
    /// Nix's settings that say so.
    pub(super) const fn options(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Required => [("sandbox", "true"), ("sandbox-fallback", "false")],
            Self::Wanted => [("sandbox", "true"), ("sandbox-fallback", "true")],
        }
    }
}

/// What names a probe that nobody has tried before.
pub(super) fn unique() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    format!("{}-{nanoseconds}", std::process::id())
}

/// What the two probes say. `builds` is the one that every Nix can build, `unsandboxed` the one that
/// only builds without a sandbox.
///
/// # Errors
/// [`NixError::NotSandboxed`], or the error by which Nix could not be asked.
pub(super) fn verdict(
    builds: Result<(), NixError>,
    unsandboxed: Result<(), NixError>,
) -> Result<(), NixError> {
    let reason = |reason: String| Err(NixError::NotSandboxed { reason });
    match (builds, unsandboxed) {
        (Err(NixError::Failed { stderr, .. }), _) => reason(errors(&stderr)),
        (Err(error), _) => Err(error),
        (Ok(()), Ok(())) => {
            reason("Nix was told to use one, and a build saw this machine's /sys".to_owned())
        }
        (Ok(()), Err(NixError::Failed { .. })) => Ok(()),
        (Ok(()), Err(error)) => Err(error),
    }
}

/// What Nix says that went wrong, in one line: the cause comes before the conclusion.
fn errors(stderr: &str) -> String {
    let text = plain(stderr);
    let errors: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("error:"))
        .map(str::trim)
        .collect();
    match errors.is_empty() {
        true => text.trim().to_owned(),
        false => errors.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_a_build_that_works_and_one_that_does_not_prove_a_sandbox() {
        let failed = || NixError::Failed {
            program: "nix-build",
            status: std::process::ExitStatus::from_raw(100 << 8),
            stderr:
                "this will be built:\n\u{1b}[31;1merror:\u{1b}[0m no namespaces\nerror: no build"
                    .to_owned(),
        };
        let missing = || NixError::Missing {
            program: "nix-build",
        };
        assert!(verdict(Ok(()), Err(failed())).is_ok());
        for (builds, unsandboxed, part) in [
            (Ok(()), Ok(()), "/sys"),
            (Err(failed()), Err(failed()), "(no namespaces; no build)"),
            (Err(missing()), Err(missing()), "install Nix"),
            (Ok(()), Err(missing()), "install Nix"),
        ] {
            let error = verdict(builds, unsandboxed).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let error = verdict(Ok(()), Ok(())).unwrap_err().to_string();
        assert!(error.contains("--allow-unsandboxed"), "{error}");
    }
}
