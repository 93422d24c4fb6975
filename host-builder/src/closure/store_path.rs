//! Store paths: `/nix/store/<hash>-<name>`.
//!
//! ```text
//!   /nix/store/ 2fkhq1hxgsxkx7h5zm6sz1jd5hcbvq0h - git-2.44.0-doc
//!   └─ STORE_DIR  └─ hash part: 32 digits           └─ name ─────┘
//!                    of Nix's own base 32             └─ package name: git
//! ```
//!
//! Store paths become file names, tar entries and cache keys, so anything else is refused when it is
//! parsed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The store's folder. Every hash in the store depends on it, so it is no setting.
pub(crate) const STORE_DIR: &str = "/nix/store";

/// Digits in the hash part: 160 bits at 5 bits each.
const HASH_LEN: usize = 32;

/// Nix's own limit: with hash, dash and `.lock` or `.drv.chroot`, a file name has at most 255 bytes.
const MAX_NAME_LEN: usize = 211;

/// A path directly in the Nix store. Ordered like the full paths. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct StorePath {
    /// `<hash>-<name>`, validated.
    base_name: Arc<str>,
}

/// Text that is not a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a store path: {reason}")]
pub(crate) struct InvalidStorePath {
    text: String,
    reason: &'static str,
}

impl StorePath {
    /// The file name inside the store: `<hash>-<name>`.
    pub(crate) fn base_name(&self) -> &str {
        &self.base_name
    }

    /// The 32 digits of the hash.
    pub(crate) fn hash_part(&self) -> &str {
        &self.base_name[..HASH_LEN]
    }

    /// Package, version and output, as in `git-2.44.0-doc`.
    pub(crate) fn name(&self) -> &str {
        &self.base_name[HASH_LEN + 1..]
    }

    /// The name without version and output, as in `git`. See [`package_name`].
    pub(crate) fn package_name(&self) -> &str {
        package_name(self.name())
    }

    /// The path on disk, with the store mounted below `root`, usually `/`.
    pub(crate) fn on_disk(&self, root: &Path) -> PathBuf {
        root.join(self.in_archive())
    }

    /// The path in a layer: relative to the image's root.
    pub(crate) fn in_archive(&self) -> PathBuf {
        let mut path = PathBuf::from(STORE_DIR.trim_start_matches('/'));
        path.push(self.base_name());
        path
    }
}

/// `git-2.44.0-doc` → `git`: everything before the first dash that no letter follows, as in Nix's
/// `builtins.parseDrvName`.
pub(crate) fn package_name(name: &str) -> &str {
    let starts_version =
        |dash: &usize| name[dash + 1..].starts_with(|c: char| !c.is_ascii_alphabetic());
    match name
        .match_indices('-')
        .map(|(at, _)| at)
        .find(starts_version)
    {
        Some(dash) => &name[..dash],
        None => name,
    }
}

impl FromStr for StorePath {
    type Err = InvalidStorePath;

    fn from_str(text: &str) -> Result<Self, InvalidStorePath> {
        let invalid = |reason| InvalidStorePath {
            text: text.to_owned(),
            reason,
        };
        let base_name = text
            .strip_prefix(STORE_DIR)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| invalid("it is not in /nix/store"))?;
        let (hash, name) = base_name
            .split_once('-')
            .ok_or_else(|| invalid("there is no dash between hash and name"))?;
        if hash.len() != HASH_LEN || !hash.bytes().all(is_base32) {
            return Err(invalid("the hash is not 32 digits of Nix's base 32"));
        }
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return Err(invalid("the name is empty or longer than 211 bytes"));
        }
        if !name.bytes().all(is_name_byte) {
            return Err(invalid(
                "the name has characters other than letters, digits and +-._?=",
            ));
        }
        if matches!(name.split('-').next(), Some("." | "..")) {
            return Err(invalid("the name begins with . or .."));
        }
        Ok(StorePath {
            base_name: base_name.into(),
        })
    }
}

/// Nix leaves out `e`, `o`, `u` and `t`, so that hashes spell no words.
fn is_base32(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'd' | b'f'..=b'n' | b'p'..=b's' | b'v'..=b'z')
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte)
}

impl TryFrom<String> for StorePath {
    type Error = InvalidStorePath;

    fn try_from(text: String) -> Result<Self, InvalidStorePath> {
        text.parse()
    }
}

