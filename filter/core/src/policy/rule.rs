//! One rule, compiled.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::glob::Glob;
use super::subject::{Identity, Subject};
use super::{ImageFacts, Request};
use crate::PackageSet;
use crate::distribution::Tag;
use crate::package_set::System;

/// Whether a rule refuses or warns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It refuses.
    #[default]
    Enforce,
    /// It warns of what it would refuse.
    Audit,
}

/// The kind of names that a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A package: `allow` and `deny`.
    Package,
    /// An opaque name: `images` and `deny_images`.
    Image,
}

/// A pattern of packages or of opaque names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// As its author wrote it.
    pub text: Box<str>,
    /// Its expansion: several when it has braces or is a meta-package.
    pub globs: Vec<Glob>,
}

impl Pattern {
    /// Whether the package or the opaque name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.globs.iter().any(|glob| glob.matches(name))
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique in the policy.
    pub name: String,
    /// Whom it is for, by the attributes of the policy; none for everybody.
    pub subject: Option<Subject>,
    /// Whether it refuses or warns.
    pub mode: Mode,
    /// The packages that it allows.
    pub allow: Vec<Pattern>,
    /// The packages that it denies.
    pub deny: Vec<Pattern>,
    /// The opaque names that it allows.
    pub images: Vec<Pattern>,
    /// The opaque names that it denies.
    pub deny_images: Vec<Pattern>,
    /// The name under which the builder checks its facts, if it has any.
    pub facts: Option<String>,
    /// Within which it allows. It denies without limits.
    pub limits: Limits,
    pub(super) message: Option<String>,
}

impl Rule {
    /// Whether it is for the caller; none when that is unknown.
    pub fn is_for(&self, identity: &Identity) -> Option<bool> {
        let subject = self.subject.as_ref();
        subject.map_or(Some(true), |subject| subject.holds(identity))
    }

    /// Its lists of patterns by their keys.
    pub fn patterns(&self) -> [(&'static str, &[Pattern]); 4] {
        [
            ("allow", &self.allow),
            ("deny", &self.deny),
            ("images", &self.images),
            ("deny_images", &self.deny_images),
        ]
    }

    /// The patterns that allow something of this kind.
    pub fn allowing(&self, kind: Kind) -> &[Pattern] {
        match kind {
            Kind::Package => &self.allow,
            Kind::Image => &self.images,
        }
    }

    /// The patterns that deny something of this kind.
    pub fn denying(&self, kind: Kind) -> &[Pattern] {
        match kind {
            Kind::Package => &self.deny,
            Kind::Image => &self.deny_images,
        }
    }
}

/// The limits of what a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The tags under which it allows.
    pub tags: Vec<Tag>,
    /// The platforms for which it allows; none for every platform.
    pub systems: Option<BTreeSet<System>>,
    /// In images of how many packages it allows.
    pub max_packages: Option<usize>,
}

impl Limits {
    /// The limit that a request exceeds, in words that follow "allows it". Tags and the platform that
    /// the request does not name are those of the facts; without facts they are within the limits.
    pub(super) fn exceeded_by(
        &self,
        request: &Request<'_>,
        facts: Option<&ImageFacts>,
    ) -> Option<String> {
        let fits = match (request.tag, facts) {
            (Some(tag), _) => self.tags.contains(tag),
            (None, Some(facts)) => facts.tags.iter().any(|tag| self.tags.contains(tag)),
            (None, None) => true,
        };
        if !fits {
            let tags: Vec<&str> = self.tags.iter().map(Tag::as_str).collect();
            return Some(format!("only for the tag {}", tags.join(", ")));
        }
        let system = request.image.packages().and_then(PackageSet::system);
        let system = system.or_else(|| facts.map(|facts| facts.system));
        if let (Some(systems), Some(system)) = (&self.systems, system)
            && !systems.contains(&system)
        {
            let systems: Vec<&str> = systems.iter().map(|system| system.nix()).collect();
            return Some(format!("only for {}", systems.join(", ")));
        }
        let (most, written) = (self.max_packages?, request.written);
        (written > most)
            .then(|| format!("in images of at most {most} packages; this name has {written}"))
    }
}
