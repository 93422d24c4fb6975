//! What holds on a set shaped like nixpkgs holds on nixpkgs itself: its own names, marks and messages. The packages
//! come from a binary cache, and what they have in them is made up: building them would take days.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::binary_cache::{BinaryCache, Fault};
use nixgate_tests::live::builder::{Builder, Settings};
use nixgate_tests::live::described::{Package, outputs};
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::install::{self, NixPrograms};
use nixgate_tests::live::process::run;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::unbuilt_set::pull;
use nixgate_tests::live::{envoy, poll, scratch};
use serde_json::{Value, json};

use crate::shaped_set::tells_of_too_old_a_nix;
use crate::unchanged_sources::processes_of_renewals;

/// In every image.
const BASE: [&str; 2] = ["cacert", "iana-etc"];
/// As nixpkgs spells them.
const CACHED: [&str; 9] = [
    "cacert",
    "iana-etc",
    "bashInteractive",
    "git",
    "hello",
    "python3Packages.requests",
    "python3Packages.urllib3",
    "xorg.xev",
    "xorg.xhost",
];
const DENIED: [&str; 3] = ["bashinteractive", "xorg.xev", "python3packages.requests"];
/// Ways to what is denied, each with the package that is to blame.
const WAYS: [(&str, &str); 9] = [
    ("bashinteractive", "bashinteractive"),
    ("bashinteractive.out", "bashinteractive.out"),
    ("hello/xev", "xev"),
    ("xev", "xev"),
    ("xorg.xev.out", "xorg.xev.out"),
    ("python3packages.requests", "python3packages.requests"),
    ("python3.pkgs.requests", "python3.pkgs.requests"),
    ("python313packages.requests", "python313packages.requests"),
    ("python313.pkgs.requests.out", "python313.pkgs.requests.out"),
];
const NEIGHBOURS: [&str; 4] = [
    "git/hello",
    "python3.pkgs.urllib3",
    "python313packages.urllib3",
    "xorg.xhost",
];
/// Into the set itself, or what is no package.
const NO_WAYS: [&str; 6] = [
    "pkgs.bashinteractive",
    "pkgs.pkgs.git",
    "buildpackages.bashinteractive",
    "pkgscross.aarch64-multiplatform.hello",
    "pkgsstatic.hello",
    "git.override",
];

/// A builder of nixpkgs with nothing but a cache.
struct Scene {
    nix: NixPrograms,
    nixpkgs: PathBuf,
    cache: BinaryCache,
    packages: Vec<Package>,
    // Last: the cache is in it.
    folder: tempfile::TempDir,
}

impl Scene {
    /// Whose cache has these packages.
    fn new(nixpkgs: PathBuf, cached: &[&str]) -> Result<Self> {
        let nix = install::modern_nix()?;
        let folder = scratch::folder("nixpkgs-")?;
        let names = cached.iter().map(|name| (*name).to_owned()).collect();
        let packages = outputs(&nix, &nixpkgs, names, cached.len())?;
        let paths = packages.iter().flat_map(|(_, paths)| paths.clone());
        let paths: Vec<_> = paths.collect();
        let cache = BinaryCache::made_up(&folder.path().join("cache"), &nix, &paths)?;
        Ok(Self {
            nix,
            nixpkgs,
            cache,
            packages,
            folder,
        })
    }

    fn settings(&self, state: &Path) -> Result<Settings> {
        let options = install::nix_options()?.replace("substituters=;", "");
        let options = format!(
            "{options}{};narinfo-cache-negative-ttl=0;narinfo-cache-positive-ttl=0;download-attempts=1",
            self.cache.options()
        );
        let settings = Settings {
            package_set: self.nixpkgs.clone(),
            ..Settings::new(state)?
        };
        let settings = settings
            .with_nix(&self.nix)
            .with("NIXGATE_ONLY_FROM_CACHES", "true")
            .with("NIXGATE_NIX_OPTIONS", options);
        Ok(settings)
    }

