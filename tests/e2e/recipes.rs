//! Images with names of their own: recipes of the builder's, and what a policy says of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_tests::envoy_config::{EnvoyConfig, merge};
use nixgate_tests::live::builder::{self, Builder};
use nixgate_tests::live::clients::containerd::Containerd;
use nixgate_tests::live::clients::docker::Docker;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::process::run;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{envoy, install, poll, scratch};
use serde_json::{Value, json};

fn recipes() -> Value {
    json!({"namespace": "corp", "images": {
        "ci-base": {
            "packages": ["shell", "hello"],
            "entrypoint": ["bash", "-c"],
            "cmd": ["echo $GREETING from $PWD as $(id -u):$(id -g)"],
            "env": {"GREETING": "good day"},
            "user": "1000:65534",
            "workdir": "/work",
            "labels": {"org.opencontainers.image.title": "CI"},
            "ports": ["8080"],
            "max_layers": 5,
        },
        "ci-tree": {"packages": ["tree", "hello"]},
        "job": {
            "packages": ["shell", "git", "openssh"],
            "user": "1000:1000",
            "workdir": "/builds/job",
        },
        "team/tree": {"packages": ["tree"]},
    }})
}

fn settings(state: &Path, recipes: &Value) -> Result<builder::Settings> {
    let file = state.join("recipes.json");
    fs::write(&file, recipes.to_string())?;
    Ok(builder::Settings::new(state)?.with("NIXGATE_RECIPES", &file))
}

/// A registry with these recipes, whose edge has more settings.
fn registry(more: Value) -> Result<Stack> {
    let mut patch = json!({"opaque_namespaces": ["corp"]});
    merge(&mut patch, more);
    Stack::with(edge(patch), |state| settings(state, &recipes()))
}

/// An edge with these settings.
fn edge(patch: Value) -> envoy::Settings {
    envoy::Settings {
        config: EnvoyConfig::standalone().settings(patch),
        ..Default::default()
    }
}

fn manifest(answer: &Response) -> Result<Value> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    Ok(serde_json::from_slice(&answer.body)?)
}

fn layers(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    layers.map(|layer| layer["digest"].to_string()).collect()
}

#[test]
fn a_recipe_is_pulled_and_runs_as_it_says() -> Result<()> {
    let stack = registry(json!({}))?;
    let podman = Podman::new()?;
    let image = stack.image("corp/ci-base");
    podman.pull(&image)?;
    let said = podman.run(&image, &[])?;
    assert_eq!(said.trim(), "good day from /work as 1000:65534");
    let said = podman.run(&image, &["hello"])?;
    assert_eq!(said.trim(), "Hello, world!");

    let manifest = manifest(&stack.get("/v2/corp/ci-base/manifests/latest")?)?;
    assert_eq!(layers(&manifest).len(), 5);
    assert_eq!(
        manifest["annotations"]["org.opencontainers.image.title"],
        "CI"
    );
    let config = manifest["config"]["digest"].as_str().context("a config")?;
    let config = stack.get(&format!("/v2/corp/ci-base/blobs/{config}"))?;
    let config: Value = serde_json::from_slice(&config.body)?;
    assert_eq!(config["config"]["ExposedPorts"], json!({"8080/tcp": {}}));

    for (path, status, word) in [
        ("corp/none", 404, "there is no image corp/none"),
        ("corp", 400, "corp is a namespace"),
        ("hello/corp", 400, "corp is a namespace"),
    ] {
        let answer = stack.get(&format!("/v2/{path}/manifests/latest"))?;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(word), "{}", answer.text());
    }
    Ok(())
}

/// What a user other than root does: writes into the working directory and at home, and has a name, without
/// which git and ssh do nothing.
const JOB: &str = r#"
    id --user; id --group; whoami; pwd; echo $HOME
    touch file ~/file
    stat --format='%u:%g %a' . .. /home $HOME
    git init --quiet repository
    git -C repository -c user.email=e commit --quiet --allow-empty --message first
    git -C repository log --format=%an
    ssh -G localhost | while read -r key value; do [[ $key != user ]] || echo $value; done
    ! touch /builds/other 2>/dev/null
