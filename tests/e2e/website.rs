//! `WEB_DIR` of a builder without an Envoy. With one: `make_run.rs`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::live::builder::Builder;
use nixgate_tests::live::gated_set::GatedSet;
use nixgate_tests::live::http::{get, request};
use nixgate_tests::live::{install, poll, raw, scratch};

/// Starts a builder with a website in `web` of a folder.
fn builder(folder: &Path, more: &[(&'static str, &str)]) -> Result<Builder> {
    let set = GatedSet::write(folder)?;
    let web = folder.join("web");
    fs::create_dir(&web)?;
    fs::write(web.join("index.html"), "<h1>Our images</h1>")?;
    let mut settings = set.settings(folder)?.with("WEB_DIR", web);
    for (name, value) in more {
        settings = settings.with(name, value);
    }
    Builder::start(&settings)
}

#[test]
fn a_builder_that_answers_everybody_has_the_website_and_the_registry() -> Result<()> {
    let folder = scratch::folder("website-")?;
    let direct = [("NIXGATE_TOKEN", ""), ("NIXGATE_ALLOW_DIRECT", "true")];
    let builder = builder(folder.path(), &direct)?;
    let port = builder.port();
    assert_eq!(get(port, "/")?.text(), "<h1>Our images</h1>");
    assert_eq!(get(port, "/nope")?.status, StatusCode::NOT_FOUND);
    assert_eq!(get(port, "/v2/")?.status, StatusCode::OK);
    assert_eq!(
        get(port, "/v2/cacert/manifests/latest")?.status,
        StatusCode::OK
    );
    assert_eq!(
        get(port, "/builds")?.header("content-type"),
        "application/json"
    );

    // A page that is edited is served as it is now.
    fs::write(folder.path().join("web/index.html"), "<h1>Edited</h1>")?;
    poll::until("the edited page is served", || {
        (get(port, "/").ok()?.text() == "<h1>Edited</h1>").then_some(())
    })
}

#[test]
fn the_website_needs_no_token_and_everything_else_still_does() -> Result<()> {
    let folder = scratch::folder("website-")?;
    let builder = builder(folder.path(), &[])?;
    let port = builder.port();
    for path in ["/", "/index.html", "/web/", "/web/index.html"] {
        assert_eq!(get(port, path)?.text(), "<h1>Our images</h1>", "{path}");
    }
    for path in [
        "/v2/",
        "/v2/cacert/manifests/latest",
        "/builds",
        "/v2/token",
    ] {
        let answer = get(port, path)?;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    for path in [
        "/web/../v2/cacert/manifests/latest",
        "/web/../builds",
        "/web//v2/",
    ] {
        let asked = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw::http1(port, &asked)?;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let put = request(Method::PUT, port, "/web/index.html", &[])?;
    assert_eq!(put.status, StatusCode::METHOD_NOT_ALLOWED);
    Ok(())
}

#[test]
fn without_the_setting_there_is_no_website() -> Result<()> {
    let builder = crate::shared().builder.port();
    for path in ["/", "/web/", "/web/index.html"] {
        assert_eq!(get(builder, path)?.status, StatusCode::FORBIDDEN, "{path}");
        // Envoy answers it.
        let answer = crate::shared().get(path)?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.header("nixgate-builder").is_empty(), "{path}");
    }
    Ok(())
}

#[test]
fn the_folder_of_a_nixery_s_storage_is_used_and_its_files_are_left_alone() -> Result<()> {
    let folder = scratch::folder("website-")?;
    let storage = folder.path().join("storage");
    let theirs = [
        format!("layers/{}", "0".repeat(64)),
        format!("manifests/{}", "1".repeat(40)),
        format!("staging/{}", "2".repeat(64)),
    ];
    for file in &theirs {
        let path = storage.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&storage))?;
        fs::write(path, "a Nixery's")?;
    }
    let builder = builder(folder.path(), &[])?;
    let answer = builder.get("/v2/cacert/manifests/latest")?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let blob = format!("/v2/cacert/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(builder.get(&blob)?.status, StatusCode::NOT_FOUND);
    for file in &theirs {
        assert_eq!(
            fs::read_to_string(storage.join(file))?,
            "a Nixery's",
            "{file}"
        );
    }
    Ok(())
}

#[test]
fn a_nixery_s_bucket_is_refused_with_what_to_do() -> Result<()> {
    let folder = scratch::folder("website-")?;
    let output = std::process::Command::new(install::builder()?)
        .arg("serve")
        .current_dir(&folder)
        .env("PORT", "8080")
        .env("NIXGATE_TOKEN", "token")
        .env("NIXERY_PKGS_PATH", folder.path())
        .env("NIXERY_STORAGE_BACKEND", "gcs")
        .env("GCS_BUCKET", "our-images")
        .output()?;
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr)? + &String::from_utf8(output.stdout)?;
    for part in [
        "NIXERY_STORAGE_BACKEND is gcs",
        "STORAGE_PATH",
        "S3_BUCKET",
        "later release",
    ] {
        assert!(said.contains(part), "{said}");
    }
    Ok(())
}
