//! Package sets that misbehave, change or vanish.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::install::nix;
use nixgate_tests::live::process::run;
use nixgate_tests::live::served_set::ServedSet;

fn delete(path: &Path) -> Result<String> {
    run(nix("nix-store")?.arg("--delete").arg(path))
}

#[test]
fn nix_code_does_not_see_the_builder_s_secrets() -> Result<()> {
    let packages = r#"
        secret = if builtins.getEnv "NIXGATE_TOKEN" + builtins.getEnv "AWS_SECRET_ACCESS_KEY" == ""
          then package "secret" "mkdir $out" else throw "the secrets are seen";
        home = if builtins.getEnv "HOME" == ""
          then package "home" "mkdir $out" else throw "it sees a HOME";
    "#;
    let served = ServedSet::start(packages, |settings| {
        settings.with("AWS_SECRET_ACCESS_KEY", "of the storage")
    })?;
    served.pulls("secret/home")
}

#[test]
fn a_package_set_that_is_edited_stays_what_it_was_until_it_is_pinned_anew() -> Result<()> {
    let packages = r#"
        one = package "one" "mkdir $out";
        two = package "two" "mkdir $out; test ${builtins.readFile ./text} = old";
    "#;
    let served = ServedSet::start(packages, |settings| settings)?;
    fs::write(served.set.join("text"), "old")?;
    served.pulls("one")?;
    fs::write(served.set.join("text"), "new")?;
    served.pulls("two")
}

#[test]
fn a_pinned_package_set_is_kept_from_the_garbage_collector_and_fetched_again_without_it()
-> Result<()> {
    let packages = r#"
        one = package "one" "mkdir $out";
        two = package "two" "mkdir $out";
    "#;
    let served = ServedSet::start(packages, |settings| settings)?;
    served.pulls("one")?;
    let (link, path) = served.root()?;
    let kept = delete(&path).err().context("the package set was deleted")?;
    assert!(format!("{kept:#}").contains("alive"), "{kept:#}");
    fs::remove_file(link)?;
    delete(&path)?;
    served.pulls("two")?;
    assert_eq!(served.root()?.1, path);
    Ok(())
}

#[test]
fn what_nix_refuses_or_stumbles_over_is_named_with_its_reason() -> Result<()> {
    let packages = r#"
        fine = package "fine" "mkdir $out";
        unfree = throw "unfree has a license that is refused here";
        broken = { }.missing;
    "#;
    let served = ServedSet::start(packages, |settings| settings)?;
    let (status, text) = served.pull("fine/unfree")?;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    assert!(
        text.contains("unfree (unfree has a license that is refused here)"),
        "{text}"
    );
    let (status, text) = served.pull("broken/fine")?;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    assert!(
        text.contains("broken (attribute 'missing' missing)"),
        "{text}"
    );
    served.pulls("fine")
}
