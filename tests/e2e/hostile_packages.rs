//! Packages whose builds try what they must not be able to do, on a builder as `make run` starts it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::process::run;
use nixgate_tests::live::served_set::ServedSet;
use nixgate_tests::live::{install, scratch};
use serde_json::Value;

/// The file that ends so, out of an image's layers.
fn file_of(served: &ServedSet, name: &str, end: &str) -> Result<String> {
    served.pulls(name)?;
    let manifest = served
        .builder
        .get(&format!("/v2/{name}/manifests/latest"))?;
    let manifest: Value = serde_json::from_slice(&manifest.body)?;
    let folder = scratch::folder("layers-")?;
    let mut found = String::new();
    for layer in manifest["layers"].as_array().context("layers")? {
        let digest = layer["digest"].as_str().context("a digest")?;
        let blob = served.builder.get(&format!("/v2/{name}/blobs/{digest}"))?;
        let file = folder.path().join("layer");
        fs::write(&file, &blob.body)?;
        // It fails for a layer that has no such file.
        let output = Command::new("tar")
            .args(["--extract", "--gzip", "--to-stdout", "--wildcards"])
            .arg(format!("*{end}"))
            .arg("--file")
            .arg(&file)
            .output()?;
        found += &String::from_utf8_lossy(&output.stdout);
    }
    Ok(found)
}

#[test]
fn a_build_cannot_change_another_package() -> Result<()> {
    let served = ServedSet::start(
        r#"victim = package "victim" "mkdir -p $out/bin; echo original > $out/bin/victim";
        poisoner = package "poisoner" ''
          mkdir $out
          for path in ${victim} ${victim}/bin ${victim}/bin/victim; do
            chmod u+w "$path" 2>/dev/null && echo "$path" >> $out/changed
          done
          echo changed > ${victim}/bin/victim && echo written >> $out/changed
          rm -rf ${victim} && echo removed >> $out/changed
          mv ${victim} ${victim}-moved && echo moved >> $out/changed
          touch $out/ran
        '';"#,
        |settings| settings,
    )?;
    assert_eq!(file_of(&served, "poisoner", "poisoner/changed")?, "");
    assert_eq!(file_of(&served, "victim", "bin/victim")?, "original\n");
    Ok(())
}

#[test]
fn a_build_writes_nothing_but_its_output_and_is_nobody_outside() -> Result<()> {
    const MARK: &str = "nixgate-was-here";
    const FOLDERS: [&str; 8] = [
        "/",
        "/bin",
        "/usr",
        "/usr/bin",
        "/lib",
        "/etc",
        "/nix/store",
        "/tmp",
    ];
    let packages = format!(
        r#"writer = package "writer" ''
          mkdir $out
          for folder in {folders} $(dirname $out) $PWD/..; do
            touch "$folder/{MARK}" 2>/dev/null || true
          done
          # Whose file is already there.
          for file in /usr/bin/env /bin/sh /etc/passwd; do
            chmod a+w "$file" 2>/dev/null && echo "$file" >> $out/changed
          done
          cat /proc/self/uid_map > $out/uid_map
        '';"#,
        folders = FOLDERS.join(" ")
    );
    let served = ServedSet::start(&packages, |settings| settings)?;
    let changed = file_of(&served, "writer", "writer/changed")?;
    // Its own, of the sandbox.
    assert!(
        changed.is_empty() || changed == "/etc/passwd\n",
        "{changed}"
    );
    for folder in FOLDERS {
        let mark = Path::new(folder).join(MARK);
        assert!(!mark.exists(), "{} is there", mark.display());
    }
    let uid_map = file_of(&served, "writer", "writer/uid_map")?;
    let outside: Vec<_> = uid_map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert!(!outside.is_empty() && !outside.contains(&"0"), "{uid_map}");
    Ok(())
}

/// A download, whose output is known before, and its script.
fn download(name: &str, unique: &str, script: &str) -> String {
    format!(
        r#"{name} = derivation {{
          name = "{name}";
          system = builtins.currentSystem;
          builder = "/bin/sh";
          PATH = "/usr/bin:/bin";
          impureEnvVars = [ "http_proxy" ];
          outputHashMode = "flat";
          outputHashAlgo = "sha256";
          outputHash = builtins.hashString "sha256" "{unique}";
          args = [ "-c" ''{script}'' ];
        }};"#
    )
}

/// A server on loopback that counts its callers, as Envoy's admin page would be one.
struct Counted {
    address: SocketAddr,
    callers: Arc<AtomicUsize>,
}

