//! A package is what it evaluates to: what a policy denies, nobody gets under another of its names, on a set that
//! is shaped like nixpkgs.

use std::path::Path;

use anyhow::{Context, Result};
use nixgate_tests::live::poll;
use nixgate_tests::live::shaped_set::ShapedSet;

use super::*;

/// Denied by the names that administrators write.
const DENIED: [&str; 8] = [
    "bashinteractive",
    "curl.dev",
    "jdk",
    "neovim.unwrapped",
    "perlpackages.json",
    "python3packages.requests",
    "xorg.libx11",
    "xorg.xev",
];
/// The same by patterns and sets, where an index knows all names.
const BY_PATTERN: [&str; 7] = [
    "bashinter*",
    "curl.dev",
    "openj*",
    "*-unwrapped",
    "perl540packages.js??",
    "python31?packages.requests",
    "xorg",
];

/// All ways that a nixpkgs hand knows to packages that are denied, each with the package that is to blame.
const WAYS: [(&str, &str); 32] = [
    ("bashinteractive", "bashinteractive"),
    ("bash", "bash"),
    ("bashinteractive_5", "bashinteractive_5"),
    ("bash.out", "bash.out"),
    ("bash.doc", "bash.doc"),
    ("bashinteractive_5.dev", "bashinteractive_5.dev"),
    ("shell/hello", "bashinteractive"),
    ("hello/bash", "bash"),
    ("bash/hello/htop", "bash"),
    ("curl.dev", "curl.dev"),
    ("jdk", "jdk"),
    ("openjdk", "openjdk"),
    ("jdk21", "jdk21"),
    ("jdk21.out", "jdk21.out"),
    ("hello/openjdk", "openjdk"),
    ("neovim-unwrapped", "neovim-unwrapped"),
    ("neovim.unwrapped", "neovim.unwrapped"),
    ("neovim.unwrapped.out", "neovim.unwrapped.out"),
    ("perlpackages.json", "perlpackages.json"),
    ("perl540packages.json", "perl540packages.json"),
    ("perl.pkgs.json", "perl.pkgs.json"),
    ("perl540.pkgs.json.devdoc", "perl540.pkgs.json.devdoc"),
    ("python3packages.requests", "python3packages.requests"),
    ("python313packages.requests", "python313packages.requests"),
    ("python3.pkgs.requests", "python3.pkgs.requests"),
    ("python313.pkgs.requests.out", "python313.pkgs.requests.out"),
    (
        "python3packages.urllib3.pythonmodule.pkgs.requests",
        "python3packages.urllib3.pythonmodule.pkgs.requests",
    ),
    ("git/htop/python3.pkgs.requests", "python3.pkgs.requests"),
    ("libx11", "libx11"),
    ("libx11.out", "libx11.out"),
    ("xev", "xev"),
    ("xorg.xev.out", "xorg.xev.out"),
];

/// What is beside them, and not denied.
const NEIGHBOURS: [&str; 12] = [
    "hello",
    "hello.tests.run",
    "git/htop",
    "gitminimal",
    "curl",
    "curl.man",
    // Its closure has what is denied; rules about closures are others.
    "neovim",
    "perlpackages.dbi",
    "perl.pkgs.uri",
    "python3",
    "python3packages.urllib3",
    "python3.pkgs.certifi",
];

/// What are no ways at all.
const NO_WAYS: [&str; 7] = [
    "pkgs.xev",
    "buildpackages.bash",
    "pkgscross.aarch64-multiplatform.xev",
    "gitandtools.bash",
    "python3.pkgs.requests.pythonmodule.pkgs.requests",
    "xev.override",
    "bash.passthru",
];

fn team(name: &str) -> Value {
    json!({"header": {"name": "x-team", "glob": name}})
}

