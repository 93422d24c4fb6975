//! A set shaped like nixpkgs: what it refuses is told in its own words, whichever Nix evaluates it.

use std::fs;
use std::process::Command;

use anyhow::Result;
use http::StatusCode;
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::install;
use nixgate_tests::live::nginx::Nginx;
use nixgate_tests::live::process::run;
use nixgate_tests::live::shaped_set::ShapedSet;
use nixgate_tests::live::unbuilt_set::pull;

use crate::each_nix::on_each_nix;
use crate::pinned_sources::{Repository, builder};

#[test]
fn what_the_set_refuses_is_told_in_its_words_alone() -> Result<()> {
    on_each_nix(|nix| {
        let set = ShapedSet::write()?;
        let settings = set.builder("state")?.with_nix(nix);
        let options = install::nix_options()?;
        let builder = Builder::start(&settings.with("NIXGATE_NIX_OPTIONS", options))?;
        for (name, words) in [
            (
                "unrar",
                "'unrar-7.2.6' because it has an unfree license (‘unfreeRedistributable’)",
            ),
            (
                "steam",
                "because it has an unfree license (‘mit’, ‘unfree’)",
            ),
            (
                "openssl_1_1",
                "'openssl-1.1.1w' because it is marked as insecure: OpenSSL 1.1 is reaching",
            ),
            ("oldtool", "'oldtool-0.1' because it is marked as broken"),
            ("macos-only", "not available on the requested hostPlatform"),
            (
                "python2",
                "'python2' has been removed as it has reached its end of life upstream",
            ),
            (
                "hello-world",
                "'hello-world' has been renamed to/replaced by 'hello'",
            ),
            (
                "vimpager",
                "'vimpager' has been removed because it has been unmaintained",
            ),
            (
                "python3packages.nose",
                "nose has been removed since it has been deprecated",
            ),
        ] {
            let answer = pull(builder.port(), name)?;
            let (status, text) = (answer.status, answer.text());
            let context = format!("{name} on {}: {text}", nix.version);
            assert_eq!(status, StatusCode::FORBIDDEN, "{context}");
            assert!(text.contains(words), "{context}");
            for never in [
                "/nix/store",
                "package.nix",
                "--impure",
                "NIXPKGS_ALLOW",
                "nixos-rebuild",
                "a) ",
                "show-trace",
                "error:",
                "|",
            ] {
                assert!(!text.contains(never), "{never:?} in {context}");
            }
        }
        // An alias is what it stands for, and says nothing of it.
        let answer = pull(builder.port(), "jdk21/bashinteractive_5")?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        Ok(())
    })
}

#[test]
fn what_the_administrator_allows_is_served_and_keyed_apart() -> Result<()> {
    on_each_nix(|nix| {
        let set = ShapedSet::write()?;
        let file = set.folder().join("nixpkgs.json");
        fs::write(
            &file,
            r#"{"allowUnfreePackages": ["unrar"], "permittedInsecurePackages": ["openssl-1.1.1w"]}"#,
        )?;
        let options = install::nix_options()?;
        let settings = set.builder("state")?.with_nix(nix);
        let settings = settings.with("NIXGATE_NIX_OPTIONS", options);
        let allowed = Builder::start(&settings.clone().with("NIXGATE_NIXPKGS_CONFIG", &file))?;
        let answer = pull(allowed.port(), "openssl_1_1/unrar")?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let digest = answer.header("docker-content-digest").to_owned();
        // Only what the file names.
        let answer = pull(allowed.port(), "steam")?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
        drop(allowed);

        // The same storage has the image, and this builder may not serve it, not even by its digest.
        let strict = Builder::start(&settings)?;
        let answer = pull(strict.port(), "openssl_1_1/unrar")?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
        let answer = strict.get(&format!("/v2/openssl_1_1/unrar/manifests/{digest}"))?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
        Ok(())
    })
}

/// Asserts that the builder says that Nix is too old, everywhere, and that no package is to blame.
pub(crate) fn tells_of_too_old_a_nix(
    builder: &Builder,
    package: &str,
    version: &str,
) -> Result<()> {
    let answer = pull(builder.port(), package)?;
    let text = answer.text();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(!answer.header("retry-after").is_empty(), "{text}");
    for text in [text, builder.unready()?, builder.log()] {
        let words = format!("`builtins.nixVersion` reports at least {version}");
        assert!(text.contains(&words), "{text}");
    }
    Ok(())
}

#[test]
fn too_old_a_nix_is_told_whatever_the_kind_of_source() -> Result<()> {
    let set = ShapedSet::write()?;
    set.require_nix("99.1")?;
    on_each_nix(|nix| {
        let folder = set.builder(&format!("folder-{}", nix.version.replace(' ', "-")))?;
        let folder = folder.with_nix(nix);
        let options = install::nix_options()?;
        let folder = Builder::start(&folder.with("NIXGATE_NIX_OPTIONS", options))?;
        tells_of_too_old_a_nix(&folder, "hello", "99.1")
    })?;

    let repository = Repository::new()?;
    run(Command::new("cp")
        .args(["--recursive", "--no-target-directory"])
        .arg(set.path())
        .arg(repository.path()))?;
    fs::write(
        repository.path().join("flake.nix"),
        "{ outputs = { self }: { legacyPackages.x86_64-linux = import self { system = \"x86_64-linux\"; }; }; }",
    )?;
    repository.git(&["add", "--all"])?;
    repository.git(&["commit", "--quiet", "--message", "all"])?;
    let git = repository.builder(&[("NIXERY_PKGS_REPO", &repository.url()?)])?;
    tells_of_too_old_a_nix(&git, "hello", "99.1")?;
    drop(git);

    let url = format!("git+{}", repository.url()?);
    let flake = repository.builder(&[("NIXGATE_FLAKE", &url)])?;
    tells_of_too_old_a_nix(&flake, "hello", "99.1")?;

    let served = set.folder().join("served");
    fs::create_dir(&served)?;
    run(Command::new("tar")
        .args(["--create", "--gzip", "--file"])
        .arg(served.join("stable.tar.gz"))
        .arg("--directory")
        .arg(set.folder())
        .arg("set"))?;
    let nginx = Nginx::start(&served, set.folder())?;
    let base = format!("http://127.0.0.1:{}", nginx.port());
    let state = set.folder().join("channel");
    fs::create_dir(&state)?;
    let channel = builder(
        &state,
        &[
            ("NIXERY_CHANNEL", "stable"),
            ("NIXGATE_CHANNEL_BASE", &base),
            ("no_proxy", "*"),
        ],
    )?;
    tells_of_too_old_a_nix(&channel, "hello", "99.1")
}
