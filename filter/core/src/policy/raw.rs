//! A policy as its author writes it, and its compilation.
//!
//! Compiling refuses patterns and limits that no author can mean, and names the rule and the key: a
//! policy that means something else than its author thought is worse than none.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use thiserror::Error;

use super::denied::DeniedNames;
use super::facts::{FactRules, RawFacts};
use super::glob::{Glob, Reach};
use super::glob_set::GlobSet;
use super::rule::{Limits, Mode, Pattern, Rule};
use super::subject::{AddressRange, Attribute, ClaimKind, Condition, Subject, Values};
use super::{DefaultDecision, Policy};
use crate::distribution::Tag;
use crate::package_set::{self, System};

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPolicy {
    /// The policy's name for itself, in refusals and logs
    revision: String,
    /// The decision on a package, or an opaque name, that no rule matches
    default: DefaultDecision,
    /// Whether a refusal looks like an unknown package or image
    #[serde(default)]
    hide: bool,
    /// See [Policy](policy.md)
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawRule {
    /// In refusals, statistics and logs
    name: String,
    /// Whom the rule is for; everybody when left out
    subject: Option<RawSubject>,
    /// `audit`: what it would refuse is let through, with a `Warning: 299`, counted and logged
    #[serde(default)]
    mode: Mode,
    /// Patterns of the packages that it allows
    #[serde(default)]
    allow: Vec<String>,
    /// Patterns of the packages that it denies
    #[serde(default)]
    deny: Vec<String>,
    /// Patterns of the images with an opaque name ([recipes](recipes.md)) that it allows: `corp/ci-*`
    #[serde(default)]
    images: Vec<String>,
    /// Patterns of the images with an opaque name that it denies
    #[serde(default)]
    deny_images: Vec<String>,
    /// The tags under which it allows; `["latest"]` when left out
    tags: Option<Vec<String>>,
    /// The platforms for which it allows; all when left out
    systems: Option<Vec<String>>,
    /// It allows in images of at most this many packages, as the caller wrote them
    max_packages: Option<usize>,
    /// What an image must not have; see below
    facts: Option<RawFacts>,
    /// Advice for a refused caller
    message: Option<String>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum RawSubject {
    JwtClaim {
        path: Vec<String>,
        r#type: ClaimKind,
        glob: String,
    },
    Header {
        name: String,
        glob: String,
    },
    UriSan {
        glob: String,
    },
    BasicUser {
        glob: String,
    },
    Host {
        glob: String,
    },
    Address {
        ranges: Vec<String>,
    },
    All(Vec<RawSubject>),
    Any(Vec<RawSubject>),
    Not(Box<RawSubject>),
}

/// Why a policy can't be used, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct PolicyError(pub(super) String);

impl From<serde_json::Error> for PolicyError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl PolicyError {
    /// The error with the place where it is.
    pub(super) fn at(&self, place: &str) -> Self {
        Self(format!("{place}: {self}"))
    }
}

/// Whether a text can be a revision or a rule's name: these go into headers, metrics and logs.
fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

const WORD: &str = "must have 1 to 128 letters, digits, dots, dashes or underscores";

impl RawPolicy {
    /// `prefix` precedes the names under which the builder checks the rules' facts, so that two
    /// policies can have rules of the same name.
    pub(crate) fn compile(self, prefix: &str) -> Result<Policy, PolicyError> {
        if !is_word(&self.revision) {
            return Err(PolicyError(format!("policy.revision {WORD}")));
        }
        let (mut names, mut facts) = (BTreeSet::new(), BTreeMap::new());
        let (mut rules, mut attributes) = (Vec::new(), Vec::new());
        for mut raw in self.rules {
            let name = raw.name.clone();
            if !is_word(&name) {
                let name = name.escape_debug();
                return Err(PolicyError(format!(
                    "policy.rules: the name \"{name}\" {WORD}"
                )));
            }
            if !names.insert(name.clone()) {
                return Err(PolicyError(format!(
                    "policy.rules: two rules have the name {name}"
                )));
            }
            let facts_name = raw.facts.take().map(|raw| {
                let name = format!("{prefix}{name}");
                facts.insert(name.clone(), raw);
                name
            });
            let rule = raw.compile(facts_name, &mut attributes);
            rules.push(rule.map_err(|error| error.at(&format!("the rule {name}")))?);
        }
        let set = |patterns: fn(&Rule) -> &[Pattern]| {
            let mut set = GlobSet::default();
            for (index, rule) in rules.iter().enumerate() {
                let globs = patterns(rule).iter().flat_map(|pattern| &pattern.globs);
                globs.for_each(|glob| set.insert(glob.clone(), index));
            }
            set
        };
        let audited = rules.iter().enumerate();
        let audited = audited.filter(|(_, rule)| rule.mode == Mode::Audit);
        DeniedNames::of(&[&rules])?;
        Ok(Policy {
            allow: set(|rule| &rule.allow),
            deny: set(|rule| &rule.deny),
            images: set(|rule| &rule.images),
            deny_images: set(|rule| &rule.deny_images),
            audited: audited.map(|(index, _)| index).collect(),
            fact_rules: FactRules::compile(facts)?,
            revision: self.revision,
            default: self.default,
            hide: self.hide,
            rules,
            attributes,
        })
    }
}

impl RawRule {
    fn compile(
        self,
        facts: Option<String>,
        attributes: &mut Vec<Attribute>,
    ) -> Result<Rule, PolicyError> {
        let rule = Rule {
            name: self.name,
            mode: self.mode,
            allow: patterns("allow", self.allow, |text| {
                package_globs(text, Reach::OneAttribute)
            })?,
            deny: patterns("deny", self.deny, |text| {
                package_globs(text, Reach::Anything)
            })?,
            images: patterns("images", self.images, image_globs)?,
            deny_images: patterns("deny_images", self.deny_images, image_globs)?,
            facts,
            limits: Limits {
                tags: tags(self.tags).map_err(|error| error.at("tags"))?,
                systems: systems(self.systems).map_err(|error| error.at("systems"))?,
                max_packages: self.max_packages,
            },
            message: self.message,
            subject: self
                .subject
                .map(|subject| subject.compile(attributes))
                .transpose()
                .map_err(|error| error.at("subject"))?,
        };
        let lists = rule.patterns();
        if rule.facts.is_none() && lists.iter().all(|(_, patterns)| patterns.is_empty()) {
            return Err(PolicyError(
                "it allows and denies nothing: give it allow, deny, images, deny_images or facts"
                    .to_owned(),
            ));
        }
        Ok(rule)
    }
}

type Globs = Result<Vec<Glob>, PolicyError>;

fn patterns(
    key: &str,
    texts: Vec<String>,
    globs: fn(&str) -> Globs,
) -> Result<Vec<Pattern>, PolicyError> {
    let pattern = |text: String| {
        Ok(Pattern {
            globs: globs(&text).map_err(|error| error.at(key))?,
            text: text.into(),
        })
    };
    texts.into_iter().map(pattern).collect()
}

fn package_globs(text: &str, reach: Reach) -> Globs {
    let Some(meta) = text.strip_prefix('@') else {
        if text.contains('/') {
            return Err(PolicyError(format!(
                "\"{text}\" has a slash, which no package has: write opaque names under images and \
                 deny_images"
            )));
        }
        return Glob::parse(&package_set::canonical_path(text), reach);
    };
    let members = package_set::members(meta).ok_or_else(|| {
        PolicyError(format!(
            "\"{text}\" is not a meta-package: write @shell, @builder or @ci"
        ))
    })?;
    let globs = members.into_iter().map(|member| Glob::parse(member, reach));
    Ok(globs.collect::<Result<Vec<_>, _>>()?.concat())
}

/// Wildcards in patterns of opaque names match slashes and dots as well.
fn image_globs(text: &str) -> Globs {
    let globs = Glob::parse(&text.to_ascii_lowercase(), Reach::Anything)?;
    if let Some(glob) = globs.iter().find(|glob| namespace_of(glob) == Some("")) {
        return Err(PolicyError(format!(
            "\"{glob}\" is not an opaque name: begin with the namespace, as in corp/ci-base"
        )));
    }
    Ok(globs)
}

/// The namespace of all names that a glob matches; none when there may be several, and empty when it
/// matches no opaque name.
pub(super) fn namespace_of(glob: &Glob) -> Option<&str> {
    match glob.prefix().split_once('/') {
        Some((namespace, _)) => Some(namespace),
        None if glob.is_literal() => Some(""),
        None => None,
    }
}

fn tags(texts: Option<Vec<String>>) -> Result<Vec<Tag>, PolicyError> {
    let Some(texts) = texts else {
        return Ok(vec![Tag::latest()]);
    };
    let tags = texts.iter().map(|text| Tag::parse(text));
    let tags: Result<_, _> = tags.collect();
    tags.map_err(|error| PolicyError(error.to_string()))
}

fn systems(names: Option<Vec<String>>) -> Result<Option<BTreeSet<System>>, PolicyError> {
    let system = |name: &String| {
        System::from_nix(name).ok_or_else(|| {
            PolicyError(format!(
                "\"{name}\" is not a platform: write x86_64-linux or aarch64-linux"
            ))
        })
    };
    names
        .map(|names| names.iter().map(system).collect())
        .transpose()
}

impl RawSubject {
    fn compile(self, attributes: &mut Vec<Attribute>) -> Result<Subject, PolicyError> {
        let mut matches = |attribute, text: &str| {
            let globs = Glob::parse(text, Reach::Anything)?;
            Ok(condition(attributes, attribute, Values::Globs(globs)))
        };
        match self {
            Self::JwtClaim { path, r#type, glob } => {
                if path.is_empty() {
                    return Err(PolicyError("jwt_claim.path is empty".to_owned()));
                }
                matches(Attribute::JwtClaim { path, kind: r#type }, &glob)
            }
            Self::Header { name, glob } => {
                let name = name.to_ascii_lowercase();
                if name.is_empty() || name.starts_with(':') {
                    return Err(PolicyError(format!(
                        "header.name: \"{name}\" is not the name of a header"
                    )));
                }
                matches(Attribute::Header { name }, &glob)
            }
            Self::UriSan { glob } => matches(Attribute::UriSan, &glob),
            Self::BasicUser { glob } => matches(Attribute::BasicUser, &glob),
            Self::Host { glob } => matches(Attribute::Host, &glob.to_ascii_lowercase()),
            Self::Address { ranges } => {
                let range = |text: &String| {
                    AddressRange::parse(text).ok_or_else(|| {
                        PolicyError(format!(
                            "address.ranges: \"{text}\" is not an address range such as \
                             10.0.0.0/8, or has bits behind its prefix length"
                        ))
                    })
                };
                let ranges = ranges.iter().map(range).collect::<Result<_, _>>()?;
                let ranges = Values::Ranges(ranges);
                Ok(condition(attributes, Attribute::Address, ranges))
            }
            Self::All(parts) => Ok(Subject::All(compile_all(parts, attributes)?)),
            Self::Any(parts) => Ok(Subject::Any(compile_all(parts, attributes)?)),
            Self::Not(part) => Ok(Subject::Not(Box::new(part.compile(attributes)?))),
        }
    }
}

fn compile_all(
    parts: Vec<RawSubject>,
    attributes: &mut Vec<Attribute>,
) -> Result<Vec<Subject>, PolicyError> {
    if parts.is_empty() {
        return Err(PolicyError("an empty all or any has no meaning".to_owned()));
    }
    let parts = parts.into_iter();
    parts.map(|part| part.compile(attributes)).collect()
}

/// Equal attributes are one, so that each is read from the host once.
fn condition(attributes: &mut Vec<Attribute>, attribute: Attribute, values: Values) -> Subject {
    let known = attributes.iter().position(|known| *known == attribute);
    let attribute = known.unwrap_or_else(|| {
        attributes.push(attribute);
        attributes.len().saturating_sub(1)
    });
    Subject::Is(Condition { attribute, values })
}

// As in `config::reference`.
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::reference::keys::table_of;
    use crate::reference::with_table;

    #[test]
    fn the_policy_page_has_the_keys_of_a_rule() {
        let page = expect_test::expect_file!["../../../../docs/src/policy.md"];
        page.assert_eq(&with_table(&page.data(), "rule", &table_of::<RawRule>()));
    }
}
