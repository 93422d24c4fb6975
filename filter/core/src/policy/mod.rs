//! Policy: who may have which packages.
//!
//! ```text
//!   JSON ──► raw ──► Policy { rules, attributes, and a GlobSet each of what all rules allow, deny,
//!                                      │        images, deny_images }
//!   Request (image, tag) ──────────────┤
//!   Identity (from Envoy) ─────────────┼──► judge    ──► Verdict: allowed, warned, refused
//!   ImageFacts (from the builder) ─────┘    reasons  ──► why, for each package
//! ```
//!
//! **All rules whose subject is the caller apply, in no order.** A person belongs to several
//! teams, and no team may take away what another has by standing first. Moving a rule changes
//! nothing, so a diff of a policy shows its whole effect. Deny beats allow. For each package of an
//! image:
//!
//! | | |
//! | --- | --- |
//! | some enforced rule denies it | refused |
//! | some audited rule denies it | let through, with a warning |
//! | some rule allows it, and the rule's limits (tags, systems, `max_packages`) hold | allowed |
//! | an audited rule applies to the caller | let through, with a warning |
//! | otherwise | the policy's `default` |
//!
//! The packages are those of the canonical name, which expands meta-packages: none hides another.
//! `cacert` and `iana-etc`, which every image has, need no rule that allows them.
//!
//! **Opaque names** (`corp/ci-base`) are judged as one package is, by `images` and `deny_images`. An
//! administrator has chosen the packages of such an image, so they need no rule that allows them.
//! Rules can deny them once the builder has listed them.
//!
//! A package is denied under each of its names: the one that the caller wrote, its real one (`pname`), and those
//! under which the package set has it besides ([`DeniedNames`]). It is allowed under the one that the caller wrote.
//!
//! **The unknown refuses.** A rule that may be for the caller, or may not, denies and does not allow
//! (`subject.rs`).
//!
//! One of the rules that let a caller in is its *grantor* ([`Policy::grantor`]). The builder takes
//! grantors in turn; it decides nothing else.
//!
//! The compiled rules also keep what their author wrote. The commands that check and explain a
//! policy, and build ahead what it allows, read them.

mod claims;
mod denied;
mod facts;
mod glob;
mod glob_set;
mod judging;
mod known;
mod raw;
mod rule;
mod subject;
mod verdict;

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::distribution::Tag;
use crate::{ImageName, OpaqueNamespaces};

#[cfg(any(test, feature = "test"))]
pub use claims::metadata;
pub use denied::{DeniedNames, DeniedPatterns};
pub use facts::{Contents, FactRules, ImageFacts};
pub use glob::{Glob, Reach};
pub use judging::{Effect, Reasons};
pub use raw::PolicyError;
pub(crate) use raw::RawPolicy;
pub use rule::{Kind, Limits, Mode, Pattern, Rule};
pub use subject::{
    AddressRange, Attribute, ClaimKind, Condition, Identity, Known, Subject, Values,
};
pub use verdict::{About, Finding, Verdict};

use glob_set::GlobSet;
use judging::Judging;
use raw::namespace_of;

/// The decision on a package that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DefaultDecision {
    /// Callers may have it.
    Allow,
    /// Callers may not have it.
    Deny,
}

/// A policy, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    revision: String,
    default: DefaultDecision,
    hide: bool,
    rules: Vec<Rule>,
    /// Indexes of the audited rules.
    audited: Vec<usize>,
    /// The rules' globs with the indexes of their rules.
    allow: GlobSet,
    deny: GlobSet,
    images: GlobSet,
    deny_images: GlobSet,
    attributes: Vec<Attribute>,
    fact_rules: FactRules,
}

