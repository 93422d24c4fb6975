mod opaque;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};

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
        names: BTreeMap::new(),
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
    let needs_none = policy.default == Default::Allow || asked.all(package_set::is_in_every_image);
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
            "you may not have gcc-unwrapped (denied by the rule data-team), htop (allowed by no rule for you). Ask #platform to add a package. (decision d1)"
        ],
    );
    check(
        &judge(&policy, "arm64/git", &caller),
        expect![
            "you may not have git (the rule data-team allows it for x86_64-linux alone). Ask #platform to add a package. (decision d1)"
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
            "you may not have git (the rule data-team allows it for the tag latest alone). Ask #platform to add a package. (decision d1)"
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
            "you may not have gnumake (allowed by no rule for you), stdenv (allowed by no rule for you), stdenv.cc (allowed by no rule for you). (decision d1)"
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
fn what_the_builder_found_counts_for_whom_the_rule_is_for() {
    let rules = json!([
        {"name": "all", "allow": ["*"]},
        {"name": "free", "facts": {"licences": ["unfree*"]}, "message": "Only free software.",
         "subject": {"jwt_claim": {"path": ["groups"], "type": "list", "glob": "data-*"}}},
    ]);
    let policy = policy("deny", rules);
    let judge = |identity: &Identity, matched: &[&str]| {
        judge_with(&policy, "git", "latest", identity, matched)
    };
    assert!(judge(&groups(&["data-eng"]), &[]).allows());
    assert!(judge(&groups(&["web"]), &["free"]).allows());
    check(
        &judge(&groups(&["data-eng"]), &["free"]),
        expect![
            "you may not have this image (refused for what is in it by the rule free). Only free software. (decision d1)"
        ],
    );
}

#[test]
fn facts_decide_what_a_digest_does_not_say() {
    let policy = policy("deny", team());
    let caller = groups(&["data-eng"]);
    let image = |tag: &str, system| ImageFacts {
        tags: [Tag::parse(tag).unwrap()].into(),
        system,
        ..matched_image(BTreeSet::new())
    };
    let amd64 = System::X86_64Linux;
    let judge = |image| judge_image(&policy, "git", None, &caller, image);
    assert!(judge(image("latest", amd64)).allows());
    check(
        &judge(image("old", amd64)),
        expect![
            "you may not have git (the rule data-team allows it for the tag latest alone). Ask #platform to add a package. (decision d1)"
        ],
    );
    check(
        &judge(image("latest", System::Aarch64Linux)),
        expect![
            "you may not have git (the rule data-team allows it for x86_64-linux alone). Ask #platform to add a package. (decision d1)"
        ],
    );
    // Both images of the name have the blob, and one of them may be had.
    let git = PackageSet::of(&Repository::parse("git").unwrap())
        .unwrap()
        .into();
    let request = Request {
        image: &git,
        written: 1,
        tag: None,
    };
    let both = [image("old", amd64), image("latest", amd64)];
    assert!(policy.judge_images(&request, &caller, &both).allows());
    check(
        &policy.judge_images(&request, &caller, &[]),
        expect![
            "you may not have this image (the builder did not say what is in it). (decision d1)"
        ],
    );
}

#[test]
fn an_alias_is_denied_under_its_real_name_and_allowed_under_none_but_its_own() {
    let rules = json!([{"name": "a", "allow": ["vcs", "git"], "deny": ["mercurial"]}]);
    let policy = policy("deny", rules);
    let judge = |package: &str, name: &str| {
        let image = ImageFacts {
            names: [(package.to_owned(), name.to_owned())].into(),
            ..matched_image(BTreeSet::new())
        };
        judge_image(&policy, package, Some("latest"), &vec![], image)
    };
    check(
        &judge("vcs", "mercurial"),
        expect!["you may not have vcs (which is mercurial, denied by the rule a). (decision d1)"],
    );
    assert!(judge("vcs", "subversion").allows());
    assert!(!judge("hg", "git").allows());
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
        ..matched_image(BTreeSet::new())
    };
    assert!(judge_image(&policy, "x", Some("latest"), &vec![], image).allows());
}

#[test]
fn errors_name_the_rule_and_the_key() {
    let rule = |rule: Value| json!({ "revision": "r", "default": "deny", "rules": [rule] });
    for (json, part) in [
        (json!({}), "missing field `revision`"),
        (
            json!({"revision": "a b", "default": "deny", "rules": []}),
            "policy.revision must be",
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
            "\"@python\" is none of @shell and @builder",
        ),
        (
            rule(json!({"name": "a", "deny": ["corp/secret"]})),
            "the rule a: deny: \"corp/secret\" has a slash, which no package has",
        ),
        (
            rule(json!({"name": "a", "deny_images": ["secret"]})),
            "the rule a: deny_images: \"secret\" is no opaque name",
        ),
        (
            rule(json!({"name": "a", "images": ["@shell"]})),
            "the rule a: images: \"@shell\" is no opaque name",
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
            "has bits behind its length",
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
fn an_outline_has_what_was_written() {
    let json = json!({ "revision": "r1", "default": "deny", "rules": team() }).to_string();
    let [rule] = &Policy::outline(json.as_bytes()).unwrap()[..] else {
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
    assert_eq!(rule.applies_to(&groups(&["data-eng"])), Some(true));
    assert_eq!(rule.applies_to(&groups(&["web"])), Some(false));
    assert_eq!(rule.applies_to(&vec![]), None);
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
        let json = json!({ "revision": "r1", "default": "deny", "rules": rules }).to_string();
        let outlines = Policy::outline(json.as_bytes()).unwrap();
        outlines[0].does_the_same(&outlines[1])
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

/// The table of the module's comment, rule by rule and pattern by pattern.
fn oracle(rules: &[(bool, Vec<String>, Vec<String>)], package: &str) -> &'static str {
    // What denies a package denies all that is in it.
    let parents = package.match_indices('.').map(|(dot, _)| &package[..dot]);
    let parents: Vec<&str> = parents.chain([package]).collect();
    let any = |patterns: &[String], reach| {
        let names = match reach {
            Reach::Anything => &parents[..],
            Reach::OneAttribute => &[package],
        };
        patterns.iter().any(|pattern| {
            let globs = Glob::parse(pattern, reach).unwrap();
            let matches = |name: &&str| globs.iter().any(|glob| glob.matches(name));
            names.iter().any(matches)
        })
    };
    let denies = |(_, _, deny): &(bool, Vec<String>, Vec<String>)| any(deny, Reach::Anything);
    let allows = |(_, allow, _): &(bool, Vec<String>, Vec<String>)| any(allow, Reach::OneAttribute);
    if rules.iter().any(|rule| rule.0 && denies(rule)) {
        "refused"
    } else if rules.iter().any(denies) {
        "warned"
    } else if rules.iter().any(allows) {
        "allowed"
    } else if rules.iter().any(|rule| !rule.0) {
        "warned"
    } else {
        "refused"
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn verdicts_are_what_the_table_says(
        rules in prop::collection::vec(
            (
                any::<bool>(),
                prop::collection::vec("[ab.*?]{1,4}", 0..4),
                prop::collection::vec("[ab.*?]{1,4}", 1..3),
            ),
            0..4,
        ),
        package in "[ab]{1,3}(\\.[ab]{1,2}){0,2}",
    ) {
        let written: Vec<Value> = rules.iter().enumerate().map(|(index, (enforce, allow, deny))| {
            let mode = if *enforce { "enforce" } else { "audit" };
            json!({"name": format!("r{index}"), "mode": mode, "allow": allow, "deny": deny})
        }).collect();
        let policy = policy("deny", json!(written));
        let verdict = judge(&policy, &package, &vec![]);
        let of_package = |findings: &[Finding]| {
            findings.iter().any(|finding| finding.about.name() == Some(&package))
        };
        let seen = if of_package(&verdict.refusals) {
            "refused"
        } else if of_package(&verdict.warnings) {
            "warned"
        } else {
            "allowed"
        };
        prop_assert_eq!(seen, oracle(&rules, &package));
    }
}

#[test]
fn one_of_the_rules_that_let_a_caller_in_is_its_grantor() {
    let team = |name: &str| json!({"jwt_claim": {"path": ["g"], "type": "list", "glob": name}});
    let mut rules = json!([
        {"name": "everybody", "allow": ["@shell", "git"], "images": ["corp/*"]},
        {"name": "web", "subject": team("web"), "allow": ["git", "htop", "nano"],
         "images": ["corp/web"]},
        {"name": "data", "subject": team("data"), "allow": ["g*", "htop"], "max_packages": 2},
        {"name": "trial", "subject": team("trial"), "mode": "audit", "deny": ["curl"]},
        {"name": "soon", "mode": "audit", "deny": ["htop"]},
        {"name": "no", "subject": team("web"), "deny": ["vim"]},
    ]);
    let grantor = |policy: &Policy, name: &str, groups_of: &[&str]| {
        let repository = Repository::parse(name).unwrap();
        let opaque = OpaqueNamespaces::new(["corp".to_owned()]).unwrap();
        let image = ImageName::of(&repository, &opaque).unwrap();
        let tag = Tag::latest();
        let request = Request {
            image: &image,
            written: image.written(&repository),
            tag: Some(&tag),
        };
        let grantor = policy.grantor(&request, &groups(groups_of));
        grantor.map(str::to_owned)
    };
    let denying = policy("deny", rules.clone());
    for (name, groups_of, expected) in [
        // What everybody has names nobody; another rule does, of whatever package.
        ("git", &["web"][..], Some("web")),
        ("shell/git", &["data"], Some("data")),
        ("shell", &["data"], None),
        ("git", &["staff"], None),
        // The one that is written first, in whatever order they are found.
        ("htop", &["data", "web"], Some("web")),
        ("gdb/htop", &["data", "web"], Some("web")),
        // Not one whose limits don't hold.
        ("git/htop/nano", &["data", "web"], Some("web")),
        ("gdb/git/nano", &["data"], None),
        // An audited rule lets in what no rule allows.
        ("vim", &["trial"], Some("trial")),
        ("curl", &["trial"], Some("trial")),
        ("git", &["trial"], None),
        ("corp/web", &["web"], Some("web")),
        ("corp/git", &["web"], None),
        // Nothing had to be granted.
        ("cacert", &["web"], None),
    ] {
        let found = grantor(&denying, name, groups_of);
        assert_eq!(found.as_deref(), expected, "{name} for {groups_of:?}");
    }
    assert_eq!(
        grantor(&policy("allow", rules.clone()), "git", &["web"]),
        None
    );
    rules[1]["mode"] = json!("audit");
    let audited = grantor(&policy("deny", rules), "git", &["web"]);
    assert_eq!(audited.as_deref(), Some("web"));
}
