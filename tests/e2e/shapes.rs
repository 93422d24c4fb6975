//! Packages of all shapes, by what happens in containers of their images.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::process::run;
use nixgate_tests::live::shaped_set::ShapedSet;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{builder, envoy, install};
use serde_json::{Value, json};

/// `tests/odd-packages` over the embedded set.
pub(crate) fn odd_packages(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let from = install::root().join("tests/odd-packages/default.nix");
    fs::copy(from, folder.join("default.nix"))?;
    debian(&folder.join("debian"))
}

/// A copy of the embedded set.
fn debian(folder: &Path) -> Result<()> {
    run(Command::new("cp")
        .arg("--recursive")
        .arg(install::debian_set()?)
        .arg(folder))?;
    Ok(())
}

fn odd_stack() -> Result<Stack> {
    Stack::with(envoy::Settings::default(), |state| {
        let mut settings = builder::Settings::new(state)?;
        settings.package_set = state.join("set");
        odd_packages(&settings.package_set)?;
        Ok(settings)
    })
}

/// Runs a script in a container of an image.
fn run_in(stack: &Stack, packages: &str, script: &str) -> Result<String> {
    let podman = Podman::new()?;
    let image = stack.image(packages);
    podman.pull(&image)?;
    podman
        .run(&image, &["bash", "-ec", script])
        .with_context(|| format!("in {packages}"))
}

#[test]
fn programs_are_found_whatever_the_shapes_and_the_order_of_names() -> Result<()> {
    let stack = odd_stack()?;
    for (packages, script, expected) in [
        (
            "shell/jdk-like",
            "java; /bin/java; ls /bin/ls",
            "java\njava\n/bin/ls\n",
        ),
        ("shell/a-jdk-like", "ajava; ls /bin/ls", "ajava\n/bin/ls\n"),
        (
            "shell/a-sbin-link/with-sbin/z-sbin-link",
            "/sbin/ifconf; /bin/alinked; /bin/zlinked; /bin/box; ifconf",
            "ifconf\nalinked\nzlinked\nbox\nifconf\n",
        ),
        (
            "shell/a-env-like",
            "java; ls /bin/ls; cat /share/etc/hi",
            "java\n/bin/ls\nhi\n",
        ),
        (
            "shell/a-link-output",
            "box; ifconf; ls /bin/ls",
            "box\nifconf\n/bin/ls\n",
        ),
        ("shell/libc-like", "echo $LANG", "C.UTF-8\n"),
        (
            "shell/man-link/man-real",
            "cat /share/man/man1/{l,r}.1 /man/man1/l.1; echo $MANPATH",
            "l\nr\nl\n/share/man\n",
        ),
    ] {
        assert_eq!(run_in(&stack, packages, script)?, expected, "{packages}");
    }
    Ok(())
}

