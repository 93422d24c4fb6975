//! Why a caller may have an image or not, package by package.
//!
//! What is explained is what the name says, which is all that the edge knows before the builder
//! was asked: of rules with facts it is said that they will be asked, and limits on platforms
//! count when the platform is known.

use std::fmt;

use anyhow::{Context, Result};
use nixgate_core::PackageSet;
use nixgate_core::distribution::{Repository, Tag};
use nixgate_core::package_set::{self, System};
use nixgate_core::policy::{
    Default, Finding, Identity, Known, Outline, Pattern, Policy, Request, Subject,
};

use super::file::PolicyFile;
use super::given;

/// An image that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    image: String,
    packages: PackageSet,
    written: usize,
    tag: Tag,
}

impl Question {
    /// `system` is the platform where the name says none.
    pub(super) fn new(image: &str, tag: Tag, system: Option<&str>) -> Result<Self> {
        let repository = Repository::parse(image)?;
        let mut packages = PackageSet::of(&repository)?;
        if let Some(system) = system {
            let system = System::from_nix(system).with_context(|| {
                format!("\"{system}\" is none of x86_64-linux and aarch64-linux")
            })?;
            if packages.system().is_none() {
                let name = format!("{}/{image}", system.architecture());
                packages = PackageSet::of(&Repository::parse(&name)?)?;
            }
        }
        Ok(Self {
            written: package_set::written(&repository),
            image: image.to_owned(),
            packages,
            tag,
        })
    }

    fn request(&self) -> Request<'_> {
        Request {
            packages: &self.packages,
            written: self.written,
            tag: Some(&self.tag),
        }
    }
}

/// What becomes of an image, or of one of its packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    /// Let through by audited rules.
    Warned,
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Warned => "allowed with a warning",
            Self::Refused => "refused",
        })
    }
}

/// What becomes of a package, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    package: String,
    outcome: Outcome,
    reasons: Vec<String>,
    /// The rules that decide.
    rules: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    image: String,
    revision: String,
    pub(super) outcome: Outcome,
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Explanation {
    pub(super) fn allows(&self) -> bool {
        self.outcome != Outcome::Refused
    }

    /// The rules by which some package has the outcome of the image.
    pub(super) fn rules(&self) -> impl Iterator<Item = &str> {
        let deciding = self
            .lines
            .iter()
            .filter(|line| line.outcome == self.outcome);
        deciding.flat_map(|line| line.rules.iter().map(String::as_str))
    }
}

/// Asks the policy, and says why it answers so.
pub(super) fn explain(file: &PolicyFile, question: &Question, identity: &Identity) -> Explanation {
    let PolicyFile { policy, rules } = file;
    let request = question.request();
    let verdict = policy.judge_name(&request, identity);
    let of = |findings: &[Finding], package: &str| {
        let of_package = |finding: &&Finding| finding.package.as_deref() == Some(package);
        findings.iter().find(of_package).cloned()
    };
    let line = |package: &str| {
        let refusal = of(&verdict.refusals, package).map(|one| (Outcome::Refused, one));
        let warning = || of(&verdict.warnings, package).map(|one| (Outcome::Warned, one));
        match refusal.or_else(warning) {
            Some((outcome, finding)) => {
                let mut reasons = vec![finding.reason];
                // What a rule denies, no other can give.
                if !denied(rules, finding.rule.as_deref(), package) {
                    reasons.extend(missed(policy, rules, package, identity));
                }
                reasons.extend(finding.message);
                Line {
                    package: package.to_owned(),
                    outcome,
                    reasons,
                    rules: finding.rule.into_iter().collect(),
                }
            }
            None => allowed(policy, rules, package, &request, identity),
        }
    };
    let outcome = match (verdict.refusals.is_empty(), verdict.warnings.is_empty()) {
        (false, _) => Outcome::Refused,
        (true, false) => Outcome::Warned,
        (true, true) => Outcome::Allowed,
    };
    Explanation {
        image: question.image.clone(),
        revision: policy.revision().to_owned(),
        outcome,
        lines: request.packages.packages().map(line).collect(),
        notes: notes(rules, &request, identity, outcome),
    }
}

