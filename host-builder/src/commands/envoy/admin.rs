//! The administration of a running Envoy: its address, and questions to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read: a configuration with tens of thousands of routes has less.
const LIMIT: usize = 256 << 20;

/// The address of Envoy's administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admin {
    Tcp(String),
    Unix(PathBuf),
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        let is_address = text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && is_port(port));
        match is_address {
            true => Ok(Self::Tcp(text.to_owned())),
            false => {
                Err("give host:port, such as 127.0.0.1:9901, or unix:/path/of/a/socket".to_owned())
            }
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Asks an Envoy's administration.
pub(crate) struct AdminClient<'a> {
    client: Client,
    admin: &'a Admin,
}

impl<'a> AdminClient<'a> {
    pub(crate) fn new(admin: &'a Admin) -> Result<Self> {
        // The administration is never behind a proxy.
        let client = Client::builder().no_proxy().timeout(TIMEOUT);
        let client = match admin {
            Admin::Tcp(_) => client,
            Admin::Unix(path) => client.unix_socket(path.as_path()),
        };
        Ok(Self {
            client: client.build()?,
            admin,
        })
    }

    /// The text at a path, which begins with a slash.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        self.read(path).await.with_context(|| {
            format!(
                "cannot ask Envoy's administration at {}: give --admin its address",
                self.admin
            )
        })
    }

    async fn read(&self, path: &str) -> Result<String> {
        let host = match self.admin {
            Admin::Tcp(address) => address,
            Admin::Unix(_) => "envoy",
        };
        let answer = self.client.get(format!("http://{host}{path}")).send();
        let mut answer = answer.await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await? {
            ensure!(
                body.len() + part.len() <= LIMIT,
                "the answer to {path} has more than {} MiB",
                LIMIT >> 20
            );
            body.extend_from_slice(&part);
        }
        Ok(String::from_utf8(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoys_administration_is_at_an_address_or_a_socket() {
        for (text, admin) in [
            (
                "127.0.0.1:9901",
                Some(Admin::Tcp("127.0.0.1:9901".to_owned())),
            ),
            ("[::1]:9901", Some(Admin::Tcp("[::1]:9901".to_owned()))),
            ("unix:a/b.sock", Some(Admin::Unix("a/b.sock".into()))),
            ("http://127.0.0.1:9901", None),
            ("127.0.0.1", None),
            (":9901", None),
            ("/run/envoy.sock", None),
        ] {
            assert_eq!(text.parse().ok(), admin, "{text}");
            if let Some(admin) = admin {
                assert_eq!(admin.to_string(), text);
            }
        }
    }
}
