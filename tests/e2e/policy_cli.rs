//! `nixgate policy` and `nixgate warm`, by the real binary and with real Nix.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::builder::{self, Builder};
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::process::Process;
use nixgate_tests::live::{install, poll, scratch};
use tempfile::TempDir;

const POLICY: &str = r#"{ "revision": "r1", "default": "deny", "rules": [
  {"name": "everybody", "allow": ["tool*", "Nested.*"]},
  {"name": "team", "allow": ["helper"], "message": "Ask #platform.",
   "subject": {"jwt_claim": {"path": ["groups"], "type": "list", "glob": "data-*"}}},
  {"name": "hard", "deny": ["*-unwrapped"]}
] }"#;

/// A folder with a policy and a package set, whose packages no earlier test has built.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn set() -> Result<Self> {
        let folder = scratch::folder("policy-")?;
        let set = folder.path().join("set");
        fs::create_dir(&set)?;
        let unique = folder.path().display();
        let set_text = format!(
            r#"{{ system ? builtins.currentSystem }}:
let
  package = name: derivation {{
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" "mkdir -p $out/share; echo ${{name}} of {unique} > $out/share/${{name}}" ];
  }};
in
{{
  tool = package "tool";
  tool-unwrapped = package "tool-unwrapped";
  tooling = version: package "tooling";
  tools = throw "tools were removed";
  # Nothing in Nix can catch this one.
  tool-broken = {{ }}.nope;
  helper = package "helper";
  Nested = {{ Inner = package "inner"; text = "no package"; broken = {{ }}.nope; }};
  unlisted = package "unlisted";
  cacert = package "cacert";
  iana-etc = package "iana-etc";
}}
"#
        );
        fs::write(set.join("default.nix"), set_text)?;
        let scene = Self { folder };
        scene.write("policy.json", POLICY)?;
        Ok(scene)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path().join(name), text)?)
    }

    /// `nixgate` with these arguments, in the folder. Its state is not that of the builder that
    /// serves, its storage is.
    fn nixgate(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(install::builder()?);
        command
            .args(arguments)
            .current_dir(self.path())
            .env("NIXERY_PKGS_PATH", self.path().join("set"))
            .env(
                "NIXGATE_NIX_OPTIONS",
                GatedSet::nix_options_for(self.path())?,
            )
            .env("NIXGATE_STATE_DIR", self.path().join("warm"))
            .env("STORAGE_PATH", self.path().join("storage"));
        Ok(command)
    }

    /// What it prints on stdout, and whether it is content.
    fn run(&self, arguments: &[&str]) -> Result<(String, bool)> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.nixgate(arguments)?.output()?;
        let code = status.code().context("it ends by itself")?;
        let (stdout, stderr) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
        assert!(code <= 1, "{arguments:?}: {code}\n{stdout}\n{stderr}");
        Ok((stdout + &stderr, code == 0))
    }
}

