//! Facts about an image that its name doesn't tell and the builder knows.
//!
//! ```text
//!   edge                                            builder
//!   the policy's rules with facts ──FactRules──►    Contents of the image: licences, closure …
//!   judges for each caller        ◄──ImageFacts──   tags, system, names ([`DeniedNames`]), the rules that match
//! ```
//!
//! The builder checks the fact part of a rule without knowing the caller, so one answer serves all
//! callers; the edge combines it with the rule's subject. The rules travel with each request: the
//! builder needs no copy of the policy, and never answers by an older one.
//!
//! [`DeniedNames`]: super::DeniedNames

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::PolicyError;
use super::glob::{Glob, Reach};
use crate::distribution::Tag;
use crate::json::each_key_once;
use crate::package_set::System;

/// The most bytes that the rules take as a header. With the rest of a request they stay well below
/// the 60 KiB that Envoy accepts.
const MAX_HEADER: usize = 16 << 10;

/// The builder's word for a licence that the package set gives and that it can't read
/// (`nix/packages.nix`). It may be any licence, so every rule about licences matches it.
const UNREADABLE: &str = "unreadable";

/// The fact part of a rule, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawFacts {
    /// Patterns of `meta.license`: `shortName`, `spdxId`, `fullName`, and `unfree` for what is not
    /// free
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licences: Vec<String>,
    /// `true`: packages with `meta.knownVulnerabilities`
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
    /// Patterns of store path names, anywhere in the image: `openssl-1.*`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    closure: Vec<String>,
}

/// The fact part of a rule, compiled: what an image must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FactRule {
    raw: RawFacts,
    licences: Vec<Glob>,
    closure: Vec<Glob>,
}

/// The fact parts of all rules that have one, by the rules' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactRules {
    rules: BTreeMap<String, FactRule>,
    header: String,
}

/// The contents of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The licences of its packages, as `meta.license` names them: `shortName`, `spdxId` and
    /// `fullName`; `unfree` when the package set marks one as not free, and `unreadable` when one
    /// can't be read.
    pub licences: BTreeSet<String>,
    /// Whether one of its packages is marked as insecure (`meta.knownVulnerabilities`).
    pub insecure: bool,
    /// The names of the store paths in its closure, without their hashes: `openssl-1.1.1w`.
    pub closure: BTreeSet<String>,
}

/// The builder's facts about one image to which an answer belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Its tags, past ones included.
    pub tags: BTreeSet<Tag>,
    /// Its platform.
    pub system: System,
    /// Packages with another name than the one by which the image has them: the real one (`pname`), and those
    /// that rules deny ([`DeniedPatterns::matched`](super::DeniedPatterns::matched)). A list, since it is less
    /// code than a map.
    pub names: Vec<(String, String)>,
    /// Whether the builder could not find out which other names the packages have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_unknown: bool,
    /// Whether more names may be known soon: such facts are of no use beyond their time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsettled: bool,
    /// The rules whose fact part matches it.
    pub matched: BTreeSet<String>,
    /// The packages of an image with an opaque name; none where the name is the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<BTreeSet<String>>,
}

impl ImageFacts {
    /// Reads the header of a builder's answer: a JSON list with an item for each image of the name
    /// that the answer belongs to. None when it is no such list, or an empty one.
    pub fn parse(header: &str) -> Option<Vec<Self>> {
        let images: Vec<Self> = serde_json::from_str(header).ok()?;
        (!images.is_empty()).then_some(images)
    }

