//! The distribution spec over HTTP, through Envoy, as clients rely on it.

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::live::http::request;
use serde_json::Value;

use crate::shared;

const GIT: &str = "/v2/shell/git";

#[test]
fn the_version_check_is_answered() -> Result<()> {
    for path in ["/v2", "/v2/"] {
        let answer = shared().get(path)?;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(
            answer.header("docker-distribution-api-version"),
            "registry/2.0"
        );
    }
    Ok(())
}

#[test]
fn head_has_the_headers_of_get() -> Result<()> {
    let path = format!("{GIT}/manifests/latest");
    let get = shared().get(&path)?;
    let head = request(Method::HEAD, shared().envoy.port(), &path, &[])?;
    assert_eq!(head.status, StatusCode::OK);
    assert!(head.body.is_empty());
    for name in ["content-type", "docker-content-digest", "etag"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
        assert_ne!(get.header(name), "", "{name}");
    }
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    Ok(())
}

#[test]
fn a_manifest_is_found_by_its_digest() -> Result<()> {
    let by_tag = shared().get(&format!("{GIT}/manifests/latest"))?;
    let digest = by_tag.header("docker-content-digest");
    let by_digest = shared().get(&format!("{GIT}/manifests/{digest}"))?;
    assert_eq!(by_digest.status, StatusCode::OK);
    assert_eq!(by_digest.body, by_tag.body);
    Ok(())
}

/// Whoever knows a digest has it only under the names whose images have it, cached or not.
#[test]
fn a_digest_is_no_key_to_another_image() -> Result<()> {
    let manifest = shared().get(&format!("{GIT}/manifests/latest"))?;
    let digest = manifest.header("docker-content-digest");
    let image: Value = serde_json::from_slice(&manifest.body)?;
    let config = image["config"]["digest"].as_str().unwrap_or_default();
    let held = [format!("manifests/{digest}"), format!("blobs/{config}")];
    for what in &held {
        for _ in 0..2 {
            assert_eq!(
                shared().get(&format!("{GIT}/{what}"))?.status,
                StatusCode::OK
            );
        }
        // One image that is there, and one that nobody has asked for yet.
        for other in ["/v2/hello", "/v2/hello/figlet"] {
            if other == "/v2/hello" {
                shared().digest("hello")?;
            }
            for _ in 0..2 {
                let answer = shared().get(&format!("{other}/{what}"))?;
                let (code, message) = answer.error()?;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{other}: {message}");
                assert!(code.ends_with("_UNKNOWN"), "{code}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_manifest_comes_in_the_type_that_the_client_accepts() -> Result<()> {
    for kind in [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    ] {
        let path = format!("{GIT}/manifests/latest");
        let answer = request(
            Method::GET,
            shared().envoy.port(),
            &path,
            &[("accept", kind)],
        )?;
        assert_eq!(answer.header("content-type"), kind);
        let manifest: Value = serde_json::from_slice(&answer.body)?;
        assert_eq!(manifest["mediaType"], kind);
    }
    Ok(())
}

#[test]
fn a_part_of_a_blob_can_be_had() -> Result<()> {
    let manifest = shared().get(&format!("{GIT}/manifests/latest"))?;
    let manifest: Value = serde_json::from_slice(&manifest.body)?;
    let digest = manifest["config"]["digest"].as_str().expect("a digest");
    let path = format!("{GIT}/blobs/{digest}");
    let whole = shared().get(&path)?;
    assert_eq!(whole.status, StatusCode::OK);
    assert_eq!(
        Some(whole.body.len() as u64),
        manifest["config"]["size"].as_u64()
    );

    let port = shared().envoy.port();
    let rest = request(Method::GET, port, &path, &[("range", "bytes=5-")])?;
    assert_eq!(rest.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(rest.body, whole.body.slice(5..));
    Ok(())
}

#[test]
fn the_tags_of_a_name_are_listed() -> Result<()> {
    let answer = shared().get(&format!("{GIT}/tags/list"))?;
    let list: Value = serde_json::from_slice(&answer.body)?;
    assert_eq!(list["name"], "shell/git");
    let tags = list["tags"].as_array().expect("a list of tags");
    assert!(tags.contains(&"latest".into()), "{tags:?}");
    Ok(())
}
