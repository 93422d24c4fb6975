//! Subjects: whom a rule is for.
//!
//! A subject is a condition on attributes of the caller ([`Attribute`]). An attribute that Envoy does
//! not know is *unknown*, not false. A subject is true or false only where no value of the unknown
//! attributes would change that (Kleene's three-valued logic):
//!
//! ```text
//!   not  unknown            = unknown    an absent claim opens nothing by negation
//!   all  [.., false, ..]    = false
//!   all  [true, unknown]    = unknown
//!   any  [.., true, ..]     = true       several ways to say who one is
//!   any  [unknown, false]   = unknown
//! ```
//!
//! A rule allows where its subject is true, and denies where it is not false. So an unknown attribute
//! never gives a caller more than some value of it would.

use std::net::IpAddr;

use serde::Deserialize;

use super::glob::Glob;

/// An attribute of a caller. Equal ones are read once for each request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// A claim of the JSON Web Token that `jwt_authn` verified, by its path in the payload.
    JwtClaim {
        /// Names of fields, outermost first.
        path: Vec<String>,
        /// The type that the claim must have.
        kind: ClaimKind,
    },
    /// A request header. Envoy must remove it from clients' requests.
    Header {
        /// In lower case.
        name: String,
    },
    /// A URI among the subject alternative names of the client's certificate, such as a SPIFFE id.
    UriSan,
    /// The user of HTTP Basic authentication, as Envoy's `basic_auth` verified it.
    BasicUser,
    /// `:authority` without the port, in lower case.
    Host,
    /// The address of the client, as Envoy's `trusted_client_address` has it.
    Address,
}

/// The type of a claim. Rules name it, since an issuer may let users choose a text and give lists of
/// groups itself: one must not pass for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ClaimKind {
    /// One text.
    #[serde(rename = "string")]
    Text,
    /// A list of texts.
    #[serde(rename = "list")]
    List,
}

/// The known values of one attribute of one caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// The caller has no such attribute.
    #[default]
    Unknown,
    /// These values; a list may be empty.
    Values(Vec<String>),
    /// These values, and an unreadable one: it is of another type, or not UTF-8.
    Partly(Vec<String>),
}

impl Known {
    /// One unreadable value.
    pub const UNREADABLE: Self = Self::Partly(Vec::new());

    /// Whether some value passes the test.
    fn some(&self, test: impl Fn(&str) -> Option<bool>) -> Option<bool> {
        let (values, odd) = match self {
            Self::Unknown => return None,
            Self::Values(values) => (values, None),
            Self::Partly(values) => (values, Some(None)),
        };
        any(values.iter().map(|value| test(value)).chain(odd))
    }
}

/// True when one is true, false when all are false, unknown otherwise.
fn any(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut any = Some(false);
    for part in parts {
        match part {
            Some(true) => return Some(true),
            Some(false) => {}
            None => any = None,
        }
    }
    any
}

/// The attributes of a caller, in the order of the policy's.
pub type Identity = Vec<Known>;

/// A condition on a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An attribute has a value.
    Is(Condition),
    /// All of these hold.
    All(Vec<Self>),
    /// One of these holds.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
}

/// The values that an attribute must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The attribute's index in the policy's list.
    pub attribute: usize,
    /// The values.
    pub values: Values,
}

/// Some values of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// Those that one of these matches.
    Globs(Vec<Glob>),
    /// The addresses in one of these.
    Ranges(Vec<AddressRange>),
}

impl Subject {
    /// Whether it holds for the caller; none when that is unknown.
    pub fn holds(&self, identity: &Identity) -> Option<bool> {
        match self {
            Self::Is(Condition { attribute, values }) => {
                let known = identity.get(*attribute)?;
                match values {
                    Values::Globs(globs) => {
                        known.some(|value| Some(globs.iter().any(|glob| glob.matches(value))))
                    }
                    Values::Ranges(ranges) => known.some(|value| {
                        let address = value.parse().ok()?;
                        Some(ranges.iter().any(|range| range.contains(address)))
                    }),
                }
            }
            Self::All(parts) => {
                let is_false = |part: &Self| part.holds(identity).map(|holds| !holds);
                any(parts.iter().map(is_false)).map(|some_is_false| !some_is_false)
            }
            Self::Any(parts) => any(parts.iter().map(|part| part.holds(identity))),
            Self::Not(part) => part.holds(identity).map(|holds| !holds),
        }
    }

    /// The conditions in it, in the order in which they are written.
    pub fn conditions(&self) -> Vec<&Condition> {
        match self {
            Self::Is(condition) => vec![condition],
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().flat_map(Self::conditions).collect()
            }
            Self::Not(part) => part.conditions(),
        }
    }
}

