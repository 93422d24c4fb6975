//! What an administrator allows of that which nixpkgs refuses, and what is changed in it.
//!
//! ```json
//! {
//!   "allowUnfreePackages": ["unrar", "vscode"],
//!   "permittedInsecurePackages": ["openssl-1.1.1w"],
//!   "overlays": [{ "git": "https://git.corp/overlays.git", "commit": "<40 digits>" }]
//! }
//! ```
//!
//! Package sets that are functions of `config` and `overlays` get it (`nix/packages.nix`). It holds lists
//! alone: code in it could allow everything by mistake, and differ from what this file says. The code of an
//! overlay is elsewhere, and pinned ([`overlays`](super::overlays)).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use super::overlays::{Overlay, Stored};
use crate::fingerprint::Fingerprint;

/// Overlays at most: each has a fetch, and costs every evaluation.
const MOST_OVERLAYS: usize = 32;

/// The file as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NixpkgsConfig {
    /// Names without versions, as in `allowUnfreePredicate`.
    #[serde(default)]
    allow_unfree_packages: BTreeSet<String>,
    /// Names with versions.
    #[serde(default)]
    permitted_insecure_packages: BTreeSet<String>,
    /// In the order in which they are applied.
    #[serde(default)]
    pub(super) overlays: Vec<Overlay>,
}

impl NixpkgsConfig {
    /// # Errors
    /// When the file can't be read or has a mistake; the error names it.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file);
        let text =
            text.with_context(|| format!("cannot read NIXGATE_NIXPKGS_CONFIG {}", file.display()))?;
        Self::parse(&text)
            .with_context(|| format!("NIXGATE_NIXPKGS_CONFIG {} is invalid", file.display()))
    }

    fn parse(json: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(json)?;
        for name in &config.allow_unfree_packages {
            check(name).context("allowUnfreePackages")?;
        }
        for name in &config.permitted_insecure_packages {
            check(name).context("permittedInsecurePackages")?;
            // As Nix separates a name from its version.
            let has_version = name.split('-').skip(1);
            let has_version = has_version
                .filter_map(|part| part.chars().next())
                .any(|first| !first.is_ascii_alphabetic());
            ensure!(
                has_version,
                "permittedInsecurePackages: \"{name}\" has no version. Write it as the refusal names it, \
                 such as \"openssl-1.1.1w\""
            );
        }
        let overlays = config.overlays.len();
        ensure!(
            overlays <= MOST_OVERLAYS,
            "overlays: {overlays} are more than {MOST_OVERLAYS}. Join some of them in one repository"
        );
        Ok(config)
    }

    /// As an argument of Nix code; with the files of the overlays.
    pub(super) fn json(&self, overlays: &[Stored]) -> String {
        let files = overlays.iter().map(|overlay| &overlay.file);
        json!({
            "allowUnfreePackages": self.allow_unfree_packages,
            "permittedInsecurePackages": self.permitted_insecure_packages,
            "overlays": files.collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// Part of every key; none when it changes nothing, so that an empty file changes no key.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let fingerprint = Fingerprint::new("nixpkgs-config-1")
            .list(self.allow_unfree_packages.iter())
            .list(self.permitted_insecure_packages.iter());
        // Without overlays it is what it was before there were any.
        let fingerprint = match self.overlays.as_slice() {
            [] => fingerprint,
            overlays => fingerprint.list(overlays.iter().map(Overlay::key)),
        };
        Some(fingerprint.hex())
    }
}

fn check(name: &str) -> Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
    ensure!(
        !name.is_empty() && name.bytes().all(is_allowed),
        "\"{}\" is no name of a package. Patterns are not allowed: name each package",
        name.escape_debug()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAY: &str = r#"{"path": "/nix/store/00000000000000000000000000000000-a"}"#;

    #[test]
    fn a_mistake_is_named() {
        for (json, words) in [
            (r#"{"allowUnfree": true}"#, "unknown field `allowUnfree`"),
            (
                r#"{"allowUnfreePackages": ["*"]}"#,
                "Patterns are not allowed",
            ),
            (r#"{"allowUnfreePackages": [""]}"#, "no name of a package"),
            (
                r#"{"permittedInsecurePackages": ["openssl"]}"#,
                "\"openssl\" has no version",
            ),
            (
                r#"{"permittedInsecurePackages": "openssl-1"}"#,
                "invalid type",
            ),
            (
                r#"{"overlays": [{"git": "https://git.corp/o.git"}]}"#,
                "is not pinned",
            ),
            (
                &format!(r#"{{"overlays": [{}]}}"#, vec![OVERLAY; 33].join(",")),
                "33 are more than 32",
            ),
        ] {
            let error = format!("{:#}", NixpkgsConfig::parse(json).unwrap_err());
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_allowed_is_part_of_keys_whatever_its_order() {
        let key = |json: &str| NixpkgsConfig::parse(json).unwrap().fingerprint();
        assert_eq!(key("{}"), None);
        let one = key(r#"{"allowUnfreePackages": ["a", "b"]}"#);
        assert_eq!(one, key(r#"{"allowUnfreePackages": ["b", "a"]}"#));
        assert_ne!(one, key(r#"{"allowUnfreePackages": ["a"]}"#));
        assert_ne!(
            key(r#"{"allowUnfreePackages": ["a-1"]}"#),
            key(r#"{"permittedInsecurePackages": ["a-1"]}"#)
        );
    }

    #[test]
    fn overlays_are_part_of_keys_in_their_order() {
        let key = |overlays: &[&str]| {
            let unfree = r#""allowUnfreePackages": ["a"]"#;
            let json = format!(r#"{{{unfree}, "overlays": [{}]}}"#, overlays.join(","));
            NixpkgsConfig::parse(&json).unwrap().fingerprint().unwrap()
        };
        let other = OVERLAY.replace("-a", "-b");
        // As before there were overlays.
        expect_test::expect!["b160e066c86d6025b748142b43ec647941b6dcfebe2e6778832b34a5987c7b5a"]
            .assert_eq(&key(&[]));
        assert_ne!(key(&[]), key(&[OVERLAY]));
        assert_ne!(key(&[OVERLAY, &other]), key(&[&other, OVERLAY]));
    }

    #[test]
    fn the_files_of_the_documentation_are_valid() {
        let page = include_str!("../../../docs/src/nixpkgs.md");
        let files = page.split("```json\n").skip(1);
        let files: Vec<_> = files.filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(files.len(), 2);
        for file in files {
            assert!(NixpkgsConfig::parse(file).unwrap().fingerprint().is_some());
        }
    }

    #[test]
    fn nix_code_gets_the_files_of_overlays() {
        let json = format!(r#"{{"permittedInsecurePackages": ["a-1"], "overlays": [{OVERLAY}]}}"#);
        let stored = Stored {
            source: "/nix/store/x".into(),
            file: "/nix/store/x/default.nix".into(),
        };
        expect_test::expect![[
            r#"{"allowUnfreePackages":[],"overlays":["/nix/store/x/default.nix"],"permittedInsecurePackages":["a-1"]}"#
        ]]
        .assert_eq(&NixpkgsConfig::parse(&json).unwrap().json(&[stored]));
    }
}
