//! Images that Nix makes alone, by `nix/image`: what is in them, and what a change makes anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::live::clients::containerd::Containerd;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::process::run;
use nixgate_tests::live::{install, scratch};
use serde_json::Value;
use tempfile::TempDir;

use crate::shapes::odd_packages;

/// Where expressions are written and images are linked.
struct Scene(TempDir);

/// What an image's documents say.
struct Documents {
    config: Value,
    /// Digests, lowest first.
    layers: Vec<String>,
}

impl Scene {
    fn new() -> Result<Self> {
        Ok(Self(scratch::folder("nix-image-")?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Builds an image of some of the Debian set's packages, with these arguments, as Nix writes
    /// them; the folder `name` is its layout then.
    fn build(&self, name: &str, arguments: &str) -> Result<PathBuf> {
        let expression = self.path(&format!("{name}.nix"));
        let text = format!(
            "let pkgs = import {set} {{ }}; in import {root}/nix/image ({{\n  inherit pkgs;\n  \
             name = \"team/app\";\n  contents = with pkgs; [ bashInteractive coreutils hello ];\n\
             }} // {{ {arguments} }})\n",
            set = install::debian_set()?.display(),
            root = install::root().canonicalize()?.display(),
        );
        fs::write(&expression, text)?;
        let link = self.path(name);
        run(install::nix("nix-build")?
            .args(["--option", "sandbox", "true", "--out-link"])
            .args([&link, &expression]))?;
        Ok(link)
    }

    /// What skopeo finds in a layout, whose digests it verifies.
    fn documents(&self, layout: &Path) -> Result<Documents> {
        let copy = tempfile::tempdir_in(&self.0)?;
        skopeo::copy_layout(layout, "latest", copy.path())?;
        let json = |name: &str| -> Result<Value> {
            Ok(serde_json::from_slice(&fs::read(copy.path().join(name))?)?)
        };
        let manifest = json("manifest.json")?;
        let digest = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str();
            digest.map(str::to_owned).context("a digest")
        };
        let layers = manifest["layers"].as_array().context("layers")?;
        let config = digest(&manifest["config"])?;
        Ok(Documents {
            config: json(config.trim_start_matches("sha256:"))?,
            layers: layers.iter().map(digest).collect::<Result<_>>()?,
        })
    }

    fn layers(&self, name: &str, arguments: &str) -> Result<Vec<String>> {
        Ok(self.documents(&self.build(name, arguments)?)?.layers)
    }
}

#[test]
fn an_image_has_its_contents_and_what_was_made_of_them() -> Result<()> {
    let scene = Scene::new()?;
    let outside = scene.path("outside");
    fs::write(&outside, "")?;
    // Of jq, that is no part of the contents, it has the closure; of the machine, it sees nothing.
    let arguments = format!(
        r#"
        # The first hello counts.
        contents = with pkgs; [
          bashInteractive
          coreutils
          hello
          (derivation {{
            name = "other-hello";
            system = builtins.currentSystem;
            builder = "${{bash}}/bin/bash";
            PATH = "${{coreutils}}/bin";
            args = [ "-c" "mkdir -p $out/bin; echo >$out/bin/hello; echo >$out/bin/other" ];
          }})
        ];
        extraCommands = ''
          test ! -e {outside}
          test -L bin/other
          mkdir --parents srv/app
          echo "made here" >srv/app/note
          ln --symbolic ${{pkgs.jq}}/bin/jq bin/query
        '';
        uid = 1000;
        gid = 100;
        config = {{
          Cmd = [ "bash" "-c" "cat note; hello; echo \"[3]\" | query .[0]; $TREE --version" ];
          Env = [ "PATH=/bin" "TREE=${{pkgs.tree}}/bin/tree" ];
          WorkingDir = "/srv/app";
          User = "1000:100";
          Labels.team = "platform";
          ExposedPorts."8080/tcp" = {{ }};
        }};"#,
        outside = outside.display()
    );
    let layout = scene.build("image", &arguments)?;
    let config = scene.documents(&layout)?.config;
    assert_eq!(config["config"]["Labels"]["team"], "platform");
    assert!(config["config"]["ExposedPorts"]["8080/tcp"].is_object());

    let podman = Podman::new()?;
    let image = podman.pull_layout(scene.0.path(), "image", "latest")?;
    let said = podman.run(&image, &[])?;
    let lines: Vec<_> = said.lines().take(3).collect();
    assert_eq!(lines, ["made here", "Hello, world!", "3"], "{said}");
    assert!(said.contains("tree v"), "{said}");
    let inside = "id --user; stat --format='%u:%g %a' /tmp /srv/app/note /bin/hello; \
                  stat --dereference --format='%u:%g %a' /bin/hello; touch /srv/app/new";
    let said = podman.run(&image, &["bash", "-c", inside])?;
    let lines: Vec<_> = said.lines().collect();
    let expected = [
        "1000",
        "1000:100 1777",
        "1000:100 644",
        "1000:100 777",
        "0:0 555",
    ];
    assert_eq!(lines, expected);
    Ok(())
}

#[test]
fn changes_make_the_last_layer_anew_and_no_other() -> Result<()> {
    let scene = Scene::new()?;
    let first = scene.layers("first", "")?;
    let (last, below) = first.split_last().context("layers")?;
    assert!(below.len() > 3, "{first:?}");
    for (name, arguments) in [
        ("commands", r#"extraCommands = "echo note >note";"#),
        // What only they mention is in the last layer.
        (
            "mentions",
            r#"extraCommands = "ln -s ${pkgs.jq}/bin/jq jq";"#,
        ),
        ("config", r#"config.Cmd = [ "${pkgs.jq}/bin/jq" ];"#),
        ("uid", "uid = 1000;"),
        ("gid", "gid = 1000;"),
    ] {
        let changed = scene.layers(name, arguments)?;
        let (changed_last, changed_below) = changed.split_last().context("layers")?;
        assert_eq!(changed_below, below, "{name}");
        assert_ne!(changed_last, last, "{name}");
    }
    let config = scene.layers("words", r#"config.Cmd = [ "hello" ]; tag = "latest";"#)?;
    assert_eq!(config, first);
    assert_eq!(scene.layers("nothing", "contents = [ ];")?.len(), 1);
    // Everything but the tree in one layer.
    assert_eq!(scene.layers("two", "maxLayers = 2;")?.len(), 2);
    let three = scene.layers("three", "maxLayers = 3;")?;
    assert_eq!(three.len(), 3);
    assert_eq!(&three[0], &below[0]);
    assert_eq!(&three[2], last);
    Ok(())
}

#[test]
fn an_image_is_built_to_the_same_bytes_again() -> Result<()> {
    let scene = Scene::new()?;
    let arguments = r#"extraCommands = "echo note >note; mkdir own; chmod 1777 own";"#;
    let layout = scene.build("image", arguments)?;
    // Fails when the second has other bytes than the first.
    run(install::nix("nix-build")?
        .args(["--option", "sandbox", "true", "--check", "--no-out-link"])
        .arg(scene.path("image.nix")))?;
    let text = fs::read_to_string(scene.path("image.nix"))?;
    for part in ["layers", "tree"] {
        let expression = scene.path(&format!("{part}.nix"));
        fs::write(&expression, format!("({text}).{part}"))?;
        run(install::nix("nix-build")?
            .args(["--option", "sandbox", "true", "--check", "--no-out-link"])
            .arg(expression))?;
    }
    scene.documents(&layout).map(drop)
}

#[test]
fn containerd_imports_it_under_its_name() -> Result<()> {
    let scene = Scene::new()?;
    let layout = scene.build("image", r#"tag = "v1";"#)?;
    let archive = scene.path("image.tar");
    run(Command::new("tar")
        .args(["--create", "--dereference", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(layout)
        .arg("."))?;
    let containerd = Containerd::start()?;
    assert_eq!(containerd.import(&archive)?, ["team/app:v1"]);
    assert_eq!(
        containerd.run("team/app:v1", &["hello"])?.trim(),
        "Hello, world!"
    );
    Ok(())
}

/// What the last layer of a layout has: mode, path and target of each file.
fn tree(layout: &Path) -> Result<Vec<String>> {
    let json = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |descriptor: &Value| -> Result<PathBuf> {
        let digest = descriptor["digest"].as_str().context("a digest")?;
        Ok(layout.join("blobs").join(digest.replace(':', "/")))
    };
    let index = json(&layout.join("index.json"))?;
    let manifest = json(&blob(&index["manifests"][0])?)?;
    let layers = manifest["layers"].as_array().context("layers")?;
    let last = blob(layers.last().context("a layer")?)?;
    let listed = run(Command::new("tar")
        .args(["--list", "--verbose", "--gzip", "--file"])
        .arg(last))?;
    let lines = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let mode = words.next()?;
        let rest: Vec<&str> = words.skip(4).collect();
        let path = rest.join(" ");
        let path = path.strip_prefix("./").unwrap_or(&path);
        (!path.is_empty()).then(|| format!("{mode} ./{path}"))
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn the_server_makes_the_same_tree_of_the_same_packages() -> Result<()> {
    let scene = Scene::new()?;
    let set = scene.path("set");
    odd_packages(&set)?;
    let state = scene.path("state");
    for (index, packages) in [
        "bashInteractive cacert coreutils iana-etc jdk-like",
        "a-jdk-like bashInteractive cacert coreutils iana-etc jdk-like",
        "a-sbin-link cacert iana-etc with-sbin z-sbin-link",
        "a-etc-link a-proc-link a-tmp-link bashInteractive cacert iana-etc",
        "a-env-like bashInteractive cacert iana-etc jdk-like",
        "a-link-output bashInteractive cacert iana-etc man-link man-real",
        "bashInteractive cacert iana-etc pymod pyneeds pyold python3 python3Packages.requests",
        "cacert coreutils git iana-etc nodejs perl stdenv vim",
        "cacert fonts iana-etc",
        "bashInteractive cacert coreutils gcc-unwrapped.lib glibc gnutar iana-etc tzdata",
        "cacert foreign-like iana-etc libc-like man-link",
    ]
    .into_iter()
    .enumerate()
    {
        let contents: Vec<String> = packages
            .split(' ')
            .map(|package| format!("pkgs.{package}"))
            .collect();
        let arguments = format!(
            "pkgs = import {} {{ }}; contents = let pkgs = import {} {{ }}; in [ {} ];",
            set.display(),
            set.display(),
            contents.join(" ")
        );
        let by_nix = tree(&scene.build(&format!("nix-{index}"), &arguments)?)?;

        let layout = scene.path(&format!("server-{index}"));
        let name = packages.to_lowercase().replace(' ', "/");
        run(Command::new(install::builder()?)
            .args(["build", &name, "--output"])
            .arg(&layout)
            .current_dir(scene.0.path())
            .env("NIXERY_PKGS_PATH", &set)
            .env("NIXGATE_NIX_OPTIONS", install::nix_options()?)
            .env("NIXGATE_STATE_DIR", &state)
            .env("STORAGE_PATH", scene.path("storage")))?;
        let by_server = tree(&layout)?;
        assert!(by_server.len() > 10, "{by_server:?}");
        let differ = |one: &[String], other: &[String]| -> Vec<String> {
            let lines = one.iter().filter(|line| !other.contains(line));
            lines.cloned().collect()
        };
        let (nix, server) = (differ(&by_nix, &by_server), differ(&by_server, &by_nix));
        assert!(
            nix.is_empty() && server.is_empty(),
            "{packages}: nix/image alone has {nix:#?}, the server {server:#?}"
        );
    }
    Ok(())
}

#[test]
fn contents_that_make_no_tree_are_named() -> Result<()> {
    let scene = Scene::new()?;
    let arguments = r#"contents = [
        pkgs.hello
        (derivation {
          name = "clash";
          system = builtins.currentSystem;
          builder = "${pkgs.bash}/bin/bash";
          args = [ "-c" "${pkgs.coreutils}/bin/mkdir $out; echo >$out/bin" ];
        })
      ];"#;
    let layout = scene.build("image", arguments)?;
    let tree = tree(&layout)?;
    assert!(
        tree.iter()
            .any(|line| line.starts_with("lrwxrwxrwx ./bin/hello ->"))
    );
    let arguments = r#"contents = [ (builtins.toFile "text" "") ];"#;
    let error = scene.build("image", arguments).unwrap_err().to_string();
    assert!(error.contains("text, which is no folder"), "{error}");
    Ok(())
}
