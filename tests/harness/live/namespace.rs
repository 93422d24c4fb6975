//! Programs that see other files than the machine has, where a path can't be chosen: `/nix` and
//! `/etc/passwd`.
//!
//! ```text
//!   a server ── in a mount namespace of its own: `mount --bind` of the test's files over these
//!      ▲
//!      └── others enter it, as whom they like
//! ```
//!
//! The namespace ends with its last program, and the machine never sees its mounts.

use std::path::Path;
use std::process::Command;

/// Wraps a command: it runs in a mount namespace of its own, in which each folder or file is seen in
/// the place of another.
pub fn with_mounts(mounts: &[(&Path, &Path)], command: &Command) -> Command {
    // Each takes two arguments; the rest is the command.
    let script = "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit; shift 2; done; \
                  shift; exec \"$@\"";
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "sh", "-c", script, "sh"]);
    for (seen, place) in mounts {
        wrapped.arg(seen).arg(place);
    }
    wrapped.arg("--");
    append(&mut wrapped, command);
    wrapped
}

/// Wraps a command: it runs in the mount namespace of another process, as this user, who is in no
/// group but their own, whose number is the same.
pub fn within(process: u32, user: u32, command: &Command) -> Command {
    let mut wrapped = Command::new("nsenter");
    wrapped.args(["--mount", "--target", &process.to_string(), "--"]);
    let user = user.to_string();
    wrapped.args([
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
    ]);
    // The kernel forgets it when the user changes.
    wrapped.args(["--pdeathsig", "TERM", "--"]);
    append(&mut wrapped, command);
    wrapped
}

fn append(wrapped: &mut Command, command: &Command) {
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
}
