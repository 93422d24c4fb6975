//! One request before one policy.
//!
//! What is judged by patterns is a list of *things*: the packages of the name, each by `allow` and
//! `deny`, or the opaque name by `images` and `deny_images`. The packages of an image with an opaque
//! name are known when the builder has said them, and can be denied alone.

use std::collections::BTreeSet;

use super::glob_set::GlobSet;
use super::rule::{Asked, Mode, Rule};
use super::verdict::{About, Finding, Verdict};
use super::{Default, Identity, ImageFacts, Policy, Request};
use crate::distribution::Tag;
use crate::package_set::with_parents;
use crate::{ImageName, PackageSet, package_set};

/// A request, of whom it is, and what is known of the image.
pub(super) struct Judging<'p, 'r> {
    policy: &'p Policy,
    request: &'r Request<'r>,
    identity: &'r Identity,
    facts: Option<&'r ImageFacts>,
    /// The tag of the request, as one of those by which an image may be had.
    tag: Option<BTreeSet<Tag>>,
}

impl<'p, 'r> Judging<'p, 'r> {
    pub(super) fn new(
        policy: &'p Policy,
        request: &'r Request<'r>,
        identity: &'r Identity,
        facts: Option<&'r ImageFacts>,
    ) -> Self {
        Self {
            policy,
            request,
            identity,
            facts,
            tag: request.tag.map(|tag| [tag.clone()].into()),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::new(&self.policy.revision);
        match self.request.image {
            ImageName::Packages(packages) => {
                for package in packages.packages() {
                    let found = self.denied_package(package).or_else(|| {
                        (!package_set::is_in_every_image(package))
                            .then(|| self.not_allowed(&self.policy.allow, package, About::package))
                            .flatten()
                    });
                    verdict.extend(found);
                }
            }
            ImageName::Opaque(name) => {
                let name = name.as_str();
                let found = match self.denied(&self.policy.deny_images, [name]) {
                    Some((rule, _)) => {
                        Some((rule.mode, Finding::denied(About::image(name), name, rule)))
                    }
                    None => self.not_allowed(&self.policy.images, name, About::image),
                };
                verdict.extend(found);
                let contents = self.facts.into_iter().flat_map(|facts| &facts.packages);
                for package in contents.flatten() {
                    verdict.extend(self.denied_package(package));
                }
            }
        }
        if let Some(facts) = self.facts {
            self.judge_facts(facts, &mut verdict);
        }
        verdict
    }

    fn judge_facts(&self, facts: &ImageFacts, verdict: &mut Verdict) {
        let is_list = self.request.image.packages().is_some();
        if is_list == facts.packages.is_some() {
            verdict.misfit(
                "edge and builder do not agree on whether it is a list of packages: the builder's \
                 recipes and opaque_namespaces differ",
            );
        }
        for name in &facts.matched {
            let mut rules = self.policy.rules.iter();
            let rule = rules.find(|rule| rule.facts.as_ref() == Some(name));
            if let Some(rule) = rule.filter(|rule| rule.applies_to(self.identity)) {
                verdict.extend(Some((rule.mode, Finding::facts(rule))));
            }
        }
    }

    /// See [`Policy::grantor`].
    pub(super) fn grantor(&self) -> Option<&'p str> {
        if self.policy.default == Default::Allow {
            return None;
        }
        let granting = |(name, allow): (&str, &GlobSet)| {
            let (mut is_granted, mut first) = (false, None);
            allow.each_match(name, |index| {
                let rule = self.applying(index);
                let rule = rule.filter(|rule| rule.limits.broken_by(self.asked()).is_none());
                if let Some(rule) = rule {
                    is_granted = true;
                    let index = rule.subject.is_some().then_some(index);
                    first = first.into_iter().chain(index).min();
                }
            });
            let auditor = || {
                let (index, rule) = self.auditor()?;
                rule.subject.is_some().then_some(index)
            };
            if is_granted { first } else { auditor() }
        };
        let things = self.to_be_allowed().into_iter();
        let first = things.filter_map(granting).min()?;
        let rule = self.policy.rules.get(first)?;
        Some(&rule.name)
    }

    /// What some rule has to allow, each with the patterns that do.
    fn to_be_allowed(&self) -> Vec<(&'r str, &'p GlobSet)> {
        match self.request.image {
            ImageName::Packages(packages) => packages
                .packages()
                .filter(|package| !package_set::is_in_every_image(package))
                .map(|package| (package, &self.policy.allow))
                .collect(),
            ImageName::Opaque(name) => vec![(name.as_str(), &self.policy.images)],
        }
    }

    fn asked(&self) -> Asked<'_> {
        let system = self.request.image.packages().and_then(PackageSet::system);
        Asked {
            tags: self
                .tag
                .as_ref()
                .or_else(|| self.facts.map(|facts| &facts.tags)),
            system: system.or_else(|| self.facts.map(|facts| facts.system)),
            written: self.request.written,
        }
    }

    /// The rule with this index, when it is for the caller.
    fn applying(&self, index: usize) -> Option<&'p Rule> {
        let rule = self.policy.rules.get(index)?;
        rule.applies_to(self.identity).then_some(rule)
    }

    /// The first audited rule that is for the caller.
    fn auditor(&self) -> Option<(usize, &'p Rule)> {
        let mut audited = self.policy.audited.iter();
        audited.find_map(|&index| Some((index, self.applying(index)?)))
    }

    /// What stands against something that no rule denies: that none allows it either.
    fn not_allowed(
        &self,
        allow: &GlobSet,
        name: &str,
        about: impl FnOnce(&str) -> About,
    ) -> Option<(Mode, Finding)> {
        if self.policy.default == Default::Allow {
            return None;
        }
        let (mut granted, mut limited) = (false, None);
        allow.each_match(name, |index| {
            if granted {
                return;
            }
            if let Some(rule) = self.applying(index) {
                match rule.limits.broken_by(self.asked()) {
                    None => granted = true,
                    Some(limit) => limited = limited.take().or(Some((rule, limit))),
                }
            }
        });
        if granted {
            return None;
        }
        let auditor = self.auditor().map(|(_, rule)| rule);
        let mode = auditor.map_or(Mode::Enforce, |_| Mode::Audit);
        let about = about(name);
        let finding = match (limited, auditor) {
            (Some((rule, limit)), _) => Finding::limited(about, rule, &limit),
            (None, Some(rule)) => Finding::new(about, Some(rule), "not allowed by the rule"),
            (None, None) => Finding::new(about, None, "allowed by no rule for you"),
        };
        Some((mode, finding))
    }

    fn denied_package(&self, package: &str) -> Option<(Mode, Finding)> {
        let alias = self.facts.and_then(|facts| facts.names.get(package));
        let names = with_parents(package).chain(alias.map(String::as_str));
        let (rule, name) = self.denied(&self.policy.deny, names)?;
        let finding = Finding::denied(About::package(package), name, rule);
        Some((rule.mode, finding))
    }

    /// The rule that denies something, and under which of its names. An enforced rule counts before
    /// an audited one, then the first that is written.
    fn denied<'b>(
        &self,
        deny: &GlobSet,
        names: impl IntoIterator<Item = &'b str>,
    ) -> Option<(&'p Rule, &'b str)> {
        let mut denied: Option<(bool, usize, &Rule, &str)> = None;
        for name in names {
            deny.each_match(name, |index| {
                if let Some(rule) = self.applying(index) {
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
