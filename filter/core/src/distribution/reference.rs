//! Tags and references (distribution spec, "Pulling manifests").

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, Error, ErrorKind};

/// A tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// The default tag of clients.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    /// Parses a tag.
    ///
    /// # Errors
    /// [`ErrorKind::TagInvalid`] for text outside the grammar.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let mut bytes = text.bytes();
        let valid = text.len() <= 128
            && bytes.next().is_some_and(is_word)
            && bytes.all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
        if !valid {
            return Err(Error::new(
                ErrorKind::TagInvalid,
                format!(
                    "invalid tag \"{}\": a tag is at most 128 letters, digits, `_`, `.` and `-`, \
                     and starts with neither `.` nor `-`",
                    text.escape_debug()
                ),
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Tag {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a manifest within a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A movable name.
    Tag(Tag),
    /// The manifest's own digest.
    Digest(Digest),
}

impl Reference {
    /// Parses the last segment of a manifest's path. A digest has a colon, a tag has none.
    ///
    /// # Errors
    /// [`ErrorKind::DigestInvalid`] or [`ErrorKind::TagInvalid`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.contains(':') {
            parse_digest(text).map(Self::Digest)
        } else {
            Tag::parse(text).map(Self::Tag)
        }
    }
}

/// Parses a client's digest, with an error for that client.
pub(super) fn parse_digest(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(|invalid| {
        Error::new(
            ErrorKind::DigestInvalid,
            format!("invalid digest \"{}\": {invalid}", text.escape_debug()),
        )
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_told_from_a_digest() {
        let digest = Digest::of(b"x");
        assert_eq!(
            Reference::parse("latest").unwrap(),
            Reference::Tag(Tag::latest())
        );
        assert_eq!(
            Reference::parse(&digest.to_string()).unwrap(),
            Reference::Digest(digest)
        );
    }

    #[test]
    fn each_kind_of_bad_reference_has_its_own_error() {
        for (text, kind) in [
            ("", ErrorKind::TagInvalid),
            (".x", ErrorKind::TagInvalid),
            ("-x", ErrorKind::TagInvalid),
            ("a b", ErrorKind::TagInvalid),
            ("a%20", ErrorKind::TagInvalid),
            ("sha256:", ErrorKind::DigestInvalid),
            ("sha256:ABC", ErrorKind::DigestInvalid),
            ("md5:00", ErrorKind::DigestInvalid),
        ] {
            assert_eq!(Reference::parse(text).unwrap_err().kind, kind, "{text}");
        }
        assert!(Tag::parse(&"a".repeat(128)).is_ok());
        assert_eq!(
            Tag::parse(&"a".repeat(129)).unwrap_err().kind,
            ErrorKind::TagInvalid
        );
    }
}
