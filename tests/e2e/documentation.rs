//! The documentation: its commands work as a reader would paste them, and its links lead somewhere.
//!
//! Of the README and the tutorial, each line of a block marked `sh` is run, in order. Left out are only the
//! commands that install or start the registry: `make run` has tests of its own, and the stack here
//! stands for it. Of other pages, the commands of some sections are run as one script.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::clients::docker::Docker;
use nixgate_tests::live::envoy::{self, Envoy};
use nixgate_tests::live::git_https::{PASSWORD, USER};
use nixgate_tests::live::git_ssh::GitSsh;
use nixgate_tests::live::http::get;
use nixgate_tests::live::{install, poll, process, scratch};
use serde_json::json;

use crate::git_hosts::repository_and_host;
use crate::shapes::shaped_stack;
use crate::shared;

/// What paths of this repository begin with.
const TOP_FOLDERS: [&str; 8] = [
    ".ci/",
    "docs/",
    "envoy/",
    "filter/",
    "host-builder/",
    "nix/",
    "scripts/",
    "tests/",
];

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

#[test]
fn every_command_of_the_tutorial_works_on_a_set_like_nixpkgs() -> Result<()> {
    let reader = Reader::new()?;
    let (_set, stack) = shaped_stack()?;
    let (envoy, builder) = (stack.envoy.port(), stack.builder.port());
    let ours = |line: &str| {
        let line = line.replace("127.0.0.1:8080", &format!("127.0.0.1:{envoy}"));
        line.replace("127.0.0.1:8081", &format!("127.0.0.1:{builder}"))
    };
    let commands = commands("docs/src/tutorial.md")?;
    let mut outputs = Vec::new();
    for line in &commands {
        outputs.push((line, reader.paste(&ours(line))?));
    }
    as_the_tutorial_says(&outputs);
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
    assert!(outputs.len() >= 8, "{outputs:?}");
    assert!(outputs[2].starts_with("git version "), "{outputs:?}");
    assert_eq!(outputs[0], outputs[5], "the digest: {outputs:?}");
    let explained = &outputs[6];
    for part in [
        "\n  canonical name  ",
        "\n/bin\n",
        " more: see all with --all\n",
    ] {
        assert!(explained.contains(part), "{part:?} in {explained}");
    }
    assert_eq!(outputs[7], "hello\n");

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
fn a_nixery_s_images_are_explained_by_the_commands_of_the_page() -> Result<()> {
    let folder = scratch::folder("from-nixery-")?;
    let state = folder.path().display().to_string();
    let set = install::debian_set()?.display().to_string();
    let environment = [
        ("NIXGATE_STATE_DIR", state.as_str()),
        ("NIXERY_PKGS_PATH", set.as_str()),
        ("NIXGATE_NIX_OPTIONS", &install::nix_options()?),
    ];
    let output = run_section("docs/src/from-nixery.md", "Move", &[], &environment)?;
    for part in ["htop", "\n/bin\n", "\nPATH=/bin:/sbin:/usr/bin\n"] {
        assert!(output.contains(part), "{part:?} in {output}");
    }
    Ok(())
}

#[test]
fn an_image_lends_its_tools_by_the_commands_of_the_page() -> Result<()> {
    let reader = Reader::new()?;
    // A container that has nothing stands for Debian's, which is not fetched.
    let empty = tempfile::tempdir_in(&reader.folder)?;
    let (theirs, ours) = ("docker.io/library/debian:12", empty.path().display());
    let mut said = String::new();
    for line in commands("docs/src/tools-in-any-pod.md")? {
        said = reader.paste(&line.replace(theirs, &format!("--rootfs {ours}")))?;
    }
    assert!(said.starts_with("git version "), "{said}");
    Ok(())
}

/// Runs the `sh` blocks of a section as one script, with the page's places and names changed.
fn run_section(
    page: &str,
    heading: &str,
    changes: &[(&str, &str)],
    environment: &[(&str, &str)],
) -> Result<String> {
    let text = fs::read_to_string(install::root().join(page))?;
    let (_, section) = text
        .split_once(&format!("# {heading}\n"))
        .with_context(|| format!("{page} has no section {heading}"))?;
    let section = section.split("\n#").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    let mut script: String = blocks.filter_map(|rest| rest.split("```").next()).collect();
    for (theirs, ours) in changes {
        ensure!(script.contains(theirs), "no {theirs:?} in {page}: {script}");
        script = script.replace(theirs, ours);
    }
    let release = install::builder()?;
    let release = release.parent().context("a folder")?;
    let path = format!("{}:{}", release.display(), std::env::var("PATH")?);
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &script]);
    shell.env("PATH", path).envs(environment.iter().copied());
    process::run(&mut shell).with_context(|| format!("{page}, {heading}: {script}"))
}

