//! Policy: who may have which packages.
//!
//! ```text
//!   JSON ──► raw ──► Policy { rules, allow: GlobSet, deny: GlobSet, attributes }
//!                                        │
//!   Request (packages, tag) ─────────────┤
//!   Identity (what Envoy knows) ─────────┼──► Policy::judge ──► Verdict: allowed, warned, refused
//!   ImageFacts (what the builder found) ─┘
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
//! A package that is really called otherwise (an alias, `pname`) is denied under both names, and
//! allowed under the one that the caller wrote.

mod claims;
mod facts;
mod glob;
mod glob_set;
mod known;
mod raw;
mod rule;
mod subject;
mod verdict;

use std::collections::BTreeSet;

use crate::PackageSet;
use crate::distribution::Tag;
use crate::package_set;

#[cfg(any(test, feature = "test"))]
pub use claims::metadata;
pub use facts::{Contents, FactRules, ImageFacts};
pub use glob::{Glob, GlobError, Reach};
pub use raw::PolicyError;
pub(crate) use raw::RawPolicy;
pub use raw::outline::{Outline, Pattern};
pub use rule::Mode;
pub use subject::{AddressRange, Attribute, ClaimKind, Identity, Known, Subject};
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
    /// Which rules are on audit.
    audited: Vec<usize>,
    /// Patterns with the index of their rule.
    allow: GlobSet,
    deny: GlobSet,
    attributes: Vec<Attribute>,
    fact_rules: FactRules,
}

/// What a caller wants.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The image.
    pub packages: &'a PackageSet,
    /// How many different packages the caller wrote, a meta-package counting as one.
    pub written: usize,
    /// The tag under which the image is asked for; none by digest, and for a list of tags.
    pub tag: Option<&'a Tag>,
}

impl Policy {
    /// Compiles a policy from JSON.
    ///
    /// # Errors
    /// A sentence that names the rule and the key at fault.
    pub fn parse(json: &[u8]) -> Result<Self, PolicyError> {
        let raw: RawPolicy = serde_json::from_slice(json)?;
        raw.compile("")
    }

    /// The rules as they were written, for tools that explain a policy: patterns with their texts,
    /// which what is compiled for speed has no use for.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn outline(json: &[u8]) -> Result<Vec<Outline>, PolicyError> {
        let raw: RawPolicy = serde_json::from_slice(json)?;
        raw.outline()
    }

    fn new(revision: String, default: Default, hide: bool) -> Self {
        Self {
            revision,
            default,
            hide,
            rules: Vec::new(),
            audited: Vec::new(),
            allow: GlobSet::default(),
            deny: GlobSet::default(),
            attributes: Vec::new(),
            fact_rules: FactRules::default(),
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
        if rule.mode == Mode::Audit {
            self.audited.push(index);
        }
        self.rules.push(rule);
    }

    /// The revision that the author gave it.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// What becomes of a package that no rule speaks of.
    pub const fn default_is(&self) -> Default {
        self.default
    }

    /// Whether a refusal is to look like an unknown image.
    pub const fn hides(&self) -> bool {
        self.hide
    }

    /// What has to be known of a caller, in the order of an [`Identity`].
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// What the builder has to judge.
    pub const fn fact_rules(&self) -> &FactRules {
        &self.fact_rules
    }

    /// Judges a request by what its name says, before the builder was asked. What this refuses, no
    /// facts can allow.
    pub fn judge_name(&self, request: &Request<'_>, identity: &Identity) -> Verdict {
        self.judge(request, identity, None)
    }

    /// Judges a request by the facts of the images that an answer belongs to. It is enough that
    /// the caller may have one of them: a blob that two images share is no secret of either.
    pub fn judge_images(
        &self,
        request: &Request<'_>,
        identity: &Identity,
        images: &[ImageFacts],
    ) -> Verdict {
        let verdicts = images
            .iter()
            .map(|image| self.judge(request, identity, Some(image)));
        let best = verdicts.min_by_key(|verdict| (verdict.refusals.len(), verdict.warnings.len()));
        // Without any facts, there is nothing that could be allowed by them.
        best.unwrap_or_else(|| Verdict::without_facts(&self.revision))
    }

    fn judge(
        &self,
        request: &Request<'_>,
        identity: &Identity,
        image: Option<&ImageFacts>,
    ) -> Verdict {
        let applying = |index: usize| {
            let rule = self.rules.get(index)?;
            rule.applies_to(identity).then_some(rule)
        };
        let tag = request.tag.map(|tag| BTreeSet::from([tag.clone()]));
        let asked = Asked {
            tags: tag.as_ref().or_else(|| image.map(|image| &image.tags)),
            system: request
                .packages
                .system()
                .or_else(|| image.map(|image| image.system)),
            written: request.written,
        };
        let mut verdict = Verdict::new(&self.revision);
        for package in request.packages.packages() {
            let alias = image.and_then(|image| image.names.get(package));
            if let Some((rule, name)) = self.denied(package, alias, applying) {
                verdict.add(rule.mode, Finding::denied(package, name, rule));
                continue;
            }
            if self.default == Default::Allow || package_set::is_in_every_image(package) {
                continue;
            }
            let (mut granted, mut limited) = (false, None);
            self.allow.each_match(package, |index| {
                if granted {
                    return;
                }
                if let Some(rule) = applying(index) {
                    match rule.limits.broken_by(asked) {
                        None => granted = true,
                        Some(limit) => limited = limited.take().or(Some((rule, limit))),
                    }
                }
            });
            if granted {
                continue;
            }
            let auditor = self.audited.iter().find_map(|&index| applying(index));
            let mode = auditor.map_or(Mode::Enforce, |_| Mode::Audit);
            let finding = match (limited, auditor) {
                (Some((rule, limit)), _) => Finding::limited(package, rule, &limit),
                (None, Some(rule)) => Finding::new(package, Some(rule), "not allowed by the rule"),
                (None, None) => Finding::new(package, None, "allowed by no rule for you"),
            };
            verdict.add(mode, finding);
        }
        for name in image.into_iter().flat_map(|image| &image.matched) {
            let mut rules = self.rules.iter();
            let rule = rules.find(|rule| rule.facts.as_ref() == Some(name));
            if let Some(rule) = rule.filter(|rule| rule.applies_to(identity)) {
                verdict.add(rule.mode, Finding::facts(rule));
            }
        }
        verdict
    }

    /// The rule that denies a package, and under which of its names. An enforced rule counts before
    /// an audited one, then the first that is written.
    fn denied<'a>(
        &'a self,
        package: &'a str,
        alias: Option<&'a String>,
        applying: impl Fn(usize) -> Option<&'a Rule>,
    ) -> Option<(&'a Rule, &'a str)> {
        let mut denied: Option<(bool, usize, &Rule, &str)> = None;
        for name in [Some(package), alias.map(String::as_str)]
            .into_iter()
            .flatten()
        {
            self.deny.each_match(name, |index| {
                if let Some(rule) = applying(index) {
                    let found = (rule.mode == Mode::Audit, index, rule, name);
                    if denied.is_none_or(|first| (found.0, found.1) < (first.0, first.1)) {
                        denied = Some(found);
                    }
                }
            });
        }
        denied.map(|(_, _, rule, name)| (rule, name))
    }
}

#[cfg(test)]
mod tests;
