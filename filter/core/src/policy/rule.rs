//! One rule, compiled.

use std::collections::BTreeSet;

use super::subject::{Identity, Subject};
use crate::distribution::Tag;
use crate::package_set::System;

/// Whether a rule's refusals count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They do.
    Enforce,
    /// What it would refuse is let through with a warning.
    Audit,
}

/// What a rule is, but for its patterns, which are filed with those of all rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: String,
    /// None: everybody.
    pub(super) subject: Option<Subject>,
    pub(super) mode: Mode,
    pub(super) limits: Limits,
    /// Under what name the builder judges its facts, if it has any.
    pub(super) facts: Option<String>,
    pub(super) message: Option<String>,
}

impl Rule {
    /// Whether it is for the caller; none when that can't be known. What allows may count only when
    /// it surely is, and what denies unless it surely is not.
    pub(super) fn is_for(&self, identity: &Identity) -> Option<bool> {
        let subject = self.subject.as_ref();
        subject.map_or(Some(true), |subject| subject.holds(identity))
    }
}

/// Under which conditions a rule allows what it allows. What it denies, it always denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) tags: Vec<Tag>,
    /// None: every platform.
    pub(super) systems: Option<BTreeSet<System>>,
    pub(super) max_packages: Option<usize>,
}

/// What a request asks for, as far as limits go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// None: not known yet, or no tag is meant.
    pub(super) tags: Option<&'a BTreeSet<Tag>>,
    /// None: not known yet.
    pub(super) system: Option<System>,
    pub(super) written: usize,
}

impl Limits {
    /// Which limit stands in the way, in words that follow "allows it".
    pub(super) fn broken_by(&self, asked: Asked<'_>) -> Option<String> {
        if let Some(tags) = asked.tags
            && !tags.iter().any(|tag| self.tags.contains(tag))
        {
            let tags: Vec<&str> = self.tags.iter().map(Tag::as_str).collect();
            return Some(format!("for the tag {} alone", tags.join(", ")));
        }
        if let (Some(systems), Some(system)) = (&self.systems, asked.system)
            && !systems.contains(&system)
        {
            let systems: Vec<&str> = systems.iter().map(|system| system.nix()).collect();
            return Some(format!("for {} alone", systems.join(", ")));
        }
        match self.max_packages {
            Some(most) if asked.written > most => Some(format!(
                "in images of at most {most} packages; this name has {}",
                asked.written
            )),
            _ => None,
        }
    }
}
