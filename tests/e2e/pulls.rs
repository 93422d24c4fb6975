//! What users do first: each client pulls an image and runs it.

use anyhow::Result;
use nixgate_tests::live::builder::Settings;
use nixgate_tests::live::clients::containerd::Containerd;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::envoy;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::scratch;
use nixgate_tests::live::stack::Stack;

use crate::shared;

#[test]
fn skopeo_copies_an_image() -> Result<()> {
    let folder = scratch::folder("copy-")?;
    skopeo::copy(&shared().image("shell/git"), folder.path())?;
    // skopeo names a copied blob by the digest that it verified.
    let layers = std::fs::read_dir(folder.path())?.count();
    assert!(
        layers > 10,
        "{layers} files: git's closure has dozens of paths"
    );
    Ok(())
}

#[test]
fn skopeo_inspects_an_image() -> Result<()> {
    let seen = skopeo::inspect(&shared().image("shell/git"))?;
    assert_eq!(seen["Os"], "linux");
    assert_eq!(seen["Architecture"], "amd64");
    assert_eq!(seen["Digest"], shared().digest("shell/git")?);
    let tags = seen["RepoTags"].as_array().expect("a list of tags");
    assert!(tags.contains(&"latest".into()), "{tags:?}");
    Ok(())
}

#[test]
fn podman_pulls_and_runs_an_image() -> Result<()> {
    let podman = Podman::new()?;
    let image = shared().image("shell/git");
    podman.pull(&image)?;
    assert!(
        podman
            .run(&image, &["git", "--version"])?
            .starts_with("git version ")
    );
    // Shell images start a shell by themselves; without a terminal it ends at once.
    assert_eq!(podman.run(&image, &[])?, "");
    Ok(())
}

#[test]
fn containerd_pulls_and_runs_an_image() -> Result<()> {
    let containerd = Containerd::start()?;
    let image = shared().image("shell/git:latest");
    containerd.pull(&image)?;
    assert!(
        containerd
            .run(&image, &["git", "--version"])?
            .starts_with("git version ")
    );
    Ok(())
}

#[test]
fn the_oldest_and_the_newest_envoy_serve_one_image_alike() -> Result<()> {
    let mut digests = Vec::new();
    for version in ENVOY_VERSIONS {
        let envoy = envoy::Settings {
            version,
            ..Default::default()
        };
        let stack = Stack::with(envoy, Settings::new)?;
        let folder = scratch::folder("copy-")?;
        skopeo::copy(&stack.image("shell/hello"), folder.path())?;
        digests.push(stack.digest("shell/hello")?);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    Ok(())
}