    fn builder(&self) -> Result<Settings> {
        let state = self.folder.path().join("state");
        std::fs::create_dir_all(&state)?;
        self.settings(&state)
    }
}

/// Until the tree is in the store.
fn settled(builder: &Builder, name: &str) -> Result<Response> {
    loop {
        let answer = pull(builder.port(), name)?;
        if answer.status != StatusCode::ACCEPTED {
            return Ok(answer);
        }
    }
}

#[test]
fn what_nixpkgs_refuses_is_told_in_its_words() -> Result<()> {
    let Some(nixpkgs) = install::real_nixpkgs() else {
        return Ok(());
    };
    let scene = Scene::new(nixpkgs, &CACHED)?;
    let builder = Builder::start(&scene.builder()?.with("NIXGATE_NO_INDEX", "true"))?;
    for (name, words) in [
        ("unrar", "because it has an unfree license"),
        ("openssl_1_1", "because it is marked as insecure: "),
        ("python2", "python2 has been removed"),
        // No cache has it, and nothing is built.
        ("cowsay", "cowsay-3"),
        ("python3packages.flask", "flask-3"),
    ] {
        let answer = settled(&builder, name)?;
        let text = answer.text();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {text}");
        assert!(text.contains(words), "{name}: {text}");
        for never in ["/nix/store", "--impure", "NIXPKGS_ALLOW", "error:", "|"] {
            assert!(!text.contains(never), "{never:?} in {name}: {text}");
        }
    }
    let answer = settled(&builder, "no-such-package")?;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
    Ok(())
}

#[test]
fn nixpkgs_that_has_not_changed_costs_no_process() -> Result<()> {
    let Some(nixpkgs) = install::real_nixpkgs() else {
        return Ok(());
    };
    let scene = Scene::new(nixpkgs, &CACHED)?;
    let settings = scene.builder()?.with("NIXGATE_NO_INDEX", "true");
    let builder = Builder::start(&settings.with("NIXGATE_PIN_SECONDS", "1"))?;
    let first = settled(&builder, "hello")?;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text());
    let state = scene.folder.path().join("state");
    let renewals =
        processes_of_renewals(&builder, &state, || settled(&builder, "hello").map(drop))?;
    assert_eq!(renewals[1..], [0, 0], "{}", builder.log());
    Ok(())
}

#[test]
fn a_cache_that_fails_is_no_package_s_fault() -> Result<()> {
    let Some(nixpkgs) = install::real_nixpkgs() else {
        return Ok(());
    };
    let faults = [
        (Fault::Down, "jq"),
        (Fault::Error, "tree"),
        (Fault::Corrupt, "which"),
        (Fault::CorruptLength, "dash"),
        (Fault::Unsigned, "file"),
    ];
    let cached: Vec<_> = BASE
        .into_iter()
        .chain(faults.map(|(_, name)| name))
        .collect();
    let scene = Scene::new(nixpkgs, &cached)?;
    // An earlier run has left them in the store.
    for (_, paths) in &scene.packages[BASE.len()..] {
        let paths = paths.iter().filter(|path| path.exists());
        run(scene.nix.command("nix-store").arg("--delete").args(paths))?;
    }
    let builder = Builder::start(&scene.builder()?.with("NIXGATE_NO_INDEX", "true"))?;
    let base = settled(&builder, "cacert")?;
    assert_eq!(base.status, StatusCode::OK, "{}", base.text());
    for (fault, name) in faults {
        scene.cache.set(Some(fault))?;
        let answer = settled(&builder, name)?;
        let context = format!("{fault:?}: {}", answer.text());
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{context}");
        assert!(answer.text().contains("a binary cache failed"), "{context}");
        scene.cache.set(None)?;
        let answer = settled(&builder, name)?;
        let context = format!("after {fault:?}: {}", answer.text());
        assert_eq!(answer.status, StatusCode::OK, "{context}");
    }
    Ok(())
}