impl Counted {
    fn start(answer: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, callers) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let answer = format!(
            "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        let count = Arc::clone(&callers);
        thread::spawn(move || {
            for mut caller in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                // The request has no body, and is read so that it is not reset.
                _ = caller.read(&mut [0; 4096]);
                _ = caller.write_all(answer.as_bytes());
            }
        });
        Ok(Self { address, callers })
    }
}

#[test]
fn what_a_download_prints_is_for_the_administrator_alone() -> Result<()> {
    let secret = Counted::start("what-nobody-is-to-know")?;
    let script = format!(
        "curl --silent --noproxy '*' http://{}/ >&2; echo of-a-download >&2; exit 1",
        secret.address
    );
    let packages = download("caller", &secret.address.to_string(), &script)
        + r#"plain = package "plain" "echo of-a-build >&2; exit 1";"#;
    let served = ServedSet::start(&packages, |settings| settings)?;
    let (status, text) = served.pull("caller")?;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    assert!(
        text.contains("caller.drv") && text.contains("builder's log"),
        "{text}"
    );
    assert!(
        !text.contains("of-a-download") && !text.contains("nobody"),
        "{text}"
    );
    let pages = served.builder.get("/builds")?.text();
    assert!(!pages.contains("of-a-download"), "{pages}");
    let log = served.builder.log();
    assert!(log.contains("of-a-download"), "{log}");

    let (_, text) = served.pull("plain")?;
    assert!(text.contains("of-a-build"), "{text}");
    Ok(())
}

#[test]
fn by_the_proxy_alone_a_download_reaches_what_the_proxy_lets_it() -> Result<()> {
    let admin = Counted::start("admin")?;
    let folder = scratch::folder("proxy-")?;
    // It answers what a proxy is asked: the whole URL, of a host that no name server knows.
    let unique = folder.path().display().to_string();
    let proxy = Counted::start(&unique)?;
    let (admin_port, script) = (
        admin.address.port(),
        "curl --silent --fail --noproxy '*' -m 3",
    );
    let packages = download(
        "download",
        &unique,
        &format!(
            "for url in http://127.0.0.1:{admin_port}/ http://169.254.169.254/ http://[::1]:{admin_port}/; do \
               {script} $url >&2 && echo reached $url >&2 && exit 1; \
             done; \
             curl --silent --fail http://packages.invalid/file > $out"
        ),
    );
    let served = ServedSet::start(&packages, |settings| {
        settings
            .with("NIXGATE_PROXY", format!("http://{}", proxy.address))
            .with("NIXGATE_PROXY_ONLY", "true")
            .with("no_proxy", "127.0.0.1,packages.invalid")
    })?;
    served.pulls("download")?;
    assert_eq!(admin.callers.load(Ordering::SeqCst), 0, "it called");
    assert_eq!(proxy.callers.load(Ordering::SeqCst), 1);
    // What was found at the start was said.
    let log = served.builder.log();
    assert!(!log.contains("reach this machine's loopback"), "{log}");
    Ok(())
}

#[test]
fn that_downloads_reach_the_machine_is_said_at_the_start() -> Result<()> {
    let served = ServedSet::start("", |settings| settings)?;
    let log = served.builder.log();
    assert!(
        log.contains("reach this machine's loopback") && log.contains("NIXGATE_PROXY_ONLY"),
        "{log}"
    );
    Ok(())
}

#[test]
fn folders_that_builds_see_are_read_only_for_the_builder_of_make_run() -> Result<()> {
    let folder = scratch::folder("read-only-")?;
    let (outer, inner) = (
        folder.path().join("outer"),
        folder.path().join("outer/inner"),
    );
    fs::create_dir_all(&inner)?;
    let script = install::root().join("scripts/read-only.sh");
    let mut command = Command::new("unshare");
    let tried = "for folder; do touch \"$folder/file\" && echo \"$folder\"; done; true";
    // What is mounted below is meant as well.
    let mounted = format!(
        "mount -t tmpfs tmpfs {inner}; exec {script} {outer} -- sh -c '{tried}' sh {outer} {inner} {folder}",
        inner = inner.display(),
        outer = outer.display(),
        folder = folder.path().display(),
        script = script.display()
    );
    command.args(["--mount", "sh", "-c", &mounted]);
    command.stderr(Stdio::null());
    let written = run(&mut command)?;
    assert_eq!(Path::new(written.trim()), folder.path());
    // The machine knows nothing of it.
    fs::write(outer.join("file"), "")?;
    Ok(())
}
