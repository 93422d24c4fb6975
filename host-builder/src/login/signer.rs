//! Signs tokens with ES256 (RFC 7518), which every verifier supports; keys and signatures are short.
//!
//! A key's id (`kid`) is its thumbprint (RFC 7638): builders that share a key agree on it, and a new key
//! has a new id.
//!
//! A file may have several keys. The first signs, and all are published. So a key is replaced without
//! refused tokens: the new key is added last, moved to the front once verifiers know it, and left alone
//! once the old key's tokens have expired.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pem::{EncodeConfig, LineEnding, Pem};
use serde::Serialize;

use crate::files::reload::Reloading;

/// A private key for signing, and all public keys.
pub(super) struct Signer {
    key: EncodingKey,
    header: Header,
    /// The public keys, as a JSON Web Key Set.
    pub(super) keys: String,
}

/// The claims of a token (RFC 7519). Times are in seconds since 1970.
#[derive(Serialize)]
pub(super) struct Claims<'a> {
    pub(super) iss: &'a str,
    pub(super) sub: &'a str,
    pub(super) aud: &'a str,
    pub(super) iat: u64,
    /// Without it, a clock that is set back would prolong the token's life.
    pub(super) nbf: u64,
    pub(super) exp: u64,
    pub(super) groups: Vec<String>,
}

impl Signer {
    /// Parses P-256 private keys in PKCS #8, as `openssl genpkey` writes them.
    ///
    /// # Errors
    /// When a key has another type or is cut off, and when there is none.
    fn parse(text: &str) -> Result<Self> {
        let wrong = "not a P-256 private key in PKCS #8: create one with `openssl genpkey -algorithm \
                     EC -pkeyopt ec_paramgen_curve:P-256`";
        let blocks = pem::parse_many(text).context(wrong)?;
        let (mut signing, mut keys) = (None, Vec::new());
        for block in &blocks {
            let key = EncodingKey::from_ec_pem(pem::encode(block).as_bytes()).context(wrong)?;
            let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).context(wrong)?;
            let kid = public.thumbprint(ThumbprintHash::SHA256)?;
            public.common.key_id = Some(kid.clone());
            public.common.public_key_use = Some(PublicKeyUse::Signature);
            keys.push(public);
            signing.get_or_insert((key, kid));
        }
        // The parser skips a key without an end.
        ensure!(
            blocks.len() == text.matches("-----BEGIN ").count(),
            "a key is incomplete: its END line is missing"
        );
        let (key, kid) = signing.context(wrong)?;
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid);
        Ok(Self {
            key,
            header,
            keys: serde_json::to_string(&JwkSet { keys })?,
        })
    }

    /// Reads the keys in a file, and again when it changes.
    ///
    /// # Errors
    /// When the file is missing or invalid; the error names it.
    pub(super) fn open(path: &Path) -> Result<Reloading<Self>> {
        Reloading::open(path, Self::parse)
    }

    /// The same. A missing file is created, readable by its owner alone.
    ///
    /// # Errors
    /// As [`Signer::open`], and when the file can't be written.
    pub(super) fn open_or_create(path: &Path) -> Result<Reloading<Self>> {
        if !path.try_exists()? {
            create_key(path)
                .with_context(|| format!("cannot create the key {}", path.display()))?;
        }
        Self::open(path)
    }

    /// # Errors
    /// None in practice: the key is valid.
    pub(super) fn sign(&self, claims: &Claims<'_>) -> Result<String> {
        Ok(jsonwebtoken::encode(&self.header, claims, &self.key)?)
    }
}

/// Writes another file and renames it: a builder that is killed meanwhile leaves no incomplete key.
fn create_key(path: &Path) -> Result<()> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| anyhow!("the system's random number generator failed"))?;
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
    tracing::info!(path = %path.display(), "created a key to sign tokens with");
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
        let signer = Signer::open_or_create(&path).unwrap().current();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // The private number `d` is not published.
        let public: Value = serde_json::from_str(&signer.keys).unwrap();
        let fields: Vec<&String> = public["keys"][0].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["alg", "crv", "kid", "kty", "use", "x", "y"]);

        let token = signer.sign(&claims()).unwrap();
        let keys: JwkSet = serde_json::from_str(&signer.keys).unwrap();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["registry"]);
        let read = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
        assert_eq!(read.claims["groups"], serde_json::json!(["data-team"]));

        // The next start finds the same key.
        let again = Signer::open_or_create(&path).unwrap().current();
        assert_eq!(again.keys, signer.keys);
    }

    #[test]
    fn of_several_keys_the_first_signs_and_all_are_published() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| {
            let path = folder.path().join(name);
            Signer::open_or_create(&path).unwrap();
            fs::read_to_string(path).unwrap()
        });
        let kids = |signer: &Signer| -> Vec<String> {
            let keys: JwkSet = serde_json::from_str(&signer.keys).unwrap();
            let kids = keys.keys.into_iter().map(|key| key.common.key_id);
            kids.collect::<Option<_>>().unwrap()
        };
        let signs = |signer: &Signer| {
            let token = signer.sign(&claims()).unwrap();
            jsonwebtoken::decode_header(&token).unwrap().kid.unwrap()
        };
        let [only_old, only_new] = [&old, &new].map(|key| kids(&Signer::parse(key).unwrap()));
        let both = [&only_old[..], &only_new].concat();
        let added = Signer::parse(&format!("{old}{new}")).unwrap();
        assert_eq!(
            (kids(&added), signs(&added)),
            (both.clone(), both[0].clone())
        );
        let turned = format!("# since May\n{new}\n{old}");
        let turned = Signer::parse(&turned).unwrap();
        assert_eq!(kids(&turned), [&both[1][..], &both[0]]);
        assert_eq!(signs(&turned), both[1]);
        // The second key is incomplete.
        for end in old.len() + 11..old.len() + new.len() - 1 {
            let half = format!("{old}{new}");
            assert!(Signer::parse(&half[..end]).is_err(), "{}", &half[..end]);
        }
    }

    #[test]
    fn another_type_of_key_is_refused_with_the_command_to_create_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        // `openssl genpkey -algorithm ed25519`
        let ed25519 = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEIL8IFF9fc40/ercjZQpbXPD/wukf8idh2XZc9OQeZVrt\n\
                       -----END PRIVATE KEY-----\n";
        for content in ["", "secret", ed25519] {
            fs::write(&path, content).unwrap();
            let error = Signer::open_or_create(&path).err().expect(content);
            let error = format!("{error:#}");
            assert!(
                error.contains("key.pem") && error.contains("openssl genpkey"),
                "{error}"
            );
        }
    }
}
