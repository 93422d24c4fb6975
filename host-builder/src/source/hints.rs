//! What to do when a source can't be fetched for want of a setting: git, ssh and Nix say what is
//! wrong, each in its own words, and none knows nixgate's settings.

/// What a program prints when this is what is wrong, in small letters, and what to do.
///
/// Those of ssh come first: git adds to each of them that access may be lacking.
const REMEDIES: [(&[&str], &str); 8] = [
    (
        &[
            "host key verification failed",
            "host identification has changed",
        ],
        "ssh does not know its host key, or knows another one: put the key into \
         ~/.ssh/known_hosts of the builder's user, or into a file that GIT_SSH_COMMAND names \
         (ssh -o UserKnownHostsFile=FILE). ssh-keyscan prints it; compare it with what the host's \
         administrators publish",
    ),
    (
        &["permission denied (", "no supported authentication methods"],
        "it takes none of the keys that ssh offers: put one into ~/.ssh of the builder's user, name \
         it by GIT_SSH_COMMAND (ssh -i FILE), or set SSH_AUTH_SOCK. A key with a passphrase needs an \
         agent: nobody is asked",
    ),
    (
        &["no user exists for uid"],
        "ssh works for users in /etc/passwd alone: add the builder's user there, or fetch by https",
    ),
    (
        &["cannot run ssh", "ssh: not found", "unable to fork"],
        "install ssh (openssh-client) on the builder",
    ),
    (
        &["certificate", "ssl ca cert", "(60)"],
        "its certificate is of an authority that is not trusted, or not for this name: \
         NIX_SSL_CERT_FILE names the file of the authorities that are trusted (PEM), the company's \
         among them",
    ),
    (
        &[
            "authentication failed",
            "could not read username",
            "could not read password",
            "http error 401",
            "error: 401",
            "http basic: access denied",
        ],
        "it wants a user and a password, and has not got them or takes others: put them into the \
         file that NIXGATE_NETRC names (machine HOST login USER password PASSWORD)",
    ),
    (
        &["http error 403", "error: 403"],
        "it knows who the builder is and lets it have nothing, or lets nobody in who gives no \
         password: check the user in the file that NIXGATE_NETRC names, and what that may read",
    ),
    (
        &["dubious ownership"],
        "git reads no repository of another user: give the folder to the builder's user, or name it \
         as safe.directory in ~/.gitconfig of that user",
    ),
];

/// What to do, if that is known.
pub(super) fn remedy(stderr: &str) -> Option<&'static str> {
    let text = stderr.to_ascii_lowercase();
    let fits = |words: &[&str]| words.iter().any(|words| text.contains(words));
    REMEDIES
        .iter()
        .find_map(|(words, remedy)| fits(words).then_some(*remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_say_leads_to_the_setting() {
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
            let remedy = remedy(said).unwrap();
            assert!(remedy.contains(setting), "{said}: {remedy}");
        }
        assert_eq!(remedy("fatal: repository 'https://h/x' not found"), None);
        assert_eq!(remedy("HTTP error 404"), None);
    }
}
