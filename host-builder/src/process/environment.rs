//! The environment of Nix and git: only variables that they need, and no secret of the builder.
//!
//! Nix code can read its environment (`builtins.getEnv`, or `impureEnvVars` of a fixed-output
//! derivation), and a package set is Nix code that others wrote. So only the variables on these lists
//! pass, and none whose name says that it is a secret.
//!
//! | variables | Nix evaluates, builds, answers | Nix and git fetch the package set |
//! | --- | --- | --- |
//! | paths, language | yes | yes |
//! | proxy, certificates | yes | yes |
//! | git's settings, the ssh agent | no | yes |
//!
//! `NIX_PATH` never passes: Nix code may read the paths in it.
//!
//! Git gets Nix's settings: it trusts the same certificates and has the same credentials
//! ([`git_credential`]).

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;

use super::git_credential;

/// Why a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To evaluate or build a package set, or to query the store.
    Nix,
    /// To fetch the package set itself.
    Fetch,
}

/// How Nix and git reach the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetworkSettings {
    /// The proxy's URL, for http and https; none leaves the builder's variables.
    pub(crate) proxy: Option<String>,
    /// Trusted certificates, PEM.
    pub(crate) ca_bundle: Option<PathBuf>,
    pub(crate) netrc: Option<Netrc>,
    /// The network namespace; none for the builder's own.
    pub(crate) namespace: Option<Arc<OwnedFd>>,
}

impl NetworkSettings {
    /// The login and the password for a URL, unless it has its own.
    pub(crate) fn credentials(&self, url: &str) -> Option<(String, String)> {
        let url: Url = url.parse().ok()?;
        let host = url.host_str().filter(|_| url.username().is_empty())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        git_credential::credentials(&self.netrc.as_ref()?.file, host)
    }
}

/// Credentials, by host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Netrc {
    /// In curl's format.
    pub(crate) file: PathBuf,
    /// This program, which git runs as its credential helper.
    pub(crate) helper: PathBuf,
}

/// Names of variables that pass.
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
/// Prefixes of variables that pass.
const PREFIXES: &[&str] = &["LC_", "XDG_"];
/// Names of further variables for fetching.
const FETCH_NAMES: &[&str] = &["SSH_AUTH_SOCK"];
/// Prefixes of further variables for fetching.
const FETCH_PREFIXES: &[&str] = &["GIT_"];
/// A name with one of these is a secret's.
const SECRET: &[&str] = &["TOKEN", "SECRET", "PASSWORD", "PASSPHRASE"];

/// The environment of a child: the builder's variables that pass, then those of the settings, which win.
pub(crate) fn of_child(
    own: impl Iterator<Item = (OsString, OsString)>,
    purpose: Purpose,
    network: &NetworkSettings,
) -> Vec<(OsString, OsString)> {
    let own: Vec<_> = own
        .filter(|(name, value)| {
            // An empty variable counts as none: git would take it for a file without a name. But
            // git's numbered settings must be complete.
            let is_set = |name: &str| !value.is_empty() || name.starts_with("GIT_CONFIG_");
            // In a network that has only the proxy, everything must go through it.
            let applies = |name: &str| network.namespace.is_none() || !NO_PROXY.contains(&name);
            name.to_str()
                .is_some_and(|name| passes(name, purpose) && is_set(name) && applies(name))
        })
        .collect();
    let of_git = match purpose {
        Purpose::Nix => Vec::new(),
        Purpose::Fetch => for_git(&own, network),
    };
    let set = |names: &'static [&'static str], value: Option<OsString>| {
        let pairs = names.iter().zip(value.into_iter().cycle());
        pairs.map(|(name, value)| (name.into(), value))
    };
    let proxy = network.proxy.as_ref().map(Into::into);
    let ca_bundle = network.ca_bundle.as_ref().map(Into::into);
    own.into_iter()
        .chain(of_git)
        .chain(set(PROXY, proxy))
        .chain(set(CA_BUNDLE, ca_bundle))
        // Git must not ask a person.
        .chain([("GIT_TERMINAL_PROMPT".into(), "0".into())])
        .collect()
}

/// Variables that give git the settings of Nix.
fn for_git(own: &[(OsString, OsString)], network: &NetworkSettings) -> Vec<(OsString, OsString)> {
    let value = |wanted: &str| {
        let mut pairs = own.iter().rev();
        let (_, value) = pairs.find(|(name, _)| name == wanted)?;
        Some(value.as_os_str())
    };
    let mut of_git = Vec::new();
    // Nix reads this variable, git only in some distributions.
    if let (None, Some(bundle)) = (value(GIT_CA_BUNDLE), value("SSL_CERT_FILE")) {
        of_git.push((GIT_CA_BUNDLE.into(), bundle.to_owned()));
    }
    if let Some(netrc) = &network.netrc {
        // After the administrator's own settings, so that their helpers come first.
        let count = value(GIT_CONFIG_COUNT).and_then(OsStr::to_str);
        let count: usize = count.and_then(|count| count.parse().ok()).unwrap_or(0);
        let helper = git_credential::helper(&netrc.helper, &netrc.file);
        of_git.extend([
            (GIT_CONFIG_COUNT.into(), (count + 1).to_string().into()),
            (
                format!("GIT_CONFIG_KEY_{count}").into(),
                "credential.helper".into(),
            ),
            (format!("GIT_CONFIG_VALUE_{count}").into(), helper),
        ]);
    }
    of_git
}

