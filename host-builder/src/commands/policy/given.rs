//! What is known of a caller, as it is written on a command line or in a case.
//!
//! ```text
//!   claim:groups=data-eng,staff      claim:realm.role=admin     header:x-team=a
//!   host=registry.corp     address=10.0.0.1     uri_san=spiffe://corp/ci     user=alice
//! ```
//!
//! Only what the policy asks for may be given: a misspelt attribute would otherwise be an unknown
//! one, and a case that expects a refusal would pass for the wrong reason.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use nixgate_core::policy::{Attribute, ClaimKind, Identity, Known, Policy};
use serde::Deserialize;

/// One attribute with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) attribute: String,
    pub(super) value: Value,
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    /// On a command line, a list too: its items are separated by commas.
    One(String),
    /// In a case.
    List(Vec<String>),
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let separator = ["claim:", "header:"]
            .iter()
            .any(|kind| text.starts_with(kind));
        // `host:registry.corp` says all there is to say, too.
        let end = match text.find('=') {
            None if !separator => text.find(':'),
            end => end,
        };
        let (attribute, value) = end
            .and_then(|end| Some((text.get(..end)?, text.get(end + 1..)?)))
            .ok_or("an attribute and its value, such as claim:groups=a,b or host=registry.corp")?;
        Ok(Self {
            attribute: attribute.to_owned(),
            value: Value::One(value.to_owned()),
        })
    }
}

/// What an attribute is called here.
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

/// Whether a caller may have several values of it: lists, and headers that are sent twice.
pub(super) const fn is_list(attribute: &Attribute) -> bool {
    matches!(attribute, Attribute::Header { .. }) || is_list_claim(attribute)
}

const fn is_list_claim(attribute: &Attribute) -> bool {
    matches!(attribute, Attribute::JwtClaim { kind, .. } if matches!(kind, ClaimKind::List))
}

/// What the policy knows of a caller of whom this is given; all else is unknown.
///
/// # Errors
/// When the policy asks for no such attribute, or for one of another kind.
pub(super) fn identity(policy: &Policy, given: &[Given]) -> Result<Identity> {
    let attributes = policy.attributes();
    let mut identity = vec![Known::Unknown; attributes.len()];
    for Given { attribute, value } in given {
        let wanted = match attribute.split_once(':') {
            Some(("header", header)) => format!("header:{}", header.to_ascii_lowercase()),
            _ => attribute.clone(),
        };
        // A claim may be asked for both as a text and as a list.
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
                "{wanted} is given twice: write the items of a list in one"
            );
            fits = true;
            *known = as_the_edge_reads(attribute, values)?;
        }
        if !named {
            bail!("the policy asks for no {wanted}; {}", asked_for(attributes));
        }
        ensure!(fits, "{wanted} is one text in this policy, not a list");
    }
    Ok(identity)
}

fn asked_for(attributes: &[Attribute]) -> String {
    let names: BTreeSet<String> = attributes.iter().map(name).collect();
    match names.len() {
        0 => "it asks for nothing, its rules are for everybody".to_owned(),
        _ => {
            let names: Vec<_> = names.into_iter().collect();
            format!("it asks for {}", names.join(", "))
        }
    }
}

/// What the edge would know.
fn as_the_edge_reads(attribute: &Attribute, values: Vec<String>) -> Result<Known> {
    Ok(match (attribute, &values[..]) {
        (Attribute::Host, [host]) => Known::host(host),
        (Attribute::Address, [address]) if address.parse::<IpAddr>().is_err() => {
            bail!("\"{address}\" is no address, such as 10.0.0.1")
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
        let identity = identity(&policy(), &given)?;
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
                "asks for no claim:group; it asks for address, claim:realm.groups",
            ),
            (&["user=a", "user=b"], "user is given twice"),
            (&["address=10.0.0.1:80"], "is no address"),
        ] {
            let error = known(texts).unwrap_err().to_string();
            assert!(error.contains(part), "{texts:?}: {error}");
        }
        assert!("alice".parse::<Given>().is_err());
        assert!("claim:groups".parse::<Given>().is_err());
    }

    #[test]
    fn a_list_in_a_case_is_a_list() {
        let given = |attribute: &str, value| Given {
            attribute: attribute.to_owned(),
            value,
        };
        let list = Value::List(vec!["a,b".to_owned()]);
        let known = |given| identity(&policy(), &[given]);
        let claim = known(given("claim:realm.groups", list.clone())).unwrap();
        assert_eq!(
            claim[..2],
            [Known::Values(vec!["a,b".to_owned()]), Known::Unknown]
        );
        let error = known(given("user", list)).unwrap_err().to_string();
        assert!(error.contains("user is one text"), "{error}");
    }
}
