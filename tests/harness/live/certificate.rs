//! A server's certificate, and the private authority that signed it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::live::install;
use crate::live::process::run;

/// The files of a certificate for 127.0.0.1 and localhost.
#[derive(Debug)]
pub struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    /// Makes an authority and has it sign a certificate, as `make gateway` does.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn make(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        run(Command::new("bash")
            .args([
                "-c",
                ". scripts/common.sh; . envoy/corporate-gateway/demo.sh; \
                 make_certificate",
            ])
            .env("FILES", folder)
            .current_dir(install::root()))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// That of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca/ca.crt")
    }

    /// That of the server.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("tls/tls.crt")
    }

    /// The server's private key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("tls/tls.key")
    }
}
