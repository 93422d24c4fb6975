//! A policy in a file: by itself, or in a filter's configuration.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nixgate_core::distribution::{Error, Repository};
use nixgate_core::policy::Policy;
use nixgate_core::{ImageName, OpaqueNamespaces};
use serde::de::IgnoredAny;

use super::entries::entries;

/// A policy, compiled and as its author wrote it.
#[derive(Clone, Debug)]
pub(crate) struct PolicyFile {
    /// From the filter's configuration; for a policy by itself, the namespaces that its patterns of
    /// images begin with.
    pub(crate) opaque_namespaces: OpaqueNamespaces,
    /// Whether the file is a filter's configuration.
    pub(crate) is_configuration: bool,
    pub(crate) policy: Policy,
    /// The policy's text in the file.
    pub(crate) json: String,
}

impl PolicyFile {
    /// # Errors
    /// They name the file, the rule and the key.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&json).with_context(|| format!("{} is not a policy", path.display()))
    }

    /// Compiles a policy, or that of an object which has it under the key `policy`.
    pub(crate) fn parse(json: &[u8]) -> Result<Self> {
        let whole = str::from_utf8(json).context("it is not UTF-8")?;
        // Errors of the syntax name the line.
        serde_json::from_str::<IgnoredAny>(whole)?;
        let whole_entries = entries(whole)?;
        let value = |key: &str| {
            let mut entries = whole_entries.iter();
            entries.find_map(|(name, value)| (name == key).then_some(*value))
        };
        let is_configuration = value("policy").is_some();
        // A policy by itself is parsed as it is, so that errors name its lines.
        let text = value("policy").unwrap_or(whole);
        let policy = Policy::parse(text.as_bytes())?;
        let namespaces = match (is_configuration, value("opaque_namespaces")) {
            (false, _) => namespaces_of(&policy),
            (true, None) => Vec::new(),
            (true, Some(names)) => serde_json::from_str(names)
                .context("opaque_namespaces must be a list of strings")?,
        };
        let opaque_namespaces = OpaqueNamespaces::new(namespaces).context("opaque_namespaces")?;
        policy.check_images(&opaque_namespaces)?;
        Ok(Self {
            opaque_namespaces,
            is_configuration,
            policy,
            json: text.to_owned(),
        })
    }

    pub(crate) fn image(&self, repository: &Repository) -> Result<ImageName, Error> {
        ImageName::of(repository, &self.opaque_namespaces)
    }
}

/// The texts before the first slash of patterns of images, where they have no wildcard.
fn namespaces_of(policy: &Policy) -> Vec<String> {
    let rules = policy.rules().iter();
    let patterns = rules.flat_map(|rule| rule.images.iter().chain(&rule.deny_images));
    let globs = patterns.flat_map(|pattern| &pattern.globs);
    let prefixes = globs.filter_map(|glob| glob.prefix().split_once('/'));
    prefixes.map(|(first, _)| first.to_owned()).collect()
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
            assert_eq!(
                (file.policy.revision(), file.policy.rules().len()),
                ("r1", 1)
            );
        }
    }

    #[test]
    fn names_are_opaque_as_the_configuration_says_or_the_patterns_of_a_policy_alone() {
        let policy = r#"{"revision":"r1","default":"deny","rules":[
            {"name":"a","images":["corp/*","*/x"],"deny_images":["lab/secret"]}]}"#;
        let is_opaque = |json: &str, name: &str| {
            let file = PolicyFile::parse(json.as_bytes()).unwrap();
            let name = Repository::parse(name).unwrap();
            matches!(file.image(&name), Ok(ImageName::Opaque(_)))
        };
        assert!(is_opaque(policy, "corp/a") && is_opaque(policy, "lab/a"));
        assert!(!is_opaque(policy, "other/a"));
        let nested = |names: &str| format!(r#"{{{names}"policy":{policy}}}"#);
        let other = nested(r#""opaque_namespaces":["other","corp","lab"],"#);
        assert!(is_opaque(&other, "other/a") && is_opaque(&other, "corp/a"));
        let error = PolicyFile::parse(nested("").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("no opaque namespace"), "{error}");
    }

    #[test]
    fn a_key_that_stands_there_twice_is_refused_wherever_it_is() {
        let doubled = r#"{"revision":"dup","default":"allow","rules":[
            {"name":"a","deny":["sqlite"],"deny":["nothing"]}]}"#;
        let nested = format!(r#"{{"builder":{{"cluster":"b"}},"policy":{doubled}}}"#);
        let twice = format!(r#"{{"policy":{POLICY},"policy":{POLICY}}}"#);
        let namespaces =
            format!(r#"{{"opaque_namespaces":["a"],"opaque_namespaces":[],"policy":{POLICY}}}"#);
        for (json, key) in [
            (doubled, "deny"),
            (&nested, "deny"),
            (&twice, "policy"),
            (&namespaces, "opaque_namespaces"),
        ] {
            let error = PolicyFile::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("duplicate field `{key}`")),
                "{error}"
            );
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
        assert!(unknown.contains("policy.json is not a policy"), "{unknown}");
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
        assert!(missing.starts_with("cannot read"), "{missing}");
    }
}
