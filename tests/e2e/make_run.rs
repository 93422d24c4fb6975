//! `make run` and `make gateway`: what they say, and that they leave nothing behind, however they
//! end.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use ::http::{Method, StatusCode};
use anyhow::{Context, Result, bail};
use nixgate_tests::live::clients::docker::Docker;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::process::{Process, run};
use nixgate_tests::live::{http, install, poll, ports, raw, scratch};
use tempfile::TempDir;

/// A `make run` with a state folder of its own.
struct MakeRun {
    process: Process,
    port: u16,
    state: TempDir,
}

impl MakeRun {
    fn start(configure: impl FnOnce(&mut Command, &Path) -> Result<()>) -> Result<Self> {
        Self::start_verb("run", configure)
    }

    fn start_verb(
        verb: &str,
        configure: impl FnOnce(&mut Command, &Path) -> Result<()>,
    ) -> Result<Self> {
        let state = scratch::folder("make-run-")?;
        let port = ports::free()?;
        let mut command = Command::new("make");
        command
            .arg(verb)
            .current_dir(install::root())
            .env("PORT", port.to_string())
            .env("BUILDER_PORT", ports::free()?.to_string())
            .env("STATE_DIR", state.path())
            // Installed once, by the `make test` that runs this, whose own settings are not to
            // reach the `make` that is tested.
            .env("TOOLS_DIR", install::tools_dir().canonicalize()?)
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL");
        configure(&mut command, state.path())?;
        let process = Process::start(&command, &state.path().join("make.log"))?;
        Ok(Self {
            process,
            port,
            state,
        })
    }

    /// The line that says that all is ready.
    fn ready(&mut self) -> Result<String> {
        self.process.until("make run is ready", |process| {
            let log = process.log();
            let line = log.lines().find(|line| line.starts_with("nixgate: ready"));
            line.map(str::to_owned)
        })
    }

    fn end(&mut self) -> Result<ExitStatus> {
        poll::until("make run ends", || self.process.ended().transpose())?
    }

    /// Waits until no process is left that has this state folder in its environment or arguments,
    /// as all have that come from this `make`, Nix and its builders included.
    fn nothing_is_left(&self) -> Result<()> {
        poll::until("no process is left", || {
            self.processes("").is_empty().then_some(())
        })
    }

    /// Kills the one process whose program's name begins with `name`.
    fn kill(&self, name: &str) -> Result<()> {
        let [process] = &self.processes(name)[..] else {
            bail!("there is not one process called {name}");
        };
        let id = process.file_name().context("a process id")?;
        run(Command::new("sh")
            .args(["-c", "kill -s KILL \"$0\""])
            .arg(id))?;
        Ok(())
    }

    /// Those processes, in `/proc`, whose program's name begins with `name`.
    fn processes(&self, name: &str) -> Vec<PathBuf> {
        let marker = self.state.path().to_string_lossy().into_owned();
        let holds = |file: PathBuf| {
            let content = fs::read(file).unwrap_or_default();
            String::from_utf8_lossy(&content).contains(&marker)
        };
        let named = |process: &Path| {
            let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
            comm.starts_with(name)
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|process| {
                named(process)
                    && ["environ", "cmdline"]
                        .iter()
                        .any(|file| holds(process.join(file)))
            })
            .collect()
    }
}

/// Serves the embedded set, as a new user does, less the time to ask apt for its index.
fn embedded(_: &mut Command, state: &Path) -> Result<()> {
    run(Command::new("cp")
        .arg("--archive")
        .arg(install::debian_set()?)
        .arg(state))?;
    Ok(())
}

/// Starts `make run` and has it build an image that waits, then tells it to end.
fn end_amid_a_build(end: impl FnOnce(&MakeRun) -> Result<()>) -> Result<(MakeRun, ExitStatus)> {
    let mut set = None;
    let mut make = MakeRun::start(|command, state| {
        let written = set.insert(GatedSet::write(state)?);
        command
            .env("NIXERY_PKGS_PATH", written.folder())
            .env("NIXGATE_NIX_OPTIONS", written.nix_options()?);
        Ok(())
    })?;
    make.ready()?;
    let _caller = http::ask(make.port, "/v2/gated/manifests/latest")?;
    set.context("the set was written")?.wait_for_start()?;
    end(&make)?;
    let status = make.end()?;
    make.nothing_is_left()?;
    Ok((make, status))
}