#[test]
fn packages_do_not_replace_what_every_image_has() -> Result<()> {
    let stack = odd_stack()?;
    let packages = "shell/a-etc-link/a-proc-link/a-tmp-link";
    let script = r#"
        stat --format='%n %a' /tmp /var/tmp /root /home /run
        whoami
        cat /etc/hi
        grep --quiet '^https' /etc/services
        cmp /etc/ssl/certs/ca-certificates.crt "$SSL_CERT_FILE"
        test -s "$NIX_SSL_CERT_FILE"
        test -e /proc/self/exe && test -c /dev/null && test -d /sys/kernel
        touch /tmp/x /var/tmp/x /root/x /home/x
    "#;
    let packages = format!("{packages}/gnugrep/diffutils");
    let said = run_in(&stack, &packages, script)?;
    let expected = "/tmp 1777\n/var/tmp 1777\n/root 700\n/home 755\n/run 755\nroot\nhi\n";
    assert_eq!(said, expected);

    // What the image lacks is told by name, in the log and with the build.
    let builds: Value = serde_json::from_slice(&stack.get("/builds")?.body)?;
    let build = &builds["builds"][0];
    let told = build["left_out"]["texts"].to_string();
    let id = build["id"].as_str().context("an id")?;
    let log = stack.get(&format!("/builds/{id}/log"))?.text();
    for (path, package) in [
        ("/tmp", "a-tmp-link-1"),
        ("/root", "a-tmp-link-1"),
        ("/proc", "a-proc-link-1"),
    ] {
        let words = format!("{path} of {package} is left out: it is the image's own");
        for text in [&told, &log, &stack.builder.log()] {
            assert!(text.contains(&words), "{words} in {text}");
        }
    }
    // A file of the name of another package's folder.
    run_in(&stack, "shell/man-real/a-single-file", "true")?;
    let builds: Value = serde_json::from_slice(&stack.get("/builds")?.body)?;
    let told = builds["builds"][0]["left_out"]["texts"].to_string();
    for words in [
        "/lib of man-real-1 is left out: ",
        "a-single-file-1 is a single file",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
    // The root may be read-only: the runtime has something to mount over.
    let podman = Podman::new()?;
    let image = stack.image("shell/a-proc-link");
    podman.pull(&image)?;
    podman.run_with(&["--network=none", "--read-only"], &image, &["ls", "/proc"])?;
    Ok(())
}

#[test]
fn a_file_that_means_a_deletion_is_refused_by_name_and_remembered() -> Result<()> {
    let stack = odd_stack()?;
    for _ in 0..2 {
        let answer = stack.get("/v2/whiteout/manifests/latest")?;
        let text = answer.text();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{text}");
        assert!(text.contains("whiteout-1 cannot be in an image"), "{text}");
        assert!(text.contains("share/.wh.foo"), "{text}");
    }
    let log = stack.builder.log();
    assert_eq!(log.matches("not built").count(), 1, "{log}");
    Ok(())
}

#[test]
fn modules_are_imported_with_those_that_they_need() -> Result<()> {
    let stack = odd_stack()?;
    let import = |module: &str| format!("python3 -c 'import {module}; print({module}.x)'");
    assert_eq!(
        run_in(&stack, "shell/python3/pymod", &import("pymod"))?,
        "42\n"
    );
    assert_eq!(
        run_in(&stack, "shell/python3/pyneeds", &import("pyneeds"))?,
        "42\n"
    );
    // Those of another Python are in the image, and not in the way.
    let script = format!("{}; ls /lib/python3.4/site-packages", import("pymod"));
    assert_eq!(
        run_in(&stack, "shell/python3/pymod/pyold", &script)?,
        "42\npymod.py\n"
    );
    let log = stack.builder.log();
    assert!(!log.contains("is left out"), "{log}");
    // The image's Python finds nothing that only another one would.
    run_in(&stack, "shell/python3/pyold", "! python3 -c 'import pymod'")?;
    Ok(())
}

/// The set that is shaped like nixpkgs, with real programs.
pub(crate) fn shaped_stack() -> Result<(ShapedSet, Stack)> {
    let set = ShapedSet::write()?;
    debian(&set.path().join("debian"))?;
    fs::write(
        set.path().join("real.nix"),
        "let set = import ./debian { }; in set // { inherit (set.python3Packages.six) python; }",
    )?;
    let recipes = set.folder().join("recipes.json");
    fs::write(
        &recipes,
        r#"{"namespace": "corp", "images": {"own": {
            "packages": ["bash", "tzdata.out", "ncurses"],
            "env": {"TZDIR": "/own", "LANG": "de"}
        }}}"#,
    )?;
    let edge = envoy::Settings {
        config: EnvoyConfig::standalone().settings(json!({"opaque_namespaces": ["corp"]})),
        ..Default::default()
    };
    let stack = Stack::with(edge, |state| {
        let mut settings = builder::Settings::new(state)?;
        settings.package_set = set.path();
        // Packages for another processor come from a cache, as those of nixpkgs do; here, this machine's shell
        // makes them.
        let options = install::nix_options()? + ";extra-platforms=aarch64-linux";
        let settings = settings.with("NIXGATE_NIX_OPTIONS", options);
        Ok(settings.with("NIXGATE_RECIPES", &recipes))
    })?;
    Ok((set, stack))
}

#[test]
fn a_set_like_nixpkgs_works_by_itself() -> Result<()> {
    let (_set, stack) = shaped_stack()?;
    let python = "shell/python3/python3packages.requests";
    let script = "python3 -c 'import requests, urllib3, brotli, certifi'";
    run_in(&stack, python, script)?;
    let perl = "perl -MURI -e 'print \"$INC{q(URI.pm)}\\n\"'";
    let said = run_in(&stack, "shell/perl/perlpackages.uri", perl)?;
    assert!(said.starts_with("/lib/perl5/site_perl/"), "{said}");
    let node = "node -p 'require(\"typescript\").version'";
    assert_eq!(run_in(&stack, "shell/nodejs_22/typescript", node)?, "5.9\n");

    let all = "shell/dejavu_fonts/glibclocales/ncurses/tzdata.out";
    let script = r#"
        cat "$TERMINFO_DIRS/x/xterm" "$MANPATH/man1/tput.1" "$LOCALE_ARCHIVE"
        TZ=Europe/Berlin date --date=@0 +%Z
        cat "$XDG_DATA_DIRS/fonts/truetype/DejaVuSans.ttf"
        [[ $(<$FONTCONFIG_FILE) == *'<dir>/share/fonts</dir>'* ]]
        echo "${PYTHONPATH-none}" "${PERL5LIB-none}" "${NODE_PATH-none}"
    "#;
    assert_eq!(
        run_in(&stack, all, script)?,
        "xterm\ntput\narchive\nCET\nfont\nnone none none\n"
    );
    Ok(())
}

#[test]
fn a_recipe_s_variables_replace_those_of_its_packages() -> Result<()> {
    let (_set, stack) = shaped_stack()?;
    let podman = Podman::new()?;
    let image = stack.image("corp/own");
    podman.pull(&image)?;
    let script = "echo $TZDIR $LANG $TERMINFO_DIRS";
    assert_eq!(
        podman.run(&image, &["bash", "-c", script])?,
        "/own de /share/terminfo\n"
    );
    Ok(())
}
