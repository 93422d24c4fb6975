//! The patterns of the packages that rules deny, for the builder: it alone knows under which other names the
//! package set has a package.
//!
//! ```text
//!   edge                                              builder
//!   all rules' deny ──DeniedNames, in a header──►     compares them with the other names of the image's packages
//!   judges by them  ◄──ImageFacts.names───────────    those that a pattern matches
//! ```
//!
//! They travel with each request, as [`FactRules`](super::FactRules) do.

use std::collections::BTreeSet;

use super::PolicyError;
use super::glob::{Glob, Reach};
use super::glob_set::GlobSet;
use super::rule::Rule;
use crate::package_set::with_parents;

/// The most bytes of the header. Envoy accepts 60 KiB of headers; those of
/// [`FactRules`](super::FactRules) may be 16, and the rest of a request is at most a few.
const MAX_HEADER: usize = 32 << 10;

/// The patterns of all packages that some rule denies, as the edge sends them: sorted, with a space between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedNames(String);

/// The same, as the builder compares them with names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedPatterns {
    header: String,
    set: GlobSet,
    literals: BTreeSet<String>,
    has_wildcards: bool,
}

impl DeniedNames {
    /// Those of the rules of all policies.
    ///
    /// # Errors
    /// When they are too many for a header.
    pub(crate) fn of(policies: &[&[Rule]]) -> Result<Self, PolicyError> {
        let mut texts = BTreeSet::new();
        for rule in policies.iter().copied().flatten() {
            for glob in rule.deny.iter().flat_map(|pattern| &pattern.globs) {
                // No name has a space or a character that a header can't carry, so such a pattern matches none.
                if is_possible(glob.text()) {
                    texts.insert(glob.text().to_owned());
                }
            }
        }
        let mut header = String::new();
        for text in texts {
            if !header.is_empty() {
                header.push(' ');
            }
            header.push_str(&text);
        }
        if header.len() > MAX_HEADER {
            return Err(PolicyError(format!(
                "the patterns under deny of all rules go to the builder in one header: write them in \
                 at most {MAX_HEADER} bytes instead of {}, as patterns with wildcards",
                header.len()
            )));
        }
        Ok(Self(header))
    }

