//! Cases: expected decisions of a policy, which the CI of its repository checks.
//!
//! ```yaml
//! policy: policy.json          # beside this file
//! cases:
//!   - name: data engineers have Python
//!     as: { "claim:groups": [data-eng], address: 10.0.0.1 }
//!     image: python3/git
//!     expect: allow            # or deny, or warn
//!     rule: data               # optional: a rule that decides so
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use nixgate_core::distribution::Tag;
use serde::Deserialize;

use super::count;
use super::explain::{Decision, Explanation, Question, explain};
use super::file::PolicyFile;
use super::given::{self, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    policy: PathBuf,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    r#as: BTreeMap<String, Value>,
    image: String,
    tag: Option<String>,
    system: Option<String>,
    expect: Decision,
    rule: Option<String>,
}

/// Runs the cases of a file. Returns the report, and false when a case failed.
pub(super) fn run(path: &Path) -> Result<(String, bool)> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let Cases { policy, cases } = parse(&text).with_context(|| path.display().to_string())?;
    let beside = path.parent().unwrap_or(Path::new(""));
    report(&PolicyFile::read(&beside.join(policy))?, &cases)
        .with_context(|| path.display().to_string())
}

fn parse(yaml: &str) -> Result<Cases> {
    let cases: Cases = serde_saphyr::from_str(yaml).map_err(|error| anyhow!("{error}"))?;
    ensure!(
        !cases.cases.is_empty(),
        "cases is empty: write at least one case"
    );
    let mut names = BTreeSet::new();
    for case in &cases.cases {
        ensure!(
            names.insert(&case.name),
            "two cases have the name \"{}\"",
            case.name
        );
    }
    Ok(cases)
}

fn report(file: &PolicyFile, cases: &[Case]) -> Result<(String, bool)> {
    let (mut report, mut failed) = (String::new(), 0);
    for case in cases {
        match case
            .run(file)
            .with_context(|| format!("the case \"{}\"", case.name))?
        {
            None => writeln!(report, "ok    {}", case.name)?,
            Some(failure) => {
                failed += 1;
                writeln!(report, "FAIL  {}", case.name)?;
                for line in failure.lines() {
                    writeln!(report, "      {line}")?;
                }
            }
        }
    }
    let passed = cases.len() - failed;
    writeln!(
        report,
        "{}: {passed} passed, {failed} failed",
        count(cases.len(), "case")
    )?;
    Ok((report, failed == 0))
}

impl Case {
    /// The failure, in words, if there is one.
    fn run(&self, file: &PolicyFile) -> Result<Option<String>> {
        if let Some(rule) = &self.rule {
            let mut rules = file.policy.rules().iter();
            ensure!(
                rules.any(|known| known.name == *rule),
                "the policy has no rule {rule}"
            );
        }
        let identity = given::identity(&file.policy, &self.r#as)?;
        let tag = match &self.tag {
            Some(tag) => Tag::parse(tag)?,
            None => Tag::latest(),
        };
        let question = Question::new(file, &self.image, tag, self.system.as_deref())?;
        Ok(self.failure(&explain(file, &question, &identity)))
    }

    fn failure(&self, explanation: &Explanation) -> Option<String> {
        let expected = self.expect;
        if explanation.decision != expected {
            return Some(format!("expected: {expected}\n{explanation}"));
        }
        let rule = self.rule.as_deref()?;
        let decides = explanation.rules().any(|decides| decides == rule);
        (!decides).then(|| format!("expected: {expected} by the rule {rule}\n{explanation}"))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::commands::policy::given::Given;
    use crate::commands::policy::lint;

    const POLICY: &str = r#"{"revision": "r1", "default": "deny", "rules": [
        {"name": "data", "allow": ["git", "python3*"],
         "subject": {"jwt_claim": {"path": ["groups"], "type": "list", "glob": "data-*"}}},
        {"name": "trial", "mode": "audit", "allow": ["vim"], "subject": {"host": {"glob": "trial.corp"}}},
        {"name": "hard", "deny": ["*-unwrapped"]}]}"#;

    fn run(yaml: &str) -> Result<(String, bool)> {
        let file = PolicyFile::parse(POLICY.as_bytes())?;
        report(&file, &parse(yaml)?.cases)
    }

