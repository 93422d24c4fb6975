//! Why a caller may have an image or not, package by package; an opaque name is judged as one.
//!
//! The judge gives the reasons, by the name alone, as at the edge before the builder is asked. Notes
//! tell which rules also need the builder's facts or the platform.

use std::fmt;

use anyhow::{Context, Result};
use nixgate_core::ImageName;
use nixgate_core::distribution::{Repository, Tag};
use nixgate_core::package_set::System;
use nixgate_core::policy::{
    DefaultDecision, Effect, Identity, Known, Mode, Policy, Reasons, Request, Rule,
};
use serde::Deserialize;

use super::file::PolicyFile;
use super::given;

/// A request for an image.
#[derive(Clone, Debug)]
pub(super) struct Question {
    name: String,
    image: ImageName,
    written: usize,
    tag: Tag,
}

impl Question {
    /// `system` is the platform if the name has none.
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
                format!("\"{system}\" is not a platform: give x86_64-linux or aarch64-linux")
            })?;
            let packages = name.packages().with_context(|| {
                format!("the recipe of {image} sets its platform: leave out the system")
            })?;
            if packages.system().is_none() {
                let platform = format!("{}/{image}", system.architecture());
                name = file.image(&Repository::parse(&platform)?)?;
            }
        }
        Ok(Self {
            written: name.written(&repository),
            name: image.to_owned(),
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
}

/// The decision on an image, or on one of its packages; the worst of all is that on the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Decision {
    #[serde(rename = "allow")]
    Allowed,
    /// Audited rules let it through.
    #[serde(rename = "warn")]
    Warned,
    #[serde(rename = "deny")]
    Refused,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Warned => "allowed with a warning",
            Self::Refused => "refused",
        })
    }
}

/// The decision on a package or an opaque name, and the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    decision: Decision,
    reasons: Vec<String>,
    /// The rules that decide.
    rules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    image: String,
    revision: String,
    pub(super) decision: Decision,
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Explanation {
    pub(super) fn allows(&self) -> bool {
        self.decision != Decision::Refused
    }

    /// The rules that decide on some package as on the image.
    pub(super) fn rules(&self) -> impl Iterator<Item = &str> {
        let lines = self.lines.iter();
        let deciding = lines.filter(|line| line.decision == self.decision);
        deciding.flat_map(|line| line.rules.iter().map(String::as_str))
    }
}

/// Judges a request and explains the decision.
pub(super) fn explain(file: &PolicyFile, question: &Question, identity: &Identity) -> Explanation {
    let policy = &file.policy;
    let request = question.request();
    let reasons = policy.reasons(&request, identity).into_iter();
    let lines: Vec<Line> = reasons.map(|one| line(policy, one, identity)).collect();
    let decisions = lines.iter().map(|line| line.decision);
    let decision = decisions.max().unwrap_or(Decision::Allowed);
    Explanation {
        image: question.name.clone(),
        revision: policy.revision().to_owned(),
        notes: match decision {
            Decision::Refused => Vec::new(),
            Decision::Allowed | Decision::Warned => notes(policy.rules(), &request, identity),
        },
        decision,
        lines,
    }
}

fn line(policy: &Policy, reasons: Reasons<'_>, identity: &Identity) -> Line {
    let (name, allowing) = (reasons.name.to_owned(), reasons.allowing);
    let Some((mode, finding)) = reasons.finding else {
        let counting = allowing
            .iter()
            .filter(|(_, _, effect)| *effect == Effect::Counts);
        let mut reasons: Vec<String> = match policy.default_decision() {
            DefaultDecision::Allow => vec!["by default: no rule denies it".to_owned()],
            DefaultDecision::Deny => counting
                .clone()
                .map(|(rule, pattern, _)| {
                    format!("by the rule {}: \"{}\"", rule.name, pattern.text)
                })
                .collect(),
        };
        if reasons.is_empty() {
            reasons.push("every image has it".to_owned());
        }
        return Line {
            name,
            decision: Decision::Allowed,
            reasons,
            rules: counting.map(|(rule, ..)| rule.name.clone()).collect(),
        };
    };
    let mut rules = policy.rules().iter();
    let rule = rules.find(|rule| Some(&rule.name) == finding.rule.as_ref());
    let mut reasons = vec![finding.reason];
    reasons.extend(rule.and_then(|rule| unknown(rule, policy, identity)));
    // No rule can allow what another denies.
    if !finding.is_denial {
        reasons.extend(
            allowing
                .iter()
                .filter_map(|(rule, _, effect)| match effect {
                    Effect::Counts | Effect::Limited(_) => None,
                    Effect::ForOthers => {
                        Some(format!("the rule {} allows it for others", rule.name))
                    }
                    Effect::Unknown => {
                        let unknown = unknown(rule, policy, identity)?;
                        Some(format!("the rule {} may allow it: {unknown}", rule.name))
                    }
                }),
        );
    }
    reasons.extend(finding.message);
    Line {
        name,
        decision: match mode {
            Mode::Enforce => Decision::Refused,
            Mode::Audit => Decision::Warned,
        },
        reasons,
        rules: finding.rule.into_iter().collect(),
    }
}

/// The caller's unknown attributes, if they leave open whether the rule is for them.
fn unknown(rule: &Rule, policy: &Policy, identity: &Identity) -> Option<String> {
    if rule.is_for(identity).is_some() {
        return None;
    }
    let mut names = Vec::new();
    for condition in rule.subject.as_ref()?.conditions() {
        let known = identity.get(condition.attribute);
        let name = policy.attributes().get(condition.attribute);
        let name = name.map(given::name)?;
        if !matches!(known, Some(Known::Values(_))) && !names.contains(&name) {
            names.push(name);
        }
    }
    Some(format!("{} is not known", names.join(", ")))
}

/// The rules that may still decide otherwise once the builder or the caller says more.
fn notes(rules: &[Rule], request: &Request<'_>, identity: &Identity) -> Vec<String> {
    let mut notes = Vec::new();
    let packages = request.image.packages();
    for rule in rules {
        let is_for_caller = rule.is_for(identity);
        if is_for_caller == Some(false) {
            continue;
        }
        let mut note = |text: &str| notes.push(format!("the rule {} {text}", rule.name));
        if packages.is_none() && !rule.deny.is_empty() {
            note("also denies packages; the builder says which ones the image has");
        }
        if rule.facts.is_some() {
            note("also checks the contents of the image, which the builder knows");
        }
        // A rule that may be for others allows nothing.
        if is_for_caller.is_none() || rule.limits.systems.is_none() {
            continue;
        }
        match packages {
            Some(packages) if packages.system().is_none() && !rule.allow.is_empty() => {
                note("allows only some platforms: give --system");
            }
            None if !rule.images.is_empty() => {
                note("allows only some platforms; the builder says which one the image has");
            }
            _ => {}
        }
    }
    notes
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (image, decision) = (&self.image, self.decision);
        writeln!(f, "{image}: {decision} (revision {})", self.revision)?;
        let lines = &self.lines;
        let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
        for line in lines {
            let mut reasons = line.reasons.iter();
            let first = reasons.next().map_or("", String::as_str);
            writeln!(f, "  {:width$}  {}: {first}", line.name, line.decision)?;
            for reason in reasons {
                writeln!(f, "  {:width$}    {reason}", "")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
