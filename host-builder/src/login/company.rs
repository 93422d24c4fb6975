//! The company's issuer: a password that is one of its tokens is looked at, and handed back.
//!
//! Envoy checks the token again with every request. It is checked here so that `docker login` says
//! what is wrong with it, while the person is there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header, Validation};
use serde::Deserialize;

use super::company_keys::CompanyKeys;
use super::{CompanySettings, Issued, Refusal};

/// How far clocks may differ, in seconds, for a token that is to hold from some time on. Envoy
/// allows as much.
const SKEW: u64 = 60;

/// The issuer, and its keys.
pub(super) struct OidcIssuer {
    keys: CompanyKeys,
    settings: CompanySettings,
}

/// The claims that are looked at beyond those that the library checks.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

impl OidcIssuer {
    pub(super) fn open(settings: CompanySettings) -> Result<Self> {
        Ok(Self {
            keys: CompanyKeys::open(&settings.keys)?,
            settings,
        })
    }

    /// The token itself, when it is the issuer's, for this registry, and has not ended.
    pub(super) async fn check(&self, token: String) -> Result<Issued, Refusal> {
        let header = jsonwebtoken::decode_header(&token).map_err(|_| {
            Refusal::Credentials(
                "the token in place of the password has a header that can't be read, or names no \
                 signature algorithm",
            )
        })?;
        let keys = self.keys.that_have(header.kid.as_deref()).await?;
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

const EXPIRED: &str =
    "the token in place of the password has expired: get a new one, and log in again";

/// When the token ends, in seconds since 1970.
fn verify(
    token: &str,
    header: &Header,
    keys: &[Jwk],
    settings: &CompanySettings,
) -> Result<u64, &'static str> {
    let mut validation = Validation::new(header.alg);
    validation.leeway = SKEW;
    validation.validate_nbf = true;
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let mut reason =
        "the token in place of the password is signed by no key of the company's issuer";
    let named = |key: &&Jwk| header.kid.is_none() || header.kid == key.common.key_id;
    for key in keys
        .iter()
        .filter(named)
        .filter(|key| fits(key, header.alg))
    {
        let Ok(key) = DecodingKey::from_jwk(key) else {
            continue;
        };
        match jsonwebtoken::decode::<Claims>(token, &key, &validation) {
            Ok(read) => return Ok(read.claims.exp as u64),
            Err(error) => {
                if let Some(better) = told(error.kind()) {
                    reason = better;
                }
            }
        }
    }
    Err(reason)
}

/// Whether a key is for signatures by this algorithm. The key decides: were the token's word taken,
/// a public key could be used as a shared secret, and a token be signed by whoever can read it.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let for_signatures = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
    let agrees = |said: KeyAlgorithm| said == algorithm.into();
    let family = DecodingKey::from_jwk(key).map(|key| key.family());
    for_signatures
        && algorithm.family() != AlgorithmFamily::Hmac
        && family.is_ok_and(|family| family == algorithm.family())
        && key.common.key_algorithm.is_none_or(agrees)
}

/// What is wrong with the claims of a token whose signature is right; none when that is not so.
fn told(error: &ErrorKind) -> Option<&'static str> {
    match error {
        ErrorKind::ExpiredSignature => Some(EXPIRED),
        ErrorKind::ImmatureSignature => Some(
            "the token in place of the password does not hold yet (nbf): check the clocks, or log \
             in later",
        ),
        ErrorKind::InvalidIssuer => Some(
            "the token in place of the password is of another issuer (iss) than this registry's",
        ),
        ErrorKind::InvalidAudience => Some(
            "the token in place of the password is not for this registry (aud): get one whose \
             audience is this registry's",
        ),
        // The payload of a good signature is JSON, so the latter is a claim of another kind.
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::Json(_) => Some(
            "the token in place of the password lacks one of the claims exp, iss, aud and sub, or \
             has one that is not of its kind",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
