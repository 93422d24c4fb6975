//! What users do: log in, pull, run.

use std::fs;

use anyhow::Result;
use nixgate_tests::live::clients::containerd::Containerd;
use nixgate_tests::live::clients::docker::Docker;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::scratch;

use super::shared;

const WRONG: &str = "wrong user or password";
const NO_LOGIN: &str = "log in to this registry";

/// The whole of an error, in lower case: clients write its code as they like.
fn told<T>(result: Result<T>) -> String {
    let error = result.err().expect("it is refused");
    format!("{error:#}").to_lowercase()
}

#[test]
fn podman_logs_in_and_pulls() -> Result<()> {
    let (podman, gateway) = (Podman::new()?, shared());
    let (registry, image) = (gateway.registry(), gateway.image("shell/hello"));
    let (password, ca) = (gateway.password("alice")?, gateway.ca());

    let refused = told(podman.pull_logged_in(&image, &ca));
    assert!(refused.contains("unauthorized"), "{refused}");
    let refused = told(podman.login(&registry, "alice", "wrong", &ca));
    assert!(refused.contains("invalid username/password"), "{refused}");

    podman.login(&registry, "alice", &password, &ca)?;
    podman.pull_logged_in(&image, &ca)?;
    assert_eq!(podman.run(&image, &["hello"])?, "Hello, world!\n");
    // The other team's package.
    let refused = told(podman.pull_logged_in(&gateway.image("nodejs"), &ca));
    assert!(
        refused.contains("denied") && refused.contains("nodejs"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn docker_logs_in_and_pulls() -> Result<()> {
    let (docker, gateway) = (Docker::start()?, shared());
    let (registry, image) = (gateway.registry(), gateway.image("shell/hello"));
    let login = |password: &str| {
        docker.command(&[
            "login",
            "--username",
            "bob",
            "--password",
            password,
            &registry,
        ])
    };

    let refused = told(docker.command(&["pull", &image]));
    assert!(
        refused.contains("user and password are missing"),
        "{refused}"
    );
    let refused = told(login("wrong"));
    assert!(refused.contains(WRONG), "{refused}");

    let printed = login(&gateway.password("bob")?)?;
    assert!(printed.contains("Login Succeeded"), "{printed}");
    docker.command(&["pull", &image])?;
    let run = ["run", "--rm", "--network=none", &image, "hello"];
    assert_eq!(docker.command(&run)?, "Hello, world!\n");
    // The other team's package.
    let refused = told(docker.command(&["pull", &gateway.image("sqlite")]));
    assert!(
        refused.contains("denied") && refused.contains("sqlite"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn containerd_pulls_by_hosts_toml() -> Result<()> {
    let (containerd, gateway) = (Containerd::start()?, shared());
    let image = gateway.image("shell/hello:latest");
    let hosts = scratch::folder("hosts-")?;
    let registry = gateway.registry();
    let folder = hosts.path().join(&registry);
    fs::create_dir(&folder)?;
    // As docs/src/login.md has it.
    let ca = gateway.ca().join("ca.crt");
    fs::write(
        folder.join("hosts.toml"),
        format!(
            "server = \"https://{registry}\"\n\
             [host.\"https://{registry}\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n\
             ca = {ca:?}\n"
        ),
    )?;
    let pull = |password: &str| containerd.pull_as(&image, "alice", password, hosts.path());

    let refused = told(pull("wrong"));
    assert!(refused.contains("401"), "{refused}");
    pull(&gateway.password("alice")?)?;
    assert_eq!(containerd.run(&image, &["hello"])?, "Hello, world!\n");
    Ok(())
}

#[test]
fn skopeo_copies_with_credentials() -> Result<()> {
    let gateway = shared();
    let image = gateway.image("python3");
    let copy = |user: &str, password: &str| {
        let folder = scratch::folder("copy-")?;
        skopeo::copy_as(&image, user, password, &gateway.ca(), folder.path())
    };
    let refused = told(copy("alice", "wrong"));
    assert!(
        refused.contains(WRONG) || refused.contains("invalid username"),
        "{refused}"
    );
    let refused = told(copy("bob", &gateway.password("bob")?));
    assert!(
        refused.contains("python3") || refused.contains("denied"),
        "{refused}"
    );
    copy("alice", &gateway.password("alice")?)
}

#[test]
fn who_has_not_logged_in_is_told_so() -> Result<()> {
    let answer = shared().get("/v2/hello/manifests/latest", None)?;
    let (code, message) = answer.error()?;
    assert_eq!(code, "UNAUTHORIZED");
    assert!(message.contains(NO_LOGIN), "{message}");
    Ok(())
}