/// A request for an image.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The image.
    pub image: &'a ImageName,
    /// The number of different packages that the caller wrote; a meta-package counts as one.
    pub written: usize,
    /// The tag; none in requests by digest and for a list of tags.
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

    const fn allowing(&self, kind: Kind) -> &GlobSet {
        match kind {
            Kind::Package => &self.allow,
            Kind::Image => &self.images,
        }
    }

    /// Checks that every pattern of opaque names can match one where these namespaces are opaque.
    ///
    /// # Errors
    /// A sentence that names a pattern which can't.
    pub fn check_images(&self, opaque: &OpaqueNamespaces) -> Result<(), PolicyError> {
        for rule in &self.rules {
            for (key, patterns) in [("images", &rule.images), ("deny_images", &rule.deny_images)] {
                let mut globs = patterns.iter().flat_map(|pattern| &pattern.globs);
                let unknown = |namespace: &str| !opaque.contains(namespace);
                let lost = globs.find(|glob| namespace_of(glob).is_some_and(unknown));
                if let Some(glob) = lost {
                    return Err(PolicyError(format!(
                        "the rule {}: {key}: \"{glob}\" is in no opaque namespace: list the \
                         namespaces of the builder's recipes in opaque_namespaces",
                        rule.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// The rules, in the order in which they are written.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether two rules do the same for the same callers, whatever their names are.
    pub fn do_the_same(&self, one: &Rule, other: &Rule) -> bool {
        let globs = |rule: &Rule| {
            rule.patterns().map(|(_, patterns)| -> BTreeSet<String> {
                let globs = patterns.iter().flat_map(|pattern| &pattern.globs);
                globs.map(ToString::to_string).collect()
            })
        };
        one.subject == other.subject
            && one.mode == other.mode
            && one.limits == other.limits
            && self
                .fact_rules
                .are_equal(one.facts.as_ref(), other.facts.as_ref())
            && globs(one) == globs(other)
    }

    /// The revision that the author gave it.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The decision on a package that no rule matches.
    pub const fn default_decision(&self) -> DefaultDecision {
        self.default
    }

    /// Whether a refusal looks like an unknown image.
    pub const fn hides(&self) -> bool {
        self.hide
    }

    /// The attributes that subjects use, in the order of an [`Identity`].
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// The rules that the builder checks.
    pub const fn fact_rules(&self) -> &FactRules {
        &self.fact_rules
    }

    /// Judges a request by its name, before the builder is asked. No facts can undo its refusals.
    pub fn judge_name(&self, request: &Request<'_>, identity: &Identity) -> Verdict {
        Judging::new(self, request, identity, None).verdict()
    }

    /// Judges a request by the facts of the images that an answer belongs to. One image that the
    /// caller may have is enough: a blob that two images share is no secret of either.
    pub fn judge_images(
        &self,
        request: &Request<'_>,
        identity: &Identity,
        images: &[ImageFacts],
    ) -> Verdict {
        let verdicts = images
            .iter()
            .map(|image| Judging::new(self, request, identity, Some(image)).verdict());
        let best = verdicts.min_by_key(|verdict| (verdict.refusals.len(), verdict.warnings.len()));
        best.unwrap_or_else(|| Verdict::without_facts(&self.revision))
    }

    /// The findings of [`Policy::judge_name`] for each package, or for the opaque name, with every
    /// rule that allows it and whether that rule counts.
    pub fn reasons<'a>(
        &'a self,
        request: &'a Request<'a>,
        identity: &'a Identity,
    ) -> Vec<Reasons<'a>> {
        Judging::new(self, request, identity, None).reasons()
    }

    /// The rule with a subject that lets a caller in who may have an image: one that allows a package
    /// of it, or an audited one that lets one through; of several, the first that is written. None
    /// when rules for everybody are enough, since these say nothing about the caller.
    ///
    /// It is not part of a verdict: only images that have to be built need it.
    pub fn grantor(&self, request: &Request<'_>, identity: &Identity) -> Option<&str> {
        Judging::new(self, request, identity, None).grantor()
    }
}

#[cfg(test)]
mod tests;
