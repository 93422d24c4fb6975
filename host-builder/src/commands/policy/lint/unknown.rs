//! Rules that refuse callers of whom too little is known.
//!
//! What a rule denies counts unless its subject is surely somebody else, so that it also refuses
//! those whom other rules let in without asking what this one asks. An author may mean that, and
//! should know it.

use std::collections::BTreeSet;

use nixgate_core::policy::{Attribute, ClaimKind, Default, Outline, Subject};

use crate::commands::policy::file::PolicyFile;
use crate::commands::policy::given;

/// One sentence for each rule that refuses whom another lets in without knowing of them what it asks.
pub(in crate::commands::policy) fn notes(file: &PolicyFile) -> Vec<String> {
    let PolicyFile { policy, rules, .. } = file;
    let note = |rule: &Outline| {
        let (key, subject) = (refuses(rule)?, rule.subject.as_ref()?);
        let asked = may_be_absent(subject, policy.attributes());
        let names: BTreeSet<String> = asked
            .iter()
            .filter_map(|&index| policy.attributes().get(index))
            .map(given::name)
            .collect();
        if names.is_empty() {
            return None;
        }
        let lets_in = |other: &&Outline| {
            let allows = !other.allow.is_empty() || !other.images.is_empty();
            let subject = other.subject.as_ref();
            allows && subject.is_none_or(|subject| may_be(subject, true, &asked))
        };
        let by = match policy.default_is() {
            Default::Allow => "the default lets them in".to_owned(),
            Default::Deny => format!("the rule {} lets them in", rules.iter().find(lets_in)?.name),
        };
        let names: Vec<_> = names.into_iter().collect();
        Some(format!(
            "the rule {}: {key}: it also refuses callers of whom {} is not known, and {by}",
            rule.name,
            names.join(" or ")
        ))
    };
    rules.iter().filter_map(note).collect()
}

/// Why a rule that refuses does so to nearly everybody: no claim is a text and a list at once.
pub(super) fn never_known(rule: &Outline, attributes: &[Attribute]) -> Option<String> {
    refuses(rule)?;
    let asked = may_be_absent(rule.subject.as_ref()?, attributes);
    let asked = asked.iter().filter_map(|&index| attributes.get(index));
    let claims = |wanted: ClaimKind| {
        let asked = asked.clone();
        asked.filter_map(move |attribute| match attribute {
            Attribute::JwtClaim { path, kind } if *kind == wanted => Some(path),
            _ => None,
        })
    };
    let both =
        claims(ClaimKind::Text).find(|text| claims(ClaimKind::List).any(|list| list == *text));
    both.map(|path| {
        format!(
            "claim:{} is asked for as a string and as a list: one of them is never known, so that \
             what the rule denies counts for everybody whom the other doesn't rule out",
            path.join(".")
        )
    })
}

/// The first key by which a rule refuses something.
fn refuses(rule: &Outline) -> Option<&'static str> {
    let keys = [
        ("deny", !rule.deny.is_empty()),
        ("deny_images", !rule.deny_images.is_empty()),
        ("facts", rule.facts.is_some()),
    ];
    keys.into_iter().find_map(|(key, has)| has.then_some(key))
}

/// What a subject asks for and not every caller has. Envoy knows of each the host and the address.
fn may_be_absent(subject: &Subject, attributes: &[Attribute]) -> BTreeSet<usize> {
    match subject {
        Subject::Matches { attribute, .. } | Subject::Within { attribute, .. } => {
            let is_always_there = matches!(
                attributes.get(*attribute),
                Some(Attribute::Host | Attribute::Address) | None
            );
            let absent = (!is_always_there).then_some(*attribute);
            absent.into_iter().collect()
        }
        Subject::All(parts) | Subject::Any(parts) => {
            let parts = parts.iter();
            parts
                .flat_map(|part| may_be_absent(part, attributes))
                .collect()
        }
        Subject::Not(part) => may_be_absent(part, attributes),
    }
}

/// Whether a subject may be `holds`, as far as can be told, of a caller of whom these are unknown.
fn may_be(subject: &Subject, holds: bool, unknown: &BTreeSet<usize>) -> bool {
    match (subject, holds) {
        (Subject::Matches { attribute, .. } | Subject::Within { attribute, .. }, _) => {
            !unknown.contains(attribute)
        }
        (Subject::Not(part), _) => may_be(part, !holds, unknown),
        (Subject::All(parts), true) | (Subject::Any(parts), false) => {
            parts.iter().all(|part| may_be(part, holds, unknown))
        }
        (Subject::All(parts), false) | (Subject::Any(parts), true) => {
            parts.iter().any(|part| may_be(part, holds, unknown))
        }
    }
}
