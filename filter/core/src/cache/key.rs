//! Cache keys: a canonical encoding of everything that an answer depends on.
//!
//! Each part is preceded by its length, so different lists of parts never have the same encoding. The
//! first part is the version of the format. Golden tests pin the bytes.

use sha2::{Digest as _, Sha256};

use crate::ImageName;
use crate::distribution::{Digest, MediaType, Method, Reference};

/// Changes with the encoding of keys or entries, and with their meaning.
const VERSION: &str = "nixgate-4";

/// The key of one answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// A manifest; by tag, the key includes the media type. `scope` is the configuration's own: two
    /// configurations share no entries.
    pub fn manifest(
        scope: &str,
        image: &ImageName,
        reference: &Reference,
        media_type: MediaType,
    ) -> Self {
        let image = image.to_string();
        match reference {
            Reference::Tag(tag) => {
                Self::encode(&[scope, "tag", &image, tag.as_str(), media_type.as_str()])
            }
            Reference::Digest(digest) => {
                Self::encode(&[scope, "manifest", &image, &digest.to_string()])
            }
        }
    }

    /// The location of a blob, for one method.
    pub fn blob(scope: &str, image: &ImageName, digest: &Digest, method: Method) -> Self {
        let (image, digest) = (image.to_string(), digest.to_string());
        Self::encode(&[scope, "blob", &image, &digest, method.as_str()])
    }

    /// The tags of an image.
    pub fn tags(scope: &str, image: &ImageName) -> Self {
        Self::encode(&[scope, "tags", &image.to_string()])
    }

    /// The list of all images.
    pub fn catalog(scope: &str) -> Self {
        Self::encode(&[scope, "catalog"])
    }

    fn encode(parts: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in [VERSION].iter().chain(parts) {
            // No part is near 4 GiB: names are bounded by their grammar.
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(bytes)
    }

    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// 128 bits of the key's SHA-256: the first half chooses the set, the second is the fingerprint within
    /// it. The hash is cryptographic, since clients choose the keys and must not be able to fill one set.
    pub(super) fn hash(&self) -> (u64, u64) {
        let digest: [u8; 32] = Sha256::digest(&self.0).into();
        let (parts, _) = digest.as_chunks();
        let part = |index: usize| parts.get(index).copied().map_or(0, u64::from_be_bytes);
        (part(0), part(1))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::OpaqueNamespaces;
    use crate::distribution::{Repository, Tag};

    fn packages(name: &str) -> ImageName {
        let name = Repository::parse(name).unwrap();
        ImageName::of(&name, &OpaqueNamespaces::default()).unwrap()
    }

    fn check(key: &Key, expected: Expect) {
        expected.assert_eq(&key.as_bytes().escape_ascii().to_string());
    }

    #[test]
    fn golden() {
        let (git, digest) = (packages("git"), Digest::of(b""));
        let latest = Reference::Tag(Tag::latest());
        check(
            &Key::manifest("b", &git, &latest, MediaType::Oci),
            expect![[
                r#"\x00\x00\x00\tnixgate-4\x00\x00\x00\x01b\x00\x00\x00\x03tag\x00\x00\x00\x13cacert/git/iana-etc\x00\x00\x00\x06latest\x00\x00\x00*application/vnd.oci.image.manifest.v1+json"#
            ]],
        );
        check(
            &Key::manifest("b", &git, &Reference::Digest(digest), MediaType::Oci),
            expect![[
                r#"\x00\x00\x00\tnixgate-4\x00\x00\x00\x01b\x00\x00\x00\x08manifest\x00\x00\x00\x13cacert/git/iana-etc\x00\x00\x00Gsha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"#
            ]],
        );
        check(
            &Key::blob("b", &git, &digest, Method::Head),
            expect![[
                r#"\x00\x00\x00\tnixgate-4\x00\x00\x00\x01b\x00\x00\x00\x04blob\x00\x00\x00\x13cacert/git/iana-etc\x00\x00\x00Gsha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\x00\x00\x00\x04HEAD"#
            ]],
        );
        check(
            &Key::tags("b", &git),
            expect![[
                r#"\x00\x00\x00\tnixgate-4\x00\x00\x00\x01b\x00\x00\x00\x04tags\x00\x00\x00\x13cacert/git/iana-etc"#
            ]],
        );
        check(
            &Key::catalog("b"),
            expect![[r#"\x00\x00\x00\tnixgate-4\x00\x00\x00\x01b\x00\x00\x00\x07catalog"#]],
        );
    }

    #[test]
    fn what_changes_the_answer_changes_the_key() {
        let latest = Reference::Tag(Tag::latest());
        let key = |cluster, name, media| Key::manifest(cluster, &packages(name), &latest, media);
        let first = key("b", "git", MediaType::Oci);
        assert_eq!(first, key("b", "git/cacert", MediaType::Oci));
        for other in [
            key("c", "git", MediaType::Oci),
            key("b", "arm64/git", MediaType::Oci),
            key("b", "git/htop", MediaType::Oci),
            key("b", "git", MediaType::Docker),
        ] {
            assert_ne!(first, other);
        }
    }
}