    #[test]
    fn cases_that_hold_are_ok() {
        let (report, good) = run(r#"
policy: policy.json
cases:
  - name: data engineers have Python
    as:
      claim:groups: [staff, data-eng]
    image: python3/git
    expect: allow
    rule: data
  - name: in short
    as: { "claim:groups": [data-eng], host: registry.corp }
    image: git
    expect: allow
  - { name: others have not, image: git, expect: deny }
  - { name: nobody has compilers, image: gcc-unwrapped, expect: deny, rule: hard }
  - { name: a trial, as: { host: trial.corp }, image: emacs, tag: latest, system: x86_64-linux, expect: warn, rule: trial }
"#)
        .unwrap();
        expect![[r#"
            ok    data engineers have Python
            ok    in short
            ok    others have not
            ok    nobody has compilers
            ok    a trial
            5 cases: 5 passed, 0 failed
        "#]]
        .assert_eq(&report);
        assert!(good);
    }

    #[test]
    fn a_case_that_fails_is_explained() {
        let (report, good) = run(r#"
policy: policy.json
cases:
  - { name: everybody has git, image: git, expect: allow }
  - { name: refused by the wrong rule, image: git/gcc-unwrapped, expect: deny, rule: data }
  - { name: allowed after all, image: cacert, expect: deny }
"#)
        .unwrap();
        expect![[r#"
            FAIL  everybody has git
                  expected: allowed
                  git: refused (revision r1)
                    cacert    allowed: every image has it
                    git       refused: no rule allows it for you
                                the rule data may allow it: claim:groups is not known
                    iana-etc  allowed: every image has it
            FAIL  refused by the wrong rule
                  expected: refused by the rule data
                  git/gcc-unwrapped: refused (revision r1)
                    cacert         allowed: every image has it
                    gcc-unwrapped  refused: denied by the rule hard
                    git            refused: no rule allows it for you
                                     the rule data may allow it: claim:groups is not known
                    iana-etc       allowed: every image has it
            FAIL  allowed after all
                  expected: refused
                  cacert: allowed (revision r1)
                    cacert    allowed: every image has it
                    iana-etc  allowed: every image has it
            3 cases: 0 passed, 3 failed
        "#]]
        .assert_eq(&report);
        assert!(!good);
    }

    #[test]
    fn the_example_of_the_documentation_holds() {
        let page = include_str!("../../../../docs/src/policy-cli.md");
        let block = |language: &str| {
            let (_, rest) = page
                .split_once(&format!("```{language}\n"))
                .expect(language);
            rest.split_once("```").expect("the block ends").0
        };
        let file = PolicyFile::parse(block("json").as_bytes()).unwrap();
        assert_eq!(lint::findings(&file), [""; 0]);
        let (text, _) = report(&file, &parse(block("yaml")).unwrap().cases).unwrap();
        assert!(
            page.contains(&format!("$ nixgate policy test cases.yaml\n{text}")),
            "{text}"
        );
        let Given(attribute, value) = "claim:groups=web".parse().unwrap();
        let identity = given::identity(&file.policy, [(&attribute, &value)]).unwrap();
        let question = Question::new(&file, "git/python3", Tag::latest(), None).unwrap();
        let text = explain(&file, &question, &identity).to_string();
        assert!(page.contains(&text), "{text}");
    }

    #[test]
    fn errors_name_the_case_and_the_place() {
        let error = |yaml: &str| match run(yaml) {
            Ok((report, _)) => panic!("{yaml} was understood:\n{report}"),
            Err(error) => format!("{error:#}"),
        };
        let case = |fields: &str| format!("policy: p\ncases:\n  - {{ name: a, {fields} }}\n");
        for (yaml, part) in [
            ("policy: p\ncases: []\n".to_owned(), "cases is empty"),
            (case("image: git, expect: maybe"), "maybe"),
            (case("image: git, expect: deny, wih: b"), "wih"),
            (
                case("image: git, expect: deny, rule: b"),
                "the case \"a\": the policy has no rule b",
            ),
            (case("image: Git, expect: deny"), "the case \"a\""),
            (
                case("image: git, expect: deny, as: { \"claim:group\": [a] }"),
                "does not use claim:group",
            ),
            (
                case("image: git, expect: deny") + "  - { name: a, image: git, expect: deny }\n",
                "two cases have the name",
            ),
        ] {
            let error = error(&yaml);
            assert!(error.contains(part), "{yaml}: {error}");
        }
        let misplaced = error(&case("image: git, expect: maybe"));
        assert!(
            misplaced.contains("line 3") || misplaced.contains(":3:"),
            "{misplaced}"
        );
    }
}
