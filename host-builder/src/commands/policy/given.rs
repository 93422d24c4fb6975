//! Attributes of a caller, as a command line or a case gives them.
//!
//! ```text
//!   claim:groups=data-eng,staff      claim:realm.role=admin     header:x-team=a
//!   host=registry.corp     address=10.0.0.1     uri_san=spiffe://corp/ci     user=alice
//! ```
//!
//! An attribute that the policy doesn't use is an error: a misspelt one would be unknown, and a case
//! that expects a refusal would pass for the wrong reason.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use nixgate_core::policy::{Attribute, ClaimKind, Identity, Known, Policy};
use serde::Deserialize;

/// One attribute with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given(pub(super) String, pub(super) Value);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    /// For a list on a command line, commas separate its items.
    One(String),
    /// Only in cases.
    List(Vec<String>),
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let separator = ["claim:", "header:"]
            .iter()
            .any(|kind| text.starts_with(kind));
        // `host:registry.corp` is as clear as `host=registry.corp`.
        let end = match text.find('=') {
            None if !separator => text.find(':'),
            end => end,
        };
        let (attribute, value) = end
            .and_then(|end| Some((text.get(..end)?, text.get(end + 1..)?)))
            .ok_or(
                "give an attribute and its value, such as claim:groups=a,b or host=registry.corp",
            )?;
        Ok(Self(attribute.to_owned(), Value::One(value.to_owned())))
    }
}

/// The name of an attribute here.
pub(super) fn name(attribute: &Attribute) -> String {
    match attribute {
        Attribute::JwtClaim { path, .. } => format!("claim:{}", path.join(".")),
        Attribute::Header { name } => format!("header:{name}"),
        Attribute::UriSan => "uri_san".to_owned(),
        Attribute::BasicUser => "user".to_owned(),
        Attribute::Host => "host".to_owned(),
        Attribute::Address => "address".to_owned(),
    }
}

/// Whether a caller may have several values of it, as of lists and repeated headers.
pub(super) const fn is_list(attribute: &Attribute) -> bool {
    matches!(attribute, Attribute::Header { .. }) || is_list_claim(attribute)
}

const fn is_list_claim(attribute: &Attribute) -> bool {
    matches!(attribute, Attribute::JwtClaim { kind, .. } if matches!(kind, ClaimKind::List))
}

/// The caller's attributes as the edge would read them; those that are not given are unknown.
pub(super) fn identity<'a>(
    policy: &Policy,
    given: impl IntoIterator<Item = (&'a String, &'a Value)>,
) -> Result<Identity> {
    let attributes = policy.attributes();
    let mut identity = vec![Known::Unknown; attributes.len()];
    for (attribute, value) in given {
        let wanted = match attribute.split_once(':') {
            Some(("header", header)) => format!("header:{}", header.to_ascii_lowercase()),
            _ => attribute.clone(),
        };
        // A policy may use a claim both as a text and as a list.
        let (mut named, mut fits) = (false, false);
        for (known, attribute) in identity.iter_mut().zip(attributes) {
            if name(attribute) != wanted {
                continue;
            }
            named = true;
            let values = match value {
                Value::One(text) if is_list_claim(attribute) => {
                    let items = text.split(',').filter(|item| !item.is_empty());
                    items.map(str::to_owned).collect()
                }
                Value::One(text) => vec![text.clone()],
                Value::List(items) if is_list(attribute) => items.clone(),
                Value::List(_) => continue,
            };
            ensure!(
                *known == Known::Unknown,
                "{wanted} is given twice: give all items of a list at once"
            );
            fits = true;
            *known = as_the_edge_reads(attribute, values)?;
        }
        if !named {
            bail!("the policy does not use {wanted}; {}", uses(attributes));
        }
        ensure!(fits, "{wanted} is one text in this policy: give no list");
    }
    Ok(identity)
}

