//! A policy in a file: by itself, or in a filter's configuration.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nixgate_core::policy::{Outline, Policy};
use serde_json::Value;

/// A policy, compiled and as it was written.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    /// What judges.
    pub policy: Policy,
    /// What was written, in that order.
    pub rules: Vec<Outline>,
}

impl PolicyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, or holds no policy; the error names the file, the rule and the key.
    pub fn read(path: &Path) -> Result<Self> {
        let json = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        Self::parse(&json).with_context(|| format!("{} is no policy", path.display()))
    }

    /// Compiles a policy, or that of an object which has it under the key `policy`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let whole: Value = serde_json::from_slice(json)?;
        // What stands alone is parsed as it is, so that errors name its lines.
        let inner = whole.get("policy").map(ToString::to_string);
        let json = inner.as_ref().map_or(json, |inner| inner.as_bytes());
        Ok(Self {
            policy: Policy::parse(json)?,
            rules: Policy::outline(json)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str =
        r#"{"revision":"r1","default":"deny","rules":[{"name":"a","allow":["git"]}]}"#;

    #[test]
    fn a_policy_stands_alone_or_in_the_filters_configuration() {
        let nested = format!(r#"{{"builder":{{"cluster":"b"}},"policy":{POLICY}}}"#);
        for json in [POLICY, &nested] {
            let file = PolicyFile::parse(json.as_bytes()).unwrap();
            assert_eq!((file.policy.revision(), file.rules.len()), ("r1", 1));
        }
    }

    #[test]
    fn errors_name_the_file_and_the_line_or_the_rule() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        let error = |content: &str| {
            fs::write(&path, content).unwrap();
            format!("{:#}", PolicyFile::read(&path).unwrap_err())
        };
        let unknown = error("{\"revision\":\"r1\",\n\"defualt\":\"deny\"}");
        assert!(unknown.contains("policy.json is no policy"), "{unknown}");
        assert!(
            unknown.contains("`defualt`") && unknown.contains("line 2"),
            "{unknown}"
        );
        let pattern = error(&POLICY.replace("git", "{git"));
        assert!(
            pattern.contains("the rule a: allow: the braces"),
            "{pattern}"
        );
        fs::remove_file(&path).unwrap();
        let missing = format!("{:#}", PolicyFile::read(&path).unwrap_err());
        assert!(missing.starts_with("can't read"), "{missing}");
    }
}
