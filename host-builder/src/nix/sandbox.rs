//! Whether Nix builds in a sandbox: found out by building, once, before anything else is built.
//!
//! Settings alone prove nothing. The kernel may refuse namespaces, and a daemon of Nix takes this
//! setting from trusted users only, and ignores it from others without a word. `nix/sandbox.nix` is
//! the derivation that tells.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::io;
use std::path::Path;
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

/// What a build must not see, of all that is in the root folder: every machine has it, and no sandbox
/// unless it is told to (`sandbox-paths`).
const WITNESS: &str = "sys";
/// What every build sees there.
const STORE: &str = "nix";

/// Whether there is on this machine what a build must not see.
pub(super) fn has_witness() -> bool {
    Path::new("/").join(WITNESS).exists()
}

/// What the probe saw of the root folder: that is what is in its output.
pub(super) fn seen(output: &Path) -> io::Result<BTreeSet<String>> {
    let entries = output.read_dir()?;
    let name = |entry: io::Result<DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect()
}

/// Whether builds are sandboxed, by what the probe saw of the root folder. Only a build that worked
/// and didn't see what is there proves it: one may fail for many a reason.
///
/// # Errors
/// [`NixError::NotSandboxed`], or the error by which Nix could not be asked.
pub(super) fn verdict(
    seen: Result<BTreeSet<String>, NixError>,
    has_witness: bool,
) -> Result<(), NixError> {
    let reason = |reason: String| Err(NixError::NotSandboxed { reason });
    match seen {
        Err(NixError::Failed { stderr, .. }) => reason(errors(&stderr)),
        Err(error) => Err(error),
        Ok(seen) if seen.contains(WITNESS) => reason(format!(
            "Nix was told to use one, and a build saw this machine's /{WITNESS}"
        )),
        Ok(_) if !has_witness => reason(format!(
            "whether it does can't be told: this machine has no /{WITNESS} that a build could see"
        )),
        Ok(seen) if !seen.contains(STORE) => reason(format!(
            "whether it does can't be told: a build saw no /{STORE}, but {seen:?}"
        )),
        Ok(_) => Ok(()),
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
    fn only_a_build_that_works_and_does_not_see_the_machine_proves_a_sandbox() {
        let failed = |stderr: &str| {
            Err(NixError::Failed {
                program: "nix-build",
                status: std::process::ExitStatus::from_raw(100 << 8),
                stderr: stderr.to_owned(),
            })
        };
        let no_namespaces =
            "this will be built:\n\u{1b}[31;1merror:\u{1b}[0m no namespaces\nerror: no build";
        let missing = Err(NixError::Missing {
            program: "nix-build",
        });
        let saw = |names: &str| Ok(names.split(' ').map(str::to_owned).collect());
        let inside = "build dev etc manifest.nix nix proc tmp";
        assert!(verdict(saw(inside), true).is_ok());
        for (seen, has_witness, part) in [
            (saw("dev etc home nix proc sys tmp"), true, "machine's /sys"),
            (saw("nix sys"), false, "machine's /sys"),
            (saw(inside), false, "this machine has no /sys"),
            (saw("dev etc"), true, "{\"dev\", \"etc\"}"),
            (failed(no_namespaces), true, "(no namespaces; no build)"),
            (failed("error: disk full"), true, "(disk full)"),
            (missing, true, "install Nix"),
        ] {
            let error = verdict(seen, has_witness).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = verdict(saw("sys"), true).unwrap_err().to_string();
        assert!(error.contains("--allow-unsandboxed"), "{error}");
    }

    #[test]
    fn what_a_probe_saw_is_what_is_in_its_output() {
        let output = tempfile::tempdir().unwrap();
        for name in ["nix", "sys"] {
            // Where there is a sandbox, most of them lead nowhere outside.
            std::os::unix::fs::symlink("/nonexistent", output.path().join(name)).unwrap();
        }
        let names = ["nix", "sys"].map(str::to_owned);
        assert_eq!(seen(output.path()).unwrap(), BTreeSet::from(names));
        assert!(seen(Path::new("/nonexistent")).is_err());
    }
}
