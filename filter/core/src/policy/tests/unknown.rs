//! Callers of whom something is not known.

use super::*;

fn claim(name: &str, glob: &str) -> Value {
    json!({"jwt_claim": {"path": [name], "type": "list", "glob": glob}})
}

fn partly(values: &[&str]) -> Identity {
    let values = values.iter().map(|&value| value.to_owned());
    vec![Known::Partly(values.collect())]
}

#[test]
fn a_rule_that_refuses_counts_unless_its_subject_is_surely_somebody_else() {
    let staff = || claim("groups", "staff");
    let rules = |subject: Value| {
        json!([
            {"name": "all", "allow": ["*"], "images": ["*"]},
            {"name": "hard", "subject": subject, "deny": ["nano"], "deny_images": ["corp/secret"],
             "facts": {"insecure": true}},
        ])
    };
    let opaque = ImageName::Opaque(Repository::parse("corp/secret").unwrap());
    let secret = Request {
        image: &opaque,
        written: 0,
        tag: None,
    };
    let unknown = [vec![], vec![Known::Unknown], partly(&[]), partly(&["web"])];
    for subject in [
        staff(),
        json!({"not": staff()}),
        json!({"not": {"not": staff()}}),
        json!({"any": [staff(), claim("groups", "admin")]}),
        json!({"not": {"any": [staff(), claim("groups", "admin")]}}),
    ] {
        let policy = policy("deny", rules(subject.clone()));
        for caller in &unknown {
            let at = format!("{subject} {caller:?}");
            let verdict = judge(&policy, "git/nano", caller);
            assert!(!verdict.allows() && verdict.is_doubtful, "{at}");
            let by_facts = judge_with(&policy, "git", "latest", caller, &["hard"]);
            assert!(!by_facts.allows() && by_facts.is_doubtful, "{at}");
            assert!(!policy.judge_name(&secret, caller).allows(), "{at}");
            // Nobody is refused what the rule doesn't speak of.
            let other = judge(&policy, "git", caller);
            assert!(other.allows() && !other.is_doubtful, "{at}");
        }
    }
    let policy = policy("deny", rules(staff()));
    // One item that can be read is enough to be meant, and a whole list to be somebody else.
    let meant = judge(&policy, "nano", &partly(&["staff"]));
    assert!(!meant.allows() && !meant.is_doubtful);
    assert!(judge(&policy, "nano", &groups(&["web"])).allows());
    assert!(judge(&policy, "nano", &groups(&[])).allows());
    check(
        &judge(&policy, "nano", &vec![Known::Unknown]),
        expect![
            "you may not have nano (denied by the rule hard; whether it is for you is not known). (decision d1)"
        ],
    );
}

#[test]
fn a_rule_that_allows_counts_for_those_whom_it_is_surely_for() {
    for mode in ["enforce", "audit"] {
        let only = |subject: Value| {
            let rule = json!({"name": "team", "subject": subject, "allow": ["git"], "mode": mode});
            policy("deny", json!([rule]))
        };
        let data = || claim("groups", "data");
        for subject in [data(), json!({"not": data()})] {
            let policy = only(subject.clone());
            for caller in [vec![], vec![Known::Unknown], partly(&[]), partly(&["web"])] {
                let verdict = judge(&policy, "git", &caller);
                assert!(!verdict.allows(), "{mode} {subject} {caller:?}");
            }
        }
        assert!(judge(&only(data()), "git", &partly(&["data"])).allows());
    }
}

#[test]
fn of_rules_that_deny_one_that_is_surely_for_the_caller_is_told_first() {
    let may = json!({"name": "may", "subject": claim("a", "x"), "deny": ["nano"]});
    let is = |mode: &str| json!({"name": "is", "mode": mode, "deny": ["nano"]});
    let judge = |rules: Value| judge(&policy("allow", rules), "nano", &vec![]);
    assert_eq!(judge(json!([may, is("enforce")])).rule(), Some("is"));
    // One that is enforced counts before one that is on audit all the same.
    assert!(!judge(json!([is("audit"), may])).allows());
}

#[test]
fn an_audited_rule_that_may_be_for_the_caller_warns_and_lets_nothing_through() {
    let rules = |allow: &str| {
        json!([
            {"name": "all", "allow": [allow]},
            {"name": "trial", "mode": "audit", "subject": claim("groups", "x"), "deny": ["nano"]},
        ])
    };
    let may = judge(&policy("deny", rules("nano")), "nano", &vec![]);
    assert!(may.allows() && may.warning().is_some());
    assert!(!judge(&policy("deny", rules("git")), "nano", &vec![]).allows());
    // Whom it is for, it lets through, as any audited rule.
    assert!(judge(&policy("deny", rules("git")), "nano", &groups(&["x"])).allows());
}

