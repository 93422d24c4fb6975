//! The rules of a policy as their author wrote them, for those who ask what a policy means.
//!
//! A [`Policy`](super::super::Policy) answers as fast as it can, and keeps no more of a pattern than
//! that takes. Whoever explains, checks or expands one wants to name the pattern at fault.

use std::collections::BTreeSet;

use super::super::Request;
use super::super::glob::{Glob, Reach};
use super::super::rule::{Asked, Limits, Mode};
use super::super::subject::{Attribute, Identity, Subject};
use super::{PolicyError, RawMode, RawPolicy, RawRule, patterns, systems, tags};
use crate::distribution::Tag;
use crate::package_set::System;

/// A pattern of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// As it is written.
    pub text: String,
    /// What it stands for: several when it has braces, or is a meta-package.
    pub globs: Vec<Glob>,
}

impl Pattern {
    /// Whether it means a package.
    pub fn matches(&self, package: &str) -> bool {
        self.globs.iter().any(|glob| glob.matches(package))
    }
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
    /// What it allows.
    pub allow: Vec<Pattern>,
    /// What it denies.
    pub deny: Vec<Pattern>,
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
            system: request.packages.system(),
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
        let each = |texts: &[String], reach: Reach, key: &str| {
            let pattern = |text: &String| {
                Ok(Pattern {
                    globs: patterns(std::slice::from_ref(text), reach, &at(key))?,
                    text: text.clone(),
                })
            };
            texts
                .iter()
                .map(pattern)
                .collect::<Result<_, PolicyError>>()
        };
        Ok(Outline {
            allow: each(&self.allow, Reach::OneAttribute, "allow")?,
            deny: each(&self.deny, Reach::Anything, "deny")?,
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