#[test]
fn nixpkgs_tells_that_nix_is_too_old() -> Result<()> {
    let Some(nixpkgs) = install::real_nixpkgs() else {
        return Ok(());
    };
    let nixes = install::nixes()?;
    let Some(old) = nixes.iter().find(|nix| nix.version.contains("2.8.")) else {
        eprintln!("SKIPPED: no Nix here is too old for nixpkgs");
        return Ok(());
    };
    let folder = scratch::folder("nixpkgs-")?;
    let settings = Settings {
        package_set: nixpkgs,
        ..Settings::new(folder.path())?
    };
    let settings = settings.with_nix(old);
    let builder = Builder::start(&settings.with("NIXGATE_NIX_OPTIONS", install::nix_options()?))?;
    settled(&builder, "hello")?;
    tells_of_too_old_a_nix(&builder, "hello", "2.18")
}

#[test]
fn every_way_of_nixpkgs_to_what_is_denied_is_closed() -> Result<()> {
    let Some(nixpkgs) = install::real_nixpkgs() else {
        return Ok(());
    };
    let scene = Scene::new(nixpkgs, &CACHED)?;
    let policy = json!({"revision": "r1", "default": "allow", "rules": [{
        "name": "hard",
        "subject": {"header": {"name": "x-team", "glob": "data"}},
        "deny": DENIED,
    }]});
    let envoy = envoy::Settings {
        config: EnvoyConfig::standalone().settings(json!({"policy": policy, "catalog": true})),
        ..Default::default()
    };
    // By evaluation: an index of nixpkgs takes long, and has the same answers.
    let stack = Stack::with(envoy, |state| {
        Ok(scene.settings(state)?.with("NIXGATE_NO_INDEX", "true"))
    })?;
    let ask = |team: &str, path: &str| -> Result<Response> {
        poll::until("there is an answer", || {
            let headers = [("x-team", team)];
            let mut answer = request(Method::GET, stack.envoy.port(), path, &headers).ok()?;
            while answer.status == StatusCode::TEMPORARY_REDIRECT {
                let next = answer.header("location").to_owned();
                answer = request(Method::GET, stack.envoy.port(), &next, &headers).ok()?;
            }
            (answer.status != StatusCode::TOO_MANY_REQUESTS).then_some(answer)
        })
    };
    for (name, package) in WAYS {
        let path = format!("/v2/{name}/manifests/latest");
        let data = ask("data", &path)?;
        let text = data.text();
        assert_eq!(data.status, StatusCode::FORBIDDEN, "{name}: {text}");
        assert!(
            text.contains(&format!("you may not have {package} (")),
            "{name}: {text}"
        );
        let ops = ask("ops", &path)?;
        assert_eq!(ops.status, StatusCode::OK, "{name}: {}", ops.text());
        let digest = ops.header("docker-content-digest");
        let manifest: Value = serde_json::from_slice(&ops.body)?;
        let layer = manifest["layers"][0]["digest"].as_str();
        for path in [
            format!("/v2/{name}/manifests/latest"),
            format!("/v2/{name}/manifests/{digest}"),
            format!("/v2/{name}/blobs/{}", layer.context("a layer")?),
        ] {
            let data = ask("data", &path)?;
            assert_eq!(
                data.status,
                StatusCode::FORBIDDEN,
                "{path}: {}",
                data.text()
            );
        }
    }
    for name in NEIGHBOURS {
        for team in ["data", "ops"] {
            let answer = ask(team, &format!("/v2/{name}/manifests/latest"))?;
            assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        }
    }
    for name in NO_WAYS {
        let answer = ask("ops", &format!("/v2/{name}/manifests/latest"))?;
        assert_eq!(
            answer.status,
            StatusCode::NOT_FOUND,
            "{name}: {}",
            answer.text()
        );
    }
    Ok(())
}
