//! Storage keys: a SHA-256 over a canonical encoding.
//!
//! The length comes before each part and the count before each list, so that different inputs have
//! different encodings. The first part is the kind and its version.

use nixgate_core::distribution::Digest;
use sha2::{Digest as _, Sha256};

/// Builds a key.
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// The version in `kind` must change with the meaning of the key.
    pub(crate) fn new(kind: &str) -> Self {
        Self(Sha256::new()).part(kind)
    }

    #[must_use]
    pub(crate) fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    #[must_use]
    pub(crate) fn list<T: AsRef<[u8]>>(mut self, parts: impl ExactSizeIterator<Item = T>) -> Self {
        self.0.update((parts.len() as u64).to_be_bytes());
        parts.fold(self, Self::part)
    }

    /// A number in [0, 1), uniform over keys: for jitter.
    pub(crate) fn fraction(self) -> f64 {
        let [a, b, c, d, ..] = <[u8; 32]>::from(self.0.finalize());
        f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
    }

    /// The key, 64 hexadecimal digits.
    pub(crate) fn hex(self) -> String {
        Digest::from_bytes(self.0.finalize().into()).hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let key = Fingerprint::new("kind-1")
            .part("a")
            .list(["b", "c"].iter())
            .hex();
        expect_test::expect!["c55de87eaf5c700c86bfc5f9a9714ef1d1be5035dc9b185b50b24b39aaded4ef"]
            .assert_eq(&key);
    }

    #[test]
    fn parts_are_kept_apart() {
        let of = |parts: &[&str]| {
            parts
                .iter()
                .fold(Fingerprint::new("k"), Fingerprint::part)
                .hex()
        };
        assert_ne!(of(&["jq", "nano"]), of(&["jqnano"]));
        assert_ne!(of(&["a", ""]), of(&["", "a"]));
        let lists = |one: &[&str], two: &[&str]| {
            Fingerprint::new("k")
                .list(one.iter())
                .list(two.iter())
                .hex()
        };
        assert_ne!(lists(&["a"], &["b"]), lists(&["a", "b"], &[]));
    }
}
