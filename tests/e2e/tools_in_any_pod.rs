//! The tools of an image in a container that has nothing but the image's `/nix`.

use anyhow::Result;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::scratch;

use crate::shared;

const PROFILE: &str = "/nix/var/nixgate/profile";

#[test]
fn the_tools_of_an_image_run_in_a_container_that_has_nothing_else() -> Result<()> {
    let podman = Podman::new()?;
    let image = shared().image("shell/git/curl/python3/python3packages.requests");
    podman.pull(&image)?;
    let mounted = podman.mount_image(&image)?;
    let empty = scratch::folder("empty-")?;
    let root = empty.path().display().to_string();
    let nix = format!("--volume={mounted}/nix:/nix:ro");
    let path = format!("--env=PATH={PROFILE}/bin");
    let roots = format!("--env=SSL_CERT_FILE={PROFILE}/etc/ssl/certs/ca-bundle.crt");
    let options = ["--network=none", "--rootfs", &nix, &path, &roots];
    let run = |command: &[&str]| podman.run_with(&options, &root, command);

    assert!(run(&["git", "--version"])?.starts_with("git version "));
    let script = r#"
        test ! -e /bin/sh
        mkdir /tmp
        head -n 1 "$SSL_CERT_FILE"
        cd /tmp && git init --quiet r && git -C r -c user.name=n -c user.email=e commit --quiet --allow-empty -m first
        git -C r log --format=%s
        git ls-remote https://127.0.0.1:1/ 2>&1 | head -c 26
        echo
        modules=$(echo /nix/var/nixgate/profile/lib/python3.*/site-packages)
        PYTHONPATH=$modules python3 -c 'import requests, urllib3; print(requests.certs.where() != "")'
        python3 -c '
import os
for folder, folders, files in os.walk("/nix/var/nixgate/profile"):
    for name in folders + files:
        path = os.path.join(folder, name)
        if not (os.path.exists(path) and os.path.realpath(path).startswith("/nix/")): print(path)'
    "#;
    let said = run(&["bash", "-euc", script])?;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("BEGIN CERTIFICATE"), "{said}");
    assert_eq!(
        lines[1..],
        ["first", "fatal: unable to access 'h", "True"],
        "{said}"
    );
    Ok(())
}
