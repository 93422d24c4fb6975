//! Tokens of the issuer, and forgeries.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, JwkSet, OctetKeyParameters, OctetKeyType,
};
use jsonwebtoken::{EncodingKey, get_current_timestamp};
use serde_json::{Value, json};

use super::*;
use crate::login::JwksSource;

struct Issuer {
    key: EncodingKey,
    public: Jwk,
}

impl Issuer {
    fn new(kid: &str) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let key = EncodingKey::from_ec_der(key.unwrap().as_ref());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        public.common.key_id = Some(kid.to_owned());
        Self { key, public }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid.clone_from(&self.public.common.key_id);
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// The claims of a good token with these changes; null removes a claim.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://login.example",
        "aud": ["other", "registry"],
        "sub": "alice",
        "exp": get_current_timestamp() + 600,
    });
    let fields = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        fields.insert(name.clone(), value.clone());
    }
    fields.retain(|_, value| !value.is_null());
    claims
}

fn oidc(keys: Vec<Jwk>) -> OidcIssuer {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!(JwkSet { keys }).to_string()).unwrap();
    OidcIssuer::open(OidcSettings {
        keys: JwksSource::File(file.path().to_path_buf()),
        issuer: "https://login.example".to_owned(),
        audience: "registry".to_owned(),
    })
    .unwrap()
}

async fn refusal(oidc: &OidcIssuer, token: String) -> String {
    let refused = oidc.check(token).await.err();
    refused.expect("it is refused").to_string()
}

#[tokio::test]
async fn a_good_token_is_returned_with_the_time_that_is_left() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let oidc = oidc(vec![old.public.clone(), new.public.clone()]);
    let of_the_new_key = new.sign(&claims(json!({})));
    // `aud` may be a text, `exp` have a fraction; clocks may differ by less than a minute.
    let soon = get_current_timestamp() + 30;
    let changes = json!({"aud": "registry", "exp": soon as f64 + 600.5, "nbf": soon});
    let other = old.sign(&claims(changes));
    for (token, at_most) in [(of_the_new_key, 600), (other, 631)] {
        let issued = oidc.check(token.clone()).await.ok().unwrap();
        assert_eq!(issued.token, token);
        let left = issued.expires_in.as_secs();
        assert!(0 < left && left <= at_most, "{left}");
    }

    // A token that names no key is tried with all.
    let mut header = Header::new(Algorithm::ES256);
    header.kid = None;
    let unnamed = jsonwebtoken::encode(&header, &claims(json!({})), &new.key).unwrap();
    assert!(oidc.check(unnamed).await.is_ok());
}

#[tokio::test]
async fn a_refusal_names_the_invalid_claim() {
    let issuer = Issuer::new("a");
    let oidc = oidc(vec![issuer.public.clone()]);
    let now = get_current_timestamp();
    for (changes, part) in [
        (json!({"exp": now - 1}), "expired"),
        (json!({"exp": now - 3600}), "expired"),
        (json!({"exp": null}), "lacks"),
        (json!({"exp": (now + 600).to_string()}), "lacks"),
        (json!({"exp": -1}), "lacks"),
        (json!({"nbf": now + 3600}), "nbf"),
        (json!({"nbf": "0"}), "lacks"),
        (json!({"iss": "https://evil.example"}), "(iss)"),
        (json!({"iss": null}), "lacks"),
        (json!({"aud": ["other"]}), "(aud)"),
        (json!({"aud": []}), "(aud)"),
        (json!({"aud": null}), "lacks"),
        (json!({"sub": null}), "lacks"),
    ] {
        let token = issuer.sign(&claims(changes.clone()));
        let reason = refusal(&oidc, token.clone()).await;
        assert!(reason.contains(part), "{changes}: {reason}");
        assert!(!reason.contains(&token));
    }
}

#[tokio::test]
async fn a_missing_or_foreign_signature_is_refused() {
    let issuer = Issuer::new("a");
    let mut for_encryption = Issuer::new("e");
    for_encryption.public.common.public_key_use = Some(PublicKeyUse::Encryption);
    let shared = Jwk {
        common: CommonParameters {
            key_id: Some("s".to_owned()),
            ..CommonParameters::default()
        },
        algorithm: AlgorithmParameters::OctetKey(OctetKeyParameters {
            key_type: OctetKeyType::Octet,
            value: BASE64URL.encode("shared"),
        }),
    };
    let keys = vec![issuer.public.clone(), for_encryption.public.clone(), shared];
    let oidc = oidc(keys);
    let good = issuer.sign(&claims(json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let [_, payload, signature] = parts[..] else {
        panic!("three parts")
    };
    let encoded = |header: Value| BASE64URL.encode(header.to_string());

    // The same name, another key.
    let stranger = Issuer::new("a").sign(&claims(json!({})));
    // A key that isn't in the set, or not for signatures.
    let unknown = Issuer::new("b").sign(&claims(json!({})));
    let misused = for_encryption.sign(&claims(json!({})));
    // Other claims under a good signature.
    let forged = BASE64URL.encode(claims(json!({"sub": "root"})).to_string());
    let altered = good.replace(payload, &forged);
    // No signature, in each way of saying so.
    let none = ["none", "None", ""].map(|alg| {
        let header = encoded(json!({"alg": alg, "kid": "a"}));
        format!("{header}.{payload}.")
    });
    let header = encoded(json!({"alg": "ES256", "kid": "a"}));
    let unsigned = format!("{header}.{payload}.");
    // The public key, as everyone has it, used as a shared secret; and a secret in the set.
    let published = json!(issuer.public).to_string();
    let AlgorithmParameters::EllipticCurve(point) = &issuer.public.algorithm else {
        panic!("a key of a curve")
    };
    let point = [&[4][..], &decoded(&point.x), &decoded(&point.y)].concat();
    let confused = [
        ("a", published.as_bytes()),
        ("a", point.as_slice()),
        ("s", b"shared"),
    ]
    .map(|(kid, secret)| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        let secret = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&header, &claims(json!({})), &secret).unwrap()
    });
    // Another algorithm of another family over the same bytes.
    let header = encoded(json!({"alg": "RS256", "kid": "a"}));
    let mislabelled = format!("{header}.{payload}.{signature}");

    for token in [stranger, unknown, misused, altered, unsigned, mislabelled]
        .into_iter()
        .chain(none)
        .chain(confused)
        .chain(["eyJh.eyJh.eyJh".to_owned(), String::new()])
    {
        let reason = refusal(&oidc, token.clone()).await;
        let of_the_signature = reason.contains("no key") || reason.contains("header");
        assert!(of_the_signature, "{token}: {reason}");
    }
    assert!(oidc.check(good).await.is_ok());
}

fn decoded(text: &str) -> Vec<u8> {
    BASE64URL.decode(text).unwrap()
}
