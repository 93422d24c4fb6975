//! Policy: who may have which packages.
//!
//! ```text
//!   JSON ──► raw ──► Policy { rules, attributes, a GlobSet each: allow, deny,
//!                                        │       images, deny_images }
//!   Request (image, tag) ────────────────┤
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
//! **Opaque names** (`corp/ci-base`) are judged as one package is, by `images` and `deny_images`. What
//! is in such an image its administrator has decided, so that its packages need no rule that allows
//! them; they can be denied as any others, once the builder has said which they are.
//!
//! A package that is really called otherwise (an alias, `pname`) is denied under both names, and
//! allowed under the one that the caller wrote.
//!
//! One of the rules that let a caller in is its *grantor* ([`Policy::grantor`]): in whose turn the
//! builder builds for it. It decides nothing else.

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

use crate::distribution::Tag;
use crate::package_set;
use crate::{ImageName, OpaqueNamespaces, PackageSet};

#[cfg(any(test, feature = "test"))]
pub use claims::metadata;
pub use facts::{Contents, FactRules, ImageFacts};
pub use glob::{Glob, GlobError, Reach};
pub use raw::PolicyError;
pub(crate) use raw::RawPolicy;
use raw::outline::Patterns;
pub use raw::outline::{Outline, Pattern};
pub use rule::Mode;
pub use subject::{AddressRange, Attribute, ClaimKind, Identity, Known, Subject};
pub use verdict::{About, Finding, Verdict};

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
    images: GlobSet,
    deny_images: GlobSet,
    attributes: Vec<Attribute>,
    fact_rules: FactRules,
}

