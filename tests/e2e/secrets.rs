//! No secret that a setting gives is in what people read: logs, answers, pages of builds, and files
//! that the builder writes. Each secret here is a marked one, and what the builder talks to repeats
//! what it hears.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use nixgate_tests::live::builder::{Builder, Settings, TOKEN};
use nixgate_tests::live::http::request;
use nixgate_tests::live::served_set::ServedSet;
use nixgate_tests::live::{install, scratch};

use crate::pinned_sources::pull;

/// How each marked secret begins.
const MARK: &str = "marked-";

/// A server that refuses all, and quotes the request. It ends with the test process.
fn quoting() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || quote(stream));
        }
    });
    Ok(port)
}

fn quote(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        head.len()
    );
    stream.write_all(answer.as_bytes())?;
    stream.write_all(&head)
}

/// Asserts that no marked secret is in a text, nor as Basic has it.
fn has_none(what: &str, text: &str) {
    let basic = STANDARD.encode(format!("me:{MARK}"));
    // The end of base64 depends on what follows.
    for mark in [MARK, &basic[..basic.len() - 4]] {
        if let Some(at) = text.find(mark) {
            let end = text.len().min(at + 40);
            panic!("{what} has {:?} in\n{text}", text.get(at..end));
        }
    }
}

fn files_have_none(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = (
            entry.as_ref().map(fs::DirEntry::path),
            entry.as_ref().map(fs::DirEntry::file_type),
        );
        let (Ok(path), Ok(kind)) = (path, kind) else {
            continue;
        };
        let kind = kind?;
        if kind.is_dir() {
            files_have_none(&path)?;
        } else if kind.is_file() {
            let content = fs::read(&path)?;
            has_none(
                &path.display().to_string(),
                &String::from_utf8_lossy(&content),
            );
        }
    }
    Ok(())
}

/// Everything that a builder says of one that failed.
fn builder_has_none(builder: &Builder) -> Result<()> {
    let all = builder.get("/builds")?.text();
    has_none("/builds", &all);
    let all: serde_json::Value = serde_json::from_str(&all)?;
    for build in all["builds"].as_array().context("a list")? {
        let id = build["id"].as_str().context("an id")?;
        has_none("a page", &builder.get(&format!("/builds/{id}"))?.text());
        has_none("a log", &builder.get(&format!("/builds/{id}/log"))?.text());
    }
    for path in ["/readyz", "/metrics"] {
        has_none(
            path,
            &request(Method::GET, builder.port(), path, &[])?.text(),
        );
    }
    has_none("the log", &builder.log());
    Ok(())
}

#[test]
fn what_a_build_prints_has_no_secret_of_the_builder() -> Result<()> {
    let known = "marked-variable marked-option-secret marked-proxy-secret marked-netrc-secret";
    let script = format!(
        "echo {known}; echo '> Authorization: Basic marked-header'; \
         echo 'GET https://me:marked-user@host/x?private_token=marked-query&X-Amz-Signature=marked-s3'; \
         echo \"$(printf 'me:marked-netrc-secret' | base64)\" ; echo {TOKEN}; exit 1"
    );
    let script = format!("''{script}''");
    let packages = format!("leaks = package \"leaks\" {script};");
    let netrc = scratch::folder("netrc-")?;
    let file = netrc.path().join("netrc");
    fs::write(
        &file,
        "machine host login me password marked-netrc-secret\n",
    )?;
    let mut options = install::nix_options()?;
    options.push_str(";access-tokens=host=marked-option-secret");
    for format in ["json", "text"] {
        let served = ServedSet::start(&packages, |settings| {
            settings
                .with("NIXGATE_LOG_FORMAT", format)
                .with("RUST_LOG", "debug")
                .with("NIXGATE_NETRC", &file)
                .with("NIXGATE_NIX_OPTIONS", &options)
                .with("NIXGATE_PROXY", "http://me:marked-proxy-secret@127.0.0.1:1")
                .with("SOME_PASSWORD", "marked-variable")
        })?;
        let (status, text) = served.pull("leaks")?;
        assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
        assert!(text.contains("[redacted]"), "{text}");
        has_none("the answer", &text);
        builder_has_none(&served.builder)?;
        for text in [text, served.builder.log()] {
            assert!(!text.contains(TOKEN), "{text}");
        }
        assert!(served.builder.log().contains("[redacted]"));
        files_have_none(&served.state().join("builder"))?;
        files_have_none(&served.storage())?;
    }
    Ok(())
}

#[test]
fn what_a_host_of_packages_answers_has_no_secret_of_the_settings() -> Result<()> {
    let port = quoting()?;
    let at = |path: &str| {
        format!("http://me:marked-password@127.0.0.1:{port}/{path}?job_token=marked-token")
    };
    let (git, archive, flake) = (at("set.git"), at("archive"), at("flake.git"));
    let flake = format!("git+{flake}");
    for source in [
        &[("NIXERY_PKGS_REPO", git.as_str())][..],
        &[
            ("NIXERY_CHANNEL", "stable"),
            ("NIXGATE_CHANNEL_BASE", &archive),
        ],
        &[("NIXGATE_FLAKE", &flake)],
    ] {
        let state = scratch::folder("secrets-")?;
        let mut settings = Settings {
            package_set: "".into(),
            state: state.path().to_path_buf(),
            environment: Vec::new(),
        }
        .with("NIXERY_PKGS_PATH", "")
        .with("NIXGATE_NIX_OPTIONS", install::nix_options()?)
        .with("NIXGATE_LOG_FORMAT", "json")
        .with("RUST_LOG", "debug")
        .with("no_proxy", "*")
        .with("GIT_CURL_VERBOSE", "1")
        .with("GIT_CONFIG_COUNT", "1")
        .with("GIT_CONFIG_KEY_0", "http.extraHeader")
        .with("GIT_CONFIG_VALUE_0", "X-Deploy: marked-header-value");
        for (name, value) in source {
            settings = settings.with(name, value);
        }
        let builder = Builder::start(&settings)?;
        let answer = pull(&builder, "latest")?;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{source:?}");
        has_none("the answer", &answer.text());
        builder_has_none(&builder)?;
        // It did fail there, and quoted.
        for said in ["package source", "[redacted]"] {
            assert!(builder.log().contains(said), "{}", builder.log());
        }
        files_have_none(&state.path().join("builder"))?;
    }
    Ok(())
}

#[test]
fn what_a_store_answers_has_no_secret_of_the_settings() -> Result<()> {
    let port = quoting()?;
    let state = scratch::folder("secrets-")?;
    let settings = Settings::new(state.path())?
        .with("NIXGATE_LOG_FORMAT", "json")
        .with("RUST_LOG", "debug")
        .with("NIXERY_STORAGE_BACKEND", "s3")
        .with("S3_BUCKET", "images")
        .with("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .with("AWS_ALLOW_HTTP", "true")
        .with("AWS_REGION", "us-east-1")
        .with("AWS_ACCESS_KEY_ID", "marked-access-key")
        .with("AWS_SECRET_ACCESS_KEY", "marked-secret-key")
        .with("AWS_SESSION_TOKEN", "marked-session-token");
    let builder = Builder::start(&settings)?;
    let answer = builder.get("/v2/hello/manifests/latest")?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    has_none("the answer", &answer.text());
    builder_has_none(&builder)?;
    // It did quote them.
    assert!(builder.log().contains("[redacted]"), "{}", builder.log());
    Ok(())
}
