//! The commands of the README and the tutorial, as a reader would paste them.
//!
//! Whatever stands in a block marked `sh` is run, in order, line by line. Left out are only the
//! commands that install or that start the registry itself: `make run` has tests of its own, and
//! the stack here stands for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::live::clients::docker::Docker;
use nixgate_tests::live::{install, process, scratch};

use crate::shared;

/// podman as the tests need it: storage of its own, no systemd, no network of the machine's.
const CONTAINERS: &str = r#"
[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

/// The commands of a page that are to be run, with the ports of the shared stack.
fn commands(page: &str) -> Result<Vec<String>> {
    let commands = blocks(page, "sh")?;
    let (front, builder) = (shared().envoy.port(), shared().builder.port());
    Ok(commands
        .into_iter()
        .filter(|line| !starts_or_installs(line))
        .map(|line| {
            line.replace("127.0.0.1:8080", &format!("127.0.0.1:{front}"))
                .replace("127.0.0.1:8081", &format!("127.0.0.1:{builder}"))
        })
        .collect())
}

/// The lines of a page's blocks that are marked as in this language.
fn blocks(page: &str, language: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(install::root().join(page)).with_context(|| page.to_owned())?;
    let mut lines = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(mark) => inside = mark == language,
            None if inside => lines.push(line.to_owned()),
            None => {}
        }
    }
    Ok(lines)
}

fn starts_or_installs(line: &str) -> bool {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| word.contains('='));
    matches!(words.next(), Some("make" | "sudo"))
}

/// A shell in which podman and docker have nothing to do with those of the machine.
struct Reader {
    docker: Docker,
    folder: tempfile::TempDir,
    run: tempfile::TempDir,
}