/// What a caller wants.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The image.
    pub image: &'a ImageName,
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

    /// Whether every pattern of opaque names can match one, where these namespaces are opaque.
    ///
    /// # Errors
    /// As [`Policy::parse`]; and a sentence that names a pattern which can't.
    pub fn check_images(json: &[u8], opaque: &OpaqueNamespaces) -> Result<(), PolicyError> {
        let raw: RawPolicy = serde_json::from_slice(json)?;
        raw.check_images(opaque)
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
            images: GlobSet::default(),
            deny_images: GlobSet::default(),
            attributes: Vec::new(),
            fact_rules: FactRules::default(),
        }
    }

    fn add(&mut self, rule: Rule, patterns: Patterns) {
        let index = self.rules.len();
        let Patterns {
            allow,
            deny,
            images,
            deny_images,
        } = patterns;
        for (filed, patterns) in [
            (&mut self.allow, allow),
            (&mut self.deny, deny),
            (&mut self.images, images),
            (&mut self.deny_images, deny_images),
        ] {
            for glob in patterns.into_iter().flat_map(|pattern| pattern.globs) {
                filed.insert(glob, index);
            }
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

    /// The rule that lets a caller in who may have an image: one that allows a package of it, or is
    /// audited and lets one through. Rather one with a subject, since what everybody has says nothing
    /// of who asks; then the one that is written first. None when no rule has to.
    ///
    /// It is not part of a verdict, since only what has to be built needs it.
    pub fn grantor(&self, request: &Request<'_>, identity: &Identity) -> Option<&str> {
        if self.default == Default::Allow {
            return None;
        }
        let tags = request.tag.map(|tag| BTreeSet::from([tag.clone()]));
        let asked = Asked {
            tags: tags.as_ref(),
            system: request.image.packages().and_then(PackageSet::system),
            written: request.written,
        };
        let applying = |index: usize| {
            let rule = self.rules.get(index)?;
            rule.applies_to(identity).then_some(rule)
        };
        let packages = request.image.packages().map(PackageSet::packages);
        let packages = packages
            .into_iter()
            .flatten()
            .filter(|package| !package_set::is_in_every_image(package))
            .map(|package| (package, &self.allow));
        let opaque = match request.image {
            ImageName::Packages(_) => None,
            ImageName::Opaque(name) => Some((name.as_str(), &self.images)),
        };
        let place = |index: usize, rule: &Rule| (rule.subject.is_none(), index);
        let first_of = |one: Option<(bool, usize)>, other| one.into_iter().chain(other).min();
        let mut first = None;
        for (name, allow) in packages.chain(opaque) {
            let mut granted = None;
            allow.each_match(name, |index| {
                let rule = applying(index).filter(|rule| rule.limits.broken_by(asked).is_none());
                granted = first_of(granted, rule.map(|rule| place(index, rule)));
            });
            let mut audited = self.audited.iter();
            let audited = || audited.find_map(|&index| Some(place(index, applying(index)?)));
            first = first_of(first, granted.or_else(audited));
        }
        let rule = self.rules.get(first?.1)?;
        Some(&rule.name)
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
        let named = request.image.packages();
        let asked = Asked {
            tags: tag.as_ref().or_else(|| image.map(|image| &image.tags)),
            system: named
                .and_then(PackageSet::system)
                .or_else(|| image.map(|image| image.system)),
            written: request.written,
        };
        let mut verdict = Verdict::new(&self.revision);
        let deny = |package: &str| {
            let alias = image.and_then(|image| image.names.get(package));
            let (rule, name) = denied(&self.deny, package, alias, applying)?;
            let finding = Finding::denied(About::package(package), name, rule);
            Some((rule.mode, finding))
        };
        match request.image {
            ImageName::Packages(packages) => {
                for package in packages.packages() {
                    let found = deny(package).or_else(|| {
                        let needs_rule = !package_set::is_in_every_image(package);
                        let about = || About::package(package);
                        needs_rule
                            .then(|| self.not_allowed(&self.allow, package, about, asked, applying))
                            .flatten()
                    });
                    if let Some((mode, finding)) = found {
                        verdict.add(mode, finding);
                    }
                }
            }
            ImageName::Opaque(name) => {
                let name = name.as_str();
                let about = || About::Image(name.to_owned());
                let found = match denied(&self.deny_images, name, None, applying) {
                    Some((rule, _)) => Some((rule.mode, Finding::denied(about(), name, rule))),
                    None => self.not_allowed(&self.images, name, about, asked, applying),
                };
                let contents = image.into_iter().flat_map(|image| &image.packages);
                let denied = contents.flatten().filter_map(|package| deny(package));
                for (mode, finding) in found.into_iter().chain(denied) {
                    verdict.add(mode, finding);
                }
            }
        }
        if let Some(image) = image {
            if image.packages.is_some() == named.is_some() {
                verdict.misfit(
                    "edge and builder do not agree on whether it is a list of packages: the \
                     builder's recipes and opaque_namespaces differ",
                );
            }
            for name in &image.matched {
                let mut rules = self.rules.iter();
                let rule = rules.find(|rule| rule.facts.as_ref() == Some(name));
                if let Some(rule) = rule.filter(|rule| rule.applies_to(identity)) {
                    verdict.add(rule.mode, Finding::facts(rule));
                }
            }
        }
        verdict
    }

    /// What stands against something that no rule denies: that none allows it either.
    fn not_allowed<'a>(
        &'a self,
        allow: &GlobSet,
        name: &str,
        about: impl FnOnce() -> About,
        asked: Asked<'_>,
        applying: impl Fn(usize) -> Option<&'a Rule>,
    ) -> Option<(Mode, Finding)> {
        if self.default == Default::Allow {
            return None;
        }
        let (mut granted, mut limited) = (false, None);
        allow.each_match(name, |index| {
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
            return None;
        }
        let auditor = self.audited.iter().find_map(|&index| applying(index));
        let mode = auditor.map_or(Mode::Enforce, |_| Mode::Audit);
        let finding = match (limited, auditor) {
            (Some((rule, limit)), _) => Finding::limited(about(), rule, &limit),
            (None, Some(rule)) => Finding::new(about(), Some(rule), "not allowed by the rule"),
            (None, None) => Finding::new(about(), None, "allowed by no rule for you"),
        };
        Some((mode, finding))
    }
}

/// The rule that denies something, and under which of its names. An enforced rule counts before an
/// audited one, then the first that is written.
fn denied<'a, 'b>(
    deny: &GlobSet,
    name: &'b str,
    alias: Option<&'b String>,
    applying: impl Fn(usize) -> Option<&'a Rule>,
) -> Option<(&'a Rule, &'b str)> {
    let mut denied: Option<(bool, usize, &Rule, &str)> = None;
    for name in [Some(name), alias.map(String::as_str)]
        .into_iter()
        .flatten()
    {
        deny.each_match(name, |index| {
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

#[cfg(test)]
mod tests;
