use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn check(default: &str, rules: Value, expected: Expect) {
    let json = json!({"revision": "r1", "default": default, "rules": rules});
    let file = PolicyFile::parse(json.to_string().as_bytes()).unwrap();
    let lines: String = findings(&file)
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    expected.assert_eq(&lines);
}

#[test]
fn a_policy_in_order_has_no_finding() {
    let groups = json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": "data-*"}});
    check(
        "deny",
        json!([
            {"name": "everybody", "allow": ["@shell", "git", "go_1_{22,23}"]},
            {"name": "data", "subject": groups, "allow": ["git", "python3*", "python3Packages.*"],
             "max_packages": 9},
            {"name": "hard", "deny": ["*-unwrapped", "git-crypt"]},
            // To everybody but by an audited rule, and to some: both leave something.
            {"name": "trial", "mode": "audit", "deny": ["git"]},
            {"name": "web", "subject": {"host": {"glob": "web.corp"}}, "deny": ["git"]},
        ]),
        expect![[""]],
    );
    check(
        "allow",
        json!([{"name": "hard", "deny": ["*ssl*"]}]),
        expect![[""]],
    );
}

#[test]
fn what_is_denied_needs_no_allowing() {
    check(
        "deny",
        json!([
            {"name": "some", "allow": ["gcc-unwrapped", "git", "{a,b}-unwrapped"]},
            {"name": "all", "allow": ["clang-*-unwrapped", "python3packages.x-unwrapped"]},
            {"name": "hard", "deny": ["*-unwrapped"]},
            {"name": "own", "subject": {"host": {"glob": "a"}}, "allow": ["vim*"], "deny": ["vim*", "emacs"]},
        ]),
        expect![[""]],
    );
}

#[test]
fn what_is_said_twice_is_said_once_too_often() {
    check(
        "deny",
        json!([
            {"name": "a", "allow": ["git", "git*", "htop", "htop", "Htop"]},
            {"name": "b", "allow": ["git*", "git", "htop"], "message": "as a, in other words"},
            {"name": "c", "allow": ["@shell", "nano"], "deny": ["*ssl*", "openssl"]},
        ]),
        expect![[""]],
    );
}

#[test]
fn a_rule_that_allows_nothing_is_found() {
    check(
        "deny",
        json!([
            {"name": "a", "allow": ["git"], "max_packages": 0},
            {"name": "b", "allow": ["git"], "systems": []},
            {"name": "c", "allow": ["git"], "tags": []},
        ]),
        expect![[""]],
    );
    check(
        "allow",
        json!([{"name": "a", "allow": ["git"]}, {"name": "b", "deny": ["vim"]}]),
        expect![[""]],
    );
}

#[test]
fn subjects_that_are_never_true_are_found() {
    let groups =
        |glob: &str| json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": glob}});
    let sub = |glob: &str| json!({"jwt_claim": {"path": ["sub"], "type": "string", "glob": glob}});
    let host = |glob: &str| json!({"host": {"glob": glob}});
    let within = |ranges: &[&str]| json!({"address": {"ranges": ranges}});
    let not = |subject: Value| json!({"not": subject});
    let subjects = [
        // These may hold.
        json!({"all": [groups("a"), groups("b")]}),
        json!({"all": [sub("a*"), not(sub("ab"))]}),
        json!({"all": [sub("a*"), sub("*b")]}),
        json!({"any": [sub("x"), json!({"all": [sub("a"), sub("b")]})]}),
        json!({"all": [within(&["10.0.0.0/8"]), within(&["10.1.0.0/16", "fd00::/8"])]}),
        not(groups("*")),
        host("[::1]"),
        json!({"uri_san": {"glob": "spiffe://corp/*"}}),
        // These can't.
        json!({"all": [sub("a"), sub("b")]}),
        json!({"all": [sub("a*"), sub("b*")]}),
        json!({"all": [sub("ab"), not(sub("a*"))]}),
        json!({"all": [groups("data-x"), not(json!({"any": [groups("data-*"), sub("a")]}))]}),
        json!({"not": {"any": [sub("*"), groups("a")]}}),
        json!({"all": [within(&["10.0.0.0/8"]), within(&["192.168.0.0/16"])]}),
        json!({"all": [within(&["10.1.0.0/16"]), not(within(&["10.0.0.0/8"]))]}),
        not(within(&["::/0"])),
        host("registry.corp:443"),
        json!({"any": [host("https://registry.corp"), json!({"all": [sub("a"), sub("b")]})]}),
        json!({"uri_san": {"glob": "ci.corp"}}),
        json!({"basic_user": {"glob": "alice:secret"}}),
    ];
    let rules: Vec<Value> = subjects
        .into_iter()
        .enumerate()
        .map(|(index, subject)| json!({"name": format!("r{index}"), "allow": ["git"], "subject": subject}))
        .collect();
    check("deny", json!(rules), expect![[""]]);
}