/// Git's file of trusted certificates.
const GIT_CA_BUNDLE: &str = "GIT_SSL_CAINFO";
/// The number of git's settings in `GIT_CONFIG_KEY_<n>` and `GIT_CONFIG_VALUE_<n>`.
const GIT_CONFIG_COUNT: &str = "GIT_CONFIG_COUNT";

/// All names by which curl and git know a proxy: if only lower-case ones were set, they would use the
/// builder's upper-case ones.
const PROXY: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];
/// Hosts that are reached without the proxy.
const NO_PROXY: &[&str] = &["no_proxy", "NO_PROXY"];
/// All names of the file of trusted certificates.
const CA_BUNDLE: &[&str] = &[
    "NIX_SSL_CERT_FILE",
    "NIX_GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    GIT_CA_BUNDLE,
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
    fn only_variables_that_nix_and_git_need_pass_and_no_secret() {
        for (name, nix, fetch) in [
            ("PATH", true, true),
            ("LC_ALL", true, true),
            ("NIX_REMOTE", true, true),
            ("https_proxy", true, true),
            ("NIX_SSL_CERT_FILE", true, true),
            ("GIT_CONFIG_KEY_0", false, true),
            ("SSH_AUTH_SOCK", false, true),
            // Nix code may read the paths in it.
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
    fn git_gets_the_settings_of_nix() {
        let own = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.into(), value.into()));
            pairs.collect::<Vec<(OsString, OsString)>>()
        };
        let given =
            |own: Vec<(OsString, OsString)>, purpose, network: &NetworkSettings, wanted: &str| {
                let given = of_child(own.into_iter(), purpose, network);
                let found = given.into_iter().rfind(|(name, _)| name == wanted);
                found.map(|(_, value)| value.into_string().unwrap())
            };
        let usual = [("SSL_CERT_FILE", "/usual.pem")];
        let gits = [usual[0], ("GIT_SSL_CAINFO", "/git.pem")];
        let none = NetworkSettings::default();
        let settings = NetworkSettings {
            ca_bundle: Some("/set.pem".into()),
            netrc: Some(Netrc {
                file: "/netrc".into(),
                helper: "/nixgate".into(),
            }),
            ..NetworkSettings::default()
        };
        for (variables, network, trusted) in [
            (&usual[..], &none, Some("/usual.pem")),
            (&gits, &none, Some("/git.pem")),
            (
                &[usual[0], ("GIT_SSL_CAINFO", "")],
                &none,
                Some("/usual.pem"),
            ),
            (&gits, &settings, Some("/set.pem")),
            (&[], &none, None),
        ] {
            let git = given(own(variables), Purpose::Fetch, network, "GIT_SSL_CAINFO");
            assert_eq!(git.as_deref(), trusted, "{variables:?}");
        }
        let helper = "!'/nixgate' 'git-credential' '/netrc'";
        for (variables, index) in [(&[][..], 0), (&[("GIT_CONFIG_COUNT", "2")], 2)] {
            let of = |name: String| given(own(variables), Purpose::Fetch, &settings, &name);
            let count = of(GIT_CONFIG_COUNT.to_owned());
            assert_eq!(count, Some((index + 1).to_string()));
            let key = of(format!("GIT_CONFIG_KEY_{index}"));
            assert_eq!(key.as_deref(), Some("credential.helper"));
            let value = of(format!("GIT_CONFIG_VALUE_{index}"));
            assert_eq!(value.as_deref(), Some(helper));
        }
        // Nix code could read it.
        let nix = given(own(&[]), Purpose::Nix, &settings, GIT_CONFIG_COUNT);
        assert_eq!(nix, None);
    }

    #[test]
    fn settings_win_over_the_builder_s_variables() {
        let own = [("GIT_TERMINAL_PROMPT", "1"), ("HTTPS_PROXY", "http://old")];
        let own = own.map(|(name, value)| (name.into(), value.into()));
        let network = NetworkSettings {
            proxy: Some("http://proxy".to_owned()),
            ..NetworkSettings::default()
        };
        let given = of_child(own.into_iter(), Purpose::Fetch, &network);
        // Later ones win.
        let last = |wanted: &str| given.iter().rfind(|(name, _)| name == wanted);
        assert_eq!(last("HTTPS_PROXY").unwrap().1, "http://proxy");
        assert_eq!(last("GIT_TERMINAL_PROMPT").unwrap().1, "0");
        assert_eq!(last("CURL_CA_BUNDLE"), None);
    }
}