/// A subject over three attributes: the claims `a` and `b`, and the address.
fn subjects() -> impl Strategy<Value = Value> {
    let ranges = prop::sample::select(vec!["10.0.0.0/8", "fd00::/8"]);
    let leaf = prop_oneof![
        ("[ab]", "[xy*]").prop_map(|(name, glob)| claim(&name, &glob)),
        ranges.prop_map(|range| json!({"address": {"ranges": [range]}})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|part| json!({"not": part})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({"all": parts})),
            prop::collection::vec(inner, 1..3).prop_map(|parts| json!({"any": parts})),
        ]
    })
}

const fn values_of(attribute: &Attribute) -> [&'static str; 3] {
    match attribute {
        Attribute::Address => ["10.1.2.3", "11.1.2.3", "fd00::1"],
        _ => ["x", "y", "z"],
    }
}

/// What is known of an attribute: how much, and which of its values.
fn known(attribute: &Attribute, (how_much, which): (u8, Vec<usize>)) -> Known {
    let values = which
        .iter()
        .map(|&one| values_of(attribute)[one].to_owned());
    match how_much {
        0 => Known::Unknown,
        1 => Known::Partly(values.collect()),
        _ => Known::Values(values.collect()),
    }
}

/// All that the caller may turn out to be.
fn completions(policy: &Policy, identity: &Identity) -> Vec<Identity> {
    let mut all = vec![Identity::new()];
    for (attribute, known) in policy.attributes().iter().zip(identity) {
        let read = match known {
            Known::Values(values) | Known::Partly(values) => values.clone(),
            Known::Unknown => Vec::new(),
        };
        let mut possible = vec![read.clone()];
        if !matches!(known, Known::Values(_)) {
            let hidden = values_of(attribute).map(str::to_owned);
            possible.extend(hidden.map(|hidden| [&read[..], &[hidden]].concat()));
        }
        let with = |one: &Identity| {
            let one = one.clone();
            let values = possible.iter().cloned().map(Known::Values);
            values.map(move |values| [&one[..], &[values]].concat())
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

/// Whether a subject is somebody of whom all is known, in two values and as naively as can be.
fn is(subject: &Value, policy: &Policy, whole: &Identity) -> bool {
    let (kind, inner) = subject.as_object().unwrap().iter().next().unwrap();
    let parts = || inner.as_array().unwrap().iter();
    let some = |wanted: &dyn Fn(&Attribute) -> bool, test: &dyn Fn(&str) -> bool| {
        let place = policy.attributes().iter().position(wanted).unwrap();
        let Known::Values(values) = &whole[place] else {
            panic!("all is known");
        };
        values.iter().any(|value| test(value))
    };
    match kind.as_str() {
        "not" => !is(inner, policy, whole),
        "all" => parts().all(|part| is(part, policy, whole)),
        "any" => parts().any(|part| is(part, policy, whole)),
        "jwt_claim" => {
            let (name, glob) = (inner["path"][0].as_str(), inner["glob"].as_str().unwrap());
            let wanted = |one: &Attribute| matches!(one, Attribute::JwtClaim { path, .. } if path.first().map(String::as_str) == name);
            some(&wanted, &|value| glob == "*" || glob == value)
        }
        _ => {
            let prefix = &inner["ranges"][0].as_str().unwrap()[..2];
            some(&|one| *one == Attribute::Address, &|value| {
                value.starts_with(prefix) && !value.starts_with("11")
            })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// By rules of every kind. The other half: what a subject is said to be, it is in any case.
    #[test]
    fn nobody_has_more_than_if_all_of_them_were_known(
        rules in prop::collection::vec((any::<bool>(), subjects(), 0..4_u8), 1..4),
        default in prop::sample::select(vec!["allow", "deny"]),
        choices in prop::collection::vec((0..3_u8, prop::collection::vec(0..3_usize, 0..3)), 3),
    ) {
        let rule = |(index, (enforce, subject, kind)): (usize, &(bool, Value, u8))| {
            let mode = if *enforce { "enforce" } else { "audit" };
            let mut rule = json!({"name": format!("r{index}"), "subject": subject, "mode": mode});
            match kind {
                0 => rule["allow"] = json!(["git"]),
                1 => rule["deny"] = json!(["git"]),
                2 => rule["facts"] = json!({"insecure": true}),
                _ => rule["deny"] = json!(["gi*"]),
            }
            rule
        };
        let written: Vec<Value> = rules.iter().enumerate().map(rule).collect();
        let policy = policy(default, json!(written));
        let attributes = policy.attributes().iter();
        let identity: Identity = attributes
            .zip(choices)
            .map(|(attribute, choice)| known(attribute, choice))
            .collect();
        let wholes = completions(&policy, &identity);
        let may = |identity: &Identity| {
            judge_with(&policy, "git", "latest", identity, &["r0", "r1", "r2"]).allows()
        };
        if may(&identity) {
            for whole in &wholes {
                prop_assert!(may(whole), "{:?}\n{:?}\n{:?}", written, identity, whole);
            }
        }
        for ((_, subject, _), rule) in rules.iter().zip(&policy.rules) {
            if let Some(holds) = rule.is_for(&identity) {
                for whole in &wholes {
                    prop_assert_eq!(holds, is(subject, &policy, whole), "{} {:?}", subject, whole);
                }
            }
        }
    }
}
