//! Judges one request by one policy.
//!
//! Patterns are compared with *items*: the packages of the name, each with `allow` and `deny`, or the
//! opaque name with `images` and `deny_images`. The builder says which packages an image with an
//! opaque name has; rules can only deny these.

use super::glob_set::GlobSet;
use super::rule::{Kind, Mode, Pattern, Rule};
use super::verdict::{About, Denial, Finding, Verdict};
use super::{DefaultDecision, Identity, ImageFacts, Policy, Request};
use crate::package_set::with_parents;
use crate::{ImageName, PackageSet, package_set};

/// A package, or an opaque name.
#[derive(Clone, Copy)]
struct Item<'r> {
    kind: Kind,
    name: &'r str,
}

impl<'r> Item<'r> {
    const fn package(name: &'r str) -> Self {
        let kind = Kind::Package;
        Self { kind, name }
    }

    fn all(image: &'r ImageName) -> impl Iterator<Item = Self> {
        let (packages, opaque) = match image {
            ImageName::Packages(packages) => (Some(packages), None),
            ImageName::Opaque(name) => (None, Some(name.as_str())),
        };
        let packages = packages.into_iter().flat_map(PackageSet::packages);
        let kind = Kind::Image;
        let opaque = opaque.map(|name| Self { kind, name });
        packages.map(Self::package).chain(opaque)
    }

    fn needs_no_rule(self, default: DefaultDecision) -> bool {
        let is_package = self.kind == Kind::Package;
        default == DefaultDecision::Allow
            || (is_package && package_set::is_in_every_image(self.name))
    }

    fn about(self) -> About {
        match self.kind {
            Kind::Package => About::Package(self.name.to_owned()),
            Kind::Image => About::Image(self.name.to_owned()),
        }
    }
}

/// Why the judge decides on an item as it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasons<'p> {
    /// The package, or the opaque name.
    pub name: &'p str,
    /// The finding against it: by an enforced rule it refuses, by an audited one it warns.
    pub finding: Option<(Mode, Finding)>,
    /// The rules whose patterns allow it, each with its first pattern that does.
    pub allowing: Vec<(&'p Rule, &'p Pattern, Effect)>,
}

/// Whether a rule that allows an item counts for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It counts.
    Counts,
    /// The request exceeds this limit.
    Limited(String),
    /// The rule is for other callers.
    ForOthers,
    /// It is unknown whether the rule is for the caller, so it doesn't count.
    Unknown,
}

