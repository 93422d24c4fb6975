use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::commands::policy::given::Given;

fn file(default: &str, rules: Value) -> PolicyFile {
    let json = json!({"revision": "r1", "default": default, "rules": rules});
    PolicyFile::parse(json.to_string().as_bytes()).unwrap()
}

fn team() -> PolicyFile {
    let groups = json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": "data-*"}});
    file(
        "deny",
        json!([
            {"name": "everybody", "allow": ["@shell"], "deny": ["{netcat,nmap}*"]},
            {"name": "data", "subject": groups, "allow": ["git", "python3*"],
             "systems": ["x86_64-linux"], "facts": {"insecure": true}, "message": "Ask #platform."},
            {"name": "office", "subject": {"address": {"ranges": ["10.0.0.0/8"]}},
             "allow": ["htop"], "max_packages": 2},
            {"name": "trial", "subject": {"host": {"glob": "trial.corp"}}, "mode": "audit",
             "allow": ["vim"]},
        ]),
    )
}

fn check(image: &str, given: &[&str], system: Option<&str>, expected: Expect) {
    let file = team();
    let given: Vec<Given> = given.iter().map(|text| text.parse().unwrap()).collect();
    let given = given
        .iter()
        .map(|Given(attribute, value)| (attribute, value));
    let identity = given::identity(&file.policy, given).unwrap();
    let question = Question::new(&file, image, Tag::latest(), system).unwrap();
    expected.assert_eq(&explain(&file, &question, &identity).to_string());
}

