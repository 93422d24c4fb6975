//! Rules that refuse callers of whom too little is known.
//!
//! What a rule denies counts unless the rule is surely for others. So it also refuses callers whom
//! other rules let in without the same condition. An author may mean that, and should know it.

use std::collections::BTreeSet;

use nixgate_core::policy::{Attribute, ClaimKind, DefaultDecision, Rule, Subject};

use crate::commands::policy::file::PolicyFile;
use crate::commands::policy::given;

/// One sentence for each rule that refuses unknown callers whom another rule lets in.
pub(in crate::commands::policy) fn notes(file: &PolicyFile) -> Vec<String> {
    let policy = &file.policy;
    let note = |rule: &Rule| {
        let (key, subject) = (refuses(rule)?, rule.subject.as_ref()?);
        let absent = may_be_absent(subject, policy.attributes());
        let names: BTreeSet<String> = absent
            .iter()
            .filter_map(|&index| policy.attributes().get(index))
            .map(given::name)
            .collect();
        if names.is_empty() {
            return None;
        }
        let lets_in = |other: &&Rule| {
            let allows = !other.allow.is_empty() || !other.images.is_empty();
            let subject = other.subject.as_ref();
            allows && subject.is_none_or(|subject| may_be(subject, true, &absent))
        };
        let by = match policy.default_decision() {
            DefaultDecision::Allow => "the default lets them in".to_owned(),
            DefaultDecision::Deny => {
                let other = policy.rules().iter().find(lets_in)?;
                format!("the rule {} lets them in", other.name)
            }
        };
        Some(format!(
            "the rule {}: {key}: it also refuses callers of whom {} is not known, and {by}",
            rule.name,
            Vec::from_iter(names).join(" or ")
        ))
    };
    policy.rules().iter().filter_map(note).collect()
}

/// Why a rule refuses nearly everybody: no claim is both a text and a list.
pub(super) fn never_known(rule: &Rule, attributes: &[Attribute]) -> Option<String> {
    refuses(rule)?;
    let absent = may_be_absent(rule.subject.as_ref()?, attributes);
    let claims = |wanted: ClaimKind| -> Vec<&[String]> {
        let attributes = absent.iter().filter_map(|&index| attributes.get(index));
        let claims = attributes.filter_map(|attribute| match attribute {
            Attribute::JwtClaim { path, kind } if *kind == wanted => Some(&path[..]),
            _ => None,
        });
        claims.collect()
    };
    let lists = claims(ClaimKind::List);
    let both = claims(ClaimKind::Text)
        .into_iter()
        .find(|text| lists.contains(text))?;
    Some(format!(
        "claim:{} is used as a string and as a list: one of them is never known, so what the rule \
         denies counts for everybody whom the other does not exclude",
        both.join(".")
    ))
}

/// The first key by which a rule refuses something.
fn refuses(rule: &Rule) -> Option<&'static str> {
    let keys = [
        ("deny", !rule.deny.is_empty()),
        ("deny_images", !rule.deny_images.is_empty()),
        ("facts", rule.facts.is_some()),
    ];
    keys.into_iter().find_map(|(key, has)| has.then_some(key))
}

/// The attributes in a subject that some callers lack. Envoy knows the host and the address of each.
fn may_be_absent(subject: &Subject, attributes: &[Attribute]) -> BTreeSet<usize> {
    let conditions = subject.conditions().into_iter();
    let indexes = conditions.map(|condition| condition.attribute);
    let is_always_there = |index: &usize| {
        let attribute = attributes.get(*index);
        matches!(attribute, Some(Attribute::Host | Attribute::Address) | None)
    };
    indexes.filter(|index| !is_always_there(index)).collect()
}

/// Whether a subject can be `holds` for some caller of whom these attributes are unknown.
fn may_be(subject: &Subject, holds: bool, unknown: &BTreeSet<usize>) -> bool {
    match (subject, holds) {
        (Subject::Is(condition), _) => !unknown.contains(&condition.attribute),
        (Subject::Not(part), _) => may_be(part, !holds, unknown),
        (Subject::All(parts), true) | (Subject::Any(parts), false) => {
            parts.iter().all(|part| may_be(part, holds, unknown))
        }
        (Subject::All(parts), false) | (Subject::Any(parts), true) => {
            parts.iter().any(|part| may_be(part, holds, unknown))
        }
    }
}
