//! Names of images that are defined elsewhere, which are no lists of packages.

use serde_json::json;

use super::*;

fn config(policy: serde_json::Value) -> Config {
    let mut json = json!({
        "builder": {"cluster": "builder", "token_env": "T"},
        "name_prefix": "nix",
        "opaque_namespaces": ["corp"],
    });
    if !policy.is_null() {
        json["policy"] = policy;
    }
    Config::parse(json.to_string().as_bytes(), |_| Some("s".to_owned())).unwrap()
}

fn begin(config: &Config, path: &str) -> Begin {
    let request = Request {
        method: "GET",
        path,
        accept: Vec::new(),
        if_none_match: Vec::new(),
        caller: &Caller::default(),
    };
    Exchange::begin(config, &request, 0)
}

fn upstream(config: &Config, path: &str) -> String {
    match begin(config, path) {
        Begin::Ask(exchange) => exchange.upstream_path(),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn the_builder_hears_an_opaque_name_as_it_was_written() {
    let config = config(json!(null));
    for (path, expected) in [
        (
            "/v2/nix/corp/ci-base/manifests/latest",
            "/v2/corp/ci-base/manifests/latest",
        ),
        (
            "/v2/nix/corp/shell/git/tags/list",
            "/v2/corp/shell/git/tags/list",
        ),
        (
            "/v2/nix/git/ci-base/manifests/latest",
            "/v2/cacert/ci-base/git/iana-etc/manifests/latest",
        ),
    ] {
        assert_eq!(upstream(&config, path), expected);
    }
    for path in [
        "/v2/nix/corp/manifests/latest",
        "/v2/nix/git/corp/manifests/latest",
    ] {
        let Begin::Reply(reply) = begin(&config, path) else {
            panic!("{path} is asked for");
        };
        assert_eq!(reply.status, 400, "{path}");
    }
}

#[test]
fn a_refused_opaque_name_may_look_like_an_unknown_one() {
    let rules = json!([{"name": "ci", "images": ["corp/ci-*"]}]);
    let policy = |hide| json!({"revision": "r1", "default": "deny", "hide": hide, "rules": rules});
    for (hide, status, word) in [
        (false, 403, "allowed by no rule"),
        (true, 404, "there is no image corp/web"),
    ] {
        let config = config(policy(hide));
        let Begin::Reply(reply) = begin(&config, "/v2/nix/corp/web/manifests/latest") else {
            panic!("it is asked for");
        };
        let body = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, status);
        assert!(body.contains(word), "{body}");
        assert!(matches!(
            begin(&config, "/v2/nix/corp/ci-base/manifests/latest"),
            Begin::Ask(_)
        ));
    }
}