impl Reader {
    fn new() -> Result<Self> {
        let folder = scratch::folder("reader-")?;
        let run = scratch::run_folder()?;
        let path = |name: &str| folder.path().join(name);
        fs::write(
            path("containers.conf"),
            format!("{CONTAINERS}tmp_dir = {:?}\n", run.path().join("tmp")),
        )?;
        fs::write(
            path("storage.conf"),
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
                path("root"),
                run.path().join("root")
            ),
        )?;
        let docker = Docker::start()?;
        Ok(Self {
            docker,
            folder,
            run,
        })
    }

    fn paste(&self, line: &str) -> Result<String> {
        self.paste_into(&mut self.shell(install::root()), line)
    }

    /// The shell, in a folder.
    fn shell(&self, folder: &Path) -> Command {
        let path = |name: &str| self.folder.path().join(name);
        let mut shell = Command::new("bash");
        shell
            .current_dir(folder)
            .env("DOCKER_HOST", self.docker.host())
            .env("CONTAINERS_CONF", path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", path("storage.conf"));
        shell
    }

    fn paste_into(&self, shell: &mut Command, line: &str) -> Result<String> {
        process::run(shell.args(["-euo", "pipefail", "-c", line]))
            .with_context(|| format!("a reader pasted: {line}"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        scratch::unmount(self.folder.path());
        scratch::unmount(self.run.path());
    }
}

#[test]
fn every_command_of_the_readme_and_the_tutorial_works() -> Result<()> {
    let reader = Reader::new()?;
    for (page, at_least) in [("README.md", 2), ("docs/src/tutorial.md", 8)] {
        let commands = commands(page)?;
        assert!(commands.len() >= at_least, "{page}: {commands:?}");
        let mut outputs = Vec::new();
        for line in &commands {
            outputs.push((line, reader.paste(line)?));
        }
        if page.ends_with("tutorial.md") {
            as_the_tutorial_says(&outputs);
        }
    }
    Ok(())
}

/// What the tutorial promises beside that a command succeeds.
fn as_the_tutorial_says(outputs: &[(&String, String)]) {
    let of = |part: &str| {
        let found = outputs.iter().find(|(line, _)| line.contains(part));
        found.map(|(_, output)| output.trim()).expect(part)
    };
    assert!(of("run --rm --tls-verify=false").starts_with("git version "));
    let digest = of("/git/htop");
    assert!(digest.starts_with("sha256:"), "{digest}");
    assert_eq!(digest, of("/htop/git"));
    assert_eq!(of("arm64/hello"), "arm64");
    let refusal = of("nosuchthing");
    for part in ["MANIFEST_UNKNOWN", "nosuchthing", "neither"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    assert!(of("/metrics").contains("nixgate_nix_processes_total"));
}

#[test]
fn images_are_made_without_a_server_as_the_page_says() -> Result<()> {
    const PAGE: &str = "docs/src/without-a-server.md";
    let reader = Reader::new()?;
    let folder = tempfile::tempdir_in(&reader.folder)?;
    let release = install::builder()?;
    let release = release.parent().context("a folder")?;
    let path = std::env::var("PATH")?;
    let paste = |line: &str| {
        let mut shell = reader.shell(folder.path());
        shell
            .env("PATH", format!("{}:{path}", release.display()))
            .env("NIXERY_PKGS_PATH", install::debian_set()?)
            .env("NIXGATE_NIX_OPTIONS", install::nix_options()?);
        reader.paste_into(&mut shell, line)
    };
    let mut outputs = Vec::new();
    for line in blocks(PAGE, "sh")? {
        outputs.push(paste(&line)?);
    }
    assert!(outputs.len() >= 5, "{outputs:?}");
    assert!(outputs[2].starts_with("git version "), "{outputs:?}");
    assert_eq!(outputs[0], *outputs.last().context("the digest")?);

    // The embedded set stands for nixpkgs.
    let set = install::debian_set()?.display().to_string();
    let root = install::root().canonicalize()?.display().to_string();
    let expression = blocks(PAGE, "nix")?.join("\n");
    assert!(expression.contains("<nixpkgs>") && expression.contains("./nix/image"));
    let expression = expression.replace("<nixpkgs>", &set);
    let expression = expression.replace("./nix/image", &format!("{root}/nix/image"));
    fs::write(folder.path().join("image.nix"), expression)?;
    let script = "echo \"$(whoami) in $PWD\"; hello; touch /tmp/file";
    fs::write(folder.path().join("start.sh"), script)?;
    let mut build = install::nix("nix-build")?;
    build.args(["--option", "sandbox", "true", "image.nix"]);
    process::run(build.current_dir(folder.path()))?;
    paste("podman pull oci:result:latest")?;
    let said = paste("podman run --rm localhost/result")?;
    assert_eq!(said, "app in /srv\nHello, world!\n");
    Ok(())
}

#[test]
fn files_that_the_documentation_names_are_there() -> Result<()> {
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/src/architecture.md",
        "docs/src/tutorial.md",
        "docs/src/without-a-server.md",
        "docs/src/login.md",
        "docs/src/policy.md",
        "docs/src/policy-guide.md",
        "docs/src/audit-log.md",
        "docs/src/existing-ingress.md",
        "docs/src/performance.md",
    ] {
        let text = fs::read_to_string(install::root().join(page))?;
        let folder = Path::new(page)
            .parent()
            .context("every page has a folder")?;
        // `code` that looks like a path of this repository, and the targets of links.
        let code = text.split('`').skip(1).step_by(2).filter(|word| {
            [
                "filter/",
                "host-builder/",
                "envoy/",
                "nix/",
                "tests/",
                "docs/",
            ]
            .iter()
            .any(|top| word.starts_with(top))
                && !word.contains(char::is_whitespace)
        });
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .filter(|link| !link.contains("://"));
        let root = install::root();
        let missing: Vec<_> = code
            .map(|path| root.join(path))
            .chain(links.map(|link| {
                let file = link.split('#').next().unwrap_or_default();
                root.join(folder).join(file)
            }))
            .filter(|path| !path.exists())
            .collect();
        assert!(missing.is_empty(), "{page} names {missing:?}");
    }
    Ok(())
}