    /// The header for these images, in ASCII whatever the names of packages are.
    pub fn header(images: &[Self]) -> String {
        // Nothing in it can fail to be written.
        let json = serde_json::to_string(images).unwrap_or_default();
        let mut header = String::with_capacity(json.len());
        for character in json.chars() {
            match character {
                ' '..='~' => header.push(character),
                // It is in a string, where JSON escapes it as UTF-16.
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        header.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        header
    }
}

impl FactRules {
    pub(super) fn compile(raw: BTreeMap<String, RawFacts>) -> Result<Self, PolicyError> {
        if raw.is_empty() {
            return Ok(Self::default());
        }
        let header = serde_json::to_string(&raw)?;
        if header.len() > MAX_HEADER || !header.is_ascii() {
            return Err(PolicyError(format!(
                "the facts of all rules go to the builder in one header: write them in ASCII and in \
                 at most {MAX_HEADER} bytes instead of {}",
                header.len()
            )));
        }
        let rules = raw.into_iter().map(|(name, facts)| {
            let rule = facts.compile();
            let rule = rule.map_err(|error| error.at(&format!("the rule {name}: facts")))?;
            Ok((name, rule))
        });
        Ok(Self {
            rules: rules.collect::<Result<_, PolicyError>>()?,
            header,
        })
    }

    /// These and others, which have other names.
    ///
    /// # Errors
    /// When all of them are too many for a header.
    pub(crate) fn and(&self, others: &Self) -> Result<Self, PolicyError> {
        let all = self.rules.iter().chain(&others.rules);
        let raw = all.map(|(name, rule)| (name.clone(), rule.raw.clone()));
        Self::compile(raw.collect())
    }

    /// Whether the fact parts of two rules are equal.
    pub(super) fn are_equal(&self, one: Option<&String>, other: Option<&String>) -> bool {
        let rule = |name: Option<&String>| self.rules.get(name?);
        rule(one) == rule(other)
    }

    /// Reads the header in which an edge sends them.
    ///
    /// # Errors
    /// When [`FactRules::header`] can't have made it.
    pub fn parse(header: &str) -> Result<Self, PolicyError> {
        let mut json = serde_json::Deserializer::from_str(header);
        let raw = each_key_once(&mut json)?;
        json.end()?;
        Self::compile(raw)
    }

    /// The value of that header; none without rules.
    pub fn header(&self) -> Option<&str> {
        (!self.rules.is_empty()).then_some(&self.header)
    }

    /// The names of the rules that match an image with these contents.
    pub fn matched(&self, contents: &Contents) -> BTreeSet<String> {
        let matching = self.rules.iter().filter(|(_, rule)| rule.matches(contents));
        matching.map(|(name, _)| name.clone()).collect()
    }
}

impl FactRule {
    fn matches(&self, contents: &Contents) -> bool {
        let any = |globs: &[Glob], texts: &BTreeSet<String>| {
            texts
                .iter()
                .any(|text| globs.iter().any(|glob| glob.matches(text)))
        };
        let may_be_any = contents.licences.contains(UNREADABLE);
        any(&self.licences, &contents.licences)
            || (may_be_any && !self.licences.is_empty())
            || (self.raw.insecure && contents.insecure)
            || any(&self.closure, &contents.closure)
    }
}

impl RawFacts {
    fn compile(self) -> Result<FactRule, PolicyError> {
        if self == Self::default() {
            return Err(PolicyError("give licences, insecure or closure".to_owned()));
        }
        let globs = |key: &str, texts: &[String]| -> Result<Vec<Glob>, PolicyError> {
            let globs = texts.iter().map(|text| Glob::parse(text, Reach::Anything));
            let globs: Result<Vec<_>, _> = globs.collect();
            let globs = globs.map_err(|error| error.at(key))?;
            Ok(globs.concat())
        };
        Ok(FactRule {
            licences: globs("licences", &self.licences)?,
            closure: globs("closure", &self.closure)?,
            raw: self,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn rules_survive_the_wire_and_match_by_any_of_their_parts() {
        let header = r#"{"both":{"insecure":true,"closure":["openssl-1.*"]},"free":{"licences":["unfree*","*commercial*"]}}"#;
        let rules = FactRules::parse(header).unwrap();
        assert_eq!(rules.header(), Some(header));
        let contents = |licences: &[&str], insecure, closure: &[&str]| Contents {
            licences: set(licences),
            insecure,
            closure: set(closure),
        };
        for (contents, expected) in [
            (contents(&[], false, &[]), &[][..]),
            (contents(&["mit"], false, &["openssl-3.0.1"]), &[]),
            (contents(&["mit", "unfree"], false, &[]), &["free"]),
            (contents(&["mit", "unreadable"], false, &[]), &["free"]),
            (contents(&[], true, &[]), &["both"]),
            (
                contents(&[], false, &["glibc", "openssl-1.1.1w"]),
                &["both"],
            ),
            (
                contents(&["x-commercial"], false, &["openssl-1.1.1w"]),
                &["both", "free"],
            ),
        ] {
            assert_eq!(rules.matched(&contents), set(expected), "{contents:?}");
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for header in [
            "",
            "[]",
            r#"{"a":{}}"#,
            r#"{"a":{"licences":[""]}}"#,
            r#"{"a":{"licenses":["x"]}}"#,
            r#"{"a":{"licences":["ü"]}}"#,
            r#"{"a":{"insecure":true},"a":{"closure":["x"]}}"#,
            r#"{"a":{"insecure":true,"insecure":false}}"#,
            r#"{"a":{"insecure":true}} {}"#,
        ] {
            assert!(FactRules::parse(header).is_err(), "{header}");
        }
        let long = format!(r#"{{"a":{{"licences":["{}"]}}}}"#, "x".repeat(1000)).repeat(1);
        assert!(FactRules::parse(&long).is_ok());
        let many: BTreeMap<String, RawFacts> = (0..20)
            .map(|number| {
                let facts = RawFacts {
                    licences: vec!["x".repeat(1000)],
                    ..RawFacts::default()
                };
                (number.to_string(), facts)
            })
            .collect();
        let error = FactRules::compile(many).unwrap_err().to_string();
        assert!(error.contains("16384 bytes"), "{error}");
    }

    #[test]
    fn whatever_a_package_is_called_fits_into_a_header() {
        let names = [("a", "ü\u{7f}\n😀\"")];
        let names = names.map(|(asked, called)| (asked.to_owned(), called.to_owned()));
        let facts = ImageFacts {
            tags: BTreeSet::new(),
            system: System::X86_64Linux,
            names: names.into(),
            names_unknown: false,
            unsettled: false,
            matched: BTreeSet::new(),
            packages: None,
        };
        let header = ImageFacts::header(std::slice::from_ref(&facts));
        assert!(
            header.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{header}"
        );
        assert_eq!(ImageFacts::parse(&header), Some(vec![facts]));
    }

    #[test]
    fn facts_survive_the_wire() {
        let facts = ImageFacts {
            tags: [Tag::latest()].into(),
            system: System::Aarch64Linux,
            names: ["git", "hg"]
                .map(|name| ("vcs".to_owned(), name.to_owned()))
                .into(),
            names_unknown: false,
            unsettled: false,
            matched: set(&["free"]),
            packages: None,
        };
        let header = ImageFacts::header(std::slice::from_ref(&facts));
        assert_eq!(
            header,
            r#"[{"tags":["latest"],"system":"aarch64-linux","names":[["vcs","git"],["vcs","hg"]],"matched":["free"]}]"#
        );
        assert_eq!(ImageFacts::parse(&header), Some(vec![facts.clone()]));
        let recipe = ImageFacts {
            names_unknown: true,
            unsettled: false,
            packages: Some(set(&["cacert", "git"])),
            ..facts
        };
        let header = ImageFacts::header(std::slice::from_ref(&recipe));
        assert_eq!(ImageFacts::parse(&header), Some(vec![recipe]));
        for header in [
            "",
            "[]",
            "{}",
            r#"[{"tags":["no tag"],"system":"aarch64-linux","names":[],"matched":[]}]"#,
            // Of a builder that knows one name alone.
            r#"[{"tags":["latest"],"system":"aarch64-linux","names":{"vcs":"git"},"matched":[]}]"#,
            // Not to say what it is called, or which rules are true of it, is not to say that none is.
            r#"[{"tags":["latest"],"system":"aarch64-linux","matched":[]}]"#,
            r#"[{"tags":["latest"],"system":"aarch64-linux","names":[]}]"#,
        ] {
            assert_eq!(ImageFacts::parse(header), None, "{header}");
        }
    }
}
