//! An image on the command line: a name, and perhaps a tag.

use std::fmt;
use std::str::FromStr;

use nixgate_core::distribution::{Error, Repository, Tag};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) repository: Repository,
    pub(super) tag: Tag,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, tag) = match text.split_once(':') {
            Some((name, tag)) => (name, Tag::parse(tag)?),
            None => (text, Tag::latest()),
        };
        let repository = Repository::parse(name)?;
        Ok(Self { repository, tag })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository.as_str(), self.tag)
    }
}

#[cfg(test)]
mod tests {
    use nixgate_core::distribution::ErrorKind;

    use super::*;

    #[test]
    fn a_name_may_have_a_tag() {
        let target: Target = "shell/git".parse().unwrap();
        assert_eq!(target.to_string(), "shell/git:latest");
        let target: Target = "git:nixos-24.05".parse().unwrap();
        assert_eq!(target.to_string(), "git:nixos-24.05");
    }

    #[test]
    fn an_invalid_name_is_refused_as_by_the_server() {
        for (text, kind) in [
            ("", ErrorKind::NameInvalid),
            ("Git", ErrorKind::NameInvalid),
            ("git//htop", ErrorKind::NameInvalid),
            ("--help", ErrorKind::NameInvalid),
            ("git:", ErrorKind::TagInvalid),
            ("127.0.0.1:8080/git", ErrorKind::TagInvalid),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert_eq!(error.kind, kind, "{text}");
        }
    }
}