/// A range of addresses, `10.0.0.0/8` (RFC 4632) or `fd00::/8` (RFC 4291, section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: u128,
    mask: u128,
}

impl AddressRange {
    /// None when it is not a range, or has bits behind its prefix length.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (width, offset) = match address {
            IpAddr::V4(_) => (32, 96),
            IpAddr::V6(_) => (128, 0),
        };
        let length = length.unwrap_or(width);
        if length > width {
            return None;
        }
        let host_bits = 128_u32.checked_sub(length.checked_add(offset)?)?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        let network = bits(address);
        (network & mask == network).then_some(Self { network, mask })
    }

    fn contains(&self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.network
    }

    /// Whether every address of `other` is in this range.
    pub fn covers(&self, other: &Self) -> bool {
        self.mask & other.mask == self.mask && other.network & self.mask == self.network
    }

    /// Whether every address of both families is in this range.
    pub const fn is_everything(&self) -> bool {
        self.mask == 0
    }
}

/// IPv4 addresses as IPv6 has them (RFC 4291, section 2.5.5.2), so that `::ffff:10.0.0.1`, as a
/// dual-stack listener reports a client, is 10.0.0.1.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::glob::Reach;
    use super::*;

    fn is(attribute: usize, pattern: &str) -> Subject {
        let globs = Glob::parse(pattern, Reach::Anything).unwrap();
        let values = Values::Globs(globs);
        Subject::Is(Condition { attribute, values })
    }

    fn not(subject: Subject) -> Subject {
        Subject::Not(Box::new(subject))
    }

    #[test]
    fn what_is_unknown_decides_nothing_also_under_not() {
        let nobody = vec![Known::Unknown, Known::Values(vec!["b".to_owned()])];
        let yes = || is(1, "b");
        let no = || is(1, "c");
        for (subject, expected) in [
            (is(0, "*"), None),
            (not(is(0, "*")), None),
            (is(7, "*"), None),
            (yes(), Some(true)),
            (not(yes()), Some(false)),
            (not(no()), Some(true)),
            (Subject::All(vec![yes(), is(0, "a")]), None),
            (not(Subject::All(vec![yes(), is(0, "a")])), None),
            // Whatever the unknown one is, the other is false.
            (Subject::All(vec![is(0, "a"), no()]), Some(false)),
            (not(Subject::All(vec![no(), is(0, "a")])), Some(true)),
            (Subject::Any(vec![is(0, "a"), yes()]), Some(true)),
            (not(Subject::Any(vec![is(0, "a"), no()])), None),
            (Subject::All(vec![yes(), yes()]), Some(true)),
            (Subject::Any(vec![no(), no()]), Some(false)),
        ] {
            assert_eq!(subject.holds(&nobody), expected, "{subject:?}");
        }
    }

    #[test]
    fn an_empty_list_is_known() {
        let caller = vec![Known::Values(Vec::new())];
        assert_eq!(is(0, "*").holds(&caller), Some(false));
    }

    #[test]
    fn what_can_be_read_counts_beside_what_can_not() {
        let partly = |values: &[&str]| {
            let values = values.iter().map(|&value| value.to_owned());
            vec![Known::Partly(values.collect())]
        };
        let within = Subject::Is(Condition {
            attribute: 0,
            values: Values::Ranges(vec![AddressRange::parse("10.0.0.0/8").unwrap()]),
        });
        for (subject, caller, expected) in [
            (is(0, "a"), partly(&["a", "b"]), Some(true)),
            (not(is(0, "a")), partly(&["a", "b"]), Some(false)),
            (is(0, "a"), partly(&["b"]), None),
            (not(is(0, "a")), partly(&["b"]), None),
            (is(0, "*"), partly(&[]), None),
            (within.clone(), partly(&["10.1.2.3"]), Some(true)),
            (within.clone(), partly(&["11.1.2.3"]), None),
            (
                within,
                vec![Known::Values(vec!["no address".to_owned()])],
                None,
            ),
        ] {
            assert_eq!(subject.holds(&caller), expected, "{subject:?} {caller:?}");
        }
    }

    #[test]
    fn addresses_are_compared_by_their_bits() {
        for (range, address, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
            ("0.0.0.0/0", "255.1.1.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
        ] {
            let range = AddressRange::parse(range).unwrap();
            assert_eq!(range.contains(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn a_range_covers_those_inside_of_it() {
        for (wide, narrow, expected) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("0.0.0.0/0", "::/0", false),
            ("::/0", "0.0.0.0/0", true),
        ] {
            let range = |text| AddressRange::parse(text).unwrap();
            assert_eq!(range(wide).covers(&range(narrow)), expected, "{wide}");
            assert_eq!(range(wide).is_everything(), wide == "::/0");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/-1",
        ] {
            assert_eq!(AddressRange::parse(text), None, "{text}");
        }
    }
}