fn uses(attributes: &[Attribute]) -> String {
    let names: BTreeSet<String> = attributes.iter().map(name).collect();
    match names.len() {
        0 => "all of its rules are for everybody".to_owned(),
        _ => format!("it uses {}", Vec::from_iter(names).join(", ")),
    }
}

fn as_the_edge_reads(attribute: &Attribute, values: Vec<String>) -> Result<Known> {
    Ok(match (attribute, &values[..]) {
        (Attribute::Host, [host]) => Known::host(host),
        (Attribute::Address, [address]) if address.parse::<IpAddr>().is_err() => {
            bail!("\"{address}\" is not an IP address such as 10.0.0.1")
        }
        _ => Known::Values(values),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy() -> Policy {
        let claim = |r#type: &str| json!({"jwt_claim": {"path": ["realm", "groups"], "type": r#type, "glob": "a"}});
        let subjects = json!([
            claim("list"), claim("string"), {"header": {"name": "X-Team", "glob": "a"}},
            {"uri_san": {"glob": "a:*"}}, {"basic_user": {"glob": "a"}}, {"host": {"glob": "a"}},
            {"address": {"ranges": ["10.0.0.0/8"]}},
        ]);
        let rule = json!({"name": "a", "allow": ["git"], "subject": {"any": subjects}});
        let json = json!({"revision": "r1", "default": "deny", "rules": [rule]});
        Policy::parse(json.to_string().as_bytes()).unwrap()
    }

    fn known(texts: &[&str]) -> Result<Vec<String>> {
        let given: Vec<Given> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let given = given
            .iter()
            .map(|Given(attribute, value)| (attribute, value));
        let identity = identity(&policy(), given)?;
        let show = |known: &Known| match known {
            Known::Unknown | Known::Partly(_) => "?".to_owned(),
            Known::Values(values) => values.join(" "),
        };
        Ok(identity.iter().map(show).collect())
    }

    #[test]
    fn what_is_given_is_known_and_all_else_is_not() {
        for (texts, expected) in [
            (&[][..], ["?"; 7]),
            (
                &["claim:realm.groups=a,b"],
                ["a b", "a,b", "?", "?", "?", "?", "?"],
            ),
            (
                &["header:X-Team=a,b"],
                ["?", "?", "a,b", "?", "?", "?", "?"],
            ),
            (
                &["uri_san=spiffe://a,b", "user:alice"],
                ["?", "?", "?", "spiffe://a,b", "alice", "?", "?"],
            ),
            (
                &["host:Registry.corp:443", "address=10.0.0.1"],
                ["?", "?", "?", "?", "?", "registry.corp", "10.0.0.1"],
            ),
            (&["claim:realm.groups="], ["", "", "?", "?", "?", "?", "?"]),
        ] {
            assert_eq!(known(texts).unwrap(), expected, "{texts:?}");
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for (texts, part) in [
            (
                &["claim:group=a"][..],
                "does not use claim:group; it uses address, claim:realm.groups",
            ),
            (&["user=a", "user=b"], "user is given twice"),
            (&["address=10.0.0.1:80"], "is not an IP address"),
        ] {
            let error = known(texts).unwrap_err().to_string();
            assert!(error.contains(part), "{texts:?}: {error}");
        }
        assert!("alice".parse::<Given>().is_err());
        assert!("claim:groups".parse::<Given>().is_err());
    }

    #[test]
    fn a_list_in_a_case_is_a_list() {
        let list = Value::List(vec!["a,b".to_owned()]);
        let known = |attribute: &str| identity(&policy(), [(&attribute.to_owned(), &list)]);
        let claim = known("claim:realm.groups").unwrap();
        assert_eq!(
            claim[..2],
            [Known::Values(vec!["a,b".to_owned()]), Known::Unknown]
        );
        let error = known("user").unwrap_err().to_string();
        assert!(error.contains("user is one text"), "{error}");
    }
}