/// A registry whose policy denies these to `data`, and audits it for `trial`.
fn shaped(denied: &[&str], environment: &[(&'static str, &str)]) -> Result<(Stack, ShapedSet)> {
    let policy = json!({"revision": "r1", "default": "allow", "rules": [
        {"name": "hard", "subject": team("data"), "deny": denied, "message": "Ask #platform."},
        {"name": "trial", "mode": "audit", "subject": team("trial"), "deny": denied},
    ]});
    let settings = json!({"policy": policy, "catalog": true, "opaque_namespaces": ["corp"]});
    let envoy = envoy::Settings {
        config: EnvoyConfig::standalone().settings(settings),
        ..Default::default()
    };
    let set = ShapedSet::write()?;
    let recipes = json!({"namespace": "corp", "images": {
        "fine": {"packages": ["hello"]},
        "tools": {"packages": ["hello", "python3.pkgs.requests"]},
    }});
    let stack = Stack::with(envoy, |state: &Path| {
        let file = state.join("recipes.json");
        fs::write(&file, recipes.to_string())?;
        let settings = builder::Settings {
            package_set: set.path(),
            state: state.to_path_buf(),
            environment: Vec::new(),
        };
        let settings = settings
            .with("NIXGATE_RECIPES", &file)
            .with("NIXGATE_NIX_OPTIONS", install::nix_options()?);
        let environment = environment.iter();
        Ok(environment.fold(settings, |settings, (name, value)| {
            settings.with(name, value)
        }))
    })?;
    Ok((stack, set))
}

/// Asserts that every way to what is denied is closed to those for whom it is, and nothing else.
fn every_way_is_closed(stack: &Stack) -> Result<()> {
    let refused = |path: &str, package: &str| -> Result<()> {
        let answer = settled(stack, "data", path)?;
        let text = answer.text();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {text}");
        for part in [
            &format!("you may not have {package} ("),
            "denied by the rule hard",
            "Ask #platform.",
        ] {
            assert!(text.contains(part), "{path}: {text}");
        }
        Ok(())
    };
    for (name, package) in WAYS {
        // Nobody has built it yet; others fill the cache.
        refused(&manifest_of(name), package)?;
        let ops = settled(stack, "ops", &manifest_of(name))?;
        assert_eq!(ops.status, StatusCode::OK, "{name}: {}", ops.text());
        assert_eq!(ops.header("warning"), "", "{name}");
        refused(&manifest_of(name), package)?;
        let digest = ops.header("docker-content-digest");
        let manifest: Value = serde_json::from_slice(&ops.body)?;
        let blob = &manifest["layers"][0]["digest"];
        for path in [
            format!("/v2/{name}/manifests/{digest}"),
            format!("/v2/{name}/blobs/{}", blob.as_str().context("a layer")?),
        ] {
            refused(&path, package)?;
            let ops = settled(stack, "ops", &path)?;
            assert_eq!(ops.status, StatusCode::OK, "{path}: {}", ops.text());
        }
        let trial = settled(stack, "trial", &manifest_of(name))?;
        assert_eq!(trial.status, StatusCode::OK, "{name}: {}", trial.text());
        let warning = trial.header("warning");
        let words = [package, "denied by the rule trial"];
        assert!(
            words.iter().all(|word| warning.contains(word)),
            "{name}: {warning}"
        );
    }
    for name in NEIGHBOURS {
        for team in ["data", "trial", "ops"] {
            let answer = settled(stack, team, &manifest_of(name))?;
            let context = format!("{name}: {}", answer.text());
            assert_eq!(answer.status, StatusCode::OK, "{context}");
            assert_eq!(answer.header("warning"), "", "{context}");
        }
    }
    for name in NO_WAYS {
        let answer = settled(stack, "ops", &manifest_of(name))?;
        assert_eq!(
            answer.status,
            StatusCode::NOT_FOUND,
            "{name}: {}",
            answer.text()
        );
    }
    let ops = settled(stack, "ops", &manifest_of("corp/tools"))?;
    assert_eq!(ops.status, StatusCode::OK, "{}", ops.text());
    refused(&manifest_of("corp/tools"), "python3.pkgs.requests")?;
    let fine = settled(stack, "data", &manifest_of("corp/fine"))?;
    assert_eq!(fine.status, StatusCode::OK, "{}", fine.text());

    let listed = |team: &str| -> Result<Vec<String>> {
        let answer = ask(stack, team, "/v2/_catalog")?;
        let body: Value = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
        Ok(serde_json::from_value(body["repositories"].clone())?)
    };
    let (ops, data) = (listed("ops")?, listed("data")?);
    for name in ["xev", "openjdk", "python3.pkgs.requests", "corp/tools"] {
        let name = name.to_owned();
        assert!(
            ops.contains(&name) && !data.contains(&name),
            "{name}: {ops:?} {data:?}"
        );
    }
    for name in ["hello", "corp/fine", "python3.pkgs.certifi"] {
        assert!(data.contains(&name.to_owned()), "{name}: {data:?}");
    }
    Ok(())
}

fn wait_for_index(stack: &Stack) -> Result<()> {
    // It is made of the package set that somebody asked for.
    let hello = settled(stack, "ops", &manifest_of("hello"))?;
    assert_eq!(hello.status, StatusCode::OK, "{}", hello.text());
    poll::until("there is an index", || {
        let log = stack.builder.log();
        log.contains("the index of the package set is complete")
            .then_some(())
    })
}

#[test]
fn without_an_index_every_way_to_what_is_denied_by_name_is_closed() -> Result<()> {
    let (stack, _set) = shaped(&DENIED, &[("NIXGATE_NO_INDEX", "true")])?;
    every_way_is_closed(&stack)
}

#[test]
fn with_an_index_every_way_to_what_is_denied_by_name_is_closed() -> Result<()> {
    let (stack, _set) = shaped(&DENIED, &[])?;
    wait_for_index(&stack)?;
    every_way_is_closed(&stack)
}

#[test]
fn with_an_index_every_way_to_what_is_denied_by_pattern_is_closed() -> Result<()> {
    let (stack, _set) = shaped(&BY_PATTERN, &[])?;
    wait_for_index(&stack)?;
    every_way_is_closed(&stack)
}
