//! The rules of a policy as their author wrote them, for those who ask what a policy means.
//!
//! A [`Policy`](super::super::Policy) answers as fast as it can, and keeps no more of a pattern than
//! that takes. Whoever explains, checks or expands one wants to name the pattern at fault.

use std::collections::BTreeSet;

use super::super::Request;
use super::super::glob::Glob;
use super::super::rule::{Asked, Limits, Mode};
use super::super::subject::{Attribute, Identity, Subject};
use super::{PolicyError, RawMode, RawPolicy, RawRule, systems, tags};
use crate::PackageSet;
use crate::distribution::Tag;
use crate::package_set::System;

/// A pattern of packages or of opaque names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// As it is written.
    pub text: String,
    /// What it stands for: several when it has braces, or is a meta-package.
    pub globs: Vec<Glob>,
}

impl Pattern {
    /// Whether it means the package or the opaque name.
    pub fn matches(&self, name: &str) -> bool {
        self.globs.iter().any(|glob| glob.matches(name))
    }
}

/// All patterns of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Patterns {
    pub(in super::super) allow: Vec<Pattern>,
    pub(in super::super) deny: Vec<Pattern>,
    pub(in super::super) images: Vec<Pattern>,
    pub(in super::super) deny_images: Vec<Pattern>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// Whom it is for, by the attributes of the policy; none for everybody.
    pub subject: Option<Subject>,
    /// Whether its refusals count.
    pub mode: Mode,
    /// The packages that it allows.
    pub allow: Vec<Pattern>,
    /// The packages that it denies.
    pub deny: Vec<Pattern>,
    /// The opaque names that it allows.
    pub images: Vec<Pattern>,
    /// The opaque names that it denies.
    pub deny_images: Vec<Pattern>,
    /// What an image must not have, as JSON.
    pub facts: Option<String>,
    limits: Limits,
}

impl Outline {
    /// Whether it is for the caller; none when that can't be known.
    pub fn applies_to(&self, identity: &Identity) -> Option<bool> {
        self.subject
            .as_ref()
            .map_or(Some(true), |subject| subject.holds(identity))
    }

    /// Which limit keeps the rule from allowing a request, in words that follow "allows it".
    pub fn broken_limit(&self, request: &Request<'_>) -> Option<String> {
        let tags = request.tag.map(|tag| BTreeSet::from([tag.clone()]));
        self.limits.broken_by(Asked {
            tags: tags.as_ref(),
            system: request.image.packages().and_then(PackageSet::system),
            written: request.written,
        })
    }

    /// The tags that it allows.
    pub fn tags(&self) -> &[Tag] {
        &self.limits.tags
    }

    /// The platforms that it allows; none for every one.
    pub const fn systems(&self) -> Option<&BTreeSet<System>> {
        self.limits.systems.as_ref()
    }

    /// How many packages an image may have.
    pub const fn max_packages(&self) -> Option<usize> {
        self.limits.max_packages
    }

    /// Whether another rule does the same for the same callers, whatever it is called.
    pub fn does_the_same(&self, other: &Self) -> bool {
        let globs = |patterns: &[Pattern]| -> BTreeSet<String> {
            let globs = patterns.iter().flat_map(|pattern| &pattern.globs);
            globs.map(Glob::to_string).collect()
        };
        self.subject == other.subject
            && self.mode == other.mode
            && self.limits == other.limits
            && self.facts == other.facts
            && globs(&self.allow) == globs(&other.allow)
            && globs(&self.deny) == globs(&other.deny)
            && globs(&self.images) == globs(&other.images)
            && globs(&self.deny_images) == globs(&other.deny_images)
    }
}

impl RawPolicy {
    pub(in super::super) fn outline(self) -> Result<Vec<Outline>, PolicyError> {
        // Filled in the order in which compiling does, so that indexes mean the same.
        let mut attributes = Vec::new();
        let rules = self.rules.into_iter();
        rules.map(|rule| rule.outline(&mut attributes)).collect()
    }
}

impl RawRule {
    fn outline(self, attributes: &mut Vec<Attribute>) -> Result<Outline, PolicyError> {
        let at = |key: &str| format!("the rule {}: {key}", self.name);
        let Patterns {
            allow,
            deny,
            images,
            deny_images,
        } = self.patterns()?;
        Ok(Outline {
            allow,
            deny,
            images,
            deny_images,
            limits: Limits {
                tags: tags(self.tags, &at("tags"))?,
                systems: systems(self.systems, &at("systems"))?,
                max_packages: self.max_packages,
            },
            subject: self
                .subject
                .map(|subject| subject.compile(attributes, &at("subject")))
                .transpose()?,
            mode: match self.mode {
                RawMode::Enforce => Mode::Enforce,
                RawMode::Audit => Mode::Audit,
            },
            facts: self
                .facts
                .map(|facts| serde_json::to_string(&facts))
                .transpose()?,
            name: self.name,
        })
    }
}
