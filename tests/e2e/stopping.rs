//! The builder ends when it is told to, whatever it is doing.

use std::net::TcpListener;
use std::process::Command;

use anyhow::Result;
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::process::Process;
use nixgate_tests::live::{install, poll, ports, scratch};

#[test]
fn a_package_set_that_does_not_come_keeps_no_builder_from_ending() -> Result<()> {
    let state = scratch::folder("builder-")?;
    // It takes connections and never says a word.
    let repository = TcpListener::bind("127.0.0.1:0")?;
    let mut command = Command::new(install::builder()?);
    command
        .arg("serve")
        .env("NIXGATE_TOKEN", TOKEN)
        .env("PORT", ports::free()?.to_string())
        .env("NIXGATE_NIX_OPTIONS", install::nix_options()?)
        .env("NIXGATE_STATE_DIR", state.path().join("builder"))
        .env(
            "NIXERY_PKGS_REPO",
            format!("git://{}/packages", repository.local_addr()?),
        );
    repository.set_nonblocking(true)?;
    let mut builder = Process::start(&command, &state.path().join("builder.log"))?;
    let _git = builder.until("git has called", |_| repository.accept().ok())?;
    builder.signal("TERM")?;
    let status = poll::until("the builder ends", || builder.ended().transpose())??;
    let log = builder.log();
    assert!(
        status.success() && log.contains("stopping"),
        "{status}\n{log}"
    );
    // It did not wait until git gave up.
    assert!(!log.contains("git"), "{log}");
    Ok(())
}
