//! The credentials of Nix's downloads, for git as well.
//!
//! Nix takes a netrc file by a setting. Git has none such: its library reads `~/.netrc` and no other.
//! So git is told of a credential helper, which is this program:
//!
//! ```text
//!   git ── 401 ── nixgate git-credential FILE get     on stdin   protocol=https
//!                        │                                       host=git.corp:8443
//!                        └── what FILE has for that host ──►     username=…
//!                                                                password=…
//! ```
//!
//! The file is read as curl reads it, so that it means the same to both: words between white space,
//! `"` around words with spaces in them, `#` at the beginning of a line for comments. Ports mean
//! nothing to it. The first entry that fits counts, and that of `default` fits all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::telemetry::redact::keep_credentials;

/// The name of the subcommand.
const COMMAND: &str = "git-credential";

/// What git calls a helper with.
#[derive(Args)]
pub struct GitCredentialArgs {
    /// The netrc file
    file: PathBuf,
    /// What git wants: only `get` is answered
    operation: String,
}

/// What git asks for.
#[derive(Default)]
struct Question<'a> {
    protocol: &'a str,
    host: &'a str,
    user: Option<&'a str>,
}

/// A word of the file; one in quotes is no keyword.
enum Word {
    Bare(String),
    Quoted(String),
}

/// What is known of a host.
#[derive(Default)]
struct Entry {
    /// None for `default`.
    host: Option<String>,
    login: Option<String>,
    password: Option<String>,
}

/// Answers git.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn git_credential(arguments: &GitCredentialArgs) -> Result<()> {
    // Git offers to have passwords stored or forgotten as well.
    if arguments.operation != "get" {
        return Ok(());
    }
    let question = std::io::read_to_string(std::io::stdin())?;
    let file = &arguments.file;
    let netrc = std::fs::read_to_string(file).with_context(|| {
        format!(
            "{} can't be read: check NIXGATE_NETRC, and that the builder's user may read it",
            file.display()
        )
    })?;
    print!("{}", answer(&netrc, &question));
    Ok(())
}

/// Keeps the passwords of a file, as it is now, from logs and errors.
pub(super) fn keep_passwords(file: &Path) {
    // What can't be read here can't be read by Nix and git, who say so.
    let netrc = std::fs::read_to_string(file).unwrap_or_default();
    for Entry {
        login, password, ..
    } in entries(&netrc)
    {
        keep_credentials(&login.unwrap_or_default(), &password.unwrap_or_default());
    }
}

/// Git's setting that makes this program the helper (`credential.helper`), which a shell reads.
pub(super) fn helper(program: &Path, file: &Path) -> OsString {
    let mut helper = OsString::from("!");
    for (word, before) in [(program, ""), (Path::new(COMMAND), " "), (file, " ")] {
        helper.push(before);
        helper.push(quoted(word));
    }
    helper
}

/// A word for a shell. Paths that are no text can't be quoted as text; none has a quote then.
fn quoted(word: &Path) -> OsString {
    let mut quoted = OsString::from("'");
    match word.to_str() {
        Some(text) => quoted.push(text.replace('\'', r"'\''")),
        None => quoted.push(word),
    }
    quoted.push("'");
    quoted
}

/// What git is told; nothing when there is nothing for it.
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
    let fits = |entry: &Entry| {
        let host = entry.host.as_deref();
        let login = entry.login.as_deref();
        host.is_none_or(|host| host.eq_ignore_ascii_case(asked.host))
            && (asked.user.is_none() || login.is_none() || asked.user == login)
    };
    let Some(entry) = entries(netrc).into_iter().find(fits) else {
        return String::new();
    };
    let lines = [("username", entry.login), ("password", entry.password)];
    let lines = lines.into_iter().filter_map(|(name, value)| {
        // A line more would be another answer.
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

fn entries(netrc: &str) -> Vec<Entry> {
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
            ("machine", _) => entries.push(Entry {
                host: value(),
                ..Entry::default()
            }),
            ("default", _) => entries.push(Entry::default()),
            ("login", Some(Entry { login, .. })) => *login = value(),
            ("password", Some(Entry { password, .. })) => *password = value(),
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
                // A macro of ftp ends with an empty line.
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

    fn check(question: &str, expected: &str) {
        assert_eq!(answer(NETRC, question), expected, "{question}");
    }

    #[test]
    fn what_the_file_has_for_a_host_is_answered() {
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
    fn a_shell_reads_the_helper_as_it_is_meant() {
        let helper = helper(Path::new("/o'pt/nixgate"), Path::new("/a b/netrc"));
        assert_eq!(helper, r"!'/o'\''pt/nixgate' 'git-credential' '/a b/netrc'");
    }
}
