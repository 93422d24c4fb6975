//! Who may have what, on real parts: each way around a policy that names, digests, aliases and the
//! cache could open.

mod authority;
mod other_names;
mod other_plugin;
mod past_the_filter;

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::builder;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::install;
use nixgate_tests::live::stack::Stack;
use serde_json::{Value, json};

/// `free` and what is wrong with the others.
const PACKAGES: &str = r#"{ system ? builtins.currentSystem }:
let
  package = name: more: derivation ({
    name = "${name}-1";
    pname = name;
    version = "1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" "mkdir -p $out/share; echo ${name} $needs > $out/share/${name}" ];
  } // more);
  libold = package "libold" { };
  secret = package "secret" { };
in
{
  free = package "free" { };
  paid = package "paid" { } // { meta.license = { shortName = "corp"; free = false; }; };
  holey = package "holey" { } // { meta.knownVulnerabilities = [ "CVE-1" ]; };
  linked = package "linked" { needs = libold; };
  inherit secret;
  harmless = secret;
  cacert = package "cacert" { };
  iana-etc = package "iana-etc" { };
}
"#;

fn policy() -> Value {
    let team = |name: &str| json!({"header": {"name": "x-team", "glob": name}});
    json!({"revision": "r1", "default": "deny", "rules": [
        {"name": "data", "subject": team("data"), "deny": ["secret"], "systems": ["x86_64-linux"],
         "allow": ["free", "paid", "holey", "linked", "harmless"], "message": "Ask #platform."},
        {"name": "clean", "subject": team("data"),
         "facts": {"licences": ["unfree"], "insecure": true, "closure": ["libold-1*"]}},
        {"name": "ops", "subject": team("ops"), "allow": ["*"]},
        {"name": "here", "subject": {"address": {"ranges": ["127.0.0.0/8"]}}, "allow": ["free"],
         "systems": ["x86_64-linux"]},
    ]})
}

fn guarded() -> Result<Stack> {
    guarded_by(&policy(), EnvoyConfig::standalone())
}

fn guarded_by(policy: &Value, config: EnvoyConfig) -> Result<Stack> {
    let envoy = envoy::Settings {
        config: config.settings(json!({"policy": policy})),
        ..Default::default()
    };
    Stack::with(envoy, |state: &Path| {
        let set = state.join("set");
        fs::create_dir(&set)?;
        fs::write(set.join("default.nix"), PACKAGES)?;
        let settings = builder::Settings {
            package_set: set,
            state: state.to_path_buf(),
            environment: Vec::new(),
        };
        Ok(settings.with("NIXGATE_NIX_OPTIONS", install::nix_options()?))
    })
}

fn ask(stack: &Stack, team: &str, path: &str) -> Result<Response> {
    request(Method::GET, stack.envoy.port(), path, &[("x-team", team)])
}

fn manifest_of(name: &str) -> String {
    format!("/v2/{name}/manifests/latest")
}

/// Asks until there is an answer: a client follows redirects to the same address.
fn settled(stack: &Stack, team: &str, path: &str) -> Result<Response> {
    let mut answer = ask(stack, team, path)?;
    while answer.status == StatusCode::TEMPORARY_REDIRECT {
        answer = ask(stack, team, answer.header("location"))?;
    }
    Ok(answer)
}

