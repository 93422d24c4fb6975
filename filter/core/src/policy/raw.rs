//! A policy as it is written, and its compilation.
//!
//! What can't be meant is refused with the rule and the key at fault: a policy that is read in
//! another way than its author thought is worse than none.

pub(super) mod outline;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use super::facts::{FactRules, RawFacts};
use super::glob::{Glob, Reach};
use super::rule::{Limits, Mode, Rule};
use super::subject::{AddressRange, Attribute, ClaimKind, Subject};
use super::{Default, Policy};
use crate::OpaqueNamespaces;
use crate::distribution::Tag;
use crate::package_set::{self, System};
use outline::{Pattern, Patterns};

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPolicy {
    /// The policy's name for itself, in refusals and logs
    revision: String,
    /// What becomes of a package, or an opaque name, that no rule speaks of
    default: RawDefault,
    /// Whether a refusal is to look like an unknown package or image
    #[serde(default)]
    hide: bool,
    /// See [Policy](policy.md)
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum RawDefault {
    Allow,
    Deny,
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
    mode: RawMode,
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
    /// Under which tags the rule allows what it allows; `["latest"]` when left out
    tags: Option<Vec<String>>,
    /// For which platforms it does; all when left out
    systems: Option<Vec<String>>,
    /// In images of at most how many packages, as the caller wrote them
    max_packages: Option<usize>,
    /// What an image must not have; see below
    facts: Option<RawFacts>,
    /// What a refused caller is told besides
    message: Option<String>,
}

#[derive(Deserialize, Default)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "lowercase")]
enum RawMode {
    #[default]
    Enforce,
    Audit,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum RawSubject {
    JwtClaim(RawClaim),
    Header(RawHeader),
    UriSan(RawGlob),
    BasicUser(RawGlob),
    Host(RawGlob),
    Address(RawRanges),
    All(Vec<RawSubject>),
    Any(Vec<RawSubject>),
    Not(Box<RawSubject>),
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawClaim {
    path: Vec<String>,
    r#type: RawKind,
    glob: String,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum RawKind {
    String,
    List,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawHeader {
    name: String,
    glob: String,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawGlob {
    glob: String,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawRanges {
    ranges: Vec<String>,
}

/// Why a policy can't be used, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(pub(super) String);

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PolicyError {}

impl From<serde_json::Error> for PolicyError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

fn error<T>(message: String) -> Result<T, PolicyError> {
    Err(PolicyError(message))
}

/// The revision and the rules' names go into headers, metrics and logs.
fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

const WORD: &str = "from 1 to 128 letters, digits, dots, dashes and underscores";

impl RawPolicy {
    /// `prefix` stands before the names by which the builder judges the rules' facts, so that those
    /// of two policies can be told apart.
    pub(crate) fn compile(self, prefix: &str) -> Result<Policy, PolicyError> {
        let Self {
            revision,
            default,
            hide,
            rules,
        } = self;
        if !is_word(&revision) {
            return error(format!("policy.revision must be {WORD}"));
        }
        let mut policy = Policy::new(
            revision,
            match default {
                RawDefault::Allow => Default::Allow,
                RawDefault::Deny => Default::Deny,
            },
            hide,
        );
        let mut names = BTreeSet::new();
        let mut fact_rules = BTreeMap::new();
        for raw in rules {
            if !is_word(&raw.name) {
                return error(format!(
                    "policy.rules: the name \"{}\" must be {WORD}",
                    raw.name.escape_debug()
                ));
            }
            if !names.insert(raw.name.clone()) {
                return error(format!(
                    "policy.rules: two rules have the name {}",
                    raw.name
                ));
            }
            let at = |key: &str| format!("the rule {}: {key}", raw.name);
            let patterns = raw.patterns()?;
            if raw.says_nothing() {
                return error(at(
                    "it allows and denies nothing: give it allow, deny, images, deny_images or \
                     facts",
                ));
            }
            let subject = raw
                .subject
                .map(|subject| subject.compile(&mut policy.attributes, &at("subject")))
                .transpose()?;
            let facts = raw.facts.map(|facts| {
                let name = format!("{prefix}{}", raw.name);
                fact_rules.insert(name.clone(), facts);
                name
            });
            let rule = Rule {
                subject,
                mode: match raw.mode {
                    RawMode::Enforce => Mode::Enforce,
                    RawMode::Audit => Mode::Audit,
                },
                limits: Limits {
                    tags: tags(raw.tags, &at("tags"))?,
                    systems: systems(raw.systems, &at("systems"))?,
                    max_packages: raw.max_packages,
                },
                facts,
                message: raw.message.clone(),
                name: raw.name.clone(),
            };
            policy.add(rule, patterns);
        }
        policy.fact_rules = FactRules::compile(fact_rules)?;
        Ok(policy)
    }
}

impl RawPolicy {
    /// Whether every pattern of opaque names can match one.
    pub(crate) fn check_images(&self, opaque: &OpaqueNamespaces) -> Result<(), PolicyError> {
        for rule in &self.rules {
            let patterns = rule.patterns()?;
            for (key, patterns) in [
                ("images", patterns.images),
                ("deny_images", patterns.deny_images),
            ] {
                let mut globs = patterns.iter().flat_map(|pattern| &pattern.globs);
                let unknown = |namespace: &str| !opaque.contains(namespace);
                let lost = globs.find(|glob| namespace_of(glob).is_some_and(unknown));
                if let Some(glob) = lost {
                    return error(format!(
                        "the rule {}: {key}: \"{glob}\" is in no opaque namespace: \
                         opaque_namespaces has to name those of the builder's recipes",
                        rule.name
                    ));
                }
            }
        }
        Ok(())
    }
}

impl RawRule {
    fn says_nothing(&self) -> bool {
        let lists = [&self.allow, &self.deny, &self.images, &self.deny_images];
        lists.into_iter().all(Vec::is_empty) && self.facts.is_none()
    }

    fn patterns(&self) -> Result<Patterns, PolicyError> {
        let each = |texts: &[String], key: &str, globs: &dyn Fn(&str, &str) -> Globs| {
            let at = format!("the rule {}: {key}", self.name);
            let pattern = |text: &String| {
                Ok(Pattern {
                    globs: globs(text, &at)?,
                    text: text.clone(),
                })
            };
            texts
                .iter()
                .map(pattern)
                .collect::<Result<_, PolicyError>>()
        };
        Ok(Patterns {
            allow: each(&self.allow, "allow", &|text, at| {
                packages(text, Reach::OneAttribute, at)
            })?,
            deny: each(&self.deny, "deny", &|text, at| {
                packages(text, Reach::Anything, at)
            })?,
            images: each(&self.images, "images", &images)?,
            deny_images: each(&self.deny_images, "deny_images", &images)?,
        })
    }
}

type Globs = Result<Vec<Glob>, PolicyError>;

/// The globs of a pattern of packages.
fn packages(text: &str, reach: Reach, at: &str) -> Globs {
    let Some(meta) = text.strip_prefix('@') else {
        if text.contains('/') {
            return error(format!(
                "{at}: \"{text}\" has a slash, which no package has: opaque names are for images \
                 and deny_images"
            ));
        }
        return glob(&package_set::canonical_path(text), reach, at);
    };
    let members = package_set::members(meta)
        .ok_or_else(|| PolicyError(format!("{at}: \"{text}\" is none of @shell and @builder")))?;
    let globs = members.into_iter().map(|member| glob(member, reach, at));
    Ok(globs.collect::<Result<Vec<_>, _>>()?.concat())
}

/// The globs of a pattern of opaque names, whose wildcards stand for slashes and dots as well.
fn images(text: &str, at: &str) -> Globs {
    let globs = glob(&text.to_ascii_lowercase(), Reach::Anything, at)?;
    if let Some(glob) = globs.iter().find(|glob| namespace_of(glob) == Some("")) {
        return error(format!(
            "{at}: \"{glob}\" is no opaque name: these begin with their namespace, as corp/ci-base"
        ));
    }
    Ok(globs)
}

/// The namespace of all names that a pattern matches; none when there may be several, and empty when
/// it matches no opaque name.
pub(super) fn namespace_of(glob: &Glob) -> Option<&str> {
    match glob.prefix().split_once('/') {
        Some((namespace, _)) => Some(namespace),
        None if glob.is_literal() => Some(""),
        None => None,
    }
}

fn glob(text: &str, reach: Reach, at: &str) -> Globs {
    Glob::parse(text, reach).map_err(|error| PolicyError(format!("{at}: {error}")))
}

fn tags(texts: Option<Vec<String>>, at: &str) -> Result<Vec<Tag>, PolicyError> {
    let Some(texts) = texts else {
        return Ok(vec![Tag::latest()]);
    };
    texts
        .iter()
        .map(|text| Tag::parse(text).map_err(|error| PolicyError(format!("{at}: {error}"))))
        .collect()
}

fn systems(names: Option<Vec<String>>, at: &str) -> Result<Option<BTreeSet<System>>, PolicyError> {
    let Some(names) = names else {
        return Ok(None);
    };
    let systems: Result<_, _> = names
        .iter()
        .map(|name| {
            System::from_nix(name).ok_or_else(|| {
                PolicyError(format!(
                    "{at}: \"{name}\" is none of x86_64-linux and aarch64-linux"
                ))
            })
        })
        .collect();
    systems.map(Some)
}

impl RawSubject {
    fn compile(self, attributes: &mut Vec<Attribute>, at: &str) -> Result<Subject, PolicyError> {
        let mut matches = |attribute: Attribute, text: &str| {
            let globs = glob(text, Reach::Anything, at)?;
            let attribute = index_of(attributes, attribute);
            Ok(Subject::Matches { attribute, globs })
        };
        match self {
            Self::JwtClaim(RawClaim { path, r#type, glob }) => {
                if path.is_empty() {
                    return error(format!("{at}.jwt_claim.path is empty"));
                }
                let kind = match r#type {
                    RawKind::String => ClaimKind::Text,
                    RawKind::List => ClaimKind::List,
                };
                matches(Attribute::JwtClaim { path, kind }, &glob)
            }
            Self::Header(RawHeader { name, glob }) => {
                let name = name.to_ascii_lowercase();
                if name.is_empty() || name.starts_with(':') {
                    return error(format!("{at}.header.name is not the name of a header"));
                }
                matches(Attribute::Header { name }, &glob)
            }
            Self::UriSan(RawGlob { glob }) => matches(Attribute::UriSan, &glob),
            Self::BasicUser(RawGlob { glob }) => matches(Attribute::BasicUser, &glob),
            Self::Host(RawGlob { glob }) => matches(Attribute::Host, &glob.to_ascii_lowercase()),
            Self::Address(RawRanges { ranges }) => {
                let ranges = ranges
                    .iter()
                    .map(|text| {
                        AddressRange::parse(text).ok_or_else(|| {
                            PolicyError(format!(
                                "{at}.address.ranges: \"{text}\" is not a range such as \
                                 10.0.0.0/8, or has bits behind its length"
                            ))
                        })
                    })
                    .collect::<Result<_, _>>()?;
                let attribute = index_of(attributes, Attribute::Address);
                Ok(Subject::Within { attribute, ranges })
            }
            Self::All(parts) => Ok(Subject::All(compile_all(parts, attributes, at)?)),
            Self::Any(parts) => Ok(Subject::Any(compile_all(parts, attributes, at)?)),
            Self::Not(part) => Ok(Subject::Not(Box::new(part.compile(attributes, at)?))),
        }
    }
}

fn compile_all(
    parts: Vec<RawSubject>,
    attributes: &mut Vec<Attribute>,
    at: &str,
) -> Result<Vec<Subject>, PolicyError> {
    if parts.is_empty() {
        return error(format!("{at}: an empty all or any has no meaning"));
    }
    parts
        .into_iter()
        .map(|part| part.compile(attributes, at))
        .collect()
}

/// Equal attributes are one, so that each is read from the host once.
fn index_of(attributes: &mut Vec<Attribute>, attribute: Attribute) -> usize {
    let known = attributes.iter().position(|known| *known == attribute);
    known.unwrap_or_else(|| {
        attributes.push(attribute);
        attributes.len().saturating_sub(1)
    })
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
