//! Facts that the builder gives of an image.

use super::*;

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
            "you may not have this image (refused for its contents by the rule free). Only free software. (decision d1)"
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
            "you may not have git (the rule data-team allows it only for the tag latest). Ask #platform to add a package. (decision d1)"
        ],
    );
    check(
        &judge(image("latest", System::Aarch64Linux)),
        expect![
            "you may not have git (the rule data-team allows it only for x86_64-linux). Ask #platform to add a package. (decision d1)"
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
fn a_package_is_denied_under_each_of_its_names_and_allowed_under_none_but_the_written_one() {
    let rules = json!([{"name": "a", "allow": ["vcs", "git"], "deny": ["mercurial", "hg*"]}]);
    let policy = policy("deny", rules);
    let judge = |package: &str, names: &[&str]| {
        let names = names.iter();
        let image = ImageFacts {
            names: names
                .map(|&name| (package.to_owned(), name.to_owned()))
                .collect(),
            ..matched_image(BTreeSet::new())
        };
        judge_image(&policy, package, Some("latest"), &vec![], image)
    };
    check(
        &judge("vcs", &["mercurial"]),
        expect!["you may not have vcs (which is mercurial, denied by the rule a). (decision d1)"],
    );
    check(
        &judge("vcs", &["a", "hg-6"]),
        expect!["you may not have vcs (which is hg-6, denied by the rule a). (decision d1)"],
    );
    assert!(judge("vcs", &["subversion"]).allows());
    assert!(!judge("hg", &["git"]).allows());
    // A name is not in what its real name begins with.
    assert!(judge("vcs", &["mercurial.git"]).allows());
}

#[test]
fn where_other_names_are_unknown_each_rule_that_denies_packages_does() {
    let team =
        |name: &str| json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": name}});
    let rules = json!([
        {"name": "all", "allow": ["*"], "deny_images": ["corp/x"], "facts": {"insecure": true}},
        {"name": "trial", "mode": "audit", "subject": team("trial"), "deny": ["hg"]},
        {"name": "web", "subject": team("web"), "deny": ["hg"], "message": "Ask."},
    ]);
    let policy = policy("deny", rules);
    let judge = |team: &str| {
        let image = ImageFacts {
            names_unknown: true,
            unsettled: false,
            ..matched_image(BTreeSet::new())
        };
        judge_image(&policy, "git", Some("latest"), &groups(&[team]), image)
    };
    check(
        &judge("web"),
        expect![
            "you may not have this image (the other names of its packages are not known now: pull it by its tag, or later; denied by the rule web). Ask. (decision d1)"
        ],
    );
    let trial = judge("trial");
    assert!(trial.allows());
    let warning = trial.warning().unwrap();
    assert!(
        warning.contains("not known now") && warning.contains("rule trial"),
        "{warning}"
    );
    let other = judge("other");
    assert!(other.allows() && other.warnings.is_empty());
}
