//! Signing tokens: ES256 (RFC 7518), which every verifier knows, with a short key and signature.
//!
//! A key's name (`kid`) is its thumbprint (RFC 7638): builders that share a key agree on it, and one
//! that was replaced has another name, by which Envoy notices that it has to fetch keys again.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pem::{EncodeConfig, LineEnding, Pem};
use serde::Serialize;

/// A private key, and its public half as verifiers read it.
pub(super) struct Signer {
    key: EncodingKey,
    header: Header,
    keys: String,
}

/// What a token says.
#[derive(Serialize)]
pub(super) struct Claims<'a> {
    /// Who made it.
    pub iss: &'a str,
    /// Whom it is about.
    pub sub: &'a str,
    /// Whom it is for.
    pub aud: &'a str,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// From when on it is good: the same. A clock that is set back would else prolong its life.
    pub nbf: u64,
    /// When it ends.
    pub exp: u64,
    /// The groups that the user is in.
    pub groups: Vec<String>,
}

impl Signer {
    /// Takes a private key for P-256 in PKCS #8, as `openssl genpkey` writes it.
    ///
    /// # Errors
    /// When it is another kind of key, or none.
    pub(super) fn from_pem(text: &[u8]) -> Result<Self> {
        let wrong = "it is no private key for P-256 in PKCS #8: make one by `openssl genpkey \
                     -algorithm EC -pkeyopt ec_paramgen_curve:P-256`";
        let key = EncodingKey::from_ec_pem(text).context(wrong)?;
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).context(wrong)?;
        let kid = public.thumbprint(ThumbprintHash::SHA256)?;
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let keys = serde_json::to_string(&JwkSet { keys: vec![public] })?;
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid);
        Ok(Self { key, header, keys })
    }

    /// Reads the key in a file.
    ///
    /// # Errors
    /// When it can't be read or is no key; the error names the file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        fs::read(path)
            .map_err(Into::into)
            .and_then(|text| Self::from_pem(&text))
            .with_context(|| format!("the key in {} can't be used", path.display()))
    }

    /// Reads the key in a file, or makes one there that its owner alone can read.
    ///
    /// # Errors
    /// As [`Signer::read`], and when it can't be written.
    pub(super) fn read_or_make(path: &Path) -> Result<Self> {
        if !path.try_exists()? {
            make_key(path).with_context(|| format!("can't make a key in {}", path.display()))?;
        }
        Self::read(path)
    }

    /// A token that says this.
    ///
    /// # Errors
    /// Never in practice: the key has been tried.
    pub(super) fn sign(&self, claims: &Claims<'_>) -> Result<String> {
        Ok(jsonwebtoken::encode(&self.header, claims, &self.key)?)
    }

    /// The public key, as a JSON Web Key Set.
    pub(super) fn keys(&self) -> &str {
        &self.keys
    }
}

/// Written aside and renamed: a builder that is killed meanwhile leaves no half of a key.
fn make_key(path: &Path) -> Result<()> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| anyhow!("the system has no random numbers"))?;
    let pem = Pem::new("PRIVATE KEY", key.as_ref());
    let text = pem::encode_config(&pem, EncodeConfig::new().set_line_ending(LineEnding::LF));
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    tracing::info!(path = %path.display(), "made a key to sign tokens with");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    fn claims() -> Claims<'static> {
        Claims {
            iss: "nixgate",
            sub: "alice",
            aud: "registry",
            iat: 1,
            nbf: 1,
            exp: jsonwebtoken::get_current_timestamp() + 60,
            groups: vec!["data-team".to_owned()],
        }
    }

    #[test]
    fn the_published_key_verifies_what_was_signed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let signer = Signer::read_or_make(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // The private number, `d`, is not among them.
        let public: Value = serde_json::from_str(signer.keys()).unwrap();
        let fields: Vec<&String> = public["keys"][0].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["alg", "crv", "kid", "kty", "use", "x", "y"]);

        let token = signer.sign(&claims()).unwrap();
        let keys: JwkSet = serde_json::from_str(signer.keys()).unwrap();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["registry"]);
        let read = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
        assert_eq!(read.claims["groups"], serde_json::json!(["data-team"]));

        // The next start finds the same key.
        let again = Signer::read_or_make(&path).unwrap();
        assert_eq!(again.keys(), signer.keys());
    }

    #[test]
    fn another_kind_of_key_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        // `openssl genpkey -algorithm ed25519`
        let ed25519 = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEIL8IFF9fc40/ercjZQpbXPD/wukf8idh2XZc9OQeZVrt\n\
                       -----END PRIVATE KEY-----\n";
        for content in ["", "secret", ed25519] {
            fs::write(&path, content).unwrap();
            let error = Signer::read_or_make(&path).err().expect(content);
            let error = format!("{error:#}");
            assert!(
                error.contains("key.pem") && error.contains("openssl genpkey"),
                "{error}"
            );
        }
    }
}
