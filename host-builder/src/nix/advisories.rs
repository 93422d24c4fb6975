//! Which Nix is safe enough to build what others wrote, by the advisories of its makers.
//!
//! | advisory | what it lets a build or a package set do | mended in Nix |
//! | --- | --- | --- |
//! | CVE-2024-27297, GHSA-2ffj-w4mj-pg37 | change a fixed output after it was checked | 2.18.2, 2.19.4, 2.20.5 |
//! | CVE-2024-47174 | be fed by whoever is between: certificates of downloads went unchecked | 2.24.8 |
//! | CVE-2025-46415, -46416, -52991, -52992, -52993 | become the build user or more, by build folders | 2.24.15, 2.26.4, 2.28.4, 2.29.1 |
//! | CVE-2026-39860, GHSA-g3g9-5vj6-r3gj | overwrite files as root, by a link at a fixed output's place | 2.28.6, 2.29.3, 2.30.4, 2.31.4, 2.32.7, 2.33.4, 2.34.5 |
//! | CVE-2026-44028, GHSA-vh5x-56v6-4368 | overflow the daemon's stack by a deep archive | 2.28.7, 2.29.4, 2.30.5, 2.31.5, 2.32.8, 2.33.6, 2.34.7 |
//! | CVE-2026-110449 | write out of bounds while Nix evaluates | 2.28.8, 2.30.6, 2.31.6, 2.34.9, 2.35.3 |
//! | CVE-2026-110450 | get a changed path in, by a repair | the same |
//!
//! Each release has what was mended before it on its branch, so the last lines are those that count.

use std::fmt;

use super::output::Version;

/// The first patch release of each branch that is safe; a branch that is not here has none. What comes
/// after the last of these branches is taken for mended.
const NIX: [(u32, u32); 5] = [(28, 8), (30, 6), (31, 6), (34, 9), (35, 3)];
/// The same of Lix, whose advisories name one branch.
const LIX: [(u32, u32); 1] = [(95, 4)];
/// What a Nix without the fixes is told by.
const NEWEST: &str = "CVE-2026-110450";

/// What `nix --version` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// What package sets ask for.
    pub(crate) version: Version,
    patch: u32,
    lix: bool,
    /// Its last word.
    name: String,
}

impl Release {
    /// Reads that: `nix (Nix) 2.8.0`, `nix (Lix, like Nix) 2.95.4`.
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

    /// Whether it has all that was mended so far.
    fn is_safe(&self) -> bool {
        let branches: &[_] = if self.lix { &LIX } else { &NIX };
        let Version { major, minor } = self.version;
        let newest = branches.last().map_or(0, |(minor, _)| *minor);
        let mended = |(branch, patch): &(u32, u32)| *branch == minor && self.patch >= *patch;
        major > 2 || (major == 2 && (minor > newest || branches.iter().any(mended)))
    }

    /// What is wrong with it, if anything is; not where `patched` says that its makers have mended this
    /// very release.
    pub(crate) fn holes(&self, patched: Option<&str>) -> Option<String> {
        if self.is_safe() || patched == Some(&self.name) {
            return None;
        }
        let (kind, branches): (_, &[_]) = match self.lix {
            true => ("Lix", &LIX),
            false => ("Nix", &NIX),
        };
        let safe = branches.iter().rev();
        let safe = safe.map(|(minor, patch)| format!("2.{minor}.{patch}"));
        Some(format!(
            "{kind} {self} has holes that are known, by which a package's build can become more than \
             that ({NEWEST} and earlier ones): install {} or newer, or set NIXGATE_PATCHED_NIX={self} \
             if its makers have mended it",
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
    fn a_release_is_safe_when_its_branch_was_mended() {
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
            assert_eq!(release.holes(None).is_none(), safe, "{text}");
        }
    }

    #[test]
    fn who_knows_better_names_the_release() {
        let release = Release::parse("nix (Nix) 2.26.3\n").unwrap();
        assert_eq!(release.holes(Some("2.26.3")), None);
        let holes = release.holes(Some("2.26")).unwrap();
        for part in [
            "Nix 2.26.3",
            "CVE-",
            "2.35.3, 2.34.9",
            "NIXGATE_PATCHED_NIX=2.26.3",
        ] {
            assert!(holes.contains(part), "{part}: {holes}");
        }
        assert_eq!(Release::parse("no version"), None);
    }
}
