//! Nix's credentials for git.
//!
//! Nix has a setting for a netrc file. Git has none: it reads only `~/.netrc`. So git runs this program
//! as its credential helper:
//!
//! ```text
//!   git ── 401 ── nixgate git-credential FILE get     stdin    protocol=https
//!                        │                                     host=git.corp:8443
//!                        └── the entry of FILE for that host   username=…
//!                                                     stdout   password=…
//! ```
//!
//! The file is parsed as curl parses it: words between white space, `"` around words with spaces, `#` at
//! the beginning of a line for comments. Ports are ignored. The first matching entry wins; `default`
//! matches every host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::telemetry::redact::keep_credentials;

const COMMAND: &str = "git-credential";

/// Git's arguments for a credential helper.
#[derive(Args)]
pub struct GitCredentialArgs {
    /// The netrc file
    file: PathBuf,
    /// The operation: only `get` is answered
    operation: String,
}

/// The credentials that git asks for.
#[derive(Default)]
struct Question<'a> {
    protocol: &'a str,
    host: &'a str,
    user: Option<&'a str>,
}

/// A word of a netrc file. A quoted one is no keyword.
enum Word {
    Bare(String),
    Quoted(String),
}

#[derive(Default)]
struct NetrcEntry {
    /// None for `default`.
    host: Option<String>,
    login: Option<String>,
    password: Option<String>,
}

impl NetrcEntry {
    fn is_for(&self, asked: &str) -> bool {
        let host = self.host.as_deref();
        host.is_none_or(|host| host.eq_ignore_ascii_case(asked))
    }
}

/// Answers git.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn git_credential(arguments: &GitCredentialArgs) -> Result<()> {
    // Git also asks to store and to erase passwords.
    if arguments.operation != "get" {
        return Ok(());
    }
    let question = std::io::read_to_string(std::io::stdin())?;
    let file = &arguments.file;
    let netrc = std::fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read {}: check NIXGATE_NETRC, and that the builder's user can read the file",
            file.display()
        )
    })?;
    print!("{}", answer(&netrc, &question));
    Ok(())
}

/// Hides the passwords that the file has now from logs and errors.
pub(super) fn keep_passwords(file: &Path) {
    // Nix and git report a file that can't be read.
    let netrc = std::fs::read_to_string(file).unwrap_or_default();
    for entry in entries(&netrc) {
        let (login, password) = (entry.login, entry.password);
        keep_credentials(&login.unwrap_or_default(), &password.unwrap_or_default());
    }
}

/// The login and the password of the file for a host.
pub(super) fn credentials(file: &Path, host: &str) -> Option<(String, String)> {
    let netrc = std::fs::read_to_string(file).ok()?;
    let entry = entries(&netrc)
        .into_iter()
        .find(|entry| entry.is_for(host))?;
    entry.login.zip(entry.password)
}

/// The value of git's `credential.helper`, which a shell parses.
pub(super) fn helper(program: &Path, file: &Path) -> OsString {
    let mut helper = OsString::from("!");
    for (word, before) in [(program, ""), (Path::new(COMMAND), " "), (file, " ")] {
        helper.push(before);
        helper.push(quoted(word));
    }
    helper
}

/// Quotes a word for a shell. A path that is not UTF-8 must not contain a quote.
fn quoted(word: &Path) -> OsString {
    let mut quoted = OsString::from("'");
    match word.to_str() {
        Some(text) => quoted.push(text.replace('\'', r"'\''")),
        None => quoted.push(word),
    }
    quoted.push("'");
    quoted
}

/// The answer to git; empty if no entry matches.
fn answer(netrc: &str, question: &str) -> String {
    let mut asked = Question::default();
    for (name, value) in question.lines().filter_map(|line| line.split_once('=')) {
        match name {
            "protocol" => asked.protocol = value,
            "host" => asked.host = without_port(value),
            "username" => asked.user = Some(value),
            _ => {}
        }
    }
    if !["https", "http"].contains(&asked.protocol) {
        return String::new();
    }
    let matches = |entry: &NetrcEntry| {
        let login = entry.login.as_deref();
        entry.is_for(asked.host) && (asked.user.is_none() || login.is_none() || asked.user == login)
    };
    let Some(entry) = entries(netrc).into_iter().find(matches) else {
        return String::new();
    };
    let lines = [("username", entry.login), ("password", entry.password)];
    let lines = lines.into_iter().filter_map(|(name, value)| {
        // Another line would be another field of the answer.
        let value = value.filter(|value| !value.contains(['\n', '\0']))?;
        Some(format!("{name}={value}\n"))
    });
    lines.collect()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Not within the brackets of an IPv6 address.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    }
    .trim_start_matches('[')
    .trim_end_matches(']')
}

