//! What an administrator allows of that which nixpkgs refuses.
//!
//! ```json
//! {
//!   "allowUnfreePackages": ["unrar", "vscode"],
//!   "permittedInsecurePackages": ["openssl-1.1.1w"]
//! }
//! ```
//!
//! Package sets that are functions of `config` get it (`nix/resolve.nix`). It holds lists alone: code in it
//! could allow everything by mistake, and differ from what this file says.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;

/// The file as it is written, and as Nix code reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NixpkgsConfig {
    /// Names without versions, as in `allowUnfreePredicate`.
    #[serde(default)]
    allow_unfree_packages: BTreeSet<String>,
    /// Names with versions.
    #[serde(default)]
    permitted_insecure_packages: BTreeSet<String>,
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
        Ok(config)
    }

    /// As an argument of Nix code.
    pub(super) fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Part of every key; none when it allows nothing, so that an empty file changes no key.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let is_empty =
            self.allow_unfree_packages.is_empty() && self.permitted_insecure_packages.is_empty();
        let fingerprint = Fingerprint::new("nixpkgs-config-1")
            .list(self.allow_unfree_packages.iter())
            .list(self.permitted_insecure_packages.iter());
        (!is_empty).then(|| fingerprint.hex())
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
}
