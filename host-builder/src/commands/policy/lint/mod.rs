//! Lint: rules and patterns without effect.
//!
//! Their author meant something by them, so each is a finding. Only what is certain is reported: a
//! pattern that only several others cover together goes unseen.

mod subject;
mod unknown;

use std::collections::BTreeSet;

use nixgate_core::policy::{DefaultDecision, Glob, Kind, Mode, Pattern, Policy, Rule};

use super::file::PolicyFile;

pub(super) use unknown::notes;

/// Each finding is a sentence that names the rule and the key.
pub(super) fn findings(file: &PolicyFile) -> Vec<String> {
    let policy = &file.policy;
    let mut findings = Vec::new();
    for (index, rule) in policy.rules().iter().enumerate() {
        let mut earlier = policy.rules().iter().take(index);
        let mut find = |text: String| findings.push(format!("the rule {}: {text}", rule.name));
        if let Some(twin) = earlier.find(|earlier| policy.do_the_same(earlier, rule)) {
            // All other findings are those of the first.
            find(format!("it does the same as the rule {}", twin.name));
            continue;
        }
        let only_refuses = rule.allow.is_empty() && rule.images.is_empty();
        if let Some(subject) = &rule.subject
            && let Some(reason) = subject::never_holds(subject, policy.attributes(), only_refuses)
        {
            find(format!("subject: it is never true: {reason}"));
        }
        if let Some(reason) = unknown::never_known(rule, policy.attributes()) {
            find(format!("subject: {reason}"));
        }
        allowing(rule, policy).into_iter().for_each(&mut find);
        for (key, patterns) in rule.patterns() {
            repeated(patterns).for_each(|text| find(format!("{key}: {text}")));
        }
    }
    findings
}

/// Why a rule doesn't allow what its patterns name.
fn allowing(rule: &Rule, policy: &Policy) -> Vec<String> {
    let kinds = [(Kind::Package, "allow"), (Kind::Image, "images")];
    let kinds = kinds.into_iter();
    let kinds = kinds.filter(|(kind, _)| !rule.allowing(*kind).is_empty());
    if policy.default_decision() == DefaultDecision::Allow {
        return kinds
            .map(|(_, key)| format!("{key}: it has no effect, since the default is allow"))
            .collect();
    }
    if kinds.clone().next().is_some()
        && let Some(limit) = empty_limit(rule)
    {
        return vec![format!(
            "{limit}: no request fits it, so the rule allows nothing"
        )];
    }
    kinds
        .flat_map(|(kind, key)| denied(rule, kind, key, policy.rules()))
        .collect()
}

/// The patterns of a rule by which it allows nothing, since other rules deny the same.
fn denied(rule: &Rule, kind: Kind, key: &str, rules: &[Rule]) -> Vec<String> {
    let patterns = rule.allowing(kind);
    let denied: Vec<_> = patterns
        .iter()
        .filter_map(|pattern| Some((pattern, denied_by(pattern, kind, rule, rules)?)))
        .collect();
    if denied.len() == patterns.len() {
        let by = names(denied.iter().flat_map(|(_, by)| by.iter().copied()));
        return vec![format!("{key}: {by} all of it")];
    }
    denied
        .into_iter()
        .map(|(pattern, by)| format!("{key}: {} \"{}\"", names(by.into_iter()), pattern.text))
        .collect()
}

/// The enforced rules that deny a pattern of `rule` to all callers whom the rule is for; none when
/// they leave something of it.
fn denied_by<'a>(
    pattern: &Pattern,
    kind: Kind,
    rule: &Rule,
    rules: &'a [Rule],
) -> Option<Vec<&'a str>> {
    let denying = |glob: &Glob| {
        let mut for_them = rules.iter().filter(|other| {
            let is_for_them = other.subject.is_none() || other.subject == rule.subject;
            other.mode == Mode::Enforce && is_for_them
        });
        let covers = |other: &&Rule| {
            let patterns = other.denying(kind).iter();
            let mut denied = patterns.flat_map(|pattern| &pattern.globs);
            denied.any(|deny| deny.covers(glob))
        };
        for_them.find(covers).map(|other| other.name.as_str())
    };
    pattern.globs.iter().map(denying).collect()
}

fn empty_limit(rule: &Rule) -> Option<&'static str> {
    if rule.limits.tags.is_empty() {
        return Some("tags");
    }
    let systems = rule.limits.systems.as_ref();
    if systems.is_some_and(BTreeSet::is_empty) {
        return Some("systems");
    }
    // The name of an opaque image counts as no package.
    let is_for_packages = rule.images.is_empty();
    (is_for_packages && rule.limits.max_packages == Some(0)).then_some("max_packages")
}

/// Patterns that others of the same list cover.
fn repeated(patterns: &[Pattern]) -> impl Iterator<Item = String> {
    patterns.iter().enumerate().filter_map(|(index, pattern)| {
        let other = patterns.iter().enumerate().find(|(other_index, other)| {
            // Of two that cover each other, the first one stays.
            let first = !covers(pattern, other) || *other_index < index;
            *other_index != index && covers(other, pattern) && first
        });
        let (_, other) = other?;
        Some(match other.text == pattern.text {
            true => format!("\"{}\" is there twice", pattern.text),
            false => format!("\"{}\" covers \"{}\"", other.text, pattern.text),
        })
    })
}

fn covers(wide: &Pattern, narrow: &Pattern) -> bool {
    let covered = |glob: &Glob| wide.globs.iter().any(|wide| wide.covers(glob));
    narrow.globs.iter().all(covered)
}

/// The subject of a sentence about the rules with these names.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    match &unique[..] {
        [one] => format!("the rule {one} denies"),
        several => format!("the rules {} deny", several.join(", ")),
    }
}

#[cfg(test)]
mod tests;
