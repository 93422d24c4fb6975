mod facts;
mod grantor;
mod opaque;
mod table;
mod unknown;
mod written;

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::distribution::Repository;
use crate::package_set::{self, System};
use crate::{OpaqueNamespaces, PackageSet};

fn policy(default: &str, rules: Value) -> Policy {
    let json = json!({ "revision": "r1", "default": default, "rules": rules });
    Policy::parse(json.to_string().as_bytes()).unwrap()
}

/// One claim for each attribute of the policy.
fn groups(values: &[&str]) -> Identity {
    vec![Known::Values(
        values.iter().map(|&value| value.to_owned()).collect(),
    )]
}

fn judge(policy: &Policy, name: &str, identity: &Identity) -> Verdict {
    judge_with(policy, name, "latest", identity, &[])
}

fn judge_with(
    policy: &Policy,
    name: &str,
    tag: &str,
    identity: &Identity,
    matched: &[&str],
) -> Verdict {
    let matched = matched.iter().map(|&name| name.to_owned()).collect();
    judge_image(policy, name, Some(tag), identity, matched_image(matched))
}

fn matched_image(matched: BTreeSet<String>) -> ImageFacts {
    ImageFacts {
        tags: [Tag::latest()].into(),
        system: System::X86_64Linux,
        names: Vec::new(),
        names_unknown: false,
        unsettled: false,
        matched,
        packages: None,
    }
}

fn judge_image(
    policy: &Policy,
    name: &str,
    tag: Option<&str>,
    identity: &Identity,
    facts: ImageFacts,
) -> Verdict {
    let repository = Repository::parse(name).unwrap();
    let packages = PackageSet::of(&repository).unwrap();
    let image = packages.clone().into();
    let tag = tag.map(|tag| Tag::parse(tag).unwrap());
    let request = Request {
        image: &image,
        written: package_set::written(&repository),
        tag: tag.as_ref(),
    };
    let verdict = policy.judge_images(&request, identity, &[facts]);
    // What the name alone forbids, facts never allow.
    assert!(policy.judge_name(&request, identity).allows() || !verdict.allows());
    // Nobody has to let in whom nothing keeps out.
    let mut asked = packages.packages();
    let needs_none =
        policy.default == DefaultDecision::Allow || asked.all(package_set::is_in_every_image);
    assert!(!needs_none || policy.grantor(&request, identity).is_none());
    verdict
}

fn team() -> Value {
    json!([{
        "name": "data-team",
        "subject": {"jwt_claim": {"path": ["groups"], "type": "list", "glob": "data-*"}},
        "allow": ["@shell", "git", "python3*", "python3Packages.*", "_1password"],
        "deny": ["*-unwrapped"],
        "systems": ["x86_64-linux"],
        "max_packages": 3,
        "message": "Ask #platform to add a package.",
    }])
}

fn check(verdict: &Verdict, expected: Expect) {
    let text = match verdict.error("d1") {
        Some(error) => error.message,
        None => format!("allowed; {:?}", verdict.warning()),
    };
    expected.assert_eq(&text);
}

#[test]
fn a_team_has_what_it_is_allowed() {
    let policy = policy("deny", team());
    let caller = groups(&["staff", "data-eng"]);
    for name in [
        "shell/git",
        "git",
        "python310",
        "python3packages.requests",
        "1password",
        "amd64/git",
        "cacert",
    ] {
        assert!(judge(&policy, name, &caller).allows(), "{name}");
    }
}

#[test]
fn a_refusal_says_what_and_why() {
    let policy = policy("deny", team());
    let caller = groups(&["data-eng"]);
    check(
        &judge(&policy, "git/htop/gcc-unwrapped", &caller),
        expect![
            "you may not have gcc-unwrapped (denied by the rule data-team), htop (no rule allows it for you). Ask #platform to add a package. (decision d1)"
        ],
    );
    check(
        &judge(&policy, "arm64/git", &caller),
        expect![
            "you may not have git (the rule data-team allows it only for x86_64-linux). Ask #platform to add a package. (decision d1)"
        ],
    );
    check(
        &judge(&policy, "git/python3/python310/python311", &caller),
        expect![
            "you may not have git (the rule data-team allows it in images of at most 3 packages; this name has 4), python3 (the rule data-team allows it in images of at most 3 packages; this name has 4), python310 (the rule data-team allows it in images of at most 3 packages; this name has 4), python311 (the rule data-team allows it in images of at most 3 packages; this name has 4). Ask #platform to add a package. (decision d1)"
        ],
    );
    check(
        &judge_with(&policy, "git", "v1", &caller, &[]),
        expect![
            "you may not have git (the rule data-team allows it only for the tag latest). Ask #platform to add a package. (decision d1)"
        ],
    );
}

