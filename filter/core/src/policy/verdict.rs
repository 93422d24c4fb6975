//! The decision on a request, and its text for the caller.

use serde_json::{Value, json};

use super::rule::{Mode, Rule};
use crate::distribution::{Error, ErrorKind};

/// The subject of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A package.
    Package(String),
    /// The image with this opaque name.
    Image(String),
    /// The contents of the image.
    Contents,
}

impl About {
    /// The name, if it has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Package(name) | Self::Image(name) => Some(name),
            Self::Contents => None,
        }
    }
}

/// A rule that denies a caller something.
#[derive(Clone, Copy)]
pub(super) struct Denial<'p> {
    pub(super) rule: &'p Rule,
    /// It is unknown whether the rule is for the caller.
    pub(super) is_doubtful: bool,
}

/// A reason to refuse a request or to warn of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The package or image that is refused.
    pub about: About,
    /// The rule; none when the reason is that no rule allows it.
    pub rule: Option<String>,
    /// Whether the rule denies it.
    pub is_denial: bool,
    /// The reason, in words that follow the name.
    pub reason: String,
    /// The advice of the rule's author.
    pub message: Option<String>,
}

impl Finding {
    pub(super) fn new(about: About, rule: Option<&Rule>, reason: &str) -> Self {
        Self {
            about,
            rule: rule.map(|rule| rule.name.clone()),
            is_denial: false,
            reason: rule.map_or_else(
                || reason.to_owned(),
                |rule| format!("{reason} {}", rule.name),
            ),
            message: rule.and_then(|rule| rule.message.clone()),
        }
    }

    /// Denied under the name that was written, or under the one that it really has.
    pub(super) fn denied(about: About, name: &str, denial: Denial<'_>) -> Self {
        let is_other = about.name() != Some(name);
        let mut finding = Self::by(denial, about, "denied by the rule");
        if is_other {
            finding.reason = format!("which is {name}, {}", finding.reason);
        }
        finding
    }

    pub(super) fn limited(about: About, rule: &Rule, limit: &str) -> Self {
        Self {
            reason: format!("the rule {} allows it {limit}", rule.name),
            ..Self::new(about, Some(rule), "")
        }
    }

    pub(super) fn facts(denial: Denial<'_>) -> Self {
        Self::by(
            denial,
            About::Contents,
            "refused for its contents by the rule",
        )
    }

    /// Of an image whose packages may be any that the rule denies.
    pub(super) fn names_unknown(denial: Denial<'_>) -> Self {
        Self::by(
            denial,
            About::Contents,
            "the other names of its packages are not known now: pull it by its tag, or later; denied by the \
             rule",
        )
    }

    fn by(denial: Denial<'_>, about: About, reason: &str) -> Self {
        let mut finding = Self::new(about, Some(denial.rule), reason);
        finding.is_denial = true;
        if denial.is_doubtful {
            let doubt = "; whether it is for you is not known";
            finding.reason.push_str(doubt);
        }
        finding
    }

    fn words(&self) -> String {
        let name = self.about.name().unwrap_or("this image");
        format!("{name} ({})", self.reason)
    }

    fn json(&self) -> Value {
        let (rule, reason) = (&self.rule, &self.reason);
        match &self.about {
            About::Image(image) => json!({ "image": image, "rule": rule, "reason": reason }),
            about => json!({ "package": about.name(), "rule": rule, "reason": reason }),
        }
    }
}

/// The decision on one request, by one revision of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    revision: String,
    /// Why it is refused; empty when it is not.
    pub refusals: Vec<Finding>,
    /// Refusals that audited rules turn into warnings.
    pub warnings: Vec<Finding>,
    /// Whether it is refused because edge and builder disagree, and not by the policy.
    pub is_mismatch: bool,
    /// Whether it is unknown of some rule that matters if it is for the caller.
    pub is_doubtful: bool,
}

impl Verdict {
    pub(super) fn new(revision: &str) -> Self {
        Self {
            revision: revision.to_owned(),
            ..Self::default()
        }
    }

    /// Nobody may have an image of which the builder says nothing.
    pub(super) fn without_facts(revision: &str) -> Self {
        let mut verdict = Self::new(revision);
        verdict.refuse_mismatch("the builder did not say what is in it");
        verdict
    }

    /// Refuses the image whatever the rules say.
    pub(super) fn refuse_mismatch(&mut self, reason: &str) {
        self.is_mismatch = true;
        let finding = Finding::new(About::Contents, None, reason);
        self.refusals.push(finding);
    }

    /// Adds a finding by a rule of that mode, if there is one.
    pub(super) fn extend(&mut self, found: Option<(Mode, Finding)>) {
        match found {
            Some((Mode::Enforce, finding)) => self.refusals.push(finding),
            Some((Mode::Audit, finding)) => self.warnings.push(finding),
            None => {}
        }
    }

    /// The first rule that refuses or warns.
    pub fn rule(&self) -> Option<&str> {
        let mut findings = self.refusals.iter().chain(&self.warnings);
        findings.find_map(|finding| finding.rule.as_deref())
    }

    /// Whether the package, or everything, is refused.
    pub fn refuses(&self, package: &str) -> bool {
        let mut refused = self.refusals.iter().map(|finding| finding.about.name());
        refused.any(|refused| refused.is_none_or(|refused| refused == package))
    }

    /// Whether the caller may have the image.
    pub fn allows(&self) -> bool {
        self.refusals.is_empty()
    }

    /// The refusal for the caller. `decision` is its id in the audit log.
    pub fn error(&self, decision: &str) -> Option<Error> {
        if self.allows() {
            return None;
        }
        let mut message = format!("you may not have {}.", list(&self.refusals));
        let mut said = Vec::new();
        for advice in self
            .refusals
            .iter()
            .filter_map(|one| one.message.as_deref())
        {
            if !said.contains(&advice) {
                said.push(advice);
                message.push(' ');
                message.push_str(advice);
            }
        }
        message.push_str(&format!(" (decision {decision})"));
        let detail = json!({
            "decision": decision,
            "policy": self.revision,
            "refused": self.refusals.iter().map(Finding::json).collect::<Vec<_>>(),
        });
        Some(Error::new(ErrorKind::Denied, message).with_detail(detail))
    }

    /// The text of a `Warning: 299` (distribution spec, "Warnings"): what would be refused if the
    /// audited rules were enforced.
    pub fn warning(&self) -> Option<String> {
        let listed = (!self.warnings.is_empty()).then(|| list(&self.warnings))?;
        Some(format!(
            "will be refused when the policy is enforced: {listed}"
        ))
    }
}

fn list(findings: &[Finding]) -> String {
    let words: Vec<_> = findings.iter().map(Finding::words).collect();
    words.join(", ")
}
