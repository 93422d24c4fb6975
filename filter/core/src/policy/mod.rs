//! Policy: who may have which packages.
//!
//! ```text
//!   JSON ──► raw ──► Policy { rules, allow: GlobSet, deny: GlobSet, attributes }
//!                                        │
//!   Request (packages, tag, system) ─────┤
//!   Identity (what Envoy knows) ─────────┼──► Policy::judge ──► Verdict: allowed, warned, refused
//!   Facts (what the builder found) ──────┘
//! ```
//!
//! **All rules whose subject is the caller apply, in no order.** A person belongs to several
//! teams, and what one team may have another can't take away by standing first; moving a rule
//! changes nothing, so that a diff of a policy shows all that it does. What any rule denies is
//! denied: deny beats allow. For each package of an image:
//!
//! | | |
//! | --- | --- |
//! | some enforced rule denies it | refused |
//! | some audited rule denies it | let through, with a warning |
//! | some rule allows it, and the rule's limits (tags, systems, `max_packages`) hold | allowed |
//! | an audited rule applies to the caller | let through, with a warning |
//! | otherwise | the policy's `default` |
//!
//! The packages are those of the canonical name: meta-packages written out, so that none hides
//! another. `cacert` and `iana-etc`, which every image has, need no rule that allows them.
//!
//! Neither the edge nor the builder asks for a verdict yet: no configuration takes a policy.

mod glob;
mod glob_set;
mod raw;
mod rule;
mod subject;
mod verdict;

use std::collections::BTreeSet;

use crate::PackageSet;
use crate::distribution::Tag;
use crate::package_set::{self, System};

pub use glob::{Glob, GlobError, Reach};
pub use raw::PolicyError;
pub use rule::{Facts, Mode};
pub use subject::{Attribute, ClaimKind, Identity, Known};
pub use verdict::{Finding, Verdict};

use glob_set::GlobSet;
use rule::{Asked, Rule};

/// What becomes of a package that no rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// It may be had.
    Allow,
    /// It may not.
    Deny,
}

/// A policy, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    revision: String,
    default: Default,
    hide: bool,
    rules: Vec<Rule>,
    /// Patterns with the index of their rule.
    allow: GlobSet,
    deny: GlobSet,
    attributes: Vec<Attribute>,
}

/// What a caller wants.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The image.
    pub packages: &'a PackageSet,
    /// How many different packages the caller wrote, a meta-package counting as one.
    pub written: usize,
    /// The tags under which the image is asked for: one, or, by digest, those that lead to it.
    pub tags: &'a [Tag],
    /// The platform; none while the builder has not said which one a name without platform means.
    pub system: Option<System>,
}

impl Policy {
    /// Compiles a policy from JSON.
    ///
    /// # Errors
    /// A sentence that names the rule and the key at fault.
    pub fn parse(json: &[u8]) -> Result<Self, PolicyError> {
        let raw: raw::RawPolicy = serde_json::from_slice(json)?;
        raw.compile()
    }

    const fn new(revision: String, default: Default, hide: bool) -> Self {
        Self {
            revision,
            default,
            hide,
            rules: Vec::new(),
            allow: GlobSet::new(),
            deny: GlobSet::new(),
            attributes: Vec::new(),
        }
    }

    fn add(&mut self, rule: Rule, allow: Vec<Glob>, deny: Vec<Glob>) {
        let index = self.rules.len();
        for glob in allow {
            self.allow.insert(glob, index);
        }
        for glob in deny {
            self.deny.insert(glob, index);
        }
        self.rules.push(rule);
    }

    /// The revision that the author gave it.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether a refusal is to look like an unknown image.
    pub const fn hides(&self) -> bool {
        self.hide
    }

    /// What has to be known of a caller, in the order of an [`Identity`].
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// Judges a request. `matched` are the names of the rules whose facts the builder found true;
    /// they are not known before the builder was asked.
    pub fn judge(
        &self,
        request: &Request<'_>,
        identity: &Identity,
        matched: &BTreeSet<String>,
    ) -> Verdict {
        let applies: Vec<bool> = self
            .rules
            .iter()
            .map(|rule| rule.applies_to(identity))
            .collect();
        let applying = |index: usize| {
            let rule = self.rules.get(index)?;
            applies.get(index).copied().unwrap_or(false).then_some(rule)
        };
        let auditor = (0..self.rules.len())
            .filter_map(applying)
            .find(|rule| rule.mode == Mode::Audit);
        let asked = Asked {
            tags: request.tags,
            system: request.system,
            written: request.written,
        };
        let mut verdict = Verdict::new(&self.revision);
        for package in request.packages.packages() {
            let mut denied: Option<&Rule> = None;
            self.deny.each_match(package, |index| {
                if let Some(rule) = applying(index) {
                    // An enforced rule counts before an audited one, then the first written.
                    let better = denied.is_none_or(|other| {
                        other.mode == Mode::Audit && rule.mode == Mode::Enforce
                    });
                    if better {
                        denied = Some(rule);
                    }
                }
            });
            if let Some(rule) = denied {
                verdict.add(
                    rule.mode,
                    Finding::new(package, Some(rule), "denied by the rule"),
                );
                continue;
            }
            if self.default == Default::Allow || package_set::is_in_every_image(package) {
                continue;
            }
            let (mut granted, mut limited) = (false, None);
            self.allow.each_match(package, |index| {
                if let Some(rule) = applying(index).filter(|_| !granted) {
                    match rule.limits.broken_by(asked) {
                        None => granted = true,
                        Some(limit) => limited = limited.take().or(Some((rule, limit))),
                    }
                }
            });
            if granted {
                continue;
            }
            let mode = auditor.map_or(Mode::Enforce, |_| Mode::Audit);
            let finding = match (limited, auditor) {
                (Some((rule, limit)), _) => Finding::limited(package, rule, &limit),
                (None, Some(rule)) => Finding::new(package, Some(rule), "not allowed by the rule"),
                (None, None) => Finding::new(package, None, "allowed by no rule for you"),
            };
            verdict.add(mode, finding);
        }
        for rule in (0..self.rules.len()).filter_map(applying) {
            if rule.facts.is_some() && matched.contains(&rule.name) {
                verdict.add(rule.mode, Finding::facts(rule));
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests;
