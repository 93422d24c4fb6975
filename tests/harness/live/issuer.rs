//! An issuer of JSON Web Tokens, genuine or not.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::live::process::run;
use crate::live::scratch;

pub use jsonwebtoken::get_current_timestamp as now;

/// A key, and its name.
pub struct Issuer {
    key: EncodingKey,
    public: Jwk,
}

impl Issuer {
    /// An issuer with a new key of that name.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn new(kid: &str) -> Result<Self> {
        let folder = scratch::folder("issuer-")?;
        let file = folder.path().join("key.pem");
        run(Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&file))?;
        Self::with_key(&file, Some(kid))
    }

    /// One that signs with the key in a file. Without a name, it is the key's thumbprint.
    ///
    /// # Errors
    /// When there is no key in it.
    pub fn with_key(file: &Path, kid: Option<&str>) -> Result<Self> {
        let key = EncodingKey::from_ec_pem(&fs::read(file)?)?;
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        let thumbprint = public.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256)?;
        public.common.key_id = Some(kid.map_or(thumbprint, str::to_owned));
        Ok(Self { key, public })
    }

    /// Its public key, as a JSON Web Key Set.
    pub fn keys(&self) -> String {
        let keys = vec![self.public.clone()];
        json!(JwkSet { keys }).to_string()
    }

    /// A token that says this.
    ///
    /// # Errors
    /// Never in practice.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid.clone_from(&self.public.common.key_id);
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }

    /// A token whose signature was made with the public key as a shared secret.
    ///
    /// # Errors
    /// Never in practice.
    pub fn confuse(&self, claims: &Value) -> Result<String> {
        let mut header = Header::new(Algorithm::HS256);
        header.kid.clone_from(&self.public.common.key_id);
        let secret = EncodingKey::from_secret(json!(self.public).to_string().as_bytes());
        Ok(jsonwebtoken::encode(&header, claims, &secret)?)
    }
}
