//! What depends on Nix, on each Nix that is tested: the oldest supported one, and one that today's nixpkgs
//! works with.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use nixgate_core::wire;
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::http::request;
use nixgate_tests::live::install::{self, NixPrograms, nix, nixes};
use nixgate_tests::live::process::run;
use nixgate_tests::live::scratch;
use nixgate_tests::live::served_set::ServedSet;

use crate::pinned_sources::{Repository, builder, nix_lock, pinned, pull, write_flake};

/// Runs a test on each Nix; an error names it.
pub(crate) fn on_each_nix(test: impl Fn(&NixPrograms) -> Result<()>) -> Result<()> {
    nixes()?
        .iter()
        .try_for_each(|nix| test(nix).with_context(|| nix.version.clone()))
}

fn served(nix: &NixPrograms, packages: &str) -> Result<ServedSet> {
    let served = ServedSet::start(packages, |settings| settings.with_nix(nix))?;
    let version = nix.version.rsplit(' ').next().unwrap_or_default();
    let log = served.builder.log();
    ensure!(log.contains(version), "it runs another Nix:\n{log}");
    Ok(served)
}

#[test]
fn packages_are_built_described_and_refused() -> Result<()> {
    on_each_nix(|nix| {
        let served = served(
            nix,
            r#"
            fine = package "fine-1" "echo > $out" // { meta.license = { spdxId = "MIT"; }; };
            broken = package "broken" "echo this one fails >&2; exit 1";
            unfree = throw "unfree is refused here";
            missing = { }.missing;
            recursion = let x = x; in x;
            "#,
        )?;
        served.pulls("fine")?;
        let headers = [
            (wire::TOKEN, TOKEN),
            (wire::RULES, r#"{"mit":{"licences":["MIT"]}}"#),
        ];
        let port = served.builder.port();
        let answer = request(Method::GET, port, "/v2/fine/manifests/latest", &headers)?;
        let facts = answer.header(wire::FACTS);
        assert!(facts.contains("fine-1") || facts.contains("mit"), "{facts}");
        for (name, status, words) in [
            ("broken", 403, "this one fails"),
            ("unfree", 403, "unfree (unfree is refused here)"),
            ("missing", 403, "missing (attribute 'missing' missing"),
            ("recursion", 403, "recursion (infinite recursion"),
            ("nothing", 404, "nothing"),
        ] {
            let (seen, text) = served.pull(&format!("fine/{name}"))?;
            assert_eq!(seen.as_u16(), status, "{}: {name}: {text}", nix.version);
            assert!(text.contains(words), "{}: {name}: {text}", nix.version);
        }
        served.pulls("fine")
    })
}

#[test]
fn builds_are_in_a_sandbox_that_is_proven() -> Result<()> {
    let secrets = scratch::folder("secrets-")?;
    let secret = secrets.path().canonicalize()?.join("key");
    fs::write(&secret, "secret")?;
    on_each_nix(|nix| {
        let packages = format!(
            r#"nosy = package "nosy" "test ! -e {} -a ! -e /root -a ! -e /nix/var && mkdir $out";"#,
            secret.display()
        );
        served(nix, &packages)?.pulls("nosy")?;
        let options = install::nix_options()?.replace("sandbox-paths=", "sandbox-paths=/sys ");
        let refused = ServedSet::start("", |settings| {
            settings.with_nix(nix).with("NIXGATE_NIX_OPTIONS", &options)
        });
        let refused = format!("{:#}", refused.err().context("it started")?);
        assert!(refused.contains("saw this machine's /sys"), "{refused}");
        Ok(())
    })
}

#[test]
fn packages_and_their_set_are_kept_from_the_garbage_collector() -> Result<()> {
    let delete = |path: &Path| run(nix("nix-store")?.arg("--delete").arg(path));
    on_each_nix(|nix| {
        let served = served(nix, r#"kept = package "kept-package" "mkdir $out";"#)?;
        served.pulls("kept")?;
        let (_, set) = served.root()?;
        let kept = served.state().join("builder/kept");
        let packages = links(&kept)?;
        assert!(
            packages.iter().any(|path| path.ends_with("-kept-package")),
            "{packages:?}"
        );
        for path in packages.iter().map(Path::new).chain([set.as_path()]) {
            let refused = delete(path).err().context("it was collected")?;
            assert!(format!("{refused:#}").contains("alive"), "{refused:#}");
        }
        Ok(())
    })
}

/// What the links below a folder lead to.
pub(crate) fn links(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_symlink() {
            found.push(fs::read_link(path)?.display().to_string());
        } else if path.is_dir() {
            found.extend(links(&path)?);
        }
    }
    Ok(found)
}

#[test]
fn repositories_and_flakes_are_sources() -> Result<()> {
    on_each_nix(|nix| {
        let path = nix
            .path()
            .into_string()
            .ok()
            .context("a PATH that is text")?;
        let repository = Repository::new()?;
        let commit = repository.commit("of git")?;
        let git =
            repository.builder(&[("NIXERY_PKGS_REPO", &repository.url()?), ("PATH", &path)])?;
        pinned(&git, "latest", &format!("git {commit}"))?;

        let state = scratch::folder("flake-")?;
        let state_path = state.path().canonicalize()?;
        let (flake, input) = (state_path.join("flake"), state_path.join("input"));
        write_flake(&flake, &input, "of a flake")?;
        let url = format!("path:{}", flake.display());
        nix_lock(&url)?;
        let flake = builder(state.path(), &[("NIXGATE_FLAKE", &url), ("PATH", &path)])?;
        let answer = pull(&flake, "latest")?;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{}\n{}",
            answer.text(),
            flake.log()
        );
        let source = answer.header("nixgate-source");
        assert!(source.starts_with("flake "), "{source}");
        Ok(())
    })
}
