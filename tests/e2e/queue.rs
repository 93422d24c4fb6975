//! More images than the builder takes on, and more than it builds at once.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::http::{Response, get, request};
use nixgate_tests::live::sign::Sign;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{builder, envoy, poll};
use serde_json::{Value, json};

/// Each slow build says that it started, then waits until the test opens its gate.
const PACKAGES: &str = r#"{ system ? builtins.currentSystem }:
let
  package = name: script: derivation {
    name = "${name}-1";
    pname = name;
    version = "1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    gate = "@folder@";
    args = [ "-c" "${script} mkdir -p $out/share; echo ${name} > $out/share/${name}" ];
  };
  slow = name: package name ''
    echo > $gate/started
    until test -e $gate/${name}-open; do sleep 0.02; done
  '';
in
{
  slow1 = slow "slow1";
  slow2 = slow "slow2";
  slow3 = slow "slow3";
  slow4 = slow "slow4";
  quick = package "quick" "";
  cacert = package "cacert" "";
  iana-etc = package "iana-etc" "";
}
"#;

#[test]
fn one_image_too_many_is_refused_at_once_and_those_in_the_queue_are_not() -> Result<()> {
    const GATED: &str = "/v2/gated/manifests/latest";
    const OTHER: &str = "/v2/cacert/manifests/latest";
    let (stack, set) = Stack::gated(envoy::Settings::default(), &[("NIXGATE_MAX_QUEUE", "1")])?;
    let port = stack.envoy.port();

    let first = thread::spawn(move || get(port, GATED));
    set.wait_for_start()?;
    // Each is answered by the builder: a refusal for now is not cached.
    for _ in 0..2 {
        let refused = request(Method::GET, port, OTHER, &[])?;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.error()?.0, "TOOMANYREQUESTS");
        assert!(refused.header("retry-after").parse::<u32>().is_ok());
    }
    let refusals = ["route=\"manifest\"", "status=\"429\""];
    assert_eq!(
        stack.builder.counter("nixgate_requests_total", &refusals)?,
        2
    );
    let joined = thread::spawn(move || get(port, "/v2/gated/cacert/manifests/latest"));
    stack.envoy.wait_until_it_holds(2)?;
    set.open()?;
    for client in [first, joined] {
        let answer = client.join().expect("the client's thread ends")?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert_eq!(get(port, OTHER)?.status, StatusCode::OK);
    Ok(())
}

/// A registry for two teams that takes on three images and builds one at a time.
/// Its first build gives a sign.
fn for_two_teams() -> Result<(Stack, Sign)> {
    let team = |name: &str| {
        let subject = json!({"header": {"name": "x-team", "glob": name}});
        json!({"name": name, "subject": subject, "allow": ["*"]})
    };
    let rules = json!([{"name": "everybody", "allow": ["*"]}, team("one"), team("other")]);
    let policy = json!({"revision": "r1", "default": "deny", "rules": rules});
    let envoy = envoy::Settings {
        config: EnvoyConfig::standalone().settings(json!({"policy": policy})),
        ..Default::default()
    };
    let mut started = None;
    let stack = Stack::with(envoy, |state: &Path| {
        let state = state.canonicalize()?;
        started = Some(Sign::new(&state.join("started"))?);
        let set = state.join("set");
        fs::create_dir(&set)?;
        let expression = PACKAGES.replace("@folder@", &state.to_string_lossy());
        fs::write(set.join("default.nix"), expression)?;
        let options = GatedSet::nix_options_for(&state)?;
        let settings = builder::Settings {
            package_set: set,
            state,
            environment: Vec::new(),
        };
        let settings = settings.with("NIXGATE_NIX_OPTIONS", options);
        let settings = settings.with("NIXGATE_MAX_BUILDS", "1");
        Ok(settings.with("NIXGATE_MAX_QUEUE", "3"))
    })?;
    Ok((stack, started.context("a sign")?))
}

fn ask(port: u16, team: &str, package: &str) -> Result<Response> {
    let path = format!("/v2/{package}/manifests/latest");
    request(Method::GET, port, &path, &[("x-team", team)])
}

/// Asks until there is an image, as somebody who insists.
fn pull(port: u16, team: &str, package: &str) -> Result<()> {
    poll::until(&format!("the team {team} has {package}"), || {
        let answer = ask(port, team, package).ok()?;
        (answer.status == StatusCode::OK).then_some(())
    })
}

/// The build of an image with this package, done or not.
fn build(stack: &Stack, package: &str) -> Result<Option<Value>> {
    let page: Value = serde_json::from_slice(&stack.builder.get("/builds")?.body)?;
    let builds = page["builds"].as_array().context("a list of builds")?;
    let is_it = |build: &Value| {
        let packages = build["packages"].as_array();
        packages.is_some_and(|packages| packages.contains(&package.into()))
    };
    Ok(builds.iter().find(|build| is_it(build)).cloned())
}

/// Waits until a package has been evaluated, which is 5 % of its build, and waits for its turn.
fn wait_for_its_turn(stack: &Stack, package: &str) -> Result<()> {
    poll::until(&format!("{package} waits to be built"), || {
        let build = build(stack, package).ok()??;
        (build["phase"] == "waiting" && build["percent"] == 5).then_some(())
    })
}

#[test]
fn a_team_that_fills_the_queue_keeps_no_other_from_its_turn() -> Result<()> {
    let (stack, started) = for_two_teams()?;
    let port = stack.envoy.port();
    let gate = |name: &str| stack.state().join(name);
    let mut clients = vec![thread::spawn(move || pull(port, "one", "slow1"))];
    started.wait("the first build runs")?;
    for package in ["slow2", "slow3"] {
        clients.push(thread::spawn(move || pull(port, "one", package)));
        wait_for_its_turn(&stack, package)?;
    }
    let refused =
        |team: &str| -> Result<bool> {
            let answer = ask(port, team, "slow4")?;
            Ok(answer.status == StatusCode::TOO_MANY_REQUESTS
                && answer.error()?.0 == "TOOMANYREQUESTS")
        };
    assert!(refused("one")?, "the queue is full");

    let other = thread::spawn(move || pull(port, "other", "quick"));
    wait_for_its_turn(&stack, "quick")?;
    assert!(refused("other")?, "it has its share");
    // Were the first team's next build before the other's, it would hold the only turn until its
    // gate is opened, which is when the other has its image.
    fs::write(gate("slow1-open"), "")?;
    other.join().expect("the client's thread ends")?;
    for package in ["slow2", "slow3"] {
        let build = build(&stack, package)?.context(package)?;
        assert!(
            build["phase"] != "done" && build["phase"] != "failed",
            "{build}"
        );
    }

    for package in ["slow2", "slow3"] {
        fs::write(gate(&format!("{package}-open")), "")?;
    }
    for client in clients {
        client.join().expect("the client's thread ends")?;
    }
    Ok(())
}
