//! Signatures of the edge's requests to the builder, so that no request carries their secret.
//!
//! ```text
//!   key        SHA-256 of the token
//!   signature  HMAC-SHA256 (RFC 2104) of  <seconds> LF <method> LF <path with query>
//!   header     Nixgate-Token: v1:<seconds>:<signature, 64 hex digits>
//! ```
//!
//! Filters behind nixgate, taps, access logs and whoever reads the hop see requests to the builder. With a
//! signature they can repeat the request that they have seen, and no other, until it is too old. The time is
//! the builder's, which the edge learns from its answers ([`wire::TIME`](crate::wire::TIME)): clocks that
//! differ cost one request.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::Seconds;
use crate::distribution::Digest;

/// How long the builder accepts a signature, and how far it may be ahead, in seconds. Long enough for a
/// request that waits in the queues of Envoy, and for retries.
pub const LIFETIME: Seconds = 300;
const VERSION: &str = "v1:";

/// Signs requests, and verifies signatures.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is of another key, of another request, or no signature.
    Invalid,
    /// The key is right, but the signature is older than [`LIFETIME`], or from the future.
    Outdated,
}

impl SigningKey {
    /// The key of the token with this digest.
    pub fn new(token: &Digest) -> Self {
        // HMAC takes keys of any length, so the other branch is never taken.
        let mac = Hmac::new_from_slice(token.as_bytes());
        Self(mac.unwrap_or_else(|_| Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::default())))
    }

    /// The value of [`wire::TOKEN`](crate::wire::TOKEN) for a request at a time of the builder's clock.
    pub fn sign(&self, method: &str, path: &str, at: Seconds) -> String {
        let tag = self.tag(method, path, &at.to_string()).finalize();
        let tag = Digest::from_bytes(tag.into_bytes().into()).hex();
        format!("{VERSION}{at}:{tag}")
    }

    /// Verifies a signature at the time `now`.
    ///
    /// # Errors
    /// Says why the signature does not count.
    pub fn verify(
        &self,
        signature: &str,
        method: &str,
        path: &str,
        now: Seconds,
    ) -> Result<(), Refused> {
        let parts = signature.strip_prefix(VERSION);
        let (time, tag) = parts
            .and_then(|parts| parts.split_once(':'))
            .ok_or(Refused::Invalid)?;
        let tag: Digest = format!("sha256:{tag}")
            .parse()
            .map_err(|_| Refused::Invalid)?;
        self.tag(method, path, time)
            .verify_slice(tag.as_bytes())
            .map_err(|_| Refused::Invalid)?;
        match time.parse::<Seconds>() {
            Ok(time) if time.abs_diff(now) <= LIFETIME => Ok(()),
            _ => Err(Refused::Outdated),
        }
    }

    /// No part has a line feed: a time is digits, and HTTP allows none in methods and paths.
    fn tag(&self, method: &str, path: &str, time: &str) -> Hmac<Sha256> {
        let parts = [time, "\n", method, "\n", path];
        parts.iter().fold(self.0.clone(), Hmac::chain_update)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Seconds = 1_700_000_000;
    const PATH: &str = "/v2/git/blobs/sha256:00?x=1";

    fn key(token: &str) -> SigningKey {
        SigningKey::new(&Digest::of(token.as_bytes()))
    }

    #[test]
    fn a_signature_counts_for_its_request_and_its_time_only() {
        let ours = key("secret");
        let signature = ours.sign("GET", PATH, NOW);
        let verify = |method, path, now| ours.verify(&signature, method, path, now);
        for now in [NOW - LIFETIME, NOW, NOW + LIFETIME] {
            assert_eq!(verify("GET", PATH, now), Ok(()));
        }
        for now in [0, NOW - LIFETIME - 1, NOW + LIFETIME + 1, Seconds::MAX] {
            assert_eq!(verify("GET", PATH, now), Err(Refused::Outdated));
        }
        assert_eq!(verify("HEAD", PATH, NOW), Err(Refused::Invalid));
        assert_eq!(verify("GET", "/v2/git/", NOW), Err(Refused::Invalid));
        let theirs = key("another").verify(&signature, "GET", PATH, NOW);
        assert_eq!(theirs, Err(Refused::Invalid));
        assert!(!signature.contains("secret"));
    }

    #[test]
    fn no_change_of_a_signature_counts() {
        let ours = key("secret");
        let signature = ours.sign("GET", PATH, NOW);
        for index in 0..signature.len() {
            let mut changed = signature.clone().into_bytes();
            changed[index] = if changed[index] == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(
                ours.verify(&changed, "GET", PATH, NOW).is_err(),
                "{changed}"
            );
        }
        let upper = signature.to_uppercase();
        let spelt = signature.replace("v1:", "v1:+");
        for other in ["", "v1:", "v1::", "secret", &*upper, &*spelt] {
            assert!(ours.verify(other, "GET", PATH, NOW).is_err(), "{other}");
        }
    }
}