#[test]
fn builds_are_watched_by_the_commands_of_the_page() -> Result<()> {
    let front = shared().envoy.port();
    get(front, "/v2/hello/manifests/latest")?;
    let front = format!("127.0.0.1:{front}");
    let changes = [("127.0.0.1:8080", front.as_str())];
    let output = run_section("docs/src/builds.md", "Through Envoy", &changes, &[])?;
    assert!(output.contains(r#"{"builds":["#), "{output}");
    assert!(output.contains("event: end"), "{output}");
    Ok(())
}

#[test]
fn envoy_opens_its_access_log_again_by_the_command_of_the_page() -> Result<()> {
    let logrotate = blocks("docs/src/logs.md", "text")?;
    let command = logrotate
        .iter()
        .find(|line| line.trim().starts_with("curl"))
        .context("logs.md has a curl command for logrotate")?;
    let folder = scratch::folder("rotated-")?;
    let log = folder.path().join("access.log");
    let to_file = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log,
            "log_format": { "json_format": { "service": "nixgate-edge" } }
        }
    }]);
    let settings = envoy::Settings {
        config: EnvoyConfig::standalone().access_logs(to_file),
        ..envoy::Settings::default()
    };
    // Envoy answers `/v2/` itself, so no builder has to run.
    let envoy = Envoy::start(settings, 9, folder.path())?;
    let logged = |what: &str| {
        poll::until(what, || {
            get(envoy.port(), "/v2/").ok()?;
            let text = fs::read_to_string(&log).ok()?;
            text.contains("nixgate-edge").then_some(())
        })
    };
    logged("Envoy writes its access log")?;
    fs::rename(&log, folder.path().join("access.log.1"))?;
    let socket = envoy.admin().socket().display().to_string();
    let command = command.replace("/run/nixgate/envoy-admin.sock", &socket);
    process::run(Command::new("bash").args(["-euc", &command]))?;
    logged("Envoy writes a new access log")
}

#[test]
fn a_private_host_is_used_by_the_commands_of_the_page() -> Result<()> {
    const PAGE: &str = "docs/src/sources.md";
    let (repository, _, host) = repository_and_host()?;
    let keys = scratch::folder("private-")?;
    let (folder, state) = (keys.path(), keys.path().join("state"));
    let (etc, state) = (folder.display().to_string(), state.display().to_string());
    let environment = [
        ("NIXGATE_STATE_DIR", state.as_str()),
        ("NIXGATE_NIX_OPTIONS", &install::nix_options()?),
    ];
    // `nixgate build` stands for the server, which would not end.
    let build = ("nixgate serve", "nixgate build dated");
    let etc = ("/etc/nixgate", etc.as_str());

    let url = host.repository("set.git");
    let authority = host.authority().display().to_string();
    let login = format!("machine 127.0.0.1 login {USER} password {PASSWORD}");
    let changes = [
        build,
        ("corp-ca.crt", &authority),
        etc,
        ("https://git.corp/platform/packages.git", &url),
        ("machine git.corp login nixgate password …", &login),
    ];
    let digest = run_section(PAGE, "By https", &changes, &environment)?;
    assert!(digest.starts_with("sha256:"), "{digest}");

    let host = GitSsh::start()?;
    fs::copy(host.key(), folder.join("key"))?;
    fs::set_permissions(folder.join("key"), PermissionsExt::from_mode(0o600))?;
    let url = host.repository(&repository.path().join(".git"));
    let port = url
        .split([':', '/'])
        .find(|part| part.parse::<u16>().is_ok());
    let scan = format!("ssh-keyscan -p {}", port.context("a port")?);
    let changes = [
        build,
        etc,
        ("ssh://git@git.corp/platform/packages.git", &url),
        ("ssh-keyscan", &scan),
        ("git.corp", "127.0.0.1"),
    ];
    let same = run_section(PAGE, "By ssh", &changes, &environment)?;
    assert_eq!(same, digest);
    Ok(())
}

