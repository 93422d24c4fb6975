//! Subjects that no caller can have.
//!
//! A subject is written as alternatives of which each is a list of facts and of their opposites
//! (disjunctive normal form). It can't hold when each alternative contradicts itself:
//!
//! ```text
//!   all [ sub = a,  not any [ sub = a*, host = h ] ]
//!     = sub is a,  sub is not a*,  host is not h       who is a is a*, too
//! ```
//!
//! Of lists and headers, a caller may have `a` and `b` at once; of all else there is one value.

use nixgate_core::policy::{AddressRange, Attribute, Glob, Subject};

use crate::commands::policy::given;

/// More alternatives than that are not looked at: nobody writes them by hand.
const MAX_ALTERNATIVES: usize = 512;

/// Something that is to be true of a caller, or not to be.
#[derive(Clone, Copy)]
struct Fact<'a> {
    subject: &'a Subject,
    holds: bool,
}

type Alternative<'a> = Vec<Fact<'a>>;

/// Why a subject can't hold, for the first of its alternatives; none when it may hold. In a rule that
/// only refuses, "not anything" is whoever is not known, for whom such a rule counts too.
pub(super) fn never_holds(
    subject: &Subject,
    attributes: &[Attribute],
    only_refuses: bool,
) -> Option<String> {
    let mut reasons = alternatives(subject, true)?
        .into_iter()
        .map(|facts| contradiction(&facts, attributes, only_refuses));
    let first = reasons.next()??;
    reasons.all(|reason| reason.is_some()).then_some(first)
}

/// None when there are too many.
fn alternatives(subject: &Subject, holds: bool) -> Option<Vec<Alternative<'_>>> {
    match (subject, holds) {
        (Subject::Not(part), _) => alternatives(part, !holds),
        (Subject::Any(parts), true) | (Subject::All(parts), false) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(alternatives(part, holds)?);
                if all.len() > MAX_ALTERNATIVES {
                    return None;
                }
            }
            Some(all)
        }
        (Subject::All(parts), true) | (Subject::Any(parts), false) => {
            let mut all = vec![Vec::new()];
            for part in parts {
                let of_part = alternatives(part, holds)?;
                if all.len() * of_part.len() > MAX_ALTERNATIVES {
                    return None;
                }
                all = all
                    .iter()
                    .flat_map(|one| of_part.iter().map(move |other| [&one[..], other].concat()))
                    .collect();
            }
            Some(all)
        }
        (Subject::Matches { .. } | Subject::Within { .. }, _) => {
            Some(vec![vec![Fact { subject, holds }]])
        }
    }
}