#[test]
fn a_caller_without_identity_matches_only_rules_without_subject() {
    let mut rules = team();
    for caller in [vec![Known::Unknown], vec![], groups(&[])] {
        assert!(!judge(&policy("deny", rules.clone()), "git", &caller).allows());
    }
    rules
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "everybody", "allow": ["git"]}));
    assert!(judge(&policy("deny", rules), "git", &vec![Known::Unknown]).allows());
}

#[test]
fn deny_beats_allow_in_any_order() {
    let mut rules = vec![
        json!({"name": "a", "allow": ["git"]}),
        json!({"name": "b", "deny": ["g?t"]}),
    ];
    for _ in 0..2 {
        assert!(!judge(&policy("deny", json!(rules)), "git", &vec![]).allows());
        assert!(!judge(&policy("allow", json!(rules)), "git", &vec![]).allows());
        rules.reverse();
    }
}

#[test]
fn what_every_image_has_can_be_denied_all_the_same() {
    let policy = policy(
        "deny",
        json!([{"name": "a", "allow": ["git"], "deny": ["cacert"]}]),
    );
    check(
        &judge(&policy, "git", &vec![]),
        expect!["you may not have cacert (denied by the rule a). (decision d1)"],
    );
}

#[test]
fn a_meta_package_hides_nothing() {
    let policy = policy("deny", json!([{"name": "a", "allow": ["@shell", "git"]}]));
    assert!(judge(&policy, "git/shell", &vec![]).allows());
    check(
        &judge(&policy, "builder/git", &vec![]),
        expect![
            "you may not have gnumake (no rule allows it for you), stdenv (no rule allows it for you), stdenv.cc (no rule allows it for you). (decision d1)"
        ],
    );
}

#[test]
fn an_audited_rule_warns_and_refuses_nothing() {
    let policy = policy(
        "deny",
        json!([
            {"name": "trial", "mode": "audit", "allow": ["git"], "deny": ["nano"]},
            {"name": "hard", "deny": ["vim"]},
        ]),
    );
    check(
        &judge(&policy, "git/htop/nano", &vec![]),
        expect![[
            r#"allowed; Some("will be refused when the policy is enforced: htop (not allowed by the rule trial), nano (denied by the rule trial)")"#
        ]],
    );
    assert!(!judge(&policy, "git/vim", &vec![]).allows());
}

#[test]
fn who_may_not_have_a_package_may_have_nothing_that_is_in_it() {
    let rules = json!([{"name": "a", "allow": ["*.*", "*"], "deny": ["git", "python3.pkgs"]}]);
    let policy = policy("deny", rules);
    for denied in [
        "git",
        "git.out",
        "git.doc",
        "git.a.b",
        "python3.pkgs.requests",
    ] {
        let verdict = judge(&policy, denied, &vec![]);
        assert!(!verdict.allows(), "{denied}");
    }
    for allowed in ["gitfull", "legit.git", "python3", "python3.dev"] {
        assert!(judge(&policy, allowed, &vec![]).allows(), "{allowed}");
    }
    check(
        &judge(&policy, "git.doc", &vec![]),
        expect!["you may not have git.doc (which is git, denied by the rule a). (decision d1)"],
    );
    // The real name of a package is no path.
    let image = ImageFacts {
        names: [("x".to_owned(), "git.3".to_owned())].into(),
        names_unknown: false,
        unsettled: false,
        ..matched_image(BTreeSet::new())
    };
    assert!(judge_image(&policy, "x", Some("latest"), &vec![], image).allows());
}
