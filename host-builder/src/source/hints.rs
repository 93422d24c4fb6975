//! Hints for sources that can't be fetched: the errors of git, ssh and Nix, and the settings that help.

/// Parts of error messages in lower case, separated by `|`; each with the cause and the setting.
///
/// Errors of ssh come first: git adds to each of them that access rights may be missing.
const HINTS: [(&str, &str); 8] = [
    (
        "host key verification failed|host identification has changed",
        "ssh does not know its host key, or knows another one. Put the key into \
         ~/.ssh/known_hosts of the builder's user, or into a file that GIT_SSH_COMMAND names \
         (ssh -o UserKnownHostsFile=FILE). ssh-keyscan prints the key; compare it with the one that \
         the host's administrators publish",
    ),
    (
        "permission denied (|no supported authentication methods",
        "it accepts none of ssh's keys. Put a key into ~/.ssh of the builder's user, name it by \
         GIT_SSH_COMMAND (ssh -i FILE), or set SSH_AUTH_SOCK. A key with a passphrase needs an \
         agent: ssh can't ask for it",
    ),
    (
        "no user exists for uid",
        "ssh needs the builder's user in /etc/passwd. Add it there, or fetch by https",
    ),
    (
        "cannot run ssh|ssh: not found|unable to fork",
        "ssh is missing. Install openssh-client on the builder",
    ),
    (
        "certificate|ssl ca cert|(60)",
        "its certificate is not trusted, or not for this name. Set NIX_SSL_CERT_FILE to a PEM file \
         with all trusted authorities, including the company's",
    ),
    (
        "authentication failed|could not read username|could not read password|http error 401|\
         error: 401|http basic: access denied",
        "authentication failed: the user and password are missing or wrong. Put them into the \
         file that NIXGATE_NETRC names (machine HOST login USER password PASSWORD)",
    ),
    (
        "http error 403|error: 403",
        "access is forbidden. Check the user in the file that NIXGATE_NETRC names, and that the \
         user may read the repository",
    ),
    (
        "dubious ownership",
        "the repository belongs to another user. Change its owner to the builder's user, or add it \
         as safe.directory to ~/.gitconfig of that user",
    ),
];

/// The cause and the setting, if the error is a known one.
pub(super) fn hint(stderr: &str) -> Option<&'static str> {
    let text = stderr.to_ascii_lowercase();
    let fits = |parts: &str| parts.split('|').any(|part| text.contains(part));
    let found = HINTS.iter().find(|(parts, _)| fits(parts));
    found.map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_program_leads_to_the_setting() {
        for (said, setting) in [
            (
                "Host key verification failed.\nfatal: Could not read from remote repository.",
                "known_hosts",
            ),
            ("root@h: Permission denied (publickey).", "SSH_AUTH_SOCK"),
            (
                "fatal: unable to access 'https://h/': server certificate verification failed. \
                 CAfile: none CRLfile: none",
                "NIX_SSL_CERT_FILE",
            ),
            (
                "unable to download 'https://h/x': Problem with the SSL CA cert (path? access \
                 rights?) (77)",
                "NIX_SSL_CERT_FILE",
            ),
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                "NIXGATE_NETRC",
            ),
            (
                "fatal: Authentication failed for 'https://h/set.git/'",
                "NIXGATE_NETRC",
            ),
            (
                "error: unable to download 'https://h/x.tar.gz': HTTP error 401",
                "NIXGATE_NETRC",
            ),
            (
                "fatal: detected dubious ownership in repository at '/srv/set'",
                "safe.directory",
            ),
        ] {
            let hint = hint(said).unwrap();
            assert!(hint.contains(setting), "{said}: {hint}");
        }
        assert_eq!(hint("fatal: repository 'https://h/x' not found"), None);
        assert_eq!(hint("HTTP error 404"), None);
    }
}