fn contradiction(
    facts: &[Fact<'_>],
    attributes: &[Attribute],
    only_refuses: bool,
) -> Option<String> {
    let impossible = |fact: &Fact<'_>| fact.impossible(attributes, only_refuses);
    let impossible = facts.iter().find_map(impossible);
    impossible.or_else(|| {
        let mut pairs = facts
            .iter()
            .enumerate()
            .flat_map(|(index, one)| facts.iter().skip(index + 1).map(move |other| (one, other)));
        pairs.find_map(|(one, other)| one.contradicts(other, attributes))
    })
}

impl Fact<'_> {
    fn attribute(&self) -> Option<usize> {
        match self.subject {
            Subject::Matches { attribute, .. } | Subject::Within { attribute, .. } => {
                Some(*attribute)
            }
            Subject::All(_) | Subject::Any(_) | Subject::Not(_) => None,
        }
    }

    /// What no caller has.
    fn impossible(&self, attributes: &[Attribute], only_refuses: bool) -> Option<String> {
        let attribute = attributes.get(self.attribute()?)?;
        let name = given::name(attribute);
        match (self.subject, self.holds) {
            (Subject::Matches { globs, .. }, true) => {
                let reason = match attribute {
                    Attribute::Host => "a host is a name without scheme, port or path",
                    Attribute::UriSan => "a URI has a scheme, such as spiffe:",
                    Attribute::BasicUser => "a user has no colon in their name",
                    Attribute::JwtClaim { .. } | Attribute::Header { .. } | Attribute::Address => {
                        return None;
                    }
                };
                let all = globs
                    .iter()
                    .all(|glob| can_not_be(attribute, &glob.to_string()));
                all.then(|| format!("{name}: {reason}"))
            }
            (Subject::Matches { globs, .. }, false) => {
                let everything = globs.iter().any(|glob| glob.to_string() == "*");
                (everything && !given::is_list(attribute) && !only_refuses)
                    .then(|| format!("not {name}: every one that is known is \"*\""))
            }
            (Subject::Within { ranges, .. }, false) => ranges
                .iter()
                .any(AddressRange::is_everything)
                .then(|| format!("not {name}: every one is in ::/0")),
            _ => None,
        }
    }

    fn contradicts(&self, other: &Self, attributes: &[Attribute]) -> Option<String> {
        if self.attribute() != other.attribute() {
            return None;
        }
        let attribute = attributes.get(self.attribute()?)?;
        let name = given::name(attribute);
        let excluded = match (self.holds, other.holds) {
            (true, false) => covers(other.subject, self.subject),
            (false, true) => covers(self.subject, other.subject),
            (true, true) => !given::is_list(attribute) && are_apart(self.subject, other.subject),
            (false, false) => false,
        };
        excluded.then(|| format!("{name}: two of its conditions exclude each other"))
    }
}

fn can_not_be(attribute: &Attribute, glob: &str) -> bool {
    match attribute {
        Attribute::Host => glob.contains('/') || (glob.contains(':') && !glob.starts_with('[')),
        Attribute::UriSan => !glob.contains([':', '*', '?']),
        Attribute::BasicUser => glob.contains(':'),
        Attribute::JwtClaim { .. } | Attribute::Header { .. } | Attribute::Address => false,
    }
}

/// Whether all that meets `narrow` surely meets `wide`.
fn covers(wide: &Subject, narrow: &Subject) -> bool {
    fn each<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
        let covered = |one: &T| wide.iter().any(|wide| covers(wide, one));
        narrow.iter().all(covered)
    }
    match (wide, narrow) {
        (Subject::Matches { globs: wide, .. }, Subject::Matches { globs: narrow, .. }) => {
            each(wide, narrow, Glob::covers)
        }
        (Subject::Within { ranges: wide, .. }, Subject::Within { ranges: narrow, .. }) => {
            each(wide, narrow, AddressRange::covers)
        }
        _ => false,
    }
}

/// Whether no one value surely meets both.
fn are_apart(one: &Subject, other: &Subject) -> bool {
    fn none<T>(one: &[T], other: &[T], apart: impl Fn(&T, &T) -> bool) -> bool {
        one.iter()
            .all(|one| other.iter().all(|other| apart(one, other)))
    }
    match (one, other) {
        (Subject::Matches { globs: one, .. }, Subject::Matches { globs: other, .. }) => {
            none(one, other, globs_are_apart)
        }
        (Subject::Within { ranges: one, .. }, Subject::Within { ranges: other, .. }) => {
            // Of two ranges, one has the other or they have nothing in common.
            none(one, other, |one, other| {
                !one.covers(other) && !other.covers(one)
            })
        }
        _ => false,
    }
}

fn globs_are_apart(one: &Glob, other: &Glob) -> bool {
    if one.is_literal() || other.is_literal() {
        return !one.covers(other) && !other.covers(one);
    }
    let prefixes = (one.prefix(), other.prefix());
    let suffixes = (one.suffix(), other.suffix());
    (!prefixes.0.starts_with(prefixes.1) && !prefixes.1.starts_with(prefixes.0))
        || (!suffixes.0.ends_with(suffixes.1) && !suffixes.1.ends_with(suffixes.0))
}