"#;
const JOB_SAYS: &str = "1000\n1000\nuser\n/builds/job\n/home/user\n\
    1000:1000 755\n0:0 755\n0:0 755\n1000:1000 700\nuser\nuser\n";

#[test]
fn the_user_of_a_recipe_can_work_where_it_starts_with_every_client() -> Result<()> {
    let stack = registry(json!({}))?;
    let image = stack.image("corp/job:latest");
    let command = ["bash", "-euc", JOB];

    let podman = Podman::new()?;
    podman.pull(&image)?;
    assert_eq!(podman.run(&image, &command)?, JOB_SAYS, "podman");

    let containerd = Containerd::start()?;
    containerd.pull(&image)?;
    assert_eq!(containerd.run(&image, &command)?, JOB_SAYS, "containerd");

    let docker = Docker::start()?;
    docker.command(&["pull", &image])?;
    let run = ["run", "--rm", "--network=none", &image];
    let said = docker.command(&[&run[..], &command].concat())?;
    assert_eq!(said, JOB_SAYS, "docker");
    Ok(())
}

#[test]
fn a_workdir_that_a_package_has_is_told() -> Result<()> {
    let mut recipes = recipes();
    recipes["images"]["job"] = json!({"packages": ["hello"], "workdir": "/bin/hello"});
    let state = scratch::folder("recipes-")?;
    let builder = Builder::start(&settings(state.path(), &recipes)?)?;
    let answer = builder.get("/v2/corp/job/manifests/latest")?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let words = "/bin/hello is not made: a package has a file or a link there";
    assert!(builder.log().contains(words), "{}", builder.log());
    Ok(())
}

#[test]
fn a_recipe_shares_its_layers_with_lists_of_packages_and_needs_no_nix_for_what_is_known()
-> Result<()> {
    let stack = registry(json!({}))?;
    let plain = manifest(&stack.get("/v2/tree/hello/manifests/latest")?)?;
    let before = stack.builder.nix_processes()?;
    let recipe = manifest(&stack.get("/v2/corp/ci-tree/manifests/latest")?)?;
    assert_eq!(layers(&recipe), layers(&plain));
    assert_eq!(stack.builder.nix_processes()?, before);
    Ok(())
}

#[test]
fn a_changed_recipe_is_another_image_and_a_removed_one_is_gone() -> Result<()> {
    let state = scratch::folder("recipes-")?;
    let builder = Builder::start(&settings(state.path(), &recipes())?)?;
    let file = state.path().join("recipes.json");
    let tagged = "/v2/corp/team/tree/manifests/latest";
    let first = builder.get(tagged)?;
    let layer = layers(&manifest(&first)?).remove(0);
    let blob = format!("/v2/corp/team/tree/blobs/{}", layer.trim_matches('"'));
    let first = first.header("docker-content-digest").to_owned();
    let pinned = format!("/v2/corp/team/tree/manifests/{first}");

    let mut changed = recipes();
    changed["images"]["team/tree"]["workdir"] = json!("/tmp");
    // It is looked at when somebody asks, and read when it has rested.
    let write = |text: String, told: &str| -> Result<()> {
        let told_before = builder.log().matches(told).count();
        fs::write(&file, text)?;
        poll::until(&format!("the builder says: {told}"), || {
            builder.get(tagged).ok()?;
            (builder.log().matches(told).count() > told_before).then_some(())
        })
    };
    write(changed.to_string(), "reloaded the changed file")?;
    let second = builder.get(tagged)?;
    manifest(&second)?;
    assert_ne!(second.header("docker-content-digest"), first);
    manifest(&builder.get(&pinned)?)?;

    // What is wrong changes nothing.
    write(changed.to_string().replace("/tmp", "tmp"), "workdir")?;
    let third = builder.get(tagged)?;
    let digest = "docker-content-digest";
    assert_eq!(third.header(digest), second.header(digest));

    let removed = changed["images"].as_object_mut().context("images")?;
    removed.remove("team/tree");
    write(changed.to_string(), "reloaded the changed file")?;
    for path in [tagged, &pinned, &blob] {
        let answer = builder.get(path)?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        // As of what was never there: a policy may hide that there was.
        let other = path.replace("team/tree", "never");
        let never = builder.get(&other)?.text();
        assert_eq!(answer.text().replace("team/tree", "never"), never);
    }
    assert_eq!(
        builder.get("/v2/corp/never/tags/list")?.status,
        StatusCode::OK
    );
    Ok(())
}

