//! The credentials of a netrc file, for git: `nixgate git-credential <file> get`.
//!
//! Nix has a setting that names such a file. Git has none: its HTTP library looks for `.netrc` in
//! `HOME`, where git's settings and Nix's caches are as well. What git does have is credential
//! helpers, programs that it asks when a server wants a password (gitcredentials). So the builder
//! names itself as one to every git that it starts, and to those that Nix starts to fetch a package
//! set:
//!
//! ```text
//!   git ── GET …/info/refs ──► 401
//!    └── protocol=https host=git.corp:8443 ──► nixgate git-credential /etc/nixgate/netrc get
//!    ◄── username=… password=… ────────────────┘
//! ```
//!
//! Git itself asks for no more servers than those that it calls, and no secret is in an argument or a
//! variable.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

/// What git calls the helper with.
#[derive(Args)]
pub struct GitCredentialArgs {
    /// The netrc file
    file: PathBuf,
    /// What git wants: `get`, or something that a file of others has no use for
    operation: String,
}

/// Answers git, which writes and reads lines of the form `key=value`.
///
/// # Errors
/// When the file can't be read, or git doesn't listen.
pub fn run(
    arguments: &GitCredentialArgs,
    asked: impl BufRead,
    mut answer: impl Write,
) -> Result<()> {
    if arguments.operation != "get" {
        return Ok(());
    }
    let (mut protocol, mut host, mut login) = (String::new(), String::new(), None);
    for line in asked.lines() {
        match line?.split_once('=') {
            Some(("protocol", value)) => value.clone_into(&mut protocol),
            Some(("host", value)) => value.clone_into(&mut host),
            Some(("username", value)) => login = Some(value.to_owned()),
            _ => {}
        }
    }
    if !matches!(protocol.as_str(), "http" | "https") {
        return Ok(());
    }
    let file = arguments.file.display();
    let netrc = std::fs::read_to_string(&arguments.file);
    let netrc = netrc.with_context(|| format!("NIXGATE_NETRC is {file}, which can't be read"))?;
    if let Some(found) = find(&netrc, &host, login.as_deref()) {
        let Entry { login, password } = found;
        writeln!(answer, "username={login}\npassword={password}")?;
    }
    Ok(())
}

/// Git's settings that name this builder as a helper with a file, as variables. `own` are those that
/// git would have without them: its counted settings go on from there.
pub fn variables(own: &[(OsString, OsString)], netrc: &Path) -> Vec<(OsString, OsString)> {
    const COUNT: &str = "GIT_CONFIG_COUNT";
    let Ok(builder) = std::env::current_exe() else {
        return Vec::new();
    };
    let count = own.iter().rfind(|(name, _)| name == COUNT);
    let count = count.and_then(|(_, count)| count.to_str()?.parse::<usize>().ok());
    let count = count.unwrap_or(0);
    let quoted = |path: &Path| path.display().to_string().replace('\'', r"'\''");
    // A shell reads it.
    let helper = format!("!'{}' git-credential '{}'", quoted(&builder), quoted(netrc));
    [
        (COUNT.to_owned(), (count + 1).to_string()),
        (
            format!("GIT_CONFIG_KEY_{count}"),
            "credential.helper".to_owned(),
        ),
        (format!("GIT_CONFIG_VALUE_{count}"), helper),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into()
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    login: String,
    password: String,
}

/// The first entry for a server and, when git knows it already, a login. Ports are not looked at, as
/// curl does not.
fn find(netrc: &str, host: &str, login: Option<&str>) -> Option<Entry> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let mut words = words(netrc).into_iter().peekable();
    while let Some(word) = words.next() {
        let is_meant = match word.as_str() {
            "machine" => words.next()?.eq_ignore_ascii_case(name),
            "default" => true,
            _ => continue,
        };
        let mut entry = Entry::default();
        while let Some(key) = words.next_if(|word| word != "machine" && word != "default") {
            match key.as_str() {
                "login" => entry.login = words.next()?,
                "password" => entry.password = words.next()?,
                "account" => drop(words.next()),
                _ => {}
            }
        }
        if is_meant && login.is_none_or(|login| login == entry.login) {
            return Some(entry);
        }
    }
    None
}

