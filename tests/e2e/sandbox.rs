//! What builds see of the machine.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::live::process::{Process, run};
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
    // It has no users but itself.
    log_of(command, &as_root()?, until)
}

/// A builder with these options of Nix, in a mount namespace that a script prepares; see [`log_of`].
fn with_options(script: &str, nix_options: &str, more: &[&str], until: &str) -> Result<String> {
    let mut command = Command::new("unshare");
    let script = format!("{script} exec \"$@\"");
    command.args(["--mount", "sh", "-euc", &script, "sh"]);
    command.arg(install::builder()?).args(SERVE).args(more);
    log_of(command, nix_options, until)
}

/// The usual options, with another folder that builds see.
fn with_folder(folder: &str) -> Result<String> {
    let options = install::nix_options()?;
    let paths = "sandbox-paths=";
    assert!(options.contains(paths), "{options}");
    Ok(options.replace(paths, &format!("{paths}{folder} ")))
}

/// The usual ones, and root builds.
fn as_root() -> Result<String> {
    Ok(format!("build-users-group=;{}", install::nix_options()?))
}

const READY: &str = "the builder is ready";

#[test]
fn a_builder_whose_builds_see_the_machine_does_not_start() -> Result<()> {
    let refused = with_options("", &with_folder("/sys")?, &[], "cannot build in a sandbox")?;
    assert!(refused.contains("saw this machine's /sys"), "{refused}");
    assert!(!refused.contains(READY), "{refused}");
    Ok(())
}

#[test]
fn a_builder_whose_builds_can_write_to_what_they_are_shown_does_not_start() -> Result<()> {
    let folder = scratch::folder("writable-")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let path = folder.path().to_str().context("a path that is text")?;
    let options = with_folder(path)?;
    let refused = with_options("", &options, &[], "cannot build in a sandbox")?;
    for words in [&format!("write to {path},"), "--allow-unsandboxed"] {
        assert!(refused.contains(words), "no {words:?} in\n{refused}");
    }
    assert!(!refused.contains(READY), "{refused}");
    assert_eq!(folder.path().read_dir()?.count(), 0, "it left something");
    with_options("", &options, &["--allow-unsandboxed"], READY)?;
    // Mounted read-only for the builder, it is so for builds.
    let script = format!("mount --bind {path} {path}; mount -o remount,bind,ro {path};");
    with_options(&script, &options, &[], READY).map(drop)
}

#[test]
fn where_root_builds_the_builder_does_not_start_unless_it_is_told_to() -> Result<()> {
    let script = format!(
        "for folder in /usr /bin /lib /lib64; do \
           test -L $folder || ! test -e $folder || set -- {read_only} $folder -- \"$@\"; \
         done;",
        read_only = install::root().join("scripts/read-only.sh").display()
    );
    let flag = "--allow-shared-build-user";
    let refused = with_options(&script, &as_root()?, &[], flag)?;
    for words in ["user 0", "could change /nix/store/", "group nixbld"] {
        assert!(refused.contains(words), "no {words:?} in\n{refused}");
    }
    assert!(!refused.contains(READY), "{refused}");
    with_options(&script, &as_root()?, &[flag], READY)?;
    // That packages can change each other is given up by this, and not the machine.
    let refused = with_options("", &as_root()?, &[flag], "cannot build in a sandbox")?;
    assert!(
        refused.contains("write to ") && refused.contains("/usr"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn what_nix_lacks_to_build_is_told_with_the_remedy() -> Result<()> {
    const SAW: &str = "cannot build in a sandbox";
    let options = install::nix_options()?;
    let folder = scratch::folder("group-")?;
    let group = folder.path().join("group");
    // The group of the build users without its members, and without itself.
    for (edit, reason) in [
        ("s/^nixbld:.*/nixbld:x:995:/", "has no members"),
        ("/^nixbld:/d", "does not exist"),
    ] {
        let script = format!(
            "sed '{edit}' /etc/group > {group}; mount --bind {group} /etc/group;",
            group = group.display()
        );
        let told = with_options(&script, &options, &[], "Make the group and its users")?;
        for words in ["Nix cannot build here", reason, "build-users-group"] {
            assert!(told.contains(words), "no {words:?} in\n{told}");
        }
        assert!(!told.contains(SAW) && !told.contains(READY), "{told}");
    }
    let script = "mount --bind /nix /nix; mount -o remount,bind,ro /nix;";
    let told = with_options(script, &options, &[], "mounted read-only")?;
    assert!(!told.contains(SAW) && !told.contains(READY), "{told}");
    Ok(())
}

/// A builder of a user without a name, for whom `/nix` is empty and has this mode.
fn without_store(mode: &str, until: &str) -> Result<String> {
    let script = format!(
        "state=${{NIXGATE_STATE_DIR%/*}}; chown 31999:31999 $state; \
         mount -t tmpfs -o mode={mode} none /nix; \
         set -- env --unset USER --unset LOGNAME HOME=$state \
           setpriv --reuid 31999 --regid 31999 --clear-groups \"$@\";"
    );
    with_options(&script, &install::nix_options()?, &[], until)
}

#[test]
fn a_user_without_a_store_or_a_name_is_told_so() -> Result<()> {
    let told = without_store("1777", "Set USER")?;
    assert!(!told.contains(READY), "{told}");
    // Nix has made a store elsewhere. Stored images are served.
    let told = without_store("755", READY)?;
    assert!(told.contains("this machine has no Nix store"), "{told}");
    Ok(())
}

#[test]
fn who_is_strict_is_refused_what_others_are_warned_of() -> Result<()> {
    let options = install::nix_options()?;
    let mut version = Command::new("nix");
    let version = run(version.arg("--version"))?;
    let version = version.split_whitespace().last().context("a version")?;
    let patched = ["--strict", "--patched-nix", version];
    let warned = with_options("", &options, &[], READY)?;
    for weakness in ["known vulnerabilities", "reach this machine's loopback"] {
        let lines = warned.lines().filter(|line| line.contains(weakness));
        let lines = lines.collect::<Vec<_>>();
        // A Nix that has none is as good.
        assert!(lines.len() <= 1, "{lines:?}");
        let wanted = lines.first().map_or(READY, |_| weakness);
        let given: &[_] = match weakness.contains("loopback") {
            true => &patched,
            false => &["--strict"],
        };
        let refused = with_options("", &options, given, wanted)?;
        assert_eq!(refused.contains(READY), wanted == READY, "{refused}");
    }
    let proxy = ["--proxy-only", "--proxy", "http://127.0.0.1:9"];
    let given = [&patched[..], &proxy[..]].concat();
    with_options("", &options, &given, READY).map(drop)
}

#[test]
fn without_a_sandbox_the_builder_does_not_start_unless_it_is_told_to() -> Result<()> {
    let refused = without_namespaces(&[], "cannot build in a sandbox")?;
    assert!(refused.contains("--allow-unsandboxed"), "{refused}");
    assert!(!refused.contains("the builder is ready"), "{refused}");
    without_namespaces(&["--allow-unsandboxed"], "the builder is ready").map(drop)
}
