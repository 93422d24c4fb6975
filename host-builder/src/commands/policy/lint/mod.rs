//! Lint: what stands in a policy and can't matter.
//!
//! A policy that is harmless to read in two ways is read wrongly one day, so whatever has no effect
//! is a finding: its author meant something by it. Only what is certain is reported. Whether a
//! pattern covers another is decided pattern by pattern, and what only several of them cover
//! together goes unseen.

mod subject;
mod unknown;

use nixgate_core::policy::{Default, Glob, Mode, Outline, Pattern};

use super::file::PolicyFile;

pub(super) use unknown::notes;

/// Each finding is a sentence that names the rule and the key.
pub(super) fn findings(file: &PolicyFile) -> Vec<String> {
    let PolicyFile { policy, rules, .. } = file;
    let mut findings = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let earlier = rules.get(..index).unwrap_or_default();
        let at = |text: String| format!("the rule {}: {text}", rule.name);
        if let Some(twin) = earlier.iter().find(|earlier| earlier.does_the_same(rule)) {
            // Whatever else is wrong with it was said of the first.
            findings.push(at(format!("it does the same as the rule {}", twin.name)));
            continue;
        }
        let only_refuses = rule.allow.is_empty() && rule.images.is_empty();
        if let Some(subject) = &rule.subject
            && let Some(reason) = subject::never_holds(subject, policy.attributes(), only_refuses)
        {
            findings.push(at(format!("subject: it is never true: {reason}")));
        }
        if let Some(reason) = unknown::never_known(rule, policy.attributes()) {
            findings.push(at(format!("subject: {reason}")));
        }
        let allowing = allowing(rule, rules, policy.default_is());
        findings.extend(allowing.into_iter().map(at));
        for (key, patterns) in [
            ("allow", &rule.allow),
            ("deny", &rule.deny),
            ("images", &rule.images),
            ("deny_images", &rule.deny_images),
        ] {
            findings.extend(repeated(patterns).map(|text| at(format!("{key}: {text}"))));
        }
    }
    findings
}

/// A list of patterns that allow something, and that which denies the same.
struct Side {
    key: &'static str,
    allow: fn(&Outline) -> &[Pattern],
    deny: fn(&Outline) -> &[Pattern],
}

const SIDES: [Side; 2] = [
    Side {
        key: "allow",
        allow: |rule| &rule.allow,
        deny: |rule| &rule.deny,
    },
    Side {
        key: "images",
        allow: |rule| &rule.images,
        deny: |rule| &rule.deny_images,
    },
];

/// What keeps a rule from allowing what it names.
fn allowing(rule: &Outline, rules: &[Outline], default: Default) -> Vec<String> {
    let sides = SIDES.iter().filter(|side| !(side.allow)(rule).is_empty());
    let sides: Vec<&Side> = sides.collect();
    if sides.is_empty() {
        return Vec::new();
    }
    if let (Default::Deny, Some(limit)) = (default, empty_limit(rule)) {
        return vec![format!(
            "{limit}: nothing fits it, so that nothing is allowed"
        )];
    }
    let findings = sides
        .into_iter()
        .flat_map(|side| side.allowing(rule, rules, default));
    findings.collect()
}

impl Side {
    fn allowing(&self, rule: &Outline, rules: &[Outline], default: Default) -> Vec<String> {
        let (key, patterns) = (self.key, (self.allow)(rule));
        if default == Default::Allow {
            return vec![format!(
                "{key}: nothing has to be allowed, since the default is allow"
            )];
        }
        let denied: Vec<_> = patterns
            .iter()
            .filter_map(|pattern| Some((pattern, self.denied_by(pattern, rule, rules)?)))
            .collect();
        if denied.len() == patterns.len() {
            let by = names(denied.iter().flat_map(|(_, by)| by.iter().copied()));
            return vec![format!("{key}: all of it is denied, by {by}")];
        }
        denied
            .into_iter()
            .map(|(pattern, by)| {
                let by = names(by.into_iter());
                format!("{key}: \"{}\" is denied, by {by}", pattern.text)
            })
            .collect()
    }

    /// The enforced rules by which a pattern of `rule` is denied to all whom the rule is for; none
    /// when something of it is not.
    fn denied_by<'a>(
        &self,
        pattern: &Pattern,
        rule: &Outline,
        rules: &'a [Outline],
    ) -> Option<Vec<&'a str>> {
        let denying = |glob: &Glob| {
            let mut everybodys = rules.iter().filter(|other| {
                let for_them = other.subject.is_none() || other.subject == rule.subject;
                other.mode == Mode::Enforce && for_them
            });
            let covers = |other: &&Outline| {
                let mut denied = (self.deny)(other).iter().flat_map(|pattern| &pattern.globs);
                denied.any(|deny| deny.covers(glob))
            };
            everybodys.find(covers).map(|other| other.name.as_str())
        };
        pattern.globs.iter().map(denying).collect()
    }
}

fn empty_limit(rule: &Outline) -> Option<&'static str> {
    if rule.tags().is_empty() {
        return Some("tags");
    }
    if rule
        .systems()
        .is_some_and(std::collections::BTreeSet::is_empty)
    {
        return Some("systems");
    }
    // An opaque name has none.
    let is_for_packages = rule.images.is_empty();
    (is_for_packages && rule.max_packages() == Some(0)).then_some("max_packages")
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
            true => format!("\"{}\" stands there twice", pattern.text),
            false => format!("\"{}\" covers \"{}\"", other.text, pattern.text),
        })
    })
}

fn covers(wide: &Pattern, narrow: &Pattern) -> bool {
    let covered = |glob: &Glob| wide.globs.iter().any(|wide| wide.covers(glob));
    narrow.globs.iter().all(covered)
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    let plural = if unique.len() == 1 { "" } else { "s" };
    format!("the rule{plural} {}", unique.join(", "))
}

#[cfg(test)]
mod tests;
