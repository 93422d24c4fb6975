//! Blobs come from S3: the registry answers with presigned addresses.

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_tests::live::builder::Settings;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::envoy;
use nixgate_tests::live::s3::S3;
use nixgate_tests::live::scratch;
use nixgate_tests::live::stack::Stack;
use serde_json::Value;

#[test]
fn clients_fetch_blobs_from_presigned_s3() -> Result<()> {
    let objects = scratch::folder("s3-")?;
    let s3 = S3::start(objects.path())?;
    let stack = Stack::with(envoy::Settings::default(), |state| {
        Ok(s3.settings(Settings::new(state)?))
    })?;
    let image = stack.image("shell/hello");

    let manifest: Value =
        serde_json::from_slice(&stack.get("/v2/shell/hello/manifests/latest")?.body)?;
    let layers = manifest["layers"].as_array().expect("layers").len();
    let config = manifest["config"]["digest"].as_str().expect("a digest");
    let redirect = stack.get(&format!("/v2/shell/hello/blobs/{config}"))?;
    assert_eq!(redirect.status, StatusCode::TEMPORARY_REDIRECT);
    assert!(redirect.header("location").starts_with("http://localhost:"));

    // Every blob, once by each client. The server refuses a signature that is not right.
    let fetched = || {
        s3.seen()
            .iter()
            .filter(|seen| seen.method == Method::GET && seen.presigned && seen.status == 200)
            .count()
    };
    let before = fetched();
    let folder = scratch::folder("copy-")?;
    skopeo::copy(&image, folder.path())?;
    assert_eq!(fetched() - before, layers + 1);

    let before = fetched();
    let podman = Podman::new()?;
    podman.pull(&image)?;
    assert_eq!(fetched() - before, layers + 1);
    assert_eq!(podman.run(&image, &["hello"])?, "Hello, world!\n");
    Ok(())
}

#[test]
fn an_altered_signature_is_refused() -> Result<()> {
    let objects = scratch::folder("s3-")?;
    let s3 = S3::start(objects.path())?;
    let stack = Stack::with(envoy::Settings::default(), |state| {
        Ok(s3.settings(Settings::new(state)?))
    })?;
    let manifest: Value = serde_json::from_slice(&stack.get("/v2/hello/manifests/latest")?.body)?;
    let config = manifest["config"]["digest"].as_str().expect("a digest");
    let redirect = stack.get(&format!("/v2/hello/blobs/{config}"))?;
    let location: http::Uri = redirect.header("location").parse()?;
    let port = location.port_u16().expect("a port");
    let path = location.path_and_query().expect("a path").as_str();
    let host = [("host", location.authority().expect("an authority").as_str())];
    let ask = |path: &str| nixgate_tests::live::http::request(Method::GET, port, path, &host);

    assert_eq!(ask(path)?.status, StatusCode::OK);
    let (rest, signature) = path.split_once("X-Amz-Signature=").expect("a signature");
    let altered: String = signature
        .chars()
        .map(|digit| if digit == 'a' { 'b' } else { 'a' })
        .collect();
    let other = format!("{rest}X-Amz-Signature={altered}");
    assert_eq!(ask(&other)?.status, StatusCode::FORBIDDEN);
    Ok(())
}