    /// The value of the header; none when no rule denies packages.
    pub fn header(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

fn is_possible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl DeniedPatterns {
    /// Reads the header in which an edge sends them.
    ///
    /// # Errors
    /// When [`DeniedNames::header`] can't have made it.
    pub fn parse(header: &str) -> Result<Self, PolicyError> {
        let texts: Vec<&str> = header.split(' ').collect();
        let is_sorted = texts.is_sorted_by(|one, next| one < next);
        if header.len() > MAX_HEADER || !is_sorted || !texts.iter().all(|text| is_possible(text)) {
            return Err(PolicyError(
                "it is no list of patterns, sorted, with a space between".to_owned(),
            ));
        }
        let mut patterns = Self {
            header: header.to_owned(),
            ..Self::default()
        };
        for (index, text) in texts.into_iter().enumerate() {
            for glob in Glob::parse(text, Reach::Anything)? {
                if glob.is_literal() {
                    patterns.literals.insert(text.to_owned());
                } else {
                    patterns.has_wildcards = true;
                }
                patterns.set.insert(glob, index);
            }
        }
        Ok(patterns)
    }

    /// The header in which they came; empty when no rule denies packages.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Whether no rule denies packages.
    pub fn is_empty(&self) -> bool {
        self.header.is_empty()
    }

    /// Those that one name alone matches.
    pub const fn literals(&self) -> &BTreeSet<String> {
        &self.literals
    }

    /// Whether there are others.
    pub const fn has_wildcards(&self) -> bool {
        self.has_wildcards
    }

    /// Whether one of them matches a name, or what it is in.
    pub fn matches(&self, name: &str) -> bool {
        let mut matches = false;
        for name in with_parents(name) {
            self.set.each_match(name, |_| matches = true);
        }
        matches
    }

    /// Of the other names of a package, and of those that they are in, the ones that the edge needs to judge it:
    /// for each pattern that matches some of them and not the package's own `name`, at least one that it
    /// matches. `name` is judged with what it is in, and the package's `real_name` as a whole.
    pub fn matched<'a>(
        &self,
        name: &str,
        real_name: Option<&str>,
        others: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<String> {
        let mut covered = BTreeSet::new();
        for own in with_parents(name).chain(real_name) {
            self.set.each_match(own, |index| {
                covered.insert(index);
            });
        }
        let mut matched = BTreeSet::new();
        for other in others.into_iter().flat_map(with_parents) {
            let mut is_new = false;
            self.set
                .each_match(other, |index| is_new |= covered.insert(index));
            if is_new {
                matched.insert(other.to_owned());
            }
        }
        matched
    }
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::*;

    /// A policy that denies these.
    fn policy(deny: &[String]) -> Result<Policy, PolicyError> {
        let rules = serde_json::json!([{"name": "a", "allow": ["x"], "deny": deny}]);
        let policy = serde_json::json!({"revision": "1", "default": "allow", "rules": rules});
        Policy::parse(policy.to_string().as_bytes())
    }

    fn header(policies: &[&[&str]]) -> Option<String> {
        let policies = policies.iter().map(|deny| {
            let deny: Vec<_> = deny.iter().map(|&text| text.to_owned()).collect();
            policy(&deny).unwrap()
        });
        let policies: Vec<_> = policies.collect();
        let rules: Vec<_> = policies.iter().map(Policy::rules).collect();
        DeniedNames::of(&rules).unwrap().header().map(str::to_owned)
    }

    #[test]
    fn patterns_survive_the_wire_without_what_no_name_can_match() {
        let both: [&[&str]; 2] = [&["xorg.xev", "a b", "Git", "ü"], &["python3*", "git{,-*}"]];
        let text = "git git-* python3* xorg.xev";
        assert_eq!(header(&both).as_deref(), Some(text));
        let patterns = DeniedPatterns::parse(text).unwrap();
        assert!(patterns.literals().iter().eq(["git", "xorg.xev"]));
        assert!(patterns.has_wildcards() && !patterns.is_empty());
        assert_eq!(header(&[&[]]), None);
        for header in ["", " ", "b a", "a  b", "a a", " a", "a ü", "{a", "a\tb"] {
            assert!(DeniedPatterns::parse(header).is_err(), "{header:?}");
        }
        assert!(DeniedPatterns::parse(&"x".repeat(40_000)).is_err());
    }

    #[test]
    fn too_many_patterns_are_refused_with_what_to_do() {
        let many = |count: usize| {
            let texts = (0..count).map(|number| format!("package-{number:06}"));
            texts.collect::<Vec<_>>()
        };
        assert!(policy(&many(2000)).is_ok());
        let error = policy(&many(3000)).unwrap_err().to_string();
        assert!(
            error.contains("at most 32768 bytes") && error.contains("wildcards"),
            "{error}"
        );
    }

    #[test]
    fn one_name_is_enough_for_each_pattern_and_none_for_those_that_match_the_own_name() {
        let patterns = "*.requests git hg libs.* python3packages vcs-1";
        let patterns = DeniedPatterns::parse(patterns).unwrap();
        let matched = |name: &str, real, others: &[&str]| -> Vec<String> {
            let others = others.iter().copied();
            patterns.matched(name, real, others).into_iter().collect()
        };
        let both = ["python313packages.requests", "python3packages.requests"];
        // The set that denies it is named.
        let expected = ["python313packages.requests", "python3packages"];
        assert_eq!(matched("requests-http", None, &both), expected);
        assert_eq!(
            matched("python3.pkgs.requests", None, &both),
            ["python3packages"]
        );
        // `libs.*` matches its own name already.
        assert_eq!(matched("libs.git", None, &["git", "libs.hg"]), ["git"]);
        assert_eq!(matched("vcs", Some("vcs-1"), &["vcs-1"]), [""; 0]);
        assert_eq!(matched("htop", None, &["htop_3"]), [""; 0]);
    }
}
