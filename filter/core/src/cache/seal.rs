//! A message authentication code on each slot of the shared cache.
//!
//! Every plugin with the same `vm_id` can write to shared data. Without the builder's token it can't make
//! the code, so its slots are misses: it can forge no manifest, no location of a blob and no facts for a
//! policy. It can put back an older entry of the same key, until that expires.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of the code, HMAC-SHA256 (RFC 2104).
const LENGTH: usize = 32;

/// Signs slots and verifies them.
#[derive(Clone)]
pub struct Seal(Hmac<Sha256>);

impl Seal {
    /// The seal with this key.
    pub fn new(secret: &str) -> Self {
        // HMAC takes keys of any length, so the other branch is never taken.
        let mac = Hmac::new_from_slice(secret.as_bytes());
        Self(mac.unwrap_or_else(|_| Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::default())))
    }

    /// Appends the code to a slot.
    pub fn seal(&self, mut slot: Vec<u8>) -> Vec<u8> {
        let tag = self.0.clone().chain_update(&slot).finalize();
        slot.extend_from_slice(&tag.into_bytes());
        slot
    }

    /// The slot without its code, valid or not.
    pub fn unverified(sealed: &[u8]) -> Option<&[u8]> {
        sealed.get(..sealed.len().checked_sub(LENGTH)?)
    }

    /// The slot without its code, if that is valid.
    pub fn open<'a>(&self, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (slot, tag) = sealed.split_at_checked(sealed.len().checked_sub(LENGTH)?)?;
        let mac = self.0.clone().chain_update(slot);
        mac.verify_slice(tag).is_ok().then_some(slot)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_opens_for_those_who_know_the_secret_and_breaks_with_a_bit() {
        let (ours, theirs) = (Seal::new("secret"), Seal::new("another"));
        let sealed = ours.seal(b"slot".to_vec());
        assert_eq!(ours.open(&sealed), Some(b"slot".as_slice()));
        assert_eq!(theirs.open(&sealed), None);
        for index in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[index] ^= 1;
            assert_eq!(ours.open(&broken), None, "byte {index}");
        }
        for short in [&b""[..], &[0; LENGTH - 1]] {
            assert_eq!(ours.open(short), None);
        }
    }
}