#[test]
fn a_policy_is_checked_also_against_the_package_set() -> Result<()> {
    let scene = Scene::set()?;
    let (text, good) = scene.run(&["policy", "check", "policy.json"])?;
    assert!(
        good && text.contains("3 rules, nothing to report"),
        "{text}"
    );
    let (text, good) = scene.run(&["policy", "check", "policy.json", "--package-set"])?;
    assert!(good, "{text}");

    let misspelt = POLICY.replace(
        "\"helper\"",
        "\"helpre\", \"nested.inner\", \"tool-unwrapped\"",
    );
    scene.write("misspelt.json", &misspelt)?;
    let (text, good) = scene.run(&["policy", "check", "misspelt.json", "--package-set"])?;
    let findings: Vec<_> = text
        .lines()
        .filter(|line| line.contains("the rule"))
        .collect();
    assert_eq!(
        findings,
        [
            "misspelt.json: the rule team: allow: the rule hard denies \"tool-unwrapped\"",
            "misspelt.json: the rule team: allow: \"helpre\" matches nothing in the package set",
        ]
    );
    assert!(!good, "{text}");

    scene.write("wrong.json", &POLICY.replace("\"hard\"", "\"team\""))?;
    let (text, good) = scene.run(&["policy", "check", "wrong.json"])?;
    assert!(
        !good && text.contains("two rules have the name team"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_policy_is_explained_and_its_cases_are_run() -> Result<()> {
    let scene = Scene::set()?;
    let explain = |given: &str, image: &str| {
        scene.run(&["policy", "explain", "--as", given, "policy.json", image])
    };
    let (text, good) = explain("claim:groups=data-eng,staff", "helper")?;
    assert!(
        good && text.contains("by the rule team: \"helper\""),
        "{text}"
    );
    let (text, good) = explain("claim:groups=web", "helper")?;
    assert!(
        !good && text.contains("the rule team allows it for others"),
        "{text}"
    );
    let (text, good) = explain("claim:grops=web", "helper")?;
    assert!(!good && text.contains("does not use claim:grops"), "{text}");

    let cases = |expect: &str| {
        format!(
            "policy: policy.json\ncases:\n  - name: tools for all\n    image: tool/nested.inner\n    expect: allow\n    rule: everybody\n  - name: helpers for some\n    as: {{ \"claim:groups\": [web] }}\n    image: helper\n    expect: {expect}\n"
        )
    };
    scene.write("cases.yaml", &cases("deny"))?;
    let (text, good) = scene.run(&["policy", "test", "cases.yaml"])?;
    assert!(
        good && text.ends_with("2 cases: 2 passed, 0 failed\n"),
        "{text}"
    );
    scene.write("cases.yaml", &cases("allow"))?;
    let (text, good) = scene.run(&["policy", "test", "cases.yaml"])?;
    assert!(!good, "{text}");
    for part in ["ok    tools for all", "FAIL  helpers for some", "1 failed"] {
        assert!(text.contains(part), "{text}");
    }
    Ok(())
}

#[test]
fn what_was_built_ahead_is_pulled_without_a_build() -> Result<()> {
    let scene = Scene::set()?;
    let warm = |arguments: &[&str]| {
        let all = [&["warm", "--policy", "policy.json"], arguments].concat();
        scene.run(&all)
    };
    let (text, good) = warm(&["--dry-run"])?;
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains(":latest "))
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, package) in lines.iter().zip(["helper", "nested.inner", "tool"]) {
        assert!(line.starts_with(&format!("{package}:latest ")), "{text}");
    }
    assert!(good, "{text}");
    assert!(!scene.path().join("storage/manifests").exists());

    let (text, good) = warm(&[])?;
    assert!(
        good && text.contains("3 built, 0 stored already, 0 failed"),
        "{text}"
    );
    let (text, good) = warm(&[])?;
    assert!(
        good && text.contains("0 built, 3 stored already, 0 failed"),
        "{text}"
    );

    let settings = builder::Settings {
        package_set: scene.path().join("set"),
        state: scene.path().to_path_buf(),
        environment: Vec::new(),
    };
    let builder = Builder::start(&settings.with("NIXGATE_NIX_OPTIONS", install::nix_options()?))?;
    let pull = |name: &str| -> Result<[u64; 2]> {
        let answer = builder.get(&format!("/v2/{name}/manifests/latest"))?;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        // The counter is not there before the first layer.
        let layers = |outcome: &str| {
            let label = format!("outcome=\"{outcome}\"");
            let count = builder.counter("nixgate_layers_total", &[&label]);
            count.unwrap_or_default()
        };
        Ok([layers("packed"), layers("reused")])
    };
    for name in ["tool", "helper", "nested.inner"] {
        assert_eq!(pull(name)?, [0, 0], "{name} was built");
    }
    // Of two that were built ahead, only the layer of links is new: cacert and iana-etc are in both.
    assert_eq!(pull("tool/helper")?, [1, 4]);
    // What was not built ahead shows that builds are counted.
    assert_eq!(pull("unlisted")?, [3, 6]);
    Ok(())
}

#[test]
fn a_run_that_is_stopped_goes_on_where_it_was() -> Result<()> {
    let scene = Scene::set()?;
    let set = GatedSet::write(scene.path())?;
    let rule = r#"{"name": "all", "allow": ["gated", "broken", "cacert"]}"#;
    scene.write(
        "policy.json",
        &format!(r#"{{"revision": "r1", "default": "deny", "rules": [{rule}]}}"#),
    )?;
    let mut command = scene.nixgate(&["warm", "--policy", "policy.json"])?;
    command
        .env("NIXERY_PKGS_PATH", set.folder())
        .env("NIXGATE_MAX_BUILDS", "2");
    let log = scene.path().join("warm.log");
    let mut first = Process::start(&command, &log)?;
    set.wait_for_start()?;
    first.until("the others are done", |first| {
        first.log().contains("2 of 3: ").then_some(())
    })?;
    first.signal("INT")?;
    let status = poll::until("it stops", || first.ended().ok().flatten())?;
    let text = first.log();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        text.contains("1 built, 0 stored already, 1 failed"),
        "{text}"
    );
    assert!(text.contains("stopped with 1 left"), "{text}");

    set.open()?;
    let mut second = Process::start(&command, &log)?;
    let status = poll::until("it ends", || second.ended().ok().flatten())?;
    let text = second.log();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        text.contains("1 built, 1 stored already, 1 failed"),
        "{text}"
    );
    assert!(text.contains("failed: broken:latest"), "{text}");
    Ok(())
}
