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

fn upstream(config: &Config, path: &str) -> String {
    match begin_by(config, path) {
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
        let Begin::Reply(reply) = begin_by(&config, path) else {
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
        (false, 403, "no rule allows it"),
        (true, 404, "there is no image corp/web"),
    ] {
        let config = config(policy(hide));
        let Begin::Reply(reply) = begin_by(&config, "/v2/nix/corp/web/manifests/latest") else {
            panic!("it is asked for");
        };
        let body = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, status);
        assert!(body.contains(word), "{body}");
        assert!(matches!(
            begin_by(&config, "/v2/nix/corp/ci-base/manifests/latest"),
            Begin::Ask(_)
        ));
    }
}

/// What the builder found in the image of an opaque name.
fn document(facts: &serde_json::Value) -> Option<Entry> {
    Some(Entry {
        facts: facts.to_string(),
        ..old_document()
    })
}

fn answered(config: &Config, path: &str, facts: &serde_json::Value) -> (u16, String) {
    let Begin::Ask(mut exchange) = begin_by(config, path) else {
        panic!("{path} is not asked for");
    };
    match exchange.looked_up(config, document(facts), 0) {
        Next::Reply(reply) => {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            (reply.status, body)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_hidden_is_not_told_by_its_contents_and_what_is_broken_is_told() {
    let rules = json!([{"name": "ci", "images": ["corp/*"], "deny": ["nano"]}]);
    let policy = json!({"revision": "r1", "default": "deny", "hide": true, "rules": rules});
    let config = config(policy);
    let path = "/v2/nix/corp/a/manifests/latest";
    let facts = |packages: serde_json::Value| json!([{"tags": ["latest"], "system": "x86_64-linux", "names": [], "matched": [], "packages": packages}]);
    assert_eq!(answered(&config, path, &facts(json!(["git"]))).0, 200);
    let (status, body) = answered(&config, path, &facts(json!(["git", "nano"])));
    assert_eq!(status, 404);
    assert!(
        body.contains("there is no image corp/a") && !body.contains("nano"),
        "{body}"
    );
    // A builder that took the name for a list of packages.
    let (status, body) = answered(&config, path, &facts(json!(null)));
    assert_eq!(status, 403);
    assert!(body.contains("disagree"), "{body}");
}

#[test]
fn a_policy_on_trial_judges_opaque_names_and_is_only_counted() {
    let mut json = json!({
        "builder": {"cluster": "builder", "token_env": "T"},
        "opaque_namespaces": ["corp"],
        "shadow": {"revision": "2", "default": "deny", "rules": [
            {"name": "ci", "images": ["corp/ci-*"]}]},
    });
    let parse = |json: &serde_json::Value| {
        Config::parse(json.to_string().as_bytes(), |_| Some("s".to_owned()))
    };
    let config = parse(&json).unwrap();
    let facts = json!([{"tags": ["latest"], "system": "x86_64-linux", "names": [], "matched": [], "packages": ["git"]}]);
    for (name, differs) in [("ci-base", false), ("web", true)] {
        let path = format!("/v2/corp/{name}/manifests/latest");
        let Begin::Ask(mut exchange) = begin_by(&config, &path) else {
            panic!("{path} is not asked for");
        };
        let Next::Reply(reply) = exchange.looked_up(&config, document(&facts), 0) else {
            panic!("{path} is not answered");
        };
        assert_eq!(reply.status, 200);
        let judgement = reply.record.judgement.unwrap();
        assert_eq!(judgement.shadow_differs, differs, "{name}");
    }
    json["opaque_namespaces"] = json!(["lab"]);
    let error = parse(&json).unwrap_err().to_string();
    assert!(error.contains("shadow: the rule ci: images"), "{error}");
}
