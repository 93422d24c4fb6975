//! Subjects that no caller can have.
//!
//! A subject expands to alternatives, each a list of conditions that hold or don't (disjunctive normal
//! form). It never holds when each alternative contradicts itself:
//!
//! ```text
//!   all [ sub = a,  not any [ sub = a*, host = h ] ]
//!     = sub is a,  sub is not a*,  host is not h       a matches a*, too
//! ```
//!
//! Lists and headers may have `a` and `b` at once; all other attributes have one value.

use nixgate_core::policy::{AddressRange, Attribute, Condition, Glob, Subject, Values};

use crate::commands::policy::given;

/// Nobody writes more alternatives by hand.
const MAX_ALTERNATIVES: usize = 512;

/// A condition that must hold, or must not.
#[derive(Clone, Copy)]
struct Literal<'a> {
    condition: &'a Condition,
    holds: bool,
}

type Alternative<'a> = Vec<Literal<'a>>;

/// Why the first alternative of a subject can't hold; none when some alternative may. A rule that only
/// refuses counts for unknown callers too, so there "not anything" means them.
pub(super) fn never_holds(
    subject: &Subject,
    attributes: &[Attribute],
    only_refuses: bool,
) -> Option<String> {
    let mut reasons = alternatives(subject, true)?
        .into_iter()
        .map(|literals| contradiction(&literals, attributes, only_refuses));
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
        (Subject::Is(condition), _) => Some(vec![vec![Literal { condition, holds }]]),
    }
}

fn contradiction(
    literals: &[Literal<'_>],
    attributes: &[Attribute],
    only_refuses: bool,
) -> Option<String> {
    let impossible = |literal: &Literal<'_>| literal.impossible(attributes, only_refuses);
    let impossible = literals.iter().find_map(impossible);
    impossible.or_else(|| {
        let mut pairs = literals.iter().enumerate().flat_map(|(index, one)| {
            literals
                .iter()
                .skip(index + 1)
                .map(move |other| (one, other))
        });
        pairs.find_map(|(one, other)| one.contradicts(other, attributes))
    })
}

impl Literal<'_> {
    /// Why no caller has it.
    fn impossible(&self, attributes: &[Attribute], only_refuses: bool) -> Option<String> {
        let Condition { attribute, values } = self.condition;
        let attribute = attributes.get(*attribute)?;
        let name = given::name(attribute);
        match (values, self.holds) {
            (Values::Globs(globs), true) => {
                let reasons = globs
                    .iter()
                    .map(|glob| why_never(attribute, &glob.to_string()));
                let reasons: Vec<_> = reasons.collect::<Option<_>>()?;
                let reason = reasons.first()?;
                Some(format!("{name}: {reason}"))
            }
            (Values::Globs(globs), false) => {
                let everything = globs.iter().any(|glob| glob.to_string() == "*");
                (everything && !given::is_list(attribute) && !only_refuses)
                    .then(|| format!("not {name}: \"*\" matches every value"))
            }
            (Values::Ranges(ranges), false) => ranges
                .iter()
                .any(AddressRange::is_everything)
                .then(|| format!("not {name}: every address is in ::/0")),
            (Values::Ranges(_), true) => None,
        }
    }

    fn contradicts(&self, other: &Self, attributes: &[Attribute]) -> Option<String> {
        let (one, two) = (self.condition, other.condition);
        if one.attribute != two.attribute {
            return None;
        }
        let attribute = attributes.get(one.attribute)?;
        let excluded = match (self.holds, other.holds) {
            (true, false) => covers(&two.values, &one.values),
            (false, true) => covers(&one.values, &two.values),
            (true, true) => !given::is_list(attribute) && are_disjoint(&one.values, &two.values),
            (false, false) => false,
        };
        let name = given::name(attribute);
        excluded.then(|| format!("{name}: two of its conditions exclude each other"))
    }
}

/// Why no value of the attribute matches; none when one may.
fn why_never(attribute: &Attribute, glob: &str) -> Option<&'static str> {
    let (never, reason) = match attribute {
        Attribute::Host => (
            glob.contains('/') || (glob.contains(':') && !glob.starts_with('[')),
            "a host is a name without scheme, port or path",
        ),
        Attribute::UriSan => (
            !glob.contains([':', '*', '?']),
            "a URI has a scheme, such as spiffe:",
        ),
        Attribute::BasicUser => (glob.contains(':'), "a user has no colon in their name"),
        Attribute::JwtClaim { .. } | Attribute::Header { .. } | Attribute::Address => return None,
    };
    never.then_some(reason)
}

/// Whether `wide` surely has all of `narrow`.
fn covers(wide: &Values, narrow: &Values) -> bool {
    fn each<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
        let covered = |one: &T| wide.iter().any(|wide| covers(wide, one));
        narrow.iter().all(covered)
    }
    match (wide, narrow) {
        (Values::Globs(wide), Values::Globs(narrow)) => each(wide, narrow, Glob::covers),
        (Values::Ranges(wide), Values::Ranges(narrow)) => each(wide, narrow, AddressRange::covers),
        _ => false,
    }
}

/// Whether surely no value is in both.
fn are_disjoint(one: &Values, other: &Values) -> bool {
    fn none<T>(one: &[T], other: &[T], disjoint: impl Fn(&T, &T) -> bool) -> bool {
        one.iter()
            .all(|one| other.iter().all(|other| disjoint(one, other)))
    }
    match (one, other) {
        (Values::Globs(one), Values::Globs(other)) => none(one, other, globs_are_disjoint),
        (Values::Ranges(one), Values::Ranges(other)) => {
            // Of two ranges, one covers the other or they are disjoint.
            none(one, other, |one, other| {
                !one.covers(other) && !other.covers(one)
            })
        }
        _ => false,
    }
}

fn globs_are_disjoint(one: &Glob, other: &Glob) -> bool {
    if one.is_literal() || other.is_literal() {
        return !one.covers(other) && !other.covers(one);
    }
    let prefixes = (one.prefix(), other.prefix());
    let suffixes = (one.suffix(), other.suffix());
    (!prefixes.0.starts_with(prefixes.1) && !prefixes.1.starts_with(prefixes.0))
        || (!suffixes.0.ends_with(suffixes.1) && !suffixes.1.ends_with(suffixes.0))
}
