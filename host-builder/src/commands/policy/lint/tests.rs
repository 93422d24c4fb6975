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
        expect![[r#"
            the rule some: allow: the rule hard denies "gcc-unwrapped"
            the rule some: allow: the rule hard denies "{a,b}-unwrapped"
            the rule all: allow: the rule hard denies all of it
            the rule own: allow: the rule own denies all of it
        "#]],
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
        expect![[r#"
            the rule a: allow: "git*" covers "git"
            the rule a: allow: "htop" is there twice
            the rule a: allow: "htop" covers "Htop"
            the rule b: it does the same as the rule a
            the rule c: allow: "@shell" covers "nano"
            the rule c: deny: "*ssl*" covers "openssl"
        "#]],
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
        expect![[r#"
            the rule a: max_packages: no request fits it, so the rule allows nothing
            the rule b: systems: no request fits it, so the rule allows nothing
            the rule c: tags: no request fits it, so the rule allows nothing
        "#]],
    );
    check(
        "allow",
        json!([{"name": "a", "allow": ["git"]}, {"name": "b", "deny": ["vim"]}]),
        expect![[r#"
            the rule a: allow: it has no effect, since the default is allow
        "#]],
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
    check(
        "deny",
        json!(rules),
        expect![[r#"
        the rule r8: subject: it is never true: claim:sub: two of its conditions exclude each other
        the rule r9: subject: it is never true: claim:sub: two of its conditions exclude each other
        the rule r10: subject: it is never true: claim:sub: two of its conditions exclude each other
        the rule r11: subject: it is never true: claim:groups: two of its conditions exclude each other
        the rule r12: subject: it is never true: not claim:sub: "*" matches every value
        the rule r13: subject: it is never true: address: two of its conditions exclude each other
        the rule r14: subject: it is never true: address: two of its conditions exclude each other
        the rule r15: subject: it is never true: not address: every address is in ::/0
        the rule r16: subject: it is never true: host: a host is a name without scheme, port or path
        the rule r17: subject: it is never true: host: a host is a name without scheme, port or path
        the rule r18: subject: it is never true: uri_san: a URI has a scheme, such as spiffe:
        the rule r19: subject: it is never true: user: a user has no colon in their name
    "#]],
    );
}

#[test]
fn patterns_of_opaque_names_are_looked_at_as_those_of_packages() {
    check(
        "deny",
        json!([
            {"name": "ci", "images": ["corp/ci-*", "corp/ci-base", "corp/secret"]},
            {"name": "none", "images": ["corp/secret"], "max_packages": 0, "allow": []},
            {"name": "hard", "deny_images": ["*secret", "corp/secret"]},
            {"name": "when", "images": ["corp/web"], "tags": []},
        ]),
        expect![[r#"
            the rule ci: images: the rule hard denies "corp/secret"
            the rule ci: images: "corp/ci-*" covers "corp/ci-base"
            the rule none: images: the rule hard denies all of it
            the rule hard: deny_images: "*secret" covers "corp/secret"
            the rule when: tags: no request fits it, so the rule allows nothing
        "#]],
    );
    check(
        "allow",
        json!([{"name": "ci", "images": ["corp/ci-*"]}]),
        expect![[r#"
            the rule ci: images: it has no effect, since the default is allow
        "#]],
    );
}

#[test]
fn rules_that_refuse_who_is_let_in_without_being_known_are_told() {
    let groups =
        |glob: &str| json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": glob}});
    let host = json!({"host": {"glob": "corp"}});
    let notes = |default: &str, rules: Value| -> String {
        let json = json!({"revision": "r1", "default": default, "rules": rules});
        let file = PolicyFile::parse(json.to_string().as_bytes()).unwrap();
        assert_eq!(findings(&file), [""; 0]);
        notes(&file)
            .iter()
            .map(|note| format!("{note}\n"))
            .collect()
    };
    let team =
        json!({"name": "team", "subject": groups("data"), "allow": ["git"], "deny": ["gcc"]});
    // Who is not known has nothing that could be refused.
    expect![[""]].assert_eq(&notes("deny", json!([team])));
    expect![[r#"
        the rule team: deny: it also refuses callers of whom claim:groups is not known, and the rule all lets them in
    "#]]
    .assert_eq(&notes("deny", json!([team, {"name": "all", "allow": ["htop"]}])));
    expect![[r#"
        the rule hard: deny_images: it also refuses callers of whom claim:groups or user is not known, and the rule here lets them in
    "#]]
    .assert_eq(&notes(
        "deny",
        json!([
            {"name": "here", "subject": {"any": [groups("data"), host]}, "images": ["corp/*"]},
            {"name": "hard", "deny_images": ["corp/x"],
             "subject": {"not": {"all": [groups("data"), {"basic_user": {"glob": "a"}}]}}},
            {"name": "open", "deny_images": ["corp/y"], "subject": host},
        ]),
    ));
    expect![[r#"
        the rule free: facts: it also refuses callers of whom claim:groups is not known, and the default lets them in
    "#]]
    .assert_eq(&notes(
        "allow",
        json!([{"name": "free", "subject": groups("data"), "facts": {"insecure": true}}]),
    ));
}

#[test]
fn a_claim_that_a_rule_that_refuses_asks_for_as_two_types_is_found() {
    let claim = |kind: &str| json!({"jwt_claim": {"path": ["g"], "type": kind, "glob": "x"}});
    let both = json!({"any": [claim("list"), claim("string")]});
    check(
        "deny",
        json!([
            {"name": "all", "allow": ["nano"]},
            {"name": "may", "subject": both, "allow": ["git"]},
            {"name": "no", "subject": both, "deny": ["git"]},
        ]),
        expect![[r#"
            the rule may: allow: the rule no denies all of it
            the rule no: subject: claim:g is used as a string and as a list: one of them is never known, so what the rule denies counts for everybody whom the other does not exclude
        "#]],
    );
}

#[test]
fn to_refuse_whoever_is_not_known_is_a_subject() {
    let unknown = json!({"not": {"basic_user": {"glob": "*"}}});
    check(
        "deny",
        json!([
            {"name": "all", "allow": ["git", "htop"]},
            {"name": "known", "subject": unknown, "deny": ["git"]},
        ]),
        expect![[""]],
    );
}