/// Every page of the documentation, by its path.
fn pages() -> Result<Vec<PathBuf>> {
    let names = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ];
    let mut pages: Vec<_> = names.map(PathBuf::from).into();
    for entry in fs::read_dir(install::root().join("docs/src"))? {
        let name = entry?.file_name();
        if Path::new(&name).extension() == Some(OsStr::new("md")) {
            pages.push(Path::new("docs/src").join(name));
        }
    }
    Ok(pages)
}

/// A page's lines outside of blocks of code.
fn prose(page: &Path) -> Result<String> {
    let text = fs::read_to_string(install::root().join(page))
        .with_context(|| page.display().to_string())?;
    let mut in_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !is_fence && !in_code
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The anchor that mdBook and GitHub give each heading.
fn anchors(prose: &str) -> Vec<String> {
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let texts = headings.map(|line| line.trim_start_matches('#').trim());
    texts
        .map(|text| {
            let kept = text.chars().filter_map(|letter| match letter {
                ' ' => Some('-'),
                '-' | '_' => Some(letter),
                _ => letter.is_alphanumeric().then_some(letter),
            });
            kept.collect::<String>().to_lowercase()
        })
        .collect()
}

/// What is wrong with a link of a page: its file or the heading is missing.
fn is_broken(page: &Path, link: &str) -> Result<bool> {
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    let target = if file.is_empty() {
        page.to_path_buf()
    } else {
        page.parent().context("every page has a folder")?.join(file)
    };
    if !install::root().join(&target).exists() {
        return Ok(true);
    }
    let Some(anchor) = anchor else {
        return Ok(false);
    };
    Ok(!anchors(&prose(&target)?).iter().any(|one| one == anchor))
}

#[test]
fn files_that_the_documentation_names_are_there() -> Result<()> {
    let root = install::root();
    for page in pages()? {
        let text = prose(&page)?;
        let mut broken = Vec::new();
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") && is_broken(&page, link)? {
                broken.push(link);
            }
        }
        // `code` that looks like a path of this repository. What a changelog names may have gone.
        let code = text.split('`').skip(1).step_by(2);
        let is_path = |word: &&str| {
            TOP_FOLDERS.iter().any(|top| word.starts_with(top))
                && !word.contains(char::is_whitespace)
                // An image's name below the prefix `nix`.
                && *word != "nix/shell/git"
        };
        if !page.ends_with("CHANGELOG.md") {
            broken.extend(
                code.filter(is_path)
                    .filter(|path| !root.join(path).exists()),
            );
        }
        assert!(broken.is_empty(), "{} names {broken:?}", page.display());
    }
    Ok(())
}

#[test]
fn every_page_is_in_the_table_of_contents() -> Result<()> {
    let contents = fs::read_to_string(install::root().join("docs/src/SUMMARY.md"))?;
    for page in pages()?.iter().filter(|page| page.starts_with("docs/src")) {
        let name = page.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let is_listed = name == "SUMMARY.md" || contents.contains(&format!("]({name})"));
        assert!(is_listed, "docs/src/SUMMARY.md has no {name}");
    }
    Ok(())
}
