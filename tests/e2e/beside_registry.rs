//! Two registries behind one listener: nixgate has the names below `nix/`, Debian's
//! `docker-registry` has the others.

use anyhow::Result;
use http::{Method, StatusCode};
use nixgate_core::distribution::MediaType;
use nixgate_tests::envoy_config::EnvoyConfig;
use nixgate_tests::live::builder::{Settings, TOKEN};
use nixgate_tests::live::clients::skopeo;
use nixgate_tests::live::docker_registry::DockerRegistry;
use nixgate_tests::live::envoy;
use nixgate_tests::live::http::request;
use nixgate_tests::live::install::ENVOY_VERSIONS;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{poll, scratch};
use serde_json::{Value, json};
use tempfile::TempDir;

/// nixgate beside another registry, whose files are in a folder. Bound in this order, nothing loses
/// what it uses when they are dropped.
fn both(version: &'static str) -> Result<(TempDir, DockerRegistry, Stack)> {
    let folder = scratch::folder("registry-")?;
    let other = DockerRegistry::start(folder.path())?;
    let envoy = envoy::Settings {
        version,
        config: EnvoyConfig::beside_registry(other.port()),
        ..Default::default()
    };
    let stack = Stack::with(envoy, Settings::new)?;
    Ok((folder, other, stack))
}

#[test]
fn each_registry_has_its_own_names() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let (_folder, _other, stack) = both(version)?;
        let ask = |method, path: &str| {
            let headers = [
                ("accept", MediaType::Oci.as_str()),
                // The token is no way around the filter: it takes it off.
                (nixgate_core::wire::TOKEN, TOKEN),
            ];
            request(method, stack.envoy.port(), path, &headers)
        };

        // Pulled from the one and pushed to the other, all by one address.
        let pulled = scratch::folder("copy-")?;
        skopeo::copy(&stack.image("nix/hello"), pulled.path())?;
        skopeo::push(pulled.path(), &stack.image("tools/hello"))?;
        let again = scratch::folder("copy-")?;
        skopeo::copy(&stack.image("tools/hello"), again.path())?;
        let manifest = |of: &str| ask(Method::GET, &format!("/v2/{of}/manifests/latest"));
        let (ours, theirs) = (manifest("nix/hello")?, manifest("tools/hello")?);
        assert_eq!(ours.body, theirs.body);
        assert_eq!(
            manifest("hello")?.error()?.0,
            "MANIFEST_UNKNOWN",
            "without the prefix it is a name of the other registry"
        );

        let tags: Value =
            serde_json::from_slice(&ask(Method::GET, "/v2/nix/hello/tags/list?n=1")?.body)?;
        assert_eq!(tags["name"], "nix/hello");
        let catalog: Value = serde_json::from_slice(&ask(Method::GET, "/v2/_catalog")?.body)?;
        assert_eq!(catalog["repositories"], serde_json::json!(["tools/hello"]));
        // A blob of ours that the other registry doesn't have under that name.
        let manifest: Value = serde_json::from_slice(&ours.body)?;
        let config = manifest["config"]["digest"].as_str().expect("a digest");
        for (name, status) in [
            ("nix/hello", StatusCode::OK),
            ("tools/hello", StatusCode::OK),
            ("tools/other", StatusCode::NOT_FOUND),
        ] {
            let blob = ask(Method::GET, &format!("/v2/{name}/blobs/{config}"))?;
            assert_eq!(blob.status, status, "{name}");
        }

        let refused = ask(Method::PUT, "/v2/nix/hello/manifests/latest")?;
        assert_eq!(refused.error()?.0, "UNSUPPORTED");
        let unknown = ask(Method::GET, "/v2/nix/no-such/manifests/latest")?;
        let (code, message) = unknown.error()?;
        assert_eq!(code, "MANIFEST_UNKNOWN");
        assert!(message.contains("no-such"), "{message}");
    }
    Ok(())
}

#[test]
fn a_configuration_that_is_delivered_takes_effect_for_nixgates_names_alone() -> Result<()> {
    for version in ENVOY_VERSIONS {
        let (_folder, _other, stack) = both(version)?;
        let (ours, theirs) = (
            "/v2/nix/hello/manifests/latest",
            "/v2/tools/hello/tags/list",
        );
        assert_eq!(stack.get(ours)?.status, StatusCode::OK);
        let answer_of_the_other = stack.get(theirs)?;
        assert_eq!(answer_of_the_other.error()?.0, "NAME_UNKNOWN");

        let policy = json!({"revision": "two", "default": "deny", "rules": []});
        assert!(stack.envoy.deliver(json!({"policy": policy}))?);
        assert_eq!(stack.get(ours)?.error()?.0, "DENIED");
        assert_eq!(stack.get(theirs)?.body, answer_of_the_other.body);
        // One that is refused leaves that in force.
        assert!(!stack.envoy.deliver(json!({"hold_seconds": 99}))?);
        assert_eq!(stack.get(ours)?.error()?.0, "DENIED");

        let denied = r#"nixgate_edge_judged_total{nixgate_registry="nixgate",nixgate_decision="denied",nixgate_shadow="agrees"} 2"#;
        let count = r#"nixgate_edge_requests_total{nixgate_registry="nixgate",nixgate_route="manifest",nixgate_outcome="denied"} 2"#;
        for line in [denied, count] {
            poll::until(&format!("the statistics say {line}"), || {
                let statistics = stack.envoy.prometheus().ok()?;
                statistics.lines().any(|one| one == line).then_some(())
            })?;
        }
        // Revision and rule; the default of a policy is no rule.
        poll::until("the access log says so", || {
            let mut lines = stack.envoy.access_log().into_iter();
            let said = lines.any(|line| {
                line["path"] == ours
                    && line["outcome"] == "denied"
                    && line["image"] == "cacert/hello/iana-etc"
                    && line["policy"] == "two"
                    && line["rule"].is_null()
            });
            said.then_some(())
        })?;
    }
    Ok(())
}