fn entries(netrc: &str) -> Vec<NetrcEntry> {
    let mut entries = Vec::new();
    let mut words = words(netrc).into_iter();
    while let Some(word) = words.next() {
        let Word::Bare(keyword) = word else { continue };
        let mut value = || {
            words.next().map(|word| match word {
                Word::Bare(value) | Word::Quoted(value) => value,
            })
        };
        match (keyword.as_str(), entries.last_mut()) {
            ("machine", _) => entries.push(NetrcEntry {
                host: value(),
                ..NetrcEntry::default()
            }),
            ("default", _) => entries.push(NetrcEntry::default()),
            ("login", Some(entry)) => entry.login = value(),
            ("password", Some(entry)) => entry.password = value(),
            ("account", _) => drop(value()),
            _ => {}
        }
    }
    entries
}

fn words(netrc: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut lines = netrc.lines();
    while let Some(line) = lines.next() {
        let mut rest = line.trim_start();
        if rest.starts_with('#') {
            continue;
        }
        while !rest.is_empty() {
            let (word, after) = match rest.strip_prefix('"') {
                Some(quoted) => unquoted(quoted),
                None => {
                    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                    let (word, after) = rest.split_at(end);
                    (Word::Bare(word.to_owned()), after)
                }
            };
            rest = after.trim_start();
            if matches!(&word, Word::Bare(word) if word == "macdef") {
                // A macro for ftp, which ends with an empty line.
                lines.find(|line| line.trim().is_empty());
                break;
            }
            words.push(word);
        }
    }
    words
}

fn unquoted(text: &str) -> (Word, &str) {
    let mut word = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => break,
            '\\' => word.extend(chars.next().map(|escaped| match escaped {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            })),
            other => word.push(other),
        }
    }
    (Word::Quoted(word), chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETRC: &str = r#"
# machine git.corp login no password no
machine git.corp login alice password secret
machine git.corp
  login bob
  account x
  password "a \"b\" \\ c"
macdef init
machine evil.corp login no password no

machine password login "machine" password p
machine ::1 login six password p
default login anyone password anything
"#;

    #[test]
    fn a_url_has_the_credentials_of_its_host() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("netrc");
        std::fs::write(&file, "machine git.corp login alice password secret").unwrap();
        let alice = ("alice".to_owned(), "secret".to_owned());
        assert_eq!(credentials(&file, "git.corp"), Some(alice));
        assert_eq!(credentials(&file, "other.corp"), None);
        assert_eq!(credentials(Path::new("/nonexistent"), "git.corp"), None);
    }

    fn check(question: &str, expected: &str) {
        assert_eq!(answer(NETRC, question), expected, "{question}");
    }

    #[test]
    fn the_entry_of_the_host_is_answered() {
        let alice = "username=alice\npassword=secret\n";
        check("protocol=https\nhost=git.corp\n", alice);
        check("protocol=https\nhost=GIT.corp:8443\npath=x\n\n", alice);
        check(
            "protocol=https\nhost=git.corp\nusername=bob\n",
            "username=bob\npassword=a \"b\" \\ c\n",
        );
        let default = "username=anyone\npassword=anything\n";
        for host in ["evil.corp", "corp", "login"] {
            check(&format!("protocol=http\nhost={host}\n"), default);
        }
        check(
            "protocol=https\nhost=[::1]:8443\n",
            "username=six\npassword=p\n",
        );
        check(
            "protocol=https\nhost=password\n",
            "username=machine\npassword=p\n",
        );
    }

    #[test]
    fn nothing_else_is_answered() {
        check("protocol=ssh\nhost=git.corp\n", "");
        check("", "");
        check("protocol=https\nhost=other\nusername=carol\n", "");
        let lines = "machine h login \"a\\nhost=evil\" password p";
        assert_eq!(answer(lines, "protocol=https\nhost=h\n"), "password=p\n");
    }

    #[test]
    fn a_shell_parses_the_helper_into_its_words() {
        let helper = helper(Path::new("/o'pt/nixgate"), Path::new("/a b/netrc"));
        assert_eq!(helper, r"!'/o'\''pt/nixgate' 'git-credential' '/a b/netrc'");
    }
}
