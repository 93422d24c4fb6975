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
//! **What can't be known refuses.** Where it is unknown whether a rule is for the caller, what it
//! allows does not count, and what it denies does (`subject.rs`).
//!
//! One of the rules that let a caller in is its *grantor* ([`Policy::grantor`]): in whose turn the
//! builder builds for it. It decides nothing else.

mod claims;
mod facts;
mod glob;
mod glob_set;
mod judging;
mod known;
mod raw;
mod rule;
mod subject;
mod verdict;

use crate::distribution::Tag;
use crate::{ImageName, OpaqueNamespaces};

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
use judging::Judging;
use rule::Rule;

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
        Judging::new(self, request, identity, None).verdict()
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
            .map(|image| Judging::new(self, request, identity, Some(image)).verdict());
        let best = verdicts.min_by_key(|verdict| (verdict.refusals.len(), verdict.warnings.len()));
        // Without any facts, there is nothing that could be allowed by them.
        best.unwrap_or_else(|| Verdict::without_facts(&self.revision))
    }

    /// The rule with a subject that lets a caller in who may have an image: one that allows a package
    /// of it, or is audited and lets one through; of several, the one that is written first. None when
    /// only rules for everybody do, or none has to: these say nothing of who asks.
    ///
    /// It is not part of a verdict, since only what has to be built needs it.
    pub fn grantor(&self, request: &Request<'_>, identity: &Identity) -> Option<&str> {
        Judging::new(self, request, identity, None).grantor()
    }
}

#[cfg(test)]
mod tests;
