//! The list of images: what there is, and of that what each caller may have.

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use nixgate_core::wire::{Catalog, TOKEN as TOKEN_HEADER};
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::builder::{Builder, Settings, TOKEN};
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::{Response, request};
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::s3::S3;
use nixgate_tests::live::scratch;
use nixgate_tests::live::stack::Stack;
use serde_json::{Value, json};

const PATH: &str = "/v2/_catalog";

/// Everybody here may have `tree`; ops may have everything, and data what has no `hello` in it.
fn policy() -> Value {
    let team = |name: &str| json!({"header": {"name": "x-team", "glob": name}});
    json!({"revision": "1", "default": "deny", "rules": [
        {"name": "here", "subject": {"address": {"ranges": ["127.0.0.0/8"]}}, "allow": ["tree"]},
        {"name": "ops", "subject": team("ops"), "allow": ["*"]},
        {"name": "data", "subject": team("data"), "allow": ["*"]},
        {"name": "clean", "subject": team("data"), "facts": {"closure": ["hello-*"]}},
    ]})
}

fn ask(stack: &Stack, team: &str, path: &str) -> Result<Response> {
    request(Method::GET, stack.envoy.port(), path, &[("x-team", team)])
}

fn names(answer: &Response) -> Result<Vec<String>> {
    let body: Value = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
    Ok(serde_json::from_value(body["repositories"].clone())?)
}

#[test]
fn each_caller_sees_the_images_that_there_are_and_that_it_may_have() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let settings = json!({"catalog": true, "policy": policy()});
        let envoy = envoy::Settings {
            version,
            config: EnvoyConfig::standalone().settings(settings),
            ..Default::default()
        };
        let stack = Stack::with(envoy, Settings::new)?;
        for name in ["iana-etc/hello", "tree/hello", "shell/tree", "tree"] {
            let path = format!("/v2/{name}/manifests/latest");
            let mut answer = ask(&stack, "ops", &path)?;
            while answer.status == StatusCode::TEMPORARY_REDIRECT {
                answer = ask(&stack, "ops", answer.header("location"))?;
            }
            assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        }

        let all = ["hello", "hello/tree", "shell/tree", "tree"];
        let (ops, data) = (ask(&stack, "ops", PATH)?, ask(&stack, "data", PATH)?);
        assert_eq!(names(&ops)?, all);
        // By what its images have in them; under these names as well as asked for one by one.
        assert_eq!(names(&data)?, ["shell/tree", "tree"]);
        assert_eq!(names(&ask(&stack, "none", PATH)?)?, ["tree"]);
        for name in all {
            let status = |team| {
                let path = format!("/v2/{name}/manifests/latest");
                Ok::<_, anyhow::Error>(ask(&stack, team, &path)?.status)
            };
            assert_eq!(status("ops")?, StatusCode::OK, "{name}");
            let listed = names(&data)?.iter().any(|one| one == name);
            assert_eq!(status("data")? == StatusCode::OK, listed, "{name}");
        }

        let mut pages = Vec::new();
        let mut next = Some(format!("{PATH}?n=3"));
        while let Some(path) = next {
            let page = ask(&stack, "ops", &path)?;
            pages.push(names(&page)?);
            let link = page.header("link");
            next = link
                .strip_prefix('<')
                .and_then(|link| link.strip_suffix(">; rel=\"next\""))
                .map(str::to_owned);
        }
        assert_eq!(pages, [&all[..3], &all[3..]]);
        let head = [("x-team", "ops")];
        let head = request(Method::HEAD, stack.envoy.port(), PATH, &head)?;
        assert_eq!(head.header("content-length"), ops.body.len().to_string());
        assert_eq!(head.header("content-type"), "application/json");

        // One question to the builder, and one entry, for all of them.
        let asked = ["route=\"catalog\"", "status=\"200\""];
        let asked = stack.builder.counter("nixgate_requests_total", &asked)?;
        assert_eq!(asked, 1);

        // A client whose users look for images by it, and sends no header of ours.
        let registry = format!("127.0.0.1:{}", stack.envoy.port());
        let found = Podman::new()?.search(&registry, "tree")?;
        assert_eq!(found, [format!("{registry}/tree")]);
        skopeo::inspect(&found[0])?;
    }
    Ok(())
}

#[test]
fn builders_that_share_storage_list_the_images_of_their_own_package_set() -> Result<()> {
    let objects = scratch::folder("s3-")?;
    let s3 = S3::start(objects.path())?;
    let (one, same, other) = (
        scratch::folder("builder-")?,
        scratch::folder("builder-")?,
        scratch::folder("builder-")?,
    );
    let ask = |builder: &Builder, path: &str| {
        let headers = [(TOKEN_HEADER, TOKEN), ("prefer", "wait=60")];
        request(Method::GET, builder.port(), path, &headers)
    };
    let names = |builder: &Builder| {
        let answer = ask(builder, PATH)?;
        let catalog = Catalog::parse(&answer.body).with_context(|| answer.text())?;
        let names = catalog.repositories.into_iter().map(|item| item.name);
        Ok::<Vec<String>, anyhow::Error>(names.collect())
    };
    let one = Builder::start(&s3.settings(Settings::new(one.path())?))?;
    assert_eq!(names(&one)?, [""; 0]);
    for name in ["tree", "arm64/shell/tree"] {
        let path = format!("/v2/{name}/manifests/latest");
        while ask(&one, &path)?.status == StatusCode::ACCEPTED {}
        assert_eq!(ask(&one, &path)?.status, StatusCode::OK, "{name}");
    }
    assert_eq!(names(&one)?, ["arm64/shell/tree", "tree"]);
    let same = Builder::start(&s3.settings(Settings::new(same.path())?))?;
    assert_eq!(names(&same)?, names(&one)?);
    // No image is made of this channel, so it need not be there.
    let channel = Settings::new(other.path())?
        .with("NIXERY_PKGS_PATH", "")
        .with("NIXERY_CHANNEL", "other")
        .with("NIXGATE_CHANNEL_BASE", "http://localhost:9");
    let other = Builder::start(&s3.settings(channel))?;
    assert_eq!(names(&other)?, [""; 0]);
    Ok(())
}