#[test]
fn the_edge_asks_again_for_what_it_has_by_digest() -> Result<()> {
    let stack = registry(json!({}))?;
    let path = "/v2/corp/ci-tree/manifests/latest";
    let digest = stack.get(path)?.header("docker-content-digest").to_owned();
    let pinned = stack
        .builder
        .get(&format!("/v2/corp/ci-tree/manifests/{digest}"))?;
    assert_eq!(pinned.header("cache-control"), "max-age=300");
    let plain = stack.builder.get("/v2/tree/manifests/latest")?;
    let digest = plain.header("docker-content-digest");
    let plain = stack.builder.get(&format!("/v2/tree/manifests/{digest}"))?;
    assert!(
        plain.header("cache-control").contains("31536000"),
        "{}",
        plain.header("cache-control")
    );
    Ok(())
}

fn policy() -> Value {
    let team = |name: &str| json!({"header": {"name": "x-team", "glob": name}});
    json!({"revision": "1", "default": "deny", "rules": [
        {"name": "ci", "subject": team("ci"), "images": ["corp/ci-*"]},
        {"name": "packages", "subject": team("packages"), "allow": ["*"]},
        {"name": "strict", "subject": team("strict"), "images": ["corp/*"], "deny": ["tree"]},
        {"name": "closure", "subject": team("closure"), "images": ["corp/*"],
         "facts": {"closure": ["hello-*"]}},
    ]})
}

#[test]
fn a_policy_judges_a_recipe_by_its_name_and_by_what_is_in_it() -> Result<()> {
    let stack = registry(json!({"catalog": true, "policy": policy()}))?;
    let ask = |team: &str, path: &str| {
        let port = stack.envoy.port();
        request(Method::GET, port, path, &[("x-team", team)])
    };
    let of = |name: &str| format!("/v2/corp/{name}/manifests/latest");
    for (name, teams) in [
        ("ci-base", &["ci", "strict"][..]),
        ("ci-tree", &["ci"]),
        ("team/tree", &["closure"]),
    ] {
        for team in ["ci", "packages", "strict", "closure", "none"] {
            let answer = ask(team, &of(name))?;
            let expected = if teams.contains(&team) { 200 } else { 403 };
            let text = answer.text();
            assert_eq!(answer.status, expected, "{team} {name}: {text}");
        }
    }
    let refused = ask("strict", &of("ci-tree"))?.text();
    assert!(
        refused.contains("tree (denied by the rule strict)"),
        "{refused}"
    );
    let refused = ask("none", &of("ci-tree"))?.text();
    assert!(
        refused.contains("corp/ci-tree (no rule allows it"),
        "{refused}"
    );
    // What is in the image, under the name of its packages, is not the recipe's to give.
    assert_eq!(ask("ci", "/v2/tree/hello/manifests/latest")?.status, 403);

    let manifest = manifest(&ask("ci", &of("ci-tree"))?)?;
    for layer in layers(&manifest) {
        let digest = layer.trim_matches('"');
        for (name, team, expected) in [
            ("corp/ci-tree", "ci", 200),
            ("corp/ci-tree", "strict", 403),
            ("corp/ci-tree", "packages", 403),
            ("tree/hello", "ci", 403),
        ] {
            let answer = ask(team, &format!("/v2/{name}/blobs/{digest}"))?;
            assert_eq!(answer.status, expected, "{team} {name}");
        }
    }
    let listed = |team: &str| -> Result<Value> {
        let answer = ask(team, "/v2/_catalog")?;
        let body: Value = serde_json::from_slice(&answer.body)?;
        Ok(body["repositories"].clone())
    };
    assert_eq!(listed("ci")?, json!(["corp/ci-base", "corp/ci-tree"]));
    assert_eq!(listed("strict")?, json!(["corp/ci-base"]));
    assert_eq!(listed("none")?, json!([]));
    Ok(())
}

