//! The environment of Nix and git: empty but for what they need, and no secret of the builder.
//!
//! Nix code can read its environment (`builtins.getEnv`, or `impureEnvVars` of a derivation that
//! fetches), and a package set is Nix code that others wrote. So nothing passes that is not on these
//! lists, and of what is on them nothing that calls itself a secret.
//!
//! | | Nix evaluates, builds, answers | Nix and git fetch the package set |
//! | --- | --- | --- |
//! | where things are, language | yes | yes |
//! | proxy, certificates | yes | yes |
//! | git's settings, the ssh agent | no | yes |
//!
//! `NIX_PATH` passes to nobody: Nix code may read what it names.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::git_credential;

/// What a program is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To evaluate or build what a package set says, or to ask the store.
    Nix,
    /// To fetch the package set itself.
    Fetch,
}

/// How Nix and git reach the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// The proxy's URL, for http and https; none leaves what the builder's variables say.
    pub proxy: Option<String>,
    /// Certificates of those to trust, PEM.
    pub ca_bundle: Option<PathBuf>,
    /// Credentials for what Nix and git fetch, as curl's netrc.
    pub netrc: Option<PathBuf>,
}

/// Variables that pass, by name.
const NAMES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "LANG",
    // Where Nix's store, daemon and settings are.
    "NIX_REMOTE",
    "NIX_DAEMON_SOCKET_PATH",
    "NIX_STORE",
    "NIX_STORE_DIR",
    "NIX_STATE_DIR",
    "NIX_LOG_DIR",
    "NIX_CONF_DIR",
    "NIX_USER_CONF_FILES",
    "NIX_CONFIG",
    // Certificates of mirrors and proxies.
    "NIX_SSL_CERT_FILE",
    "NIX_GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];
/// Variables that pass, by the beginning of their names.
const PREFIXES: &[&str] = &["LC_", "XDG_"];
/// Variables that pass besides to what fetches: private repositories by ssh, and git's own.
const FETCH_NAMES: &[&str] = &["SSH_AUTH_SOCK"];
/// The same by the beginning of their names.
const FETCH_PREFIXES: &[&str] = &["GIT_"];
/// What the name of a secret holds.
const SECRET: &[&str] = &["TOKEN", "SECRET", "PASSWORD", "PASSPHRASE"];

/// Of the builder's variables those that its children get, and those of the settings instead of
/// them; git never asks a person.
pub(super) fn of_children(
    own: impl Iterator<Item = (OsString, OsString)>,
    purpose: Purpose,
    egress: &Egress,
) -> Vec<(OsString, OsString)> {
    let own = own.filter(|(name, _)| name.to_str().is_some_and(|name| passes(name, purpose)));
    let set = |names: &'static [&'static str], value: Option<OsString>| {
        let pairs = names.iter().zip(value.into_iter().cycle());
        pairs.map(|(name, value)| (name.into(), value))
    };
    let proxy = egress.proxy.as_ref().map(Into::into);
    let ca_bundle = egress.ca_bundle.as_ref().map(Into::into);
    let mut all: Vec<_> = own
        .chain(set(PROXY, proxy))
        .chain(set(CA_BUNDLE, ca_bundle))
        .chain([("GIT_TERMINAL_PROMPT".into(), "0".into())])
        .collect();
    if let (Purpose::Fetch, Some(netrc)) = (purpose, &egress.netrc) {
        all.extend(git_credential::variables(&all, netrc));
    }
    all
}

/// All names by which curl and git know a proxy: an upper-case one of the builder's would be used
/// where only the other is set.
const PROXY: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];
/// The same of a file of certificates.
const CA_BUNDLE: &[&str] = &[
    "NIX_SSL_CERT_FILE",
    "NIX_GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
];

fn passes(name: &str, purpose: Purpose) -> bool {
    let listed = |names: &[&str], prefixes: &[&str]| {
        names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    let fetches = purpose == Purpose::Fetch && listed(FETCH_NAMES, FETCH_PREFIXES);
    (listed(NAMES, PREFIXES) || fetches) && !SECRET.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nix_and_git_need_passes_and_no_secret() {
        for (name, nix, fetch) in [
            ("PATH", true, true),
            ("LC_ALL", true, true),
            ("NIX_REMOTE", true, true),
            ("https_proxy", true, true),
            ("NIX_SSL_CERT_FILE", true, true),
            ("GIT_CONFIG_KEY_0", false, true),
            ("SSH_AUTH_SOCK", false, true),
            // Nix code may read what it names.
            ("NIX_PATH", false, false),
            ("NIXGATE_TOKEN", false, false),
            ("NIXERY_CHANNEL", false, false),
            ("AWS_SECRET_ACCESS_KEY", false, false),
            ("AWS_ACCESS_KEY_ID", false, false),
            ("NIX_GITHUB_PRIVATE_PASSWORD", false, false),
            ("GIT_PASSWORD", false, false),
            ("LD_PRELOAD", false, false),
            ("", false, false),
        ] {
            assert_eq!(passes(name, Purpose::Nix), nix, "{name}");
            assert_eq!(passes(name, Purpose::Fetch), fetch, "{name}");
        }
    }

    #[test]
    fn settings_win_over_the_builder_s_variables() {
        let own = [("GIT_TERMINAL_PROMPT", "1"), ("HTTPS_PROXY", "http://old")];
        let own = own.map(|(name, value)| (name.into(), value.into()));
        let egress = Egress {
            proxy: Some("http://proxy".to_owned()),
            ..Egress::default()
        };
        let given = of_children(own.into_iter(), Purpose::Fetch, &egress);
        // Later ones win.
        let last = |wanted: &str| given.iter().rfind(|(name, _)| name == wanted);
        assert_eq!(last("HTTPS_PROXY").unwrap().1, "http://proxy");
        assert_eq!(last("GIT_TERMINAL_PROMPT").unwrap().1, "0");
        assert_eq!(last("CURL_CA_BUNDLE"), None);
        assert_eq!(last("GIT_CONFIG_COUNT"), None);

        // Nix code never sees what has to do with it.
        let egress = Egress {
            netrc: Some("/netrc".into()),
            ..Egress::default()
        };
        for (purpose, count) in [(Purpose::Fetch, 1), (Purpose::Nix, 0)] {
            let given = of_children(std::iter::empty(), purpose, &egress);
            let told = given.iter().filter(|(name, _)| name == "GIT_CONFIG_COUNT");
            assert_eq!(told.count(), count, "{purpose:?}");
        }
    }
}
