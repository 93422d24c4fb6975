//! What is inside of images works: the programs find their libraries, data and certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::process::{Process, run};
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{install, poll, ports, scratch};
use serde_json::{Map, Value};

use crate::shared;

/// Packages of one smoke image: few images are built fast, and every package is still tried in
/// an image whose name has it.
const SMOKE_PACKAGES: usize = 14;

/// Pulls `packages` and runs a shell script in a container of that image.
fn run_in(packages: &str, script: &str) -> Result<String> {
    let podman = Podman::new()?;
    let image = shared().image(packages);
    podman.pull(&image)?;
    podman.run(&image, &["bash", "-c", script])
}

#[test]
fn the_user_is_known() -> Result<()> {
    assert_eq!(run_in("shell/git", "whoami")?, "root\n");
    Ok(())
}

#[test]
fn python_imports_its_own_modules_and_those_of_packages() -> Result<()> {
    run_in(
        "shell/python3/python3packages.requests",
        "python3 -c 'import ssl, sqlite3, requests'",
    )?;
    Ok(())
}

#[test]
fn the_builder_image_compiles_c() -> Result<()> {
    let script = r#"
        printf '#include <stdio.h>\nint main(void) { return puts("compiled") < 0; }\n' > /tmp/main.c
        cc -o /tmp/main /tmp/main.c && /tmp/main && hello"#;
    assert_eq!(
        run_in("builder/hello", script)?,
        "compiled\nHello, world!\n"
    );
    Ok(())
}

#[test]
fn the_arm64_image_runs_on_an_emulated_processor() -> Result<()> {
    let podman = Podman::new()?;
    let image = shared().image("arm64/hello");
    podman.pull(&image)?;
    // Named by its path, so that no support of the kernel for foreign binaries is needed.
    let emulator = run(Command::new("sh").args(["-c", "command -v qemu-aarch64-static"]))?;
    let mount = format!("--volume={}:/emulator:ro", emulator.trim());
    let options = ["--network=none", "--entrypoint=/emulator", &mount];
    assert_eq!(
        podman.run_with(&options, &image, &["/bin/hello"])?,
        "Hello, world!\n"
    );
    Ok(())
}

#[test]
fn git_clones_over_https_and_checks_the_certificate() -> Result<()> {
    let folder = scratch::folder("https-")?;
    let folder = folder.path();
    let server = HttpsGit::start(folder)?;
    let podman = Podman::new()?;
    let image = shared().image("shell/git");
    podman.pull(&image)?;

    let mount = format!("--volume={}:/ca.pem:ro", folder.join("ca.pem").display());
    let options = ["--network=host", mount.as_str()];
    let url = format!("https://localhost:{}/repository.git", server.port);
    let script =
        format!("git -c http.sslCAInfo=/ca.pem clone {url} /tmp/clone && cat /tmp/clone/file");
    assert_eq!(
        podman.run_with(&options, &image, &["bash", "-c", &script])?,
        "content\n"
    );

    // With the authorities of the image alone, this server is not to be trusted.
    let refused = podman.run_with(&options, &image, &["git", "clone", &url, "/tmp/clone"]);
    let message = refused
        .expect_err("an unknown authority is refused")
        .to_string();
    assert!(message.contains("certificate"), "{message}");
    Ok(())
}

#[test]
fn every_package_of_the_set_works_in_its_image() -> Result<()> {
    let smoke = fs::read_to_string(install::root().join("nix/debian/smoke.json"))?;
    let smoke: Map<String, Value> = serde_json::from_str(&smoke)?;
    let commands: Vec<_> = smoke
        .iter()
        .map(|(attribute, command)| Some((attribute.as_str(), command.as_str()?)))
        .collect::<Option<_>>()
        .context("smoke.json maps attributes to commands")?;

    // Not the shared stack: this one's images are large, and are removed with it.
    let stack = Stack::start()?;
    let mut failures = Vec::new();
    for group in commands.chunks(SMOKE_PACKAGES) {
        let packages: Vec<_> = group
            .iter()
            .map(|(attribute, _)| component(attribute))
            .collect();
        let image = stack.image(&format!("shell/{}", packages.join("/")));
        let podman = Podman::new()?;
        podman.pull(&image)?;
        for (attribute, command) in group {
            if let Err(error) = podman.run(&image, &["bash", "-c", command]) {
                failures.push(format!("{attribute}: {error}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// An attribute path as a component of an image name: in lower case, and without the underscore
/// that a leading digit needs in Nix.
fn component(attribute: &str) -> String {
    let lower = attribute.to_lowercase();
    match lower.strip_prefix('_') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_digit()) => rest.to_owned(),
        _ => lower,
    }
}

/// A server of one git repository over https (git's plain protocol: files), whose certificate an
/// authority made here signed.
struct HttpsGit {
    port: u16,
    _process: Process,
}

impl HttpsGit {
    fn start(folder: &Path) -> Result<Self> {
        let prepare = r#"
            export GIT_CONFIG_GLOBAL=/dev/null
            git init --quiet work && cd work && echo content > file && git add file
            git -c user.name=test -c user.email=test@localhost commit --quiet --message=first
            git clone --quiet --bare . ../repository.git && cd ..
            git --git-dir=repository.git update-server-info
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=test authority' \
              -keyout ca.key -out ca.pem
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -CA ca.pem -CAkey ca.key \
              -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE \
              -keyout server.key -out server.pem"#;
        run(Command::new("sh")
            .args(["-ec", prepare])
            .current_dir(folder))?;

        let serve = "
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('server.pem', 'server.key')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()";
        let port = ports::free()?;
        let mut command = Command::new("python3");
        command
            .args(["-c", serve, &port.to_string()])
            .current_dir(folder);
        let process = Process::start(&command, &folder.join("log"))?;
        poll::until("the https server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })?;
        Ok(Self {
            port,
            _process: process,
        })
    }
}
