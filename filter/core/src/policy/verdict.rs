//! What a policy says of a request, and how the caller is told.

use serde_json::{Value, json};

use super::rule::{Mode, Rule};
use crate::distribution::{Error, ErrorKind};

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A package.
    Package(String),
    /// The image with this opaque name.
    Image(String),
    /// What is in the image, whatever it is called.
    Contents,
}

impl About {
    pub(super) fn package(name: &str) -> Self {
        Self::Package(name.to_owned())
    }

    pub(super) fn image(name: &str) -> Self {
        Self::Image(name.to_owned())
    }

    /// The name; none for what has none.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Package(name) | Self::Image(name) => Some(name),
            Self::Contents => None,
        }
    }
}

/// A rule that refuses a caller something.
#[derive(Clone, Copy)]
pub(super) struct Refusing<'p> {
    pub(super) rule: &'p Rule,
    /// It is not known whether it is for the caller, so it counts as if it were.
    pub(super) is_doubtful: bool,
}

/// What stands against a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is not to be had.
    pub about: About,
    /// The rule; none when no rule speaks for it.
    pub rule: Option<String>,
    /// What is wrong, in words that follow the name.
    pub reason: String,
    /// What the rule's author has to say about it.
    pub message: Option<String>,
}

impl Finding {
    pub(super) fn new(about: About, rule: Option<&Rule>, reason: &str) -> Self {
        Self {
            about,
            rule: rule.map(|rule| rule.name.clone()),
            reason: rule.map_or_else(
                || reason.to_owned(),
                |rule| format!("{reason} {}", rule.name),
            ),
            message: rule.and_then(|rule| rule.message.clone()),
        }
    }

    /// Denied under the name that was written, or under the one that it really has.
    pub(super) fn denied(about: About, name: &str, refusing: Refusing<'_>) -> Self {
        let is_other = about.name() != Some(name);
        let mut finding = Self::refused(about, refusing, "denied by the rule");
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

    pub(super) fn facts(refusing: Refusing<'_>) -> Self {
        let reason = "refused for what is in it by the rule";
        Self::refused(About::Contents, refusing, reason)
    }

    fn refused(about: About, refusing: Refusing<'_>, reason: &str) -> Self {
        let mut finding = Self::new(about, Some(refusing.rule), reason);
        if refusing.is_doubtful {
            finding
                .reason
                .push_str("; whether it is for you is not known");
        }
        finding
    }

    fn words(&self) -> String {
        let what = self.about.name().unwrap_or("this image");
        format!("{what} ({})", self.reason)
    }

    fn json(&self) -> Value {
        let Self {
            about,
            rule,
            reason,
            ..
        } = self;
        match about {
            About::Image(image) => json!({ "image": image, "rule": rule, "reason": reason }),
            about => json!({ "package": about.name(), "rule": rule, "reason": reason }),
        }
    }
}

/// The outcome for one request, by one revision of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    revision: String,
    /// Why it is refused; empty when it is not.
    pub refusals: Vec<Finding>,
    /// What audited rules would have refused.
    pub warnings: Vec<Finding>,
    /// It is no word of the policy's: edge and builder don't fit each other.
    pub is_misfit: bool,
    /// A rule that speaks of what was asked for has a subject that can't be known of the caller.
    pub is_doubtful: bool,
}

impl Verdict {
    pub(super) fn new(revision: &str) -> Self {
        Self {
            revision: revision.to_owned(),
            refusals: Vec::new(),
            warnings: Vec::new(),
            is_misfit: false,
            is_doubtful: false,
        }
    }

    /// Nothing that can be judged is known of the image, so nobody may have it.
    pub(super) fn without_facts(revision: &str) -> Self {
        let mut verdict = Self::new(revision);
        verdict.misfit("the builder did not say what is in it");
        verdict
    }

    /// Refuses the image whatever the rules say.
    pub(super) fn misfit(&mut self, reason: &str) {
        self.is_misfit = true;
        let finding = Finding::new(About::Contents, None, reason);
        self.refusals.push(finding);
    }

    /// Adds what was found, if something was, by a rule of that mode.
    pub(super) fn extend(&mut self, found: Option<(Mode, Finding)>) {
        match found {
            Some((Mode::Enforce, finding)) => self.refusals.push(finding),
            Some((Mode::Audit, finding)) => self.warnings.push(finding),
            None => {}
        }
    }

    /// The rule that decided against the request, or would.
    pub fn rule(&self) -> Option<&str> {
        let mut findings = self.refusals.iter().chain(&self.warnings);
        findings.find_map(|finding| finding.rule.as_deref())
    }

    /// Whether the package is among what is refused, or everything is.
    pub fn refuses(&self, package: &str) -> bool {
        let mut refused = self.refusals.iter().map(|finding| finding.about.name());
        refused.any(|refused| refused.is_none_or(|refused| refused == package))
    }

    /// Whether the caller may have the image.
    pub fn allows(&self) -> bool {
        self.refusals.is_empty()
    }

    /// The refusal for the caller, who quotes `decision`, the id in the audit log, when asking why.
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

    /// The text of a `Warning: 299` (distribution spec, "Warnings"), when there is one: what would
    /// be refused if the audited rules were enforced.
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
