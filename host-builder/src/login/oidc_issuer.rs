//! The OIDC issuer: checks a token that was given as the password, and returns it.
//!
//! Envoy checks the token again with every request. The check at the login tells the user what is wrong
//! with the token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header, Validation};
use serde::Deserialize;

use super::jwks::Jwks;
use super::{Issued, OidcSettings, Refusal};

/// The clock skew for `nbf`, in seconds. Envoy allows as much.
const SKEW: u64 = 60;

/// See the module.
pub(super) struct OidcIssuer {
    keys: Jwks,
    settings: OidcSettings,
}

/// The claims that the library doesn't check by itself.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

impl OidcIssuer {
    pub(super) fn open(settings: OidcSettings) -> Result<Self> {
        Ok(Self {
            keys: Jwks::open(&settings.keys)?,
            settings,
        })
    }

    /// Returns a token of the issuer that is for this registry and has not expired.
    pub(super) async fn check(&self, token: String) -> Result<Issued, Refusal> {
        let header = jsonwebtoken::decode_header(&token);
        let header = header.map_err(|_| Refusal::Credentials(BAD_HEADER))?;
        let keys = self.keys.get(header.kid.as_deref()).await?;
        let at = SystemTime::now();
        let exp = verify(&token, &header, &keys, &self.settings).map_err(Refusal::Credentials)?;
        let now = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires_in = Duration::from_secs(exp)
            .checked_sub(now)
            .filter(|left| left.as_secs() > 0)
            .ok_or(Refusal::Credentials(EXPIRED))?;
        Ok(Issued {
            token,
            at,
            expires_in,
        })
    }
}

const BAD_HEADER: &str =
    "the token given as password has an invalid header, or no signature algorithm";
const EXPIRED: &str = "the token given as password has expired: get a new one, and log in again";

/// The token's end, in seconds since 1970.
fn verify(
    token: &str,
    header: &Header,
    keys: &[Jwk],
    settings: &OidcSettings,
) -> Result<u64, &'static str> {
    let mut validation = Validation::new(header.alg);
    validation.leeway = SKEW;
    validation.validate_nbf = true;
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let mut reason = "the token given as password is signed by no key of the OIDC issuer: get one \
                      from the issuer of this registry";
    let named = |key: &&Jwk| header.kid.is_none() || header.kid == key.common.key_id;
    let named = keys.iter().filter(named);
    for key in named.filter_map(|key| decoding_key(key, header.alg)) {
        match jsonwebtoken::decode::<Claims>(token, &key, &validation) {
            Ok(read) => return Ok(read.claims.exp as u64),
            Err(error) => reason = invalid_claim(error.kind()).unwrap_or(reason),
        }
    }
    Err(reason)
}

/// The key, if it is for signatures by this algorithm. The key decides: if the token did, a public key
/// could serve as a shared secret, and anybody could sign.
fn decoding_key(key: &Jwk, algorithm: Algorithm) -> Option<DecodingKey> {
    let agrees = |said: KeyAlgorithm| said == algorithm.into();
    let fits = key.common.public_key_use != Some(PublicKeyUse::Encryption)
        && algorithm.family() != AlgorithmFamily::Hmac
        && key.common.key_algorithm.is_none_or(agrees);
    let key = DecodingKey::from_jwk(key).ok()?;
    (fits && key.family() == algorithm.family()).then_some(key)
}

/// The invalid claim of a token with a valid signature; none for an invalid signature.
fn invalid_claim(error: &ErrorKind) -> Option<&'static str> {
    match error {
        ErrorKind::ExpiredSignature => Some(EXPIRED),
        ErrorKind::ImmatureSignature => Some(
            "the token given as password is not valid yet (nbf): check the clocks, or log in later",
        ),
        ErrorKind::InvalidIssuer => Some(
            "the token given as password is from another issuer (iss): get one from the issuer of \
             this registry",
        ),
        ErrorKind::InvalidAudience => Some(
            "the token given as password is for another audience (aud): get one for this registry",
        ),
        // A signed payload is JSON, so that error is a claim of the wrong type.
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::Json(_) => Some(
            "the token given as password lacks one of the claims exp, iss, aud and sub, or has one \
             of the wrong type",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
