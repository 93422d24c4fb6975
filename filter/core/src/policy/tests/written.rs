//! Policies as they are written: errors, and what rules keep.

use super::*;

#[test]
fn errors_name_the_rule_and_the_key() {
    let rule = |rule: Value| json!({ "revision": "r", "default": "deny", "rules": [rule] });
    for (json, part) in [
        (json!({}), "missing field `revision`"),
        (
            json!({"revision": "a b", "default": "deny", "rules": []}),
            "policy.revision must have",
        ),
        (
            rule(json!({"name": "a"})),
            "the rule a: it allows and denies nothing",
        ),
        (
            rule(json!({"name": "a", "allow": ["{a"]})),
            "the rule a: allow: the braces of \"{a\" don't match",
        ),
        (
            rule(json!({"name": "a", "allow": ["@python"]})),
            "\"@python\" is not a meta-package",
        ),
        (
            rule(json!({"name": "a", "deny": ["corp/secret"]})),
            "the rule a: deny: \"corp/secret\" has a slash, which no package has",
        ),
        (
            rule(json!({"name": "a", "deny_images": ["secret"]})),
            "the rule a: deny_images: \"secret\" is not an opaque name",
        ),
        (
            rule(json!({"name": "a", "images": ["@shell"]})),
            "the rule a: images: \"@shell\" is not an opaque name",
        ),
        (
            rule(json!({"name": "a", "allow": ["a"], "tags": ["-"]})),
            "the rule a: tags:",
        ),
        (
            rule(json!({"name": "a", "allow": ["a"], "systems": ["arm64"]})),
            "the rule a: systems: \"arm64\"",
        ),
        (
            rule(json!({"name": "a", "allow": ["a"], "subject": {"group": "x"}})),
            "unknown variant `group`",
        ),
        (
            rule(json!({"name": "a", "allow": ["a"], "subject": {"any": []}})),
            "the rule a: subject: an empty all or any",
        ),
        (
            rule(json!({"name": "a", "allow": ["a"],
                "subject": {"jwt_claim": {"path": ["a"], "type": "number", "glob": "1"}}})),
            "unknown variant `number`",
        ),
        (
            rule(json!({"name": "a", "allow": ["a"],
                "subject": {"address": {"ranges": ["10.0.0.1/8"]}}})),
            "has bits behind its prefix length",
        ),
        (
            json!({"revision": "r", "default": "deny", "rules": [
                {"name": "a", "allow": ["a"]}, {"name": "a", "allow": ["b"]}]}),
            "two rules have the name a",
        ),
    ] {
        let error = Policy::parse(json.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(part), "{json}: {error}");
    }
}

#[test]
fn rules_keep_what_was_written() {
    let policy = policy("deny", team());
    let [rule] = policy.rules() else {
        panic!("one rule was written");
    };
    let globs = |pattern: &Pattern| {
        let globs: Vec<_> = pattern.globs.iter().map(Glob::to_string).collect();
        format!("{} = {}", pattern.text, globs.join(" "))
    };
    let allow: Vec<_> = rule.allow.iter().map(globs).collect();
    expect![[r#"
        [
            "@shell = bashinteractive coreutils moreutils nano",
            "git = git",
            "python3* = python3*",
            "python3Packages.* = python3packages.*",
            "_1password = 1password",
        ]
    "#]]
    .assert_debug_eq(&allow);
    assert_eq!(rule.is_for(&groups(&["data-eng"])), Some(true));
    assert_eq!(rule.is_for(&groups(&["web"])), Some(false));
    assert_eq!(rule.is_for(&vec![]), None);
}

#[test]
fn rules_that_differ_in_names_and_order_alone_do_the_same() {
    let rules = |change: fn(&mut Value)| {
        let mut rules = team();
        let mut copy = rules[0].clone();
        copy["name"] = json!("other");
        copy["message"] = json!("Ask somebody else.");
        copy["allow"].as_array_mut().unwrap().reverse();
        change(&mut copy);
        rules.as_array_mut().unwrap().push(copy);
        let policy = policy("deny", rules);
        policy.do_the_same(&policy.rules()[0], &policy.rules()[1])
    };
    assert!(rules(|_| {}));
    let changes: [fn(&mut Value); 6] = [
        |rule| rule["mode"] = json!("audit"),
        |rule| rule["max_packages"] = json!(4),
        |rule| rule["subject"] = json!(null),
        |rule| rule["facts"] = json!({"insecure": true}),
        |rule| rule["deny"] = json!([]),
        |rule| rule["allow"][0] = json!("htop"),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert!(!rules(change), "change {index}");
    }
}
