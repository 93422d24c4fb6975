//! What names can't say of an image, and the builder knows.
//!
//! ```text
//!   edge                                            builder
//!   the policy's rules with facts ──FactRules──►    Contents of the image: licences, closure …
//!   judges for each caller        ◄──ImageFacts──   tags, system, names, the rules that match
//! ```
//!
//! The builder judges the fact part of a rule without knowing who asks, so that one answer serves
//! every caller; the edge joins it with the rule's subject. The rules travel with each question:
//! the builder needs no copy of the policy, and never answers by an older one than was asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::PolicyError;
use super::glob::{Glob, Reach};
use crate::distribution::Tag;
use crate::json::each_key_once;
use crate::package_set::System;

/// What the rules may take as a header, in bytes: with the rest of a request it stays well below
/// the 60 KiB that Envoy lets pass.
const MAX_HEADER: usize = 16 << 10;

/// What the builder says of a licence that the package set gives and that can't be read
/// (`nix/resolve.nix`). It may be any, so it counts as what a rule refuses.
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
    licences: Vec<Glob>,
    insecure: bool,
    closure: Vec<Glob>,
}

/// The fact parts of all rules that have one, by the rules' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactRules {
    raw: BTreeMap<String, RawFacts>,
    rules: BTreeMap<String, FactRule>,
    header: String,
}

/// What a builder knows of the contents of one image.
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

/// What a builder says of one image to which an answer belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The tags by which it is or was had.
    pub tags: BTreeSet<Tag>,
    /// The platform that it is for.
    pub system: System,
    /// What attributes are really called (`pname`), where that is another name than the one that
    /// was asked for: an alias, or an attribute that is named for its version.
    pub names: BTreeMap<String, String>,
    /// The rules whose fact part is true of it.
    pub matched: BTreeSet<String>,
    /// The packages of an image with an opaque name; none where the name itself is the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<BTreeSet<String>>,
}

impl ImageFacts {
    /// Reads the header of a builder's answer: a JSON list, one item for each image of the name
    /// that the answer belongs to. None when it is no such list, or names no image.
    pub fn parse(header: &str) -> Option<Vec<Self>> {
        let images: Vec<Self> = serde_json::from_str(header).ok()?;
        (!images.is_empty()).then_some(images)
    }

    /// The header for these images, in ASCII whatever packages are called.
    pub fn header(images: &[Self]) -> String {
        // Nothing in it can fail to be written.
        let json = serde_json::to_string(images).unwrap_or_default();
        let mut header = String::with_capacity(json.len());
        for character in json.chars() {
            match character {
                ' '..='~' => header.push(character),
                // Such a one is in a string, where JSON writes it as UTF-16.
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
                "the facts of all rules together go to the builder in a header: they must be ASCII \
                 and take at most {MAX_HEADER} bytes, and take {}",
                header.len()
            )));
        }
        let rules = raw.iter().map(|(name, facts)| {
            let rule = facts.compile(&format!("the rule {name}: facts"))?;
            Ok((name.clone(), rule))
        });
        Ok(Self {
            rules: rules.collect::<Result<_, PolicyError>>()?,
            header,
            raw,
        })
    }

    /// These and others together, which have other names.
    ///
    /// # Errors
    /// When they are too many for a header.
    pub(crate) fn and(&self, others: &Self) -> Result<Self, PolicyError> {
        let all = self.raw.iter().chain(&others.raw);
        Self::compile(
            all.map(|(name, facts)| (name.clone(), facts.clone()))
                .collect(),
        )
    }

    /// Reads the header by which an edge sends them.
    ///
    /// # Errors
    /// When it is not what [`FactRules::header`] gives.
    pub fn parse(header: &str) -> Result<Self, PolicyError> {
        let mut json = serde_json::Deserializer::from_str(header);
        let raw = each_key_once(&mut json)?;
        json.end()?;
        Self::compile(raw)
    }

    /// The header's value; none when there is no such rule.
    pub fn header(&self) -> Option<&str> {
        (!self.rules.is_empty()).then_some(&self.header)
    }

    /// The names of the rules that are true of an image with these contents.
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
            || (self.insecure && contents.insecure)
            || any(&self.closure, &contents.closure)
    }
}

impl RawFacts {
    fn compile(&self, at: &str) -> Result<FactRule, PolicyError> {
        let Self {
            licences,
            insecure,
            closure,
        } = self;
        if licences.is_empty() && closure.is_empty() && !insecure {
            return Err(PolicyError(format!("{at}: none is asked for")));
        }
        let globs = |texts: &[String], key: &str| -> Result<Vec<Glob>, PolicyError> {
            let mut globs = Vec::new();
            for text in texts {
                let parsed = Glob::parse(text, Reach::Anything);
                globs.extend(parsed.map_err(|error| PolicyError(format!("{at}.{key}: {error}")))?);
            }
            Ok(globs)
        };
        Ok(FactRule {
            licences: globs(licences, "licences")?,
            insecure: *insecure,
            closure: globs(closure, "closure")?,
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
            names: [("vcs".to_owned(), "git".to_owned())].into(),
            matched: set(&["free"]),
            packages: None,
        };
        let header = ImageFacts::header(std::slice::from_ref(&facts));
        assert_eq!(
            header,
            r#"[{"tags":["latest"],"system":"aarch64-linux","names":{"vcs":"git"},"matched":["free"]}]"#
        );
        assert_eq!(ImageFacts::parse(&header), Some(vec![facts.clone()]));
        let recipe = ImageFacts {
            packages: Some(set(&["cacert", "git"])),
            ..facts
        };
        let header = ImageFacts::header(std::slice::from_ref(&recipe));
        assert_eq!(ImageFacts::parse(&header), Some(vec![recipe]));
        for header in [
            "",
            "[]",
            "{}",
            r#"[{"tags":["no tag"],"system":"aarch64-linux","names":{},"matched":[]}]"#,
            // Not to say what it is called, or which rules are true of it, is not to say that none is.
            r#"[{"tags":["latest"],"system":"aarch64-linux","matched":[]}]"#,
            r#"[{"tags":["latest"],"system":"aarch64-linux","names":{}}]"#,
        ] {
            assert_eq!(ImageFacts::parse(header), None, "{header}");
        }
    }
}