#[test]
fn who_reads_a_name_otherwise_opens_nothing() -> Result<()> {
    // An edge that takes the name for a list of packages, all of which may be had.
    let allow_all = json!({"revision": "1", "default": "allow", "rules": []});
    let envoy = edge(json!({"policy": allow_all}));
    let recipes =
        json!({"namespace": "aaa", "images": {"cacert/iana-etc/tree": {"packages": ["tree"]}}});
    let stack = Stack::with(envoy, |state| settings(state, &recipes))?;
    let answer = stack.get("/v2/aaa/tree/manifests/latest")?;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("disagree"), "{}", answer.text());
    drop(stack);

    // The likeliest mistake: the edge was not told. The builder says what to do.
    let stack = Stack::with(envoy::Settings::default(), |state| {
        settings(state, &self::recipes())
    })?;
    let answer = stack.get("/v2/corp/ci-base/manifests/latest")?;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(
        answer.text().contains("opaque_namespaces"),
        "{}",
        answer.text()
    );
    drop(stack);

    // A builder that does.
    let envoy = edge(json!({"opaque_namespaces": ["tree"], "policy": allow_all}));
    let stack = Stack::with(envoy, builder::Settings::new)?;
    let answer = stack.get("/v2/tree/hello/manifests/latest")?;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("disagree"), "{}", answer.text());
    Ok(())
}

#[test]
fn recipes_are_checked_built_and_warmed_on_the_command_line() -> Result<()> {
    let folder = scratch::folder("recipes-")?;
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text);
    write("recipes.json", recipes().to_string())?;
    let policy = json!({"revision": "1", "default": "deny", "rules": [
        {"name": "ci", "images": ["corp/ci-*", "corp/gone"]}]});
    write("policy.json", policy.to_string())?;
    let nixgate = |arguments: &[&str]| -> Result<Command> {
        let mut command = Command::new(install::builder()?);
        command
            .args(arguments)
            .current_dir(&folder)
            .env("NIXERY_PKGS_PATH", install::debian_set()?)
            .env("NIXGATE_NIX_OPTIONS", install::nix_options()?)
            .env("NIXGATE_RECIPES", "recipes.json")
            .env("NIXGATE_STATE_DIR", folder.path().join("state"));
        Ok(command)
    };
    let checked = run(&mut nixgate(&["recipes", "check", "recipes.json"])?)?;
    assert_eq!(
        checked,
        "corp/ci-base: shell/hello\ncorp/ci-tree: hello/tree\ncorp/job: shell/git/openssh\ncorp/team/tree: tree\n"
    );
    write("wrong.json", recipes().to_string().replace("8080", "http"))?;
    let wrong = nixgate(&["recipes", "check", "wrong.json"])?.output()?;
    let said = String::from_utf8(wrong.stderr)?;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        said.contains("wrong.json") && said.contains("\"ci-base\": ports: \"http\""),
        "{said}"
    );

    let built = run(&mut nixgate(&["build", "corp/ci-tree"])?)?;
    assert!(built.starts_with("sha256:"), "{built}");
    let unknown = nixgate(&["build", "corp/gone"])?.output()?;
    let said = String::from_utf8(unknown.stderr)?;
    assert!(said.contains("there is no image corp/gone"), "{said}");

    let findings = nixgate(&["policy", "check", "policy.json"])?.output()?;
    let said = String::from_utf8(findings.stdout)?;
    assert!(
        said.contains("images: \"corp/gone\" matches no recipe"),
        "{said}"
    );
    let lab = policy.to_string().replace("corp/", "lab/");
    let configuration = format!("{{\"opaque_namespaces\": [\"lab\"], \"policy\": {lab}}}");
    write("filter.json", configuration)?;
    let findings = nixgate(&["policy", "check", "filter.json"])?.output()?;
    let said = String::from_utf8(findings.stdout)?;
    assert!(said.contains("opaque_namespaces lacks corp"), "{said}");
    let warmed = nixgate(&["warm", "--policy", "policy.json"])?.output()?;
    let said = String::from_utf8(warmed.stdout)? + &String::from_utf8(warmed.stderr)?;
    assert_eq!(warmed.status.code(), Some(1), "{said}");
    assert!(
        said.contains("corp/gone") && said.contains("there is no image"),
        "{said}"
    );
    let again = run(&mut nixgate(&["build", "corp/ci-base"])?)?;
    assert!(again.starts_with("sha256:"), "{again}");
    Ok(())
}
