//! Repository names, `<name>` of the distribution spec ("Pulling manifests").

use std::fmt;

use super::Error;

/// Longer names are refused. Clients stop at 255 characters, but a canonical name, with its meta-packages
/// expanded, may be longer.
pub(crate) const MAX_LENGTH: usize = 4096;

/// What to do about a name that is too long.
pub(crate) const SHORTER: &str =
    "Ask for fewer packages, or the registry's administrator for a recipe, which has a short name";

/// A repository name that follows the grammar
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` joined by `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// Parses a repository name.
    ///
    /// # Errors
    /// [`ErrorKind::NameInvalid`](super::ErrorKind::NameInvalid), with the component that breaks the grammar.
    pub fn parse(name: &str) -> Result<Self, Error> {
        if name.len() > MAX_LENGTH {
            return Err(Error::name_invalid(format!(
                "the repository name has {} characters; at most {MAX_LENGTH} are allowed. {SHORTER}",
                name.len()
            )));
        }
        if let Some(component) = name.split('/').find(|component| !is_component(component)) {
            return Err(Error::name_invalid(format!(
                "invalid repository name: the component \"{}\" must be lowercase letters and digits, \
                 separated by single dots, one or two underscores, or dashes",
                component.escape_debug()
            )));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts between the slashes, at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, by hand: a regex engine would be most of the wasm module.
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(is_alphanumeric) || !text.ends_with(is_alphanumeric) {
        return false;
    }
    text.split(is_alphanumeric).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    })
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ErrorKind;
    use super::*;

    #[test]
    fn names_of_the_grammar_are_accepted() {
        for name in [
            "git",
            "shell/git/htop",
            "1password",
            "python3packages.requests",
            "a_b__c-d---e.f/0",
        ] {
            assert_eq!(Repository::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for (name, component) in [
            ("", ""),
            ("Git", "Git"),
            ("shell//git", ""),
            ("/git", ""),
            ("git/", ""),
            ("a/../b", ".."),
            ("a%2fb", "a%2fb"),
            ("a..b", "a..b"),
            ("a___b", "a___b"),
            ("a._b", "a._b"),
            ("_a", "_a"),
            ("a-", "a-"),
            ("a;x", "a;x"),
            ("a b", "a b"),
            ("gït", "gït"),
            ("a\0b", "a\\0b"),
        ] {
            let error = Repository::parse(name).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NameInvalid, "{name}");
            let quoted = format!("\"{component}\"");
            assert!(error.message.contains(&quoted), "{name}: {}", error.message);
        }
    }

    #[test]
    fn a_name_beyond_the_limit_is_refused() {
        assert!(Repository::parse(&"a".repeat(MAX_LENGTH)).is_ok());
        let error = Repository::parse(&"a".repeat(MAX_LENGTH + 1)).unwrap_err();
        assert!(error.message.contains("a recipe"), "{error}");
        assert_eq!(error.kind, ErrorKind::NameInvalid);
    }
}