/// The words of a netrc file: without comments and macros, quotes resolved.
fn words(netrc: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut lines = netrc.lines();
    while let Some(line) = lines.next() {
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (word, after) = first_word(rest);
            rest = after.trim_start();
            if word == "macdef" {
                // Up to an empty line it is none of ours.
                lines.find(|line| line.trim().is_empty());
                break;
            }
            words.push(word);
        }
    }
    words
}

/// The word that a text begins with, and what is after it.
fn first_word(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
        return (word.to_owned(), rest);
    };
    let (mut word, mut letters) = (String::new(), quoted.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => word.extend(letters.next()),
            letter => word.push(letter),
        }
    }
    (word, letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETRC: &str = r#"
# machine commented.corp login no password no
machine git.corp login alice password s3cret
machine Two.Lines
  login bob
  password "a \"quoted\" word" account x
macdef init
machine macro.corp login no password no

machine git.corp login carol password other
default login anyone password p
"#;

    fn found(host: &str, login: Option<&str>) -> Option<(String, String)> {
        let entry = find(NETRC, host, login)?;
        Some((entry.login, entry.password))
    }

    #[test]
    fn the_first_entry_for_a_server_counts() {
        for (host, login, expected) in [
            ("git.corp", None, ("alice", "s3cret")),
            ("GIT.corp:8443", None, ("alice", "s3cret")),
            ("git.corp", Some("carol"), ("carol", "other")),
            ("two.lines", None, ("bob", "a \"quoted\" word")),
            ("macro.corp", None, ("anyone", "p")),
            ("commented.corp", None, ("anyone", "p")),
            ("[::1]:80", None, ("anyone", "p")),
        ] {
            let expected = (expected.0.to_owned(), expected.1.to_owned());
            assert_eq!(found(host, login), Some(expected), "{host}");
        }
        assert_eq!(found("git.corp", Some("mallory")), None);
        for broken in ["machine", "machine git.corp login", "login x", "", "\""] {
            assert_eq!(find(broken, "git.corp", None), None, "{broken}");
        }
    }

    #[test]
    fn git_is_answered_for_what_it_gets_by_http_and_for_nothing_else() {
        let netrc = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(netrc.path(), NETRC).unwrap();
        for (operation, protocol, expected) in [
            ("get", "https", "username=alice\npassword=s3cret\n"),
            ("get", "http", "username=alice\npassword=s3cret\n"),
            ("get", "smtp", ""),
            ("store", "https", ""),
            ("erase", "https", ""),
        ] {
            let arguments = GitCredentialArgs {
                file: netrc.path().to_owned(),
                operation: operation.to_owned(),
            };
            let asked = format!("protocol={protocol}\nhost=git.corp\nwwwauth[]=Basic\n\n");
            let mut answer = Vec::new();
            run(&arguments, asked.as_bytes(), &mut answer).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), expected, "{operation}");
        }
    }

    #[test]
    fn settings_by_variables_go_on_from_those_that_are_there() {
        let own = [("GIT_CONFIG_COUNT", "2"), ("GIT_CONFIG_KEY_0", "a")];
        let own = own.map(|(name, value)| (name.into(), value.into()));
        let given = variables(&own, Path::new("/a b/it's"));
        let text = |index: usize| {
            let (name, value): &(OsString, OsString) = &given[index];
            format!("{}={}", name.display(), value.display())
        };
        assert_eq!(text(0), "GIT_CONFIG_COUNT=3");
        assert_eq!(text(1), "GIT_CONFIG_KEY_2=credential.helper");
        assert!(text(2).starts_with("GIT_CONFIG_VALUE_2=!'/"), "{}", text(2));
        assert!(
            text(2).ends_with(r" git-credential '/a b/it'\''s'"),
            "{}",
            text(2)
        );
    }
}
