//! The environment of Nix and git: what they need of the builder's, and no secret of the builder.
//!
//! Nix code can read its environment (`builtins.getEnv`), and a package set is Nix code that others
//! wrote. So nothing passes that is not on this list, and of what is on it nothing that calls
//! itself a secret.

use std::ffi::OsString;

/// Variables that pass, by name.
const NAMES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "LANG",
    // Certificates of mirrors and proxies.
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
    // Private repositories by ssh.
    "SSH_AUTH_SOCK",
];
/// Variables that pass, by the beginning of their names.
const PREFIXES: &[&str] = &["LC_", "NIX_", "GIT_", "XDG_"];
/// What the name of a secret holds.
const SECRET: &[&str] = &["TOKEN", "SECRET", "PASSWORD", "PASSPHRASE"];

/// Of the builder's variables those that its children get, and one more: git never asks a person.
pub(super) fn of_children(
    own: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    own.filter(|(name, _)| name.to_str().is_some_and(passes))
        .chain([("GIT_TERMINAL_PROMPT".into(), "0".into())])
}

fn passes(name: &str) -> bool {
    let listed = NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    listed && !SECRET.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nix_and_git_need_passes_and_no_secret() {
        for name in [
            "PATH",
            "LC_ALL",
            "NIX_REMOTE",
            "https_proxy",
            "GIT_CONFIG_KEY_0",
        ] {
            assert!(passes(name), "{name}");
        }
        for name in [
            "NIXGATE_TOKEN",
            "NIXERY_CHANNEL",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "NIX_GITHUB_PRIVATE_PASSWORD",
            "LD_PRELOAD",
            "",
        ] {
            assert!(!passes(name), "{name}");
        }
    }

    #[test]
    fn git_never_asks_a_person_whatever_the_builder_was_told() {
        let own = [("GIT_TERMINAL_PROMPT".into(), "1".into())];
        // Later ones win.
        let last = of_children(own.into_iter()).last().unwrap();
        assert_eq!(last, ("GIT_TERMINAL_PROMPT".into(), "0".into()));
    }
}
