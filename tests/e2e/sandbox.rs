//! What builds see of the machine.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use anyhow::Result;
use nixgate_tests::live::process::Process;
use nixgate_tests::live::served_set::ServedSet;
use nixgate_tests::live::{install, scratch};

#[test]
fn a_build_that_looks_at_the_machine_sees_nothing_of_it() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let secrets = scratch::folder("secrets-")?;
    let secret = secrets.path().canonicalize()?.join("key");
    fs::write(&secret, "secret")?;
    let packages = format!(
        r#"nosy = package "nosy" ''
          seen=
          for path in {secret} /etc/shadow /etc/hostname /root /home /var /sys /nix/var /run; do
            test ! -e "$path" || seen="$seen $path"
          done
          # Of processes it sees those that it started.
          ls -d /proc/[0-9]* | grep -q -v -x "/proc/[1-9][0-9]\{{0,2\}}" && seen="$seen processes"
          bash -c "exec 3<>/dev/tcp/127.0.0.1/{port}" 2>/dev/null && seen="$seen loopback"
          test -z "$HOME$NIXGATE_TOKEN" -o "$HOME" = /homeless-shelter || seen="$seen variables"
          if test -n "$seen"; then echo "it sees$seen" >&2; exit 1; fi
          mkdir $out
        '';"#,
        secret = secret.display(),
        port = listener.local_addr()?.port(),
    );
    let served = ServedSet::start(&packages, |settings| settings)?;
    served.pulls("nosy")?;
    assert!(listener.accept().is_err(), "it called");
    Ok(())
}

/// What a builder logs that is started so, once `until` is in it.
fn log_of(mut command: Command, nix_options: &str, until: &str) -> Result<String> {
    let state = scratch::folder("builder-")?;
    command
        .env("NIXGATE_STATE_DIR", state.path().join("builder"))
        .env("NIXERY_PKGS_PATH", install::debian_set()?)
        .env("NIXGATE_NIX_OPTIONS", nix_options);
    let mut process = Process::start(&command, &state.path().join("log"))?;
    let waited = process.until(until, |process| process.log().contains(until).then_some(()));
    // It may end as it should before it was looked at.
    match process.log() {
        log if log.contains(until) => Ok(log),
        log => waited.map(|()| log),
    }
}

const SERVE: [&str; 5] = ["serve", "--port", "0", "--token", "t"];

/// A builder that may make no namespaces, as in many containers: in a namespace of its own, whose
/// owner has forbidden further ones. What `until` waits for is a part of its log.
fn without_namespaces(more: &[&str], until: &str) -> Result<String> {
    let script = "echo 0 > /proc/sys/user/max_user_namespaces || exit 99; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(install::builder()?)
        .args(SERVE)
        .args(more);
    log_of(command, &install::nix_options()?, until)
}

#[test]
fn a_builder_whose_builds_see_the_machine_does_not_start() -> Result<()> {
    let (paths, seen) = ("sandbox-paths=", "sandbox-paths=/sys ");
    let options = install::nix_options()?;
    assert!(options.contains(paths), "{options}");
    let mut command = Command::new(install::builder()?);
    command.args(SERVE);
    let refused = log_of(
        command,
        &options.replace(paths, seen),
        "can't build in a sandbox",
    )?;
    assert!(refused.contains("saw this machine's /sys"), "{refused}");
    assert!(!refused.contains("the builder is ready"), "{refused}");
    Ok(())
}

#[test]
fn without_a_sandbox_the_builder_does_not_start_unless_it_is_told_to() -> Result<()> {
    let refused = without_namespaces(&[], "can't build in a sandbox")?;
    assert!(refused.contains("--allow-unsandboxed"), "{refused}");
    assert!(!refused.contains("the builder is ready"), "{refused}");
    without_namespaces(&["--allow-unsandboxed"], "the builder is ready").map(drop)
}