/// A request, its caller, and the facts of the image, if they are known.
pub(super) struct Judging<'p, 'r> {
    policy: &'p Policy,
    request: &'r Request<'r>,
    identity: &'r Identity,
    facts: Option<&'r ImageFacts>,
    /// Whether it is unknown of some rule that matters if it is for the caller.
    is_doubtful: bool,
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
            is_doubtful: false,
        }
    }

    pub(super) fn verdict(&mut self) -> Verdict {
        let mut verdict = Verdict::new(&self.policy.revision);
        for item in Item::all(self.request.image) {
            verdict.extend(self.finding(item));
        }
        if let Some(facts) = self.facts {
            self.judge_facts(facts, &mut verdict);
        }
        verdict.is_doubtful = self.is_doubtful;
        verdict
    }

    fn judge_facts(&mut self, facts: &'r ImageFacts, verdict: &mut Verdict) {
        if facts.names_unknown
            && let Some(denial) = self.unjudged()
        {
            verdict.extend(Some((denial.rule.mode, Finding::names_unknown(denial))));
        }
        let is_list = self.request.image.packages().is_some();
        if !is_list {
            for package in facts.packages.iter().flatten() {
                let denied = self.denied(Item::package(package));
                verdict.extend(stands_against(denied, || None));
            }
        }
        if is_list == facts.packages.is_some() {
            verdict.refuse_mismatch(
                "edge and builder disagree on whether the name is a list of packages: the builder's \
                 recipes and opaque_namespaces differ",
            );
        }
        for name in &facts.matched {
            let mut rules = self.policy.rules.iter();
            let rule = rules.find(|rule| rule.facts.as_ref() == Some(name));
            if let Some(denial) = rule.and_then(|rule| self.denial(rule)) {
                verdict.extend(Some((denial.rule.mode, Finding::facts(denial))));
            }
        }
    }

    /// See [`Policy::reasons`].
    pub(super) fn reasons(&mut self) -> Vec<Reasons<'p>>
    where
        'r: 'p,
    {
        let items = Item::all(self.request.image);
        let reasons = items.map(|item| Reasons {
            name: item.name,
            finding: self.finding(item),
            allowing: self.allowing(item),
        });
        reasons.collect()
    }

    fn allowing(&mut self, item: Item<'_>) -> Vec<(&'p Rule, &'p Pattern, Effect)> {
        let rules = self.policy.rules.iter();
        let allowing = rules.filter_map(|rule| {
            let mut patterns = rule.allowing(item.kind).iter();
            let pattern = patterns.find(|pattern| pattern.matches(item.name))?;
            Some((rule, pattern, self.effect(rule)))
        });
        allowing.collect()
    }

    /// See [`Policy::grantor`].
    pub(super) fn grantor(&mut self) -> Option<&'p str> {
        let policy = self.policy;
        let items = Item::all(self.request.image);
        let first = items
            .filter(|item| !item.needs_no_rule(policy.default))
            .filter_map(|item| self.grantor_of(item))
            .min()?;
        Some(&policy.rules.get(first)?.name)
    }

    fn grantor_of(&mut self, item: Item<'_>) -> Option<usize> {
        let policy = self.policy;
        let (mut is_granted, mut first) = (false, None);
        policy.allowing(item.kind).each_match(item.name, |index| {
            if let Some(rule) = policy.rules.get(index)
                && self.effect(rule) == Effect::Counts
            {
                is_granted = true;
                let index = rule.subject.is_some().then_some(index);
                first = first.into_iter().chain(index).min();
            }
        });
        if is_granted {
            return first;
        }
        let (index, rule) = self.auditor()?;
        rule.subject.is_some().then_some(index)
    }

    fn effect(&mut self, rule: &Rule) -> Effect {
        match self.is_for_caller(rule) {
            None => Effect::Unknown,
            Some(false) => Effect::ForOthers,
            Some(true) => {
                let limit = rule.limits.exceeded_by(self.request, self.facts);
                limit.map_or(Effect::Counts, Effect::Limited)
            }
        }
    }

    fn is_for_caller(&mut self, rule: &Rule) -> Option<bool> {
        let is_for_caller = rule.is_for(self.identity);
        self.is_doubtful |= is_for_caller.is_none();
        is_for_caller
    }

    /// The first rule that denies packages, of which none can be told: the image may have any. Ordered as in
    /// [`Judging::first_denial`].
    fn unjudged(&mut self) -> Option<Denial<'p>> {
        let mut first: Option<Denial<'p>> = None;
        let place = |denial: Denial<'_>| (denial.rule.mode == Mode::Audit, denial.is_doubtful);
        for rule in &self.policy.rules {
            if !rule.deny.is_empty()
                && let Some(denial) = self.denial(rule)
                && first.is_none_or(|first| place(denial) < place(first))
            {
                first = Some(denial);
            }
        }
        first
    }

    /// A rule denies unless it is surely for others.
    fn denial(&mut self, rule: &'p Rule) -> Option<Denial<'p>> {
        let is_for_caller = self.is_for_caller(rule);
        (is_for_caller != Some(false)).then_some(Denial {
            rule,
            is_doubtful: is_for_caller.is_none(),
        })
    }

    /// The first audited rule that is surely for the caller: it lets through items that no rule allows.
    fn auditor(&mut self) -> Option<(usize, &'p Rule)> {
        let policy = self.policy;
        let mut audited = policy.audited.iter();
        audited.find_map(|&index| {
            let rule = policy.rules.get(index)?;
            (self.is_for_caller(rule) == Some(true)).then_some((index, rule))
        })
    }

    fn finding(&mut self, item: Item<'_>) -> Option<(Mode, Finding)> {
        let denied = self.denied(item);
        stands_against(denied, || self.not_allowed(item))
    }

    /// Finds that no rule allows an item.
    fn not_allowed(&mut self, item: Item<'_>) -> Option<(Mode, Finding)> {
        let policy = self.policy;
        if item.needs_no_rule(policy.default) {
            return None;
        }
        let (mut granted, mut limited) = (false, None);
        policy.allowing(item.kind).each_match(item.name, |index| {
            if granted {
                return;
            }
            if let Some(rule) = policy.rules.get(index) {
                match self.effect(rule) {
                    Effect::Counts => granted = true,
                    Effect::Limited(limit) => limited = limited.take().or(Some((rule, limit))),
                    Effect::ForOthers | Effect::Unknown => {}
                }
            }
        });
        if granted {
            return None;
        }
        let auditor = self.auditor().map(|(_, rule)| rule);
        let mode = auditor.map_or(Mode::Enforce, |_| Mode::Audit);
        let about = item.about();
        let finding = match (limited, auditor) {
            (Some((rule, limit)), _) => Finding::limited(about, rule, &limit),
            (None, Some(rule)) => Finding::new(about, Some(rule), "not allowed by the rule"),
            (None, None) => Finding::new(about, None, "no rule allows it for you"),
        };
        Some((mode, finding))
    }

    /// Finds that a rule denies an item by its name. A package is also denied by its parents' names
    /// and by its other names, which the builder knows.
    fn denied(&mut self, item: Item<'_>) -> Option<(Denial<'p>, Finding)> {
        let policy = self.policy;
        let (deny, names) = match item.kind {
            Kind::Package => {
                let mut names: Vec<&str> = with_parents(item.name).collect();
                for (package, other) in self.facts.iter().flat_map(|facts| &facts.names) {
                    if package == item.name {
                        names.push(other);
                    }
                }
                (&policy.deny, names)
            }
            Kind::Image => (&policy.deny_images, vec![item.name]),
        };
        let (denial, name) = self.first_denial(deny, &names)?;
        Some((denial, Finding::denied(item.about(), name, denial)))
    }

    /// Enforced rules go before audited ones, then rules that are surely for the caller before those
    /// that may be, then earlier rules before later ones.
    fn first_denial<'b>(
        &mut self,
        deny: &GlobSet,
        names: &[&'b str],
    ) -> Option<(Denial<'p>, &'b str)> {
        let policy = self.policy;
        let mut first: Option<((bool, bool, usize), Denial<'p>, &str)> = None;
        for &name in names {
            deny.each_match(name, |index| {
                let rule = policy.rules.get(index);
                if let Some(denial) = rule.and_then(|rule| self.denial(rule)) {
                    let Denial { rule, is_doubtful } = denial;
                    let place = (rule.mode == Mode::Audit, is_doubtful, index);
                    if first.is_none_or(|(first, ..)| place < first) {
                        first = Some((place, denial, name));
                    }
                }
            });
        }
        first.map(|(_, denial, name)| (denial, name))
    }
}

/// An audited rule that is surely for the caller lets through what it denies. One that may be for
/// others only warns.
fn stands_against(
    denied: Option<(Denial<'_>, Finding)>,
    not_allowed: impl FnOnce() -> Option<(Mode, Finding)>,
) -> Option<(Mode, Finding)> {
    let Some((Denial { rule, is_doubtful }, finding)) = denied else {
        return not_allowed();
    };
    let lets_through = rule.mode == Mode::Audit && !is_doubtful;
    if rule.mode == Mode::Enforce || lets_through {
        return Some((rule.mode, finding));
    }
    not_allowed().or(Some((rule.mode, finding)))
}