#[test]
fn the_ready_line_says_what_to_paste_and_what_is_served() -> Result<()> {
    let mut make = MakeRun::start(embedded)?;
    let line = make.ready()?;
    let image = format!("127.0.0.1:{}/shell/git", make.port);
    assert!(line.contains(&format!("docker pull {image}")), "{line}");
    assert!(
        line.contains("demo") && line.contains("NIXERY_CHANNEL="),
        "{line}"
    );
    skopeo::inspect(&image)?;

    let token = fs::metadata(make.state.path().join("token"))?;
    assert_eq!(PermissionsExt::mode(&token.permissions()) & 0o777, 0o600);
    Ok(())
}

/// Asserts that logs, and files that hold one of these, are for owner and group alone, and that the
/// logs have none of them.
fn others_read_no_secret(folder: &Path, secrets: &[&str]) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Nix's links lead to what it has.
        let metadata = fs::symlink_metadata(&path)?;
        // The builder's own program, which holds the words of its tests' secrets by chance.
        if path.ends_with("builder/probe") {
            continue;
        }
        if metadata.is_dir() {
            others_read_no_secret(&path, secrets)?;
        } else if metadata.is_file() {
            let content = fs::read(&path)?;
            let content = String::from_utf8_lossy(&content);
            let has_one = secrets.iter().any(|secret| content.contains(secret));
            let is_log = path.extension().is_some_and(|end| end == "log");
            // That of the test itself is the terminal.
            if (has_one || is_log) && !path.ends_with("make.log") {
                let mode = PermissionsExt::mode(&metadata.permissions());
                assert_eq!(mode & 0o137, 0, "{} has {mode:o}", path.display());
            }
            assert!(!(has_one && is_log), "{} has a secret", path.display());
        }
    }
    Ok(())
}

