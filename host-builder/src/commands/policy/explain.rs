//! Why a caller may have an image or not, package by package; an opaque name is judged as one.
//!
//! What is explained is what the name says, which is all that the edge knows before the builder
//! was asked: of rules with facts it is said that they will be asked, and limits on platforms
//! count when the platform is known.

use std::fmt;

use anyhow::{Context, Result};
use nixgate_core::ImageName;
use nixgate_core::distribution::{Repository, Tag};
use nixgate_core::package_set::{System, with_parents};
use nixgate_core::policy::{
    Default, Finding, Identity, Known, Outline, Pattern, Policy, Request, Subject,
};

use super::file::PolicyFile;
use super::given;

/// An image that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    asked: String,
    image: ImageName,
    written: usize,
    tag: Tag,
}

impl Question {
    /// `system` is the platform where the name says none.
    pub(super) fn new(
        file: &PolicyFile,
        image: &str,
        tag: Tag,
        system: Option<&str>,
    ) -> Result<Self> {
        let repository = Repository::parse(image)?;
        let mut name = file.image(&repository)?;
        if let Some(system) = system {
            let system = System::from_nix(system).with_context(|| {
                format!("\"{system}\" is none of x86_64-linux and aarch64-linux")
            })?;
            let packages = name.packages().with_context(|| {
                format!("the platform of {image} is its recipe's: leave it out")
            })?;
            if packages.system().is_none() {
                let platform = format!("{}/{image}", system.architecture());
                name = file.image(&Repository::parse(&platform)?)?;
            }
        }
        Ok(Self {
            written: name.written(&repository),
            asked: image.to_owned(),
            image: name,
            tag,
        })
    }

    fn request(&self) -> Request<'_> {
        Request {
            image: &self.image,
            written: self.written,
            tag: Some(&self.tag),
        }
    }

    /// What the policy judges one by one.
    fn things(&self) -> Vec<Thing<'_>> {
        match &self.image {
            ImageName::Packages(packages) => packages.packages().map(Thing::Package).collect(),
            ImageName::Opaque(name) => vec![Thing::Image(name.as_str())],
        }
    }
}

/// What patterns are compared with.
#[derive(Clone, Copy, Debug)]
enum Thing<'a> {
    Package(&'a str),
    /// An opaque name.
    Image(&'a str),
}

impl<'a> Thing<'a> {
    const fn name(self) -> &'a str {
        match self {
            Self::Package(name) | Self::Image(name) => name,
        }
    }

    /// The pattern by which a rule allows it.
    fn allowed_by(self, rule: &Outline) -> Option<&Pattern> {
        match self {
            Self::Package(name) => hit(&rule.allow, name),
            Self::Image(name) => hit(&rule.images, name),
        }
    }

    /// The pattern by which a rule denies it.
    fn denied_by(self, rule: &Outline) -> Option<&Pattern> {
        match self {
            Self::Package(name) => with_parents(name).find_map(|name| hit(&rule.deny, name)),
            Self::Image(name) => hit(&rule.deny_images, name),
        }
    }
}

fn hit<'a>(patterns: &'a [Pattern], name: &str) -> Option<&'a Pattern> {
    patterns.iter().find(|pattern| pattern.matches(name))
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