impl From<StorePath> for String {
    fn from(path: StorePath) -> String {
        path.to_string()
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE_DIR}/{}", self.base_name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
impl StorePath {
    /// A path with this name, and a hash of its own.
    pub(crate) fn example(name: &str) -> Self {
        let is_digit = |letter: &char| "0123456789abcdfghijklmnpqrsvwxyz".contains(*letter);
        let digits = name.chars().filter(is_digit).chain(std::iter::repeat('0'));
        let hash: String = digits.take(HASH_LEN).collect();
        format!("{STORE_DIR}/{hash}-{name}").parse().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    const HASH: &str = "2fkhq1hxgsxkx7h5zm6sz1jd5hcbvq0h";

    fn check(text: &str, expected: &Expect) {
        let shown = match text.parse::<StorePath>() {
            Ok(path) => format!(
                "hash {}, name {}, package {}",
                path.hash_part(),
                path.name(),
                path.package_name()
            ),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_store_path_is_taken_apart() {
        check(
            "/nix/store/2fkhq1hxgsxkx7h5zm6sz1jd5hcbvq0h-git-2.44.0-doc",
            &expect!["hash 2fkhq1hxgsxkx7h5zm6sz1jd5hcbvq0h, name git-2.44.0-doc, package git"],
        );
    }

    #[test]
    fn other_text_is_refused_with_a_reason() {
        check(
            "/usr/bin/git",
            &expect![[r#""/usr/bin/git" is not a store path: it is not in /nix/store"#]],
        );
        check(
            "/nix/store/git",
            &expect![[
                r#""/nix/store/git" is not a store path: there is no dash between hash and name"#
            ]],
        );
        for hash in [
            "2fkhq1",
            "2fkhq1hxgsxkx7h5zm6sz1jd5hcbvq0e",
            "2FKHQ1hxgsxkx7h5zm6sz1jd5hcbvq0h",
        ] {
            let error = format!("/nix/store/{hash}-git")
                .parse::<StorePath>()
                .unwrap_err();
            assert_eq!(error.reason, "the hash is not 32 digits of Nix's base 32");
        }
        for name in [
            "",
            "a/b",
            "a b",
            "a\n",
            "ä",
            ".",
            "..",
            ".-x",
            "..-x",
            &"a".repeat(212),
        ] {
            assert!(
                format!("/nix/store/{HASH}-{name}")
                    .parse::<StorePath>()
                    .is_err(),
                "{name}"
            );
        }
        for name in ["a", ".a", "a..b", "+-._?=", "G1", &"a".repeat(211)] {
            assert!(
                format!("/nix/store/{HASH}-{name}")
                    .parse::<StorePath>()
                    .is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn the_package_name_ends_where_the_version_begins() {
        for (name, package) in [
            ("git", "git"),
            ("git-2.44.0", "git"),
            ("nss-cacert-3.98", "nss-cacert"),
            ("gtk+3-3.24-dev", "gtk+3"),
            ("python3.11-numpy-1.26.4", "python3.11-numpy"),
            ("iana-etc-20231227", "iana-etc"),
            ("a-_b", "a"),
            ("trailing-", "trailing-"),
        ] {
            assert_eq!(package_name(name), package);
        }
    }

    #[test]
    fn places_on_disk_and_in_the_archive_differ_by_the_root() {
        let path: StorePath = format!("/nix/store/{HASH}-git").parse().unwrap();
        assert_eq!(path.on_disk(Path::new("/")), Path::new(&path.to_string()));
        assert_eq!(
            path.on_disk(Path::new("/srv/root")),
            Path::new(&format!("/srv/root/nix/store/{HASH}-git"))
        );
        assert!(path.in_archive().is_relative());
    }

    #[test]
    fn json_holds_the_full_path_and_is_validated() {
        let text = format!("\"/nix/store/{HASH}-git\"");
        let path: StorePath = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&path).unwrap(), text);
        assert!(serde_json::from_str::<StorePath>("\"/etc/passwd\"").is_err());
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(
            text in "/nix/store/[0-9a-df-np-sv-z]{32}-[a-zA-Z0-9+_?=][a-zA-Z0-9+._?=-]{0,30}"
        ) {
            prop_assert_eq!(text.parse::<StorePath>().unwrap().to_string(), text);
        }
    }
}