#[test]
fn make_gateway_says_what_to_paste_and_that_works() -> Result<()> {
    let mut make = MakeRun::start_verb("gateway", embedded)?;
    let line = make.ready()?;
    let (_, pasted) = line.split_once("ready: ").context("what to paste")?;
    let (pasted, _) = pasted.split_once("   (").context("what to paste")?;
    assert!(pasted.starts_with("docker login ") && pasted.contains("docker pull "));
    let docker = Docker::start()?;
    run(Command::new("bash")
        .args(["-euc", pasted])
        .env("DOCKER_HOST", docker.host())
        .env("DOCKER_CONFIG", make.state.path().join("docker")))?;

    let password = fs::read_to_string(make.state.path().join("gateway/alice.password"))?;
    let token = fs::read_to_string(make.state.path().join("token"))?;
    others_read_no_secret(make.state.path(), &[&password, &token, "PRIVATE KEY"])?;
    for secret in ["htpasswd", "alice.password", "tls/tls.key"] {
        let file = fs::metadata(make.state.path().join("gateway").join(secret))?;
        let mode = PermissionsExt::mode(&file.permissions());
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    make.process.signal_group("INT")?;
    make.end()?;
    make.nothing_is_left()
}

/// What Nixery's users set: its documentation's variables, older ones included.
#[test]
fn the_environment_of_a_nixery_starts_a_registry_with_its_website() -> Result<()> {
    let mut make = MakeRun::start(|command, state| {
        let set = GatedSet::write(state)?;
        let web = state.join("web");
        fs::create_dir_all(web.join("docs"))?;
        fs::write(web.join("index.html"), "<h1>Our images</h1>")?;
        fs::write(web.join("docs/index.html"), "<h1>Docs</h1>")?;
        fs::write(web.join("nixery-logo.png"), "not really a picture")?;
        fs::write(state.join("secret"), "the-secret-beside-it")?;
        std::os::unix::fs::symlink("../secret", web.join("link"))?;
        command
            .env("NIXERY_PKGS_PATH", set.folder())
            .env("NIXERY_STORAGE_BACKEND", "filesystem")
            .env("STORAGE_PATH", state.join("nixery-storage"))
            .env("NIX_TIMEOUT", "60")
            .env(
                "NIX_POPULARITY_URL",
                "https://storage.googleapis.com/popularity",
            )
            .env("GOOGLE_APPLICATION_CREDENTIALS", "/var/key.json")
            .env("WEB_DIR", web)
            // For the tests' machine.
            .env("NIXGATE_NIX_OPTIONS", set.nix_options()?);
        Ok(())
    })?;
    make.ready()?;
    let port = make.port;
    let image = format!("127.0.0.1:{port}/large");
    skopeo::copy(&image, &make.state.path().join("pulled"))?;
    let stored = fs::read_dir(make.state.path().join("nixery-storage/layers"))?;
    assert!(stored.count() > 0);
    let log = make.process.log();
    for variable in ["NIX_POPULARITY_URL", "GOOGLE_APPLICATION_CREDENTIALS"] {
        assert!(log.contains(&format!("{variable} has no effect")), "{log}");
    }

    let page = http::get(port, "/")?;
    assert_eq!(
        (page.status, page.text()),
        (StatusCode::OK, "<h1>Our images</h1>".into())
    );
    assert_eq!(page.header("content-type"), "text/html");
    let known = [("if-modified-since", page.header("last-modified"))];
    let again = http::request(Method::GET, port, "/?x", &known)?;
    assert_eq!(
        (again.status, again.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    let head = http::request(Method::HEAD, port, "/nixery-logo.png", &[])?;
    assert_eq!(
        (head.header("content-type"), head.header("content-length")),
        ("image/png", "20")
    );
    let folder = http::request(Method::GET, port, "/docs", &[])?;
    assert_eq!(
        (folder.status, folder.header("location")),
        (StatusCode::TEMPORARY_REDIRECT, "/docs/")
    );
    assert_eq!(http::get(port, "/docs/")?.text(), "<h1>Docs</h1>");
    let post = http::request(Method::POST, port, "/", &[])?;
    assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);

    // Neither the machine's files nor the builder's other pages, also with a token that is right.
    let token = fs::read_to_string(make.state.path().join("token"))?;
    for path in [
        "/metrics",
        "/readyz",
        "/healthz",
        "/.well-known/jwks.json",
        "//builds",
        "/web/index.html",
        "/../builds",
        "/../../secret",
        "/docs/../../metrics",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fbuilds",
        "//v2/large/manifests/latest",
        "/../v2/large/manifests/latest",
        "/link",
        "/docs/nope",
        "/index.html%00",
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: registry\r\nnixgate-token: {token}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw::http1(port, &request)?;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.contains("There is no such page"), "{path}: {answer}");
    }
    Ok(())
}

#[test]
fn ctrl_c_leaves_nothing_behind() -> Result<()> {
    end_amid_a_build(|make| make.process.signal_group("INT"))?;
    Ok(())
}

#[test]
fn sigterm_to_make_leaves_nothing_behind() -> Result<()> {
    end_amid_a_build(|make| make.process.signal("TERM"))?;
    Ok(())
}

#[test]
fn killing_make_leaves_nothing_behind() -> Result<()> {
    let (_, status) = end_amid_a_build(|make| make.process.signal("KILL"))?;
    assert_eq!(status.signal(), Some(9));
    Ok(())
}

#[test]
fn killing_the_builder_leaves_no_nix_behind() -> Result<()> {
    let (_, status) = end_amid_a_build(|make| {
        assert!(!make.processes("nix-store").is_empty(), "Nix builds");
        make.kill("nixgate")
    })?;
    assert!(!status.success());
    Ok(())
}

#[test]
fn when_one_half_ends_the_other_is_ended_and_make_fails() -> Result<()> {
    for half in ["nixgate", "envoy"] {
        let mut make = MakeRun::start(embedded)?;
        make.ready()?;
        make.kill(half)?;
        assert!(!make.end()?.success());
        make.nothing_is_left()?;
        assert!(
            make.process.log().contains("what to do"),
            "{}",
            make.process.log()
        );
    }
    Ok(())
}

#[test]
fn a_taken_port_is_named_with_its_variable() -> Result<()> {
    for variable in ["PORT", "BUILDER_PORT"] {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let port = taken.local_addr()?.port().to_string();
        let mut make = MakeRun::start(|command, _| {
            command.env(variable, &port);
            Ok(())
        })?;
        assert!(!make.end()?.success());
        let log = make.process.log();
        assert!(log.contains(&port) && log.contains(variable), "{log}");
    }
    Ok(())
}