#[test]
fn what_names_can_not_say_is_judged_for_each_caller_whoever_asked_first() -> Result<()> {
    let stack = guarded()?;
    // Ops fill the cache with what data may not have, and the reverse.
    for (name, why) in [
        ("paid", "the rule clean"),
        ("holey", "the rule clean"),
        ("linked", "the rule clean"),
        ("harmless", "which is secret, denied by the rule data"),
        ("free/paid", "the rule clean"),
    ] {
        for _ in 0..2 {
            let ops = settled(&stack, "ops", &manifest_of(name))?;
            assert_eq!(ops.status, StatusCode::OK, "{name}: {}", ops.text());
            let data = settled(&stack, "data", &manifest_of(name))?;
            assert_eq!(data.status, StatusCode::FORBIDDEN, "{name}");
            for part in ["DENIED", why, "decision "] {
                assert!(data.text().contains(part), "{name}: {}", data.text());
            }
        }
        // Nor by digest, nor any of its blobs.
        let ops = settled(&stack, "ops", &manifest_of(name))?;
        let digest = ops.header("docker-content-digest");
        let manifest: Value = serde_json::from_slice(&ops.body)?;
        let config = manifest["config"]["digest"].as_str().unwrap_or_default();
        for path in [
            format!("/v2/{name}/manifests/{digest}"),
            format!("/v2/{name}/blobs/{config}"),
        ] {
            let ops = settled(&stack, "ops", &path)?;
            assert_eq!(ops.status, StatusCode::OK, "{path}: {}", ops.text());
            let data = settled(&stack, "data", &path)?;
            assert_eq!(data.status, StatusCode::FORBIDDEN, "{path}");
            let part = [("x-team", "data"), ("range", "bytes=0-9")];
            let part = request(Method::GET, stack.envoy.port(), &path, &part)?;
            assert_eq!(part.status, StatusCode::FORBIDDEN, "{path}");
            // Under an allowed name there is no such thing.
            let elsewhere = path.replace(&format!("/v2/{name}/"), "/v2/free/");
            let elsewhere = settled(&stack, "data", &elsewhere)?;
            assert_eq!(elsewhere.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
    let free = settled(&stack, "data", &manifest_of("free"))?;
    assert_eq!(free.status, StatusCode::OK, "{}", free.text());
    let log = stack.envoy.access_log();
    assert!(
        log.iter().any(|line| line["outcome"] == "denied"),
        "{log:?}"
    );
    Ok(())
}

#[test]
fn no_spelling_of_a_name_or_a_request_gets_around_the_policy() -> Result<()> {
    let stack = guarded()?;
    let known = settled(&stack, "ops", &manifest_of("free/secret"))?;
    assert_eq!(known.status, StatusCode::OK, "{}", known.text());
    let (port, mut answered) = (stack.envoy.port(), 0);
    for path in [
        "/v2/secret/manifests/latest",
        "/v2/free/secret/manifests/latest",
        "/v2/secret/free/free/manifests/latest",
        "/v2/cacert/secret/manifests/latest",
        "/v2/SECRET/manifests/latest",
        "/v2/free%2fsecret/manifests/latest",
        "/v2/free/%73ecret/manifests/latest",
        "/v2/free//secret/manifests/latest",
        "//v2/free/secret/manifests/latest",
        "/v2/free/secret;x/manifests/latest",
        "/v2/free/secret/manifests/latest/",
        "/v2/free/secret/manifests/latest;x",
        "/v2/free/../secret/manifests/latest",
        "/v2/free/./secret/manifests/latest",
        "/v2/secret/manifests/latest?x=/v2/free/manifests/latest",
        "/v2/secret/manifests/latest#/../free/manifests/latest",
        "/v2/secret.out/manifests/latest",
        "/v2/secret.out.out/manifests/latest",
        "/v2/free.out.out/manifests/latest",
        "/v2/arm64/free/manifests/latest",
        "/v2/arm64/free/tags/list",
        "/v2/secret/tags/list",
        "/v2/_catalog",
    ] {
        for method in [Method::GET, Method::HEAD, Method::POST] {
            for more in [
                ("x-other", "x"),
                ("x-http-method-override", "GET"),
                ("x-original-url", "/v2/free/manifests/latest"),
                ("x-envoy-original-path", "/v2/free/manifests/latest"),
                ("nixgate-token", "guess"),
                (
                    "nixgate-facts",
                    r#"[{"tags":["latest"],"system":"x86_64-linux","names":[],"matched":[]}]"#,
                ),
                ("x-team", "ops-"),
            ] {
                let headers = [("x-team", "data"), more];
                let Ok(answer) = request(method.clone(), port, path, &headers) else {
                    // Some of these no client library sends, or Envoy closes the connection.
                    continue;
                };
                answered += 1;
                assert!(
                    answer.status.is_client_error(),
                    "{method} {path} {more:?}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
        }
    }
    assert!(answered > 300, "only {answered} requests were answered");
    Ok(())
}

#[test]
fn a_real_client_is_told_why_not_in_words() -> Result<()> {
    let stack = guarded()?;
    let podman = Podman::new()?;
    podman.pull(&stack.image("free"))?;
    let refused = podman.pull(&stack.image("secret")).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(
        refused.contains(
            "you may not have secret (denied by the rule data; whether it is for you is not known)"
        ),
        "{refused}"
    );
    Ok(())
}

#[test]
fn who_is_held_while_the_policy_changes_is_judged_by_the_new_one() -> Result<()> {
    let everybody = json!({"revision": "r1", "default": "allow", "rules": []});
    let nobody = json!({"revision": "r2", "default": "deny", "rules": []});
    let envoy = envoy::Settings {
        config: EnvoyConfig::standalone().settings(json!({"policy": everybody})),
        ..Default::default()
    };
    let (stack, set) = Stack::gated(envoy, &[])?;
    let port = stack.envoy.port();
    let path = manifest_of("gated");
    let held = {
        let path = path.clone();
        thread::spawn(move || request(Method::GET, port, &path, &[]))
    };
    set.wait_for_start()?;
    stack.envoy.wait_until_it_holds(1)?;
    assert!(stack.envoy.deliver(json!({"policy": nobody}))?);
    set.open()?;
    let answer = held.join().expect("the client's thread ends")?;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    let again = request(Method::GET, port, answer.header("location"), &[])?;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "{}", again.text());
    assert!(again.text().contains("r2"), "{}", again.text());
    Ok(())
}

#[test]
fn an_output_is_judged_as_its_package_and_has_no_more_names() -> Result<()> {
    let policy = json!({"revision": "r1", "default": "deny", "rules": [
        {"name": "all", "allow": ["*", "*.*", "*.*.*"], "deny": ["harmless"]},
        {"name": "clean", "facts": {"licences": ["unfree"], "insecure": true}},
    ]});
    let stack = guarded_by(&policy, EnvoyConfig::standalone())?;
    let pull = |name: &str| settled(&stack, "anybody", &manifest_of(name));
    // What was added to the package is said of its output too, and a name holds for all below it.
    for (name, why) in [
        ("paid.out", "the rule clean"),
        ("holey.out", "the rule clean"),
        (
            "harmless.out",
            "harmless.out (which is harmless, denied by the rule all)",
        ),
    ] {
        let answer = pull(name)?;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "{name}: {}",
            answer.text()
        );
        assert!(answer.text().contains(why), "{name}: {}", answer.text());
    }
    let layers = |name: &str| -> Result<Value> {
        let answer = pull(name)?;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        let manifest: Value = serde_json::from_slice(&answer.body)?;
        let layers = manifest["layers"].as_array().into_iter().flatten();
        Ok(layers.map(|layer| layer["digest"].clone()).collect())
    };
    assert_eq!(layers("free.out")?, layers("free")?);
    for (name, status) in [
        // The edge knows.
        ("free.out.out", StatusCode::BAD_REQUEST),
        ("free.out.out.out", StatusCode::BAD_REQUEST),
        // The builder does.
        ("free.drvattrs", StatusCode::NOT_FOUND),
        ("free.outpath", StatusCode::NOT_FOUND),
        ("free.all", StatusCode::NOT_FOUND),
        ("linked.needs", StatusCode::NOT_FOUND),
    ] {
        let answer = pull(name)?;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    Ok(())
}