fn denied(rules: &[Outline], rule: Option<&str>, package: &str) -> bool {
    let rule = rules.iter().find(|one| Some(one.name.as_str()) == rule);
    rule.is_some_and(|rule| hit(&rule.deny, package).is_some())
}

fn hit<'a>(patterns: &'a [Pattern], package: &str) -> Option<&'a Pattern> {
    patterns.iter().find(|pattern| pattern.matches(package))
}

/// A package that nothing stands against.
fn allowed(
    policy: &Policy,
    rules: &[Outline],
    package: &str,
    request: &Request<'_>,
    identity: &Identity,
) -> Line {
    let granting = rules.iter().filter_map(|rule| {
        let pattern = hit(&rule.allow, package)?;
        let grants =
            rule.applies_to(identity) == Some(true) && rule.broken_limit(request).is_none();
        grants.then_some((rule, pattern))
    });
    let granting: Vec<_> = granting.collect();
    let reasons = match (policy.default_is(), &granting[..]) {
        (Default::Allow, _) => vec!["by default: no rule denies it".to_owned()],
        (Default::Deny, []) => vec!["every image has it".to_owned()],
        (Default::Deny, granting) => granting
            .iter()
            .map(|(rule, pattern)| format!("by the rule {}: \"{}\"", rule.name, pattern.text))
            .collect(),
    };
    Line {
        package: package.to_owned(),
        outcome: Outcome::Allowed,
        reasons,
        rules: granting.iter().map(|(rule, _)| rule.name.clone()).collect(),
    }
}

/// The rules that would allow a package, were they for this caller.
fn missed(policy: &Policy, rules: &[Outline], package: &str, identity: &Identity) -> Vec<String> {
    let missed = rules.iter().filter_map(|rule| {
        hit(&rule.allow, package)?;
        match rule.applies_to(identity) {
            Some(true) => None,
            Some(false) => Some(format!("the rule {} allows it for others", rule.name)),
            None => {
                let mut unknown = Vec::new();
                if let Some(subject) = &rule.subject {
                    unknown_of(subject, policy, identity, &mut unknown);
                }
                Some(format!(
                    "the rule {} may allow it: {} is not known",
                    rule.name,
                    unknown.join(", ")
                ))
            }
        }
    });
    missed.collect()
}

/// The names of the attributes that a subject asks for and that are not known.
fn unknown_of(subject: &Subject, policy: &Policy, identity: &Identity, names: &mut Vec<String>) {
    match subject {
        Subject::Matches { attribute, .. } | Subject::Within { attribute, .. } => {
            let known = identity.get(*attribute);
            if known.is_none_or(|known| *known == Known::Unknown)
                && let Some(name) = policy.attributes().get(*attribute).map(given::name)
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        Subject::All(parts) | Subject::Any(parts) => {
            for part in parts {
                unknown_of(part, policy, identity, names);
            }
        }
        Subject::Not(part) => unknown_of(part, policy, identity, names),
    }
}

/// What may change the verdict once more is known.
fn notes(
    rules: &[Outline],
    request: &Request<'_>,
    identity: &Identity,
    outcome: Outcome,
) -> Vec<String> {
    let mut notes = Vec::new();
    if outcome == Outcome::Refused {
        return notes;
    }
    for rule in rules
        .iter()
        .filter(|rule| rule.applies_to(identity) == Some(true))
    {
        if rule.facts.is_some() {
            notes.push(format!(
                "the rule {} also asks what is in the image, which the builder says",
                rule.name
            ));
        }
        if rule.systems().is_some() && !rule.allow.is_empty() && request.packages.system().is_none()
        {
            notes.push(format!(
                "the rule {} allows some platforms alone: give --system to see",
                rule.name
            ));
        }
    }
    notes
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            image,
            revision,
            outcome,
            lines,
            notes,
        } = self;
        writeln!(f, "{image}: {outcome} (revision {revision})")?;
        let width = lines
            .iter()
            .map(|line| line.package.len())
            .max()
            .unwrap_or(0);
        for line in lines {
            let mut reasons = line.reasons.iter();
            let first = reasons.next().map_or("", String::as_str);
            writeln!(f, "  {:width$}  {}: {first}", line.package, line.outcome)?;
            for reason in reasons {
                writeln!(f, "  {:width$}    {reason}", "")?;
            }
        }
        for note in notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