/// What becomes of a package or of an opaque name, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
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
    let PolicyFile { policy, rules, .. } = file;
    let request = question.request();
    let verdict = policy.judge_name(&request, identity);
    let of = |findings: &[Finding], name: &str| {
        let of_it = |finding: &&Finding| finding.about.name() == Some(name);
        findings.iter().find(of_it).cloned()
    };
    let line = |thing: Thing<'_>| {
        let name = thing.name();
        let refusal = of(&verdict.refusals, name).map(|one| (Outcome::Refused, one));
        let warning = || of(&verdict.warnings, name).map(|one| (Outcome::Warned, one));
        match refusal.or_else(warning) {
            Some((outcome, finding)) => {
                let mut reasons = vec![finding.reason];
                let rule = finding.rule.as_deref();
                let rule = rule.and_then(|rule| rules.iter().find(|one| one.name == rule));
                reasons.extend(rule.and_then(|rule| unknown(rule, policy, identity)));
                // What a rule denies, no other can give.
                if rule.is_none_or(|rule| thing.denied_by(rule).is_none()) {
                    reasons.extend(missed(policy, rules, thing, identity));
                }
                reasons.extend(finding.message);
                Line {
                    name: name.to_owned(),
                    outcome,
                    reasons,
                    rules: finding.rule.into_iter().collect(),
                }
            }
            None => allowed(policy, rules, thing, &request, identity),
        }
    };
    let outcome = match (verdict.refusals.is_empty(), verdict.warnings.is_empty()) {
        (false, _) => Outcome::Refused,
        (true, false) => Outcome::Warned,
        (true, true) => Outcome::Allowed,
    };
    Explanation {
        image: question.asked.clone(),
        revision: policy.revision().to_owned(),
        outcome,
        lines: question.things().into_iter().map(line).collect(),
        notes: notes(rules, &request, identity, outcome),
    }
}

/// What nothing stands against.
fn allowed(
    policy: &Policy,
    rules: &[Outline],
    thing: Thing<'_>,
    request: &Request<'_>,
    identity: &Identity,
) -> Line {
    let granting = rules.iter().filter_map(|rule| {
        let pattern = thing.allowed_by(rule)?;
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
        name: thing.name().to_owned(),
        outcome: Outcome::Allowed,
        reasons,
        rules: granting.iter().map(|(rule, _)| rule.name.clone()).collect(),
    }
}

/// The rules that would allow something, were they for this caller.
fn missed(
    policy: &Policy,
    rules: &[Outline],
    thing: Thing<'_>,
    identity: &Identity,
) -> Vec<String> {
    let missed = rules.iter().filter_map(|rule| {
        thing.allowed_by(rule)?;
        match rule.applies_to(identity) {
            Some(true) => None,
            Some(false) => Some(format!("the rule {} allows it for others", rule.name)),
            None => {
                let unknown = unknown(rule, policy, identity)?;
                Some(format!("the rule {} may allow it: {unknown}", rule.name))
            }
        }
    });
    missed.collect()
}

/// Of whom a rule is for, what is not known, where that keeps it open.
fn unknown(rule: &Outline, policy: &Policy, identity: &Identity) -> Option<String> {
    if rule.applies_to(identity).is_some() {
        return None;
    }
    let mut unknown = Vec::new();
    unknown_of(rule.subject.as_ref()?, policy, identity, &mut unknown);
    Some(format!("{} is not known", unknown.join(", ")))
}

/// The names of the attributes that a subject asks for and that are not known.
fn unknown_of(subject: &Subject, policy: &Policy, identity: &Identity, names: &mut Vec<String>) {
    match subject {
        Subject::Matches { attribute, .. } | Subject::Within { attribute, .. } => {
            let known = identity.get(*attribute);
            if known.is_none_or(|known| !matches!(known, Known::Values(_)))
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
    let packages = request.image.packages();
    for rule in rules {
        let is_for_caller = rule.applies_to(identity);
        if is_for_caller == Some(false) {
            continue;
        }
        if packages.is_none() && !rule.deny.is_empty() {
            notes.push(format!(
                "the rule {} also denies packages; which are in the image the builder says",
                rule.name
            ));
        }
        if rule.facts.is_some() {
            notes.push(format!(
                "the rule {} also asks what is in the image, which the builder says",
                rule.name
            ));
        }
        match packages {
            Some(packages) if packages.system().is_some() => {}
            // What may not be for the caller allows nothing.
            _ if rule.systems().is_none() || is_for_caller.is_none() => {}
            Some(_) if !rule.allow.is_empty() => notes.push(format!(
                "the rule {} allows some platforms alone: give --system to see",
                rule.name
            )),
            None if !rule.images.is_empty() => notes.push(format!(
                "the rule {} allows some platforms alone; which one it is the builder says",
                rule.name
            )),
            _ => {}
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
        let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
        for line in lines {
            let mut reasons = line.reasons.iter();
            let first = reasons.next().map_or("", String::as_str);
            writeln!(f, "  {:width$}  {}: {first}", line.name, line.outcome)?;
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
