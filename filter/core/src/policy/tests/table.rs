//! The table of the module's comment, against the judge.

use super::*;

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
