//! Builds that are killed, as the kernel does when memory runs out: no package is blamed for that.

use std::fs;
use std::process::Command;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use http::StatusCode;
use http::header::RETRY_AFTER;
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::http::Response;
use nixgate_tests::live::poll;
use nixgate_tests::live::process::run;
use nixgate_tests::live::unbuilt_set::{UnbuiltSet, pull};

/// `waits` is built when the test says so. What is in its command, no other process has.
const SET: &str = r#"{ system ? builtins.currentSystem }:
let
  package = name: script: derivation {
    name = "@salt@-${name}-1";
    pname = name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" script ];
  };
in
{
  waits = package "waits" "until test -e @folder@/open; do sleep 0.02; done; mkdir $out";
  cacert = package "cacert" "mkdir -p $out/etc";
  iana-etc = package "iana-etc" "mkdir -p $out/etc";
}
"#;

struct Scene {
    set: UnbuiltSet,
    builder: Builder,
}

impl Scene {
    fn new() -> Result<Self> {
        let set = UnbuiltSet::of(SET)?;
        let settings = set.open_builder("one")?;
        let builder = Builder::start(&settings)?;
        Ok(Self { set, builder })
    }

    fn pull(&self) -> JoinHandle<Result<Response>> {
        let port = self.builder.port();
        thread::spawn(move || pull(port, "waits"))
    }

    /// The process of the build: of those with its command the first one, since it forks before it
    /// becomes `sleep`.
    fn build(&self) -> Option<u32> {
        let command = format!("{}/open", self.set.folder().display());
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_build = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&command)
        };
        pids.filter(is_build).min()
    }

    /// Kills the build, which is not `earlier`, and says which it was.
    fn kill(&self, earlier: Option<u32>) -> Result<u32> {
        let build = poll::until("the build runs", || {
            self.build().filter(|build| Some(*build) != earlier)
        })?;
        run(Command::new("kill").args(["-KILL", &build.to_string()]))?;
        poll::until("the build has ended", || {
            (self.build() != Some(build)).then_some(())
        })?;
        Ok(build)
    }

    fn open(&self) -> Result<()> {
        Ok(fs::write(self.set.folder().join("open"), "")?)
    }
}

fn answer(pull: JoinHandle<Result<Response>>) -> Result<Response> {
    pull.join().ok().context("the client's thread ends")?
}

#[test]
fn a_build_that_was_killed_once_is_built() -> Result<()> {
    let scene = Scene::new()?;
    let pull = scene.pull();
    let killed = scene.kill(None)?;
    poll::until("it is built again", || {
        scene.build().filter(|build| *build != killed)
    })?;
    scene.open()?;
    let answer = answer(pull)?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let log = scene.builder.log();
    assert!(log.contains("trying a build once more"), "{log}");
    Ok(())
}

#[test]
fn a_build_that_is_killed_each_time_is_no_fault_of_the_package_and_remembered_for_a_while()
-> Result<()> {
    let scene = Scene::new()?;
    let pull = scene.pull();
    let first = scene.kill(None)?;
    scene.kill(Some(first))?;
    let refused = answer(pull)?;
    let text = refused.text();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(refused.headers.contains_key(RETRY_AFTER), "{text}");
    assert!(
        text.contains("memory") && !text.contains("signal"),
        "{text}"
    );
    let log = scene.builder.log();
    assert!(log.contains("signal 9"), "{log}");

    let before = scene.builder.nix_processes()?;
    scene.open()?;
    let again = answer(scene.pull())?;
    assert_eq!(again.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(scene.builder.nix_processes()?, before);
    poll::until("it is built after all", || {
        let answer = answer(scene.pull()).ok()?;
        answer.status.is_success().then_some(())
    })
}
