//! Which versions of Nix have published vulnerabilities.
//!
//! | advisory | what a build or a package set could do | fixed in Nix |
//! | --- | --- | --- |
//! | CVE-2024-27297, GHSA-2ffj-w4mj-pg37 | change a fixed output after it was checked | 2.18.2, 2.19.4, 2.20.5 |
//! | CVE-2024-47174 | receive altered downloads: certificates were not checked | 2.24.8 |
//! | CVE-2025-46415, -46416, -52991, -52992, -52993 | become the build user or more, by build folders | 2.24.15, 2.26.4, 2.28.4, 2.29.1 |
//! | CVE-2026-39860, GHSA-g3g9-5vj6-r3gj | overwrite files as root, by a link in place of a fixed output | 2.28.6, 2.29.3, 2.30.4, 2.31.4, 2.32.7, 2.33.4, 2.34.5 |
//! | CVE-2026-44028, GHSA-vh5x-56v6-4368 | overflow the daemon's stack by a deeply nested archive | 2.28.7, 2.29.4, 2.30.5, 2.31.5, 2.32.8, 2.33.6, 2.34.7 |
//! | CVE-2026-110449 | write out of bounds during evaluation | 2.28.8, 2.30.6, 2.31.6, 2.34.9, 2.35.3 |
//! | CVE-2026-110450 | insert an altered path during a repair | the same |
//!
//! A release has all earlier fixes of its branch, so the last lines decide.

use std::fmt;

use super::output::Version;

/// The first safe patch release of each branch; other branches have none, but all later than these are
/// safe.
const NIX: [(u32, u32); 5] = [(28, 8), (30, 6), (31, 6), (34, 9), (35, 3)];
/// The same for Lix, whose advisories name one branch.
const LIX: [(u32, u32); 1] = [(95, 4)];
/// The advisory that the message names.
const NEWEST: &str = "CVE-2026-110450";

/// The version that `nix --version` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Package sets require a minimum of this.
    pub(crate) version: Version,
    patch: u32,
    lix: bool,
    /// The last word, such as `2.18pre2024_abc`.
    name: String,
}

impl Release {
    /// Parses `nix (Nix) 2.8.0` or `nix (Lix, like Nix) 2.95.4`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = text.split_whitespace().last()?;
        let mut numbers = name.split(|c: char| !c.is_ascii_digit()).skip(2);
        Some(Self {
            version: Version::parse(name)?,
            patch: numbers
                .next()
                .and_then(|patch| patch.parse().ok())
                .unwrap_or(0),
            lix: text.contains("(Lix"),
            name: name.to_owned(),
        })
    }

    fn kind(&self) -> (&'static str, &'static [(u32, u32)]) {
        match self.lix {
            true => ("Lix", &LIX),
            false => ("Nix", &NIX),
        }
    }

    /// Whether it has all fixes so far.
    fn is_safe(&self) -> bool {
        let (_, branches) = self.kind();
        let Version { major, minor } = self.version;
        let newest = branches.last().map_or(0, |(minor, _)| *minor);
        let is_fixed = |(branch, patch): &(u32, u32)| *branch == minor && self.patch >= *patch;
        major > 2 || (major == 2 && (minor > newest || branches.iter().any(is_fixed)))
    }

    /// A warning if it is vulnerable, unless `patched` names this release as one with the fixes.
    pub(crate) fn weakness(&self, patched: Option<&str>) -> Option<String> {
        if self.is_safe() || patched == Some(&self.name) {
            return None;
        }
        let (kind, branches) = self.kind();
        let safe = branches.iter().rev();
        let safe = safe.map(|(minor, patch)| format!("2.{minor}.{patch}"));
        Some(format!(
            "{kind} {self} has known vulnerabilities, by which a build can get out of its sandbox \
             ({NEWEST} and earlier ones). Install {} or newer; or, if its distributor has added the \
             fixes, set NIXGATE_PATCHED_NIX={self}",
            safe.collect::<Vec<_>>().join(", ")
        ))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_safe_when_its_branch_has_the_fixes() {
        for (text, safe) in [
            ("nix (Nix) 2.8.0", false),
            ("nix (Nix) 2.18.2", false),
            ("nix (Nix) 2.26.3", false),
            ("nix (Nix) 2.28.7", false),
            ("nix (Nix) 2.28.8", true),
            ("nix (Nix) 2.29.9", false),
            ("nix (Nix) 2.31.6", true),
            ("nix (Nix) 2.33.6", false),
            ("nix (Nix) 2.34.8", false),
            ("nix (Nix) 2.34.10", true),
            ("nix (Nix) 2.35.2", false),
            ("nix (Nix) 2.35.3", true),
            ("nix (Nix) 2.36.0", true),
            ("nix (Nix) 2.36pre20261001_abc", true),
            ("nix (Nix) 3.0.0", true),
            ("nix (Determinate Nix 3.23.2) 2.35.3", true),
            ("nix (Determinate Nix 3.17.3) 2.33.3", false),
            ("nix (Lix, like Nix) 2.95.3", false),
            ("nix (Lix, like Nix) 2.95.4", true),
            ("nix (Lix, like Nix) 2.93.4", false),
            ("nix (Lix, like Nix) 2.96.0", true),
        ] {
            let release = Release::parse(text).unwrap();
            assert_eq!(release.weakness(None).is_none(), safe, "{text}");
        }
    }

    #[test]
    fn an_administrator_can_name_a_patched_release() {
        let release = Release::parse("nix (Nix) 2.26.3\n").unwrap();
        assert_eq!(release.weakness(Some("2.26.3")), None);
        let weakness = release.weakness(Some("2.26")).unwrap();
        for part in [
            "Nix 2.26.3",
            "CVE-",
            "2.35.3, 2.34.9",
            "NIXGATE_PATCHED_NIX=2.26.3",
        ] {
            assert!(weakness.contains(part), "{part}: {weakness}");
        }
        assert_eq!(Release::parse("no version"), None);
    }
}
