//! One image, one digest, built once.

use anyhow::Result;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::install::{debian_set, nix};
use nixgate_tests::live::process::run;
use nixgate_tests::live::scratch;
use nixgate_tests::live::stack::Stack;

#[test]
fn the_order_of_packages_and_an_emptied_state_change_no_digest() -> Result<()> {
    let first = Stack::start()?;
    let digest = first.digest("git/htop")?;
    assert_eq!(first.digest("htop/git")?, digest);
    drop(first);
    assert_eq!(Stack::start()?.digest("git/htop")?, digest);
    Ok(())
}

/// With the test above: an image has one digest on every machine.
#[test]
fn packages_that_are_built_again_have_the_same_content() -> Result<()> {
    let set = debian_set()?;
    let derivation = run(nix("nix-instantiate")?.arg(set).args(["-A", "git"]))?;
    let derivation = derivation.trim();
    run(nix("nix-store")?.args(["--realise", derivation]))?;
    let closure = run(nix("nix-store")?.args(["--query", "--requisites", derivation]))?;
    // What is fetched has a fixed hash; the rest is built here, from what was fetched.
    let built: Vec<_> = closure
        .lines()
        .filter(|path| path.ends_with(".drv") && !path.ends_with(".deb.drv"))
        .collect();
    assert!(
        built.len() > 20,
        "git's closure has dozens of packages: {built:?}"
    );
    // Nix fails when what it builds differs from what is in the store.
    run(nix("nix-store")?.args(["--realise", "--check"]).args(built))?;
    Ok(())
}

#[test]
fn a_second_pull_runs_no_nix_and_asks_the_builder_for_no_manifest() -> Result<()> {
    let stack = Stack::start()?;
    let pull = || -> Result<()> {
        let folder = scratch::folder("copy-")?;
        skopeo::copy(&stack.image("shell/hello"), folder.path())
    };
    pull()?;
    let nix = stack.builder.nix_processes()?;
    let manifests = stack.builder.manifest_requests()?;
    assert!(
        nix > 0 && manifests > 0,
        "the first pull ran {nix} and asked {manifests}"
    );
    pull()?;
    assert_eq!(stack.builder.nix_processes()?, nix);
    assert_eq!(stack.builder.manifest_requests()?, manifests);
    Ok(())
}
