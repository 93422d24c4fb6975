//! One request before one policy.
//!
//! What is judged by patterns is a list of *things*: the packages of the name, each by `allow` and
//! `deny`, or the opaque name by `images` and `deny_images`. The packages of an image with an opaque
//! name are known when the builder has said them, and can be denied alone.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::glob_set::GlobSet;
use super::rule::{Asked, Mode, Rule};
use super::verdict::{About, Finding, Refusing, Verdict};
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
    /// Whether a rule that was looked at has a subject that can't be known of the caller.
    is_doubtful: Cell<bool>,
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
            is_doubtful: Cell::new(false),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::new(&self.policy.revision);
        match self.request.image {
            ImageName::Packages(packages) => {
                for package in packages.packages() {
                    let denied = self.denied_package(package);
                    let not_allowed = || {
                        let is_free = package_set::is_in_every_image(package);
                        let allow = &self.policy.allow;
                        (!is_free).then(|| self.not_allowed(allow, package, About::package))?
                    };
                    verdict.extend(stands_against(denied, not_allowed));
                }
            }
            ImageName::Opaque(name) => {
                let name = name.as_str();
                let denied = self.denied(&self.policy.deny_images, [name]);
                let denied = denied.map(|(refusing, _)| {
                    (
                        refusing,
                        Finding::denied(About::image(name), name, refusing),
                    )
                });
                let not_allowed = || self.not_allowed(&self.policy.images, name, About::image);
                verdict.extend(stands_against(denied, not_allowed));
                let contents = self.facts.into_iter().flat_map(|facts| &facts.packages);
                for package in contents.flatten() {
                    verdict.extend(stands_against(self.denied_package(package), || None));
                }
            }
        }
        if let Some(facts) = self.facts {
            self.judge_facts(facts, &mut verdict);
        }
        verdict.is_doubtful = self.is_doubtful.get();
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
            if let Some(refusing) = rule.and_then(|rule| self.refusing(rule)) {
                verdict.extend(Some((refusing.rule.mode, Finding::facts(refusing))));
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
                let rule = self.allowing(index);
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

    fn is_for_caller(&self, rule: &Rule) -> Option<bool> {
        let is_for_caller = rule.is_for(self.identity);
        if is_for_caller.is_none() {
            self.is_doubtful.set(true);
        }
        is_for_caller
    }

    /// The rule with this index, to let the caller have something: when it is surely for them.
    fn allowing(&self, index: usize) -> Option<&'p Rule> {
        let rule = self.policy.rules.get(index)?;
        (self.is_for_caller(rule) == Some(true)).then_some(rule)
    }

    /// A rule, to refuse the caller something: unless it is surely for others.
    fn refusing(&self, rule: &'p Rule) -> Option<Refusing<'p>> {
        let is_for_caller = self.is_for_caller(rule);
        (is_for_caller != Some(false)).then_some(Refusing {
            rule,
            is_doubtful: is_for_caller.is_none(),
        })
    }

    /// The first audited rule that is surely for the caller: it lets them have what no rule allows.
    fn auditor(&self) -> Option<(usize, &'p Rule)> {
        let mut audited = self.policy.audited.iter();
        audited.find_map(|&index| Some((index, self.allowing(index)?)))
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
            if let Some(rule) = self.allowing(index) {
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

    fn denied_package(&self, package: &str) -> Option<(Refusing<'p>, Finding)> {
        let alias = self.facts.and_then(|facts| facts.names.get(package));
        let names = with_parents(package).chain(alias.map(String::as_str));
        let (refusing, name) = self.denied(&self.policy.deny, names)?;
        let finding = Finding::denied(About::package(package), name, refusing);
        Some((refusing, finding))
    }

    /// The rule that denies something, and under which of its names. An enforced rule counts before
    /// an audited one, one that is surely for the caller before one that may be, then the first that
    /// is written.
    fn denied<'b>(
        &self,
        deny: &GlobSet,
        names: impl IntoIterator<Item = &'b str>,
    ) -> Option<(Refusing<'p>, &'b str)> {
        let mut denied: Option<((bool, bool, usize), Refusing<'p>, &str)> = None;
        for name in names {
            deny.each_match(name, |index| {
                let rule = self.policy.rules.get(index);
                if let Some(refusing) = rule.and_then(|rule| self.refusing(rule)) {
                    let Refusing { rule, is_doubtful } = refusing;
                    let place = (rule.mode == Mode::Audit, is_doubtful, index);
                    if denied.is_none_or(|(first, ..)| place < first) {
                        denied = Some((place, refusing, name));
                    }
                }
            });
        }
        denied.map(|(_, refusing, name)| (refusing, name))
    }
}

/// What stands against something that a rule denies, or that none does. An audited rule lets through
/// what it denies, when it is surely for the caller; one that may be for somebody else only warns.
fn stands_against(
    denied: Option<(Refusing<'_>, Finding)>,
    not_allowed: impl FnOnce() -> Option<(Mode, Finding)>,
) -> Option<(Mode, Finding)> {
    let Some((Refusing { rule, is_doubtful }, finding)) = denied else {
        return not_allowed();
    };
    let lets_through = rule.mode == Mode::Audit && !is_doubtful;
    if rule.mode == Mode::Enforce || lets_through {
        return Some((rule.mode, finding));
    }
    not_allowed().or(Some((rule.mode, finding)))
}