#[test]
fn each_package_has_its_reason() {
    check(
        "git/python3",
        &["claim:groups=staff,data-eng"],
        None,
        expect![[r#"
            git/python3: allowed (revision r1)
              cacert    allowed: every image has it
              git       allowed: by the rule data: "git"
              iana-etc  allowed: every image has it
              python3   allowed: by the rule data: "python3*"
              note: the rule data also checks the contents of the image, which the builder knows
              note: the rule data allows only some platforms: give --system
        "#]],
    );
    check(
        "shell/htop",
        &["address=10.0.0.1"],
        Some("x86_64-linux"),
        expect![[r#"
            shell/htop: allowed (revision r1)
              bashinteractive  allowed: by the rule everybody: "@shell"
              cacert           allowed: every image has it
              coreutils        allowed: by the rule everybody: "@shell"
              htop             allowed: by the rule office: "htop"
              iana-etc         allowed: every image has it
              moreutils        allowed: by the rule everybody: "@shell"
              nano             allowed: by the rule everybody: "@shell"
              note: the rule data also checks the contents of the image, which the builder knows
        "#]],
    );
}

#[test]
fn a_refusal_names_the_rules_that_were_missed() {
    check(
        "git/htop/nmap-ncat",
        &["claim:groups=web"],
        None,
        expect![[r#"
            git/htop/nmap-ncat: refused (revision r1)
              cacert     allowed: every image has it
              git        refused: no rule allows it for you
                           the rule data allows it for others
              htop       refused: no rule allows it for you
                           the rule office may allow it: address is not known
              iana-etc   allowed: every image has it
              nmap-ncat  refused: denied by the rule everybody
        "#]],
    );
    check(
        "htop/nano/git",
        &["address=10.0.0.1"],
        None,
        expect![[r#"
        htop/nano/git: refused (revision r1)
          cacert    allowed: every image has it
          git       refused: no rule allows it for you
                      the rule data may allow it: claim:groups is not known
          htop      refused: the rule office allows it in images of at most 2 packages; this name has 3
          iana-etc  allowed: every image has it
          nano      allowed: by the rule everybody: "@shell"
    "#]],
    );
}

#[test]
fn limits_say_what_they_are() {
    check(
        "git",
        &["claim:groups=data-eng"],
        Some("aarch64-linux"),
        expect![[r#"
            git: refused (revision r1)
              cacert    allowed: every image has it
              git       refused: the rule data allows it only for x86_64-linux
                          Ask #platform.
              iana-etc  allowed: every image has it
        "#]],
    );
}

#[test]
fn an_audited_rule_warns() {
    check(
        "vim/emacs",
        &["host=trial.corp"],
        None,
        expect![[r#"
            vim/emacs: allowed with a warning (revision r1)
              cacert    allowed: every image has it
              emacs     allowed with a warning: not allowed by the rule trial
              iana-etc  allowed: every image has it
              vim       allowed: by the rule trial: "vim"
              note: the rule data also checks the contents of the image, which the builder knows
        "#]],
    );
}

#[test]
fn by_default_allowed_is_a_reason() {
    let file = file("allow", json!([{"name": "hard", "deny": ["vim"]}]));
    let question = |image| Question::new(&file, image, Tag::latest(), None).unwrap();
    let explain = |image| explain(&file, &question(image), &vec![]).to_string();
    expect![[r#"
        git: allowed (revision r1)
          cacert    allowed: by default: no rule denies it
          git       allowed: by default: no rule denies it
          iana-etc  allowed: by default: no rule denies it
    "#]]
    .assert_eq(&explain("git"));
    expect![[r#"
        vim: refused (revision r1)
          cacert    allowed: by default: no rule denies it
          iana-etc  allowed: by default: no rule denies it
          vim       refused: denied by the rule hard
    "#]]
    .assert_eq(&explain("vim"));
}

#[test]
fn an_opaque_name_is_one_line() {
    let file = file(
        "deny",
        json!([
            {"name": "ci", "images": ["corp/ci-*"], "systems": ["x86_64-linux"]},
            {"name": "hard", "deny": ["*-unwrapped"], "deny_images": ["corp/ci-secret"]},
            {"name": "web", "images": ["corp/web"], "subject": {"host": {"glob": "web.corp"}}},
        ]),
    );
    let explain = |image| {
        let question = Question::new(&file, image, Tag::latest(), None).unwrap();
        explain(&file, &question, &vec![Known::Unknown]).to_string()
    };
    expect![[r#"
        corp/ci-base: allowed (revision r1)
          corp/ci-base  allowed: by the rule ci: "corp/ci-*"
          note: the rule ci allows only some platforms; the builder says which one the image has
          note: the rule hard also denies packages; the builder says which ones the image has
    "#]]
    .assert_eq(&explain("corp/ci-base"));
    expect![[r#"
        corp/ci-secret: refused (revision r1)
          corp/ci-secret  refused: denied by the rule hard
    "#]]
    .assert_eq(&explain("corp/ci-secret"));
    expect![[r#"
        corp/web: refused (revision r1)
          corp/web  refused: no rule allows it for you
                      the rule web may allow it: host is not known
    "#]]
    .assert_eq(&explain("corp/web"));
    let platform = Some("aarch64-linux");
    let error = Question::new(&file, "corp/web", Tag::latest(), platform).unwrap_err();
    assert!(error.to_string().contains("sets its platform"), "{error}");
}

proptest! {
    /// The words are about the verdict that the edge would give.
    #[test]
    fn the_decision_is_the_verdicts(
        rules in prop::collection::vec(
            (any::<bool>(), any::<bool>(), "[ab*]{1,3}", "[ab*]{1,3}"),
            0..4,
        ),
        allow_by_default: bool,
        package in "[ab]{1,3}(\\.[ab]{1,2})?",
    ) {
        let written: Vec<Value> = rules.iter().enumerate().map(|(index, (enforce, mine, allow, deny))| {
            let mode = if *enforce { "enforce" } else { "audit" };
            let host = if *mine { "me" } else { "you" };
            json!({"name": format!("r{index}"), "mode": mode, "allow": [allow], "deny": [deny],
                   "subject": {"host": {"glob": host}}})
        }).collect();
        let file = file(if allow_by_default { "allow" } else { "deny" }, json!(written));
        let identity = vec![Known::Values(vec!["me".to_owned()]); file.policy.attributes().len()];
        let question = Question::new(&file, &package, Tag::latest(), None).unwrap();
        let verdict = file.policy.judge_name(&question.request(), &identity);
        let explanation = explain(&file, &question, &identity);
        prop_assert_eq!(explanation.allows(), verdict.allows());
        prop_assert_eq!(explanation.decision == Decision::Warned, verdict.allows() && verdict.warning().is_some());
        for line in &explanation.lines {
            let refused = verdict.refusals.iter().any(|one| one.about.name() == Some(&line.name));
            prop_assert_eq!(line.decision == Decision::Refused, refused);
            prop_assert!(!line.reasons.is_empty());
        }
    }
}

#[test]
fn a_rule_that_denies_since_too_little_is_known_says_what() {
    let team = json!({"jwt_claim": {"path": ["groups"], "type": "list", "glob": "web"}});
    let file = file(
        "allow",
        json!([{"name": "hard", "subject": {"not": team}, "deny": ["vim"]}]),
    );
    let question = Question::new(&file, "vim", Tag::latest(), None).unwrap();
    let explain = |identity| explain(&file, &question, &identity).to_string();
    let refused =
        "vim       refused: denied by the rule hard; whether it is for you is not known\n";
    for unknown in [vec![], vec![Known::Unknown], vec![Known::UNREADABLE]] {
        let text = explain(unknown);
        assert!(text.contains(refused), "{text}");
        assert!(text.contains("claim:groups is not known"), "{text}");
    }
    let known = explain(vec![Known::Values(vec!["web".to_owned()])]);
    assert!(known.contains("vim       allowed"), "{known}");
}
