//! Names that are no lists of packages.

use super::*;

/// Judges an opaque name by name, then with these packages in it.
fn judge_opaque(policy: &Policy, name: &str, tag: Option<&str>, packages: &[&str]) -> Verdict {
    let name = Repository::parse(name).unwrap();
    let opaque = OpaqueNamespaces::new(["corp".to_owned()]).unwrap();
    let image = ImageName::of(&name, &opaque).unwrap();
    let tag = tag.map(|tag| Tag::parse(tag).unwrap());
    let request = Request {
        image: &image,
        written: image.written(&name),
        tag: tag.as_ref(),
    };
    let packages = packages.iter().map(|&package| package.to_owned()).collect();
    let facts = ImageFacts {
        packages: Some(packages),
        ..matched_image(BTreeSet::new())
    };
    let by_name = policy.judge_name(&request, &vec![]);
    let verdict = policy.judge_images(&request, &vec![], &[facts]);
    assert!(by_name.allows() || !verdict.allows());
    verdict
}

#[test]
fn opaque_names_are_judged_as_one() {
    let rules = json!([
        {"name": "ci", "images": ["corp/CI-*", "corp/data/*"], "max_packages": 1,
         "tags": ["latest", "old"]},
        {"name": "all", "allow": ["*", "*.*"]},
        {"name": "hard", "deny": ["*-unwrapped"], "deny_images": ["*/ci-secret"]},
    ]);
    let policy = policy("deny", rules);
    let judge = |name, packages| judge_opaque(&policy, name, Some("latest"), packages);
    for name in ["corp/ci-base", "corp/data/a.b/c"] {
        let verdict = judge(name, &["git", "htop"]);
        assert!(verdict.allows() && verdict.warnings.is_empty(), "{name}");
    }
    // What allows every package allows no name.
    check(
        &judge("corp/web", &["git"]),
        expect!["you may not have corp/web (no rule allows it for you). (decision d1)"],
    );
    check(
        &judge("corp/ci-secret", &["git"]),
        expect!["you may not have corp/ci-secret (denied by the rule hard). (decision d1)"],
    );
    check(
        &judge("corp/ci-base", &["git", "gcc-unwrapped"]),
        expect!["you may not have gcc-unwrapped (denied by the rule hard). (decision d1)"],
    );
    check(
        &judge_opaque(&policy, "corp/ci-base", Some("new"), &[]),
        expect![
            "you may not have corp/ci-base (the rule ci allows it only for the tag latest, old). (decision d1)"
        ],
    );
    let detail = judge("corp/web", &[]).error("d1").unwrap().detail;
    assert_eq!(detail["refused"][0]["image"], "corp/web");
}

#[test]
fn an_audited_rule_warns_of_opaque_names() {
    let rules = json!([
        {"name": "ci", "images": ["corp/ci-*"]},
        {"name": "trial", "mode": "audit", "deny_images": ["corp/ci-old"]},
    ]);
    let policy = policy("deny", rules);
    let judge = |name| judge_opaque(&policy, name, Some("latest"), &[]);
    check(&judge("corp/ci-base"), expect!["allowed; None"]);
    check(
        &judge("corp/ci-old"),
        expect![[
            r#"allowed; Some("will be refused when the policy is enforced: corp/ci-old (denied by the rule trial)")"#
        ]],
    );
    check(
        &judge("corp/web"),
        expect![[
            r#"allowed; Some("will be refused when the policy is enforced: corp/web (not allowed by the rule trial)")"#
        ]],
    );
}

#[test]
fn what_audited_rules_say_of_packages_in_an_image_is_a_warning() {
    let rules = json!([
        {"name": "ci", "images": ["corp/*"]},
        {"name": "trial", "mode": "audit", "deny": ["nano"], "images": ["corp/*"]},
    ]);
    check(
        &judge_opaque(
            &policy("deny", rules),
            "corp/a",
            Some("latest"),
            &["git", "nano"],
        ),
        expect![[
            r#"allowed; Some("will be refused when the policy is enforced: nano (denied by the rule trial)")"#
        ]],
    );
}

#[test]
fn by_default_allowed_images_are_denied_by_name_or_contents() {
    let rules = json!([{"name": "hard", "deny": ["nano"], "deny_images": ["*/secret"]}]);
    let policy = policy("allow", rules);
    let judge = |name, packages| judge_opaque(&policy, name, None, packages).allows();
    assert!(judge("corp/a", &["git"]));
    assert!(!judge("corp/a", &["git", "nano"]));
    assert!(!judge("corp/secret", &["git"]));
}

#[test]
fn patterns_of_opaque_names_are_no_patterns_of_packages() {
    let rules = json!([{"name": "a", "images": ["*"], "deny_images": ["git*"]}]);
    let policy = policy("deny", rules);
    check(
        &judge(&policy, "git", &vec![]),
        expect!["you may not have git (no rule allows it for you). (decision d1)"],
    );
}

#[test]
fn what_edge_and_builder_read_differently_is_refused() {
    let policy = policy("allow", json!([]));
    check(
        &judge_opaque(&policy, "corp/a", None, &[]),
        expect!["allowed; None"],
    );
    let packages = |packages| ImageFacts {
        packages,
        ..matched_image(BTreeSet::new())
    };
    let git = |facts| judge_image(&policy, "git", None, &vec![], facts);
    assert!(git(packages(None)).allows());
    let verdict = git(packages(Some(["git".to_owned()].into())));
    assert!(!verdict.allows());
    let opaque = ImageName::Opaque(Repository::parse("corp/a").unwrap());
    let request = Request {
        image: &opaque,
        written: 0,
        tag: None,
    };
    let verdict = policy.judge_images(&request, &vec![], &[packages(None)]);
    check(
        &verdict,
        expect![
            "you may not have this image (edge and builder disagree on whether the name is a list of packages: the builder's recipes and opaque_namespaces differ). (decision d1)"
        ],
    );
}
