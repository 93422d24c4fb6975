//! Package sets on other machines: repositories and archives over https and ssh, behind private
//! authorities, passwords and keys.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use http::StatusCode;
use nixgate_tests::live::builder::{Builder, Settings};
use nixgate_tests::live::git_https::{GitHttps, PASSWORD};
use nixgate_tests::live::git_ssh::GitSsh;
use nixgate_tests::live::process::run;
use nixgate_tests::live::{install, scratch};

use crate::pinned_sources::{Repository, builder, channel, nix_lock, pinned, pull};

/// Variables of whoever runs the tests that would say what a test leaves out.
const NONE: [(&str, &str); 3] = [
    ("NIX_SSL_CERT_FILE", ""),
    ("SSL_CERT_FILE", ""),
    ("GIT_SSL_CAINFO", ""),
];

/// Asserts that a builder with these settings can't pin its package set, and says so: what its log
/// says, and what not.
fn says(environment: &[(&'static str, &str)], says: &[&str], never: &str) -> Result<()> {
    let state = scratch::folder("refused-")?;
    let home = state.path().join("home");
    fs::create_dir(&home)?;
    let mut all = NONE.to_vec();
    all.push(("HOME", home.to_str().context("a path")?));
    all.extend(environment);
    let builder = builder(state.path(), &all)?;
    let answer = pull(&builder, "latest")?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let log = builder.log();
    for words in says {
        assert!(log.contains(words), "no {words:?} in\n{log}");
    }
    for text in [log, answer.text()] {
        assert!(!text.contains(never), "it says {never}:\n{text}");
    }
    Ok(())
}

/// A repository with three commits, the first of which is `v1`, behind https.
pub(crate) fn repository_and_host() -> Result<(Repository, [String; 3], GitHttps)> {
    let repository = Repository::new()?;
    let first = repository.commit("first")?;
    repository.git(&["tag", "v1"])?;
    let second = repository.commit("second")?;
    let third = repository.commit("third")?;
    let folder = repository.path().join("../hosted");
    fs::create_dir(&folder)?;
    let folder = folder.canonicalize()?;
    symlink(repository.path().join(".git"), folder.join("set.git"))?;
    let host = GitHttps::start(&folder)?;
    Ok((repository, [first, second, third], host))
}

fn all_are_served(builder: &Builder, [first, second, third]: &[String; 3]) -> Result<()> {
    for (tag, commit) in [
        ("latest", third),
        ("main", third),
        ("v1", first),
        // Held, and the tip of nothing: it is found in the builder's mirror.
        (second.as_str(), second),
    ] {
        pinned(builder, tag, &format!("git {commit}"))?;
    }
    let unknown = pull(builder, &"d".repeat(40))?;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{}", unknown.text());
    Ok(())
}

#[test]
fn a_repository_over_https_with_a_private_authority_and_a_password() -> Result<()> {
    let (_repository, commits, host) = repository_and_host()?;
    let (url, authority) = (host.repository("set.git"), host.authority());
    let authority = authority.to_str().context("a path")?;
    let netrc = host.netrc(PASSWORD)?;
    let (netrc, home) = (netrc.to_str(), netrc.parent().and_then(Path::to_str));
    // The settings, and what programs find by themselves.
    for [trusted, credentials] in [
        [
            ("NIX_SSL_CERT_FILE", authority),
            ("NIXGATE_NETRC", netrc.context("a path")?),
        ],
        [
            ("SSL_CERT_FILE", authority),
            ("HOME", home.context("a path")?),
        ],
    ] {
        let state = scratch::folder("https-")?;
        let mut environment = NONE.to_vec();
        environment.extend([trusted, credentials, ("NIXERY_PKGS_REPO", &url)]);
        let builder = builder(state.path(), &environment)?;
        all_are_served(&builder, &commits)?;
        assert!(!builder.log().contains(PASSWORD), "{}", builder.log());
    }
    Ok(())
}

#[test]
fn a_repository_over_https_that_lets_nobody_in_says_what_to_set() -> Result<()> {
    let (_repository, _, host) = repository_and_host()?;
    let (url, authority) = (host.repository("set.git"), host.authority());
    let authority = authority.to_str().context("a path")?;
    let (right, wrong) = (host.netrc(PASSWORD)?, host.netrc("another-one")?);
    let (right, wrong) = (right.to_str(), wrong.to_str());
    let (right, wrong) = (right.context("a path")?, wrong.context("a path")?);
    let repository = ("NIXERY_PKGS_REPO", url.as_str());
    let trusted = ("NIX_SSL_CERT_FILE", authority);
    says(
        &[repository, ("NIXGATE_NETRC", right)],
        &[&url, "Set NIX_SSL_CERT_FILE"],
        PASSWORD,
    )?;
    says(
        &[repository, trusted],
        &[&url, "NIXGATE_NETRC names"],
        PASSWORD,
    )?;
    says(
        &[repository, trusted, ("NIXGATE_NETRC", wrong)],
        &[&url, "NIXGATE_NETRC names"],
        "another-one",
    )?;
    // In the URL, where it should not be.
    let with_password = url.replace("https://", "https://reader:in-the-url@");
    says(
        &[("NIXERY_PKGS_REPO", &with_password), trusted],
        &[&url, "NIXGATE_NETRC names"],
        "in-the-url",
    )
}

#[test]
fn a_flake_over_https_with_a_private_authority_and_a_password() -> Result<()> {
    let (repository, _, host) = repository_and_host()?;
    fs::write(
        repository.path().join("flake.nix"),
        "{ outputs = { self }: { legacyPackages.x86_64-linux = import ./. { }; }; }",
    )?;
    nix_lock(&format!("path:{}", repository.path().display()))?;
    let commit = repository.commit("a flake")?;
    let (authority, netrc) = (host.authority(), host.netrc(PASSWORD)?);
    let url = format!("git+{}", host.repository("set.git"));
    let state = scratch::folder("https-flake-")?;
    let mut environment = NONE.to_vec();
    environment.extend([
        ("NIX_SSL_CERT_FILE", authority.to_str().context("a path")?),
        ("NIXGATE_NETRC", netrc.to_str().context("a path")?),
        ("NIXGATE_FLAKE", &url),
    ]);
    let builder = builder(state.path(), &environment)?;
    pinned(&builder, "latest", &format!("flake {commit}"))
}

#[test]
fn a_channel_over_https_with_a_private_authority_and_a_password() -> Result<()> {
    let state = scratch::folder("https-channel-")?;
    let host = GitHttps::start(&channel(state.path())?)?;
    let (authority, netrc) = (host.authority(), host.netrc(PASSWORD)?);
    let base = host.files("");
    let base = base.trim_end_matches('/');
    let channel = [("NIXERY_CHANNEL", "stable"), ("NIXGATE_CHANNEL_BASE", base)];
    let trusted = ("NIX_SSL_CERT_FILE", authority.to_str().context("a path")?);
    let credentials = ("NIXGATE_NETRC", netrc.to_str().context("a path")?);
    let [name, base] = channel;

    let mut environment = NONE.to_vec();
    environment.extend([name, base, trusted, credentials]);
    let builder = builder(state.path(), &environment)?;
    let answer = pull(&builder, "stable")?;
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "{}\n{}",
        answer.text(),
        builder.log()
    );
    drop(builder);

    let archive = format!("{}/stable.tar.gz", base.1);
    says(
        &[name, base, credentials],
        &[&archive, "Set NIX_SSL_CERT_FILE"],
        PASSWORD,
    )?;
    says(
        &[name, base, trusted],
        &[&archive, "NIXGATE_NETRC names"],
        PASSWORD,
    )
}

/// What git calls, with a key and the keys of known hosts, and without what the user has besides.
fn ssh(key: &Path, known_hosts: &Path) -> String {
    format!(
        "ssh -F /dev/null -o IdentitiesOnly=yes -i {} -o UserKnownHostsFile={} \
         -o GlobalKnownHostsFile=/dev/null",
        key.display(),
        known_hosts.display()
    )
}

#[test]
fn a_repository_over_ssh() -> Result<()> {
    let (repository, commits, _) = repository_and_host()?;
    let host = GitSsh::start()?;
    let url = host.repository(&repository.path().join(".git"));
    let command = ssh(&host.key(), &host.known_hosts());
    let state = scratch::folder("ssh-")?;
    let by_command = builder(
        state.path(),
        &[("NIXERY_PKGS_REPO", &url), ("GIT_SSH_COMMAND", &command)],
    )?;
    all_are_served(&by_command, &commits)?;
    drop(by_command);

    // As somebody who has it all in ~/.ssh.
    let state = scratch::folder("ssh-")?;
    let settings = Settings {
        package_set: "".into(),
        state: state.path().to_path_buf(),
        environment: Vec::new(),
    };
    let settings = settings
        .with("NIXERY_PKGS_REPO", &url)
        .with("NIXGATE_NIX_OPTIONS", install::nix_options()?)
        .with("GIT_SSH_COMMAND", "");
    let at_home = Builder::start_as(&settings, |command| host.at_home(&command))?;
    all_are_served(&at_home, &commits).with_context(|| host.log())
}

#[test]
fn a_host_that_ssh_does_not_know_or_that_knows_no_key_is_not_asked_about() -> Result<()> {
    let repository = Repository::new()?;
    repository.commit("first")?;
    let host = GitSsh::start()?;
    let url = host.repository(&repository.path().join(".git"));
    let shown = url.replace("root@", "");
    let repository = ("NIXERY_PKGS_REPO", url.as_str());
    let nobody = Path::new("/dev/null");
    for (command, remedy) in [
        (ssh(&host.key(), nobody), "~/.ssh/known_hosts"),
        (ssh(&host.stranger(), &host.known_hosts()), "ssh -i FILE"),
    ] {
        says(
            &[repository, ("GIT_SSH_COMMAND", &command)],
            &[&shown, remedy],
            "Are you sure",
        )?;
    }
    Ok(())
}

#[test]
fn a_command_on_a_terminal_asks_nobody_either() -> Result<()> {
    let repository = Repository::new()?;
    repository.commit("first")?;
    let host = GitSsh::start()?;
    let state = scratch::folder("terminal-")?;
    let mut terminal = Command::new("script");
    let builder = install::builder()?;
    terminal
        .args(["--quiet", "--return", "--command"])
        .arg(format!(
            "'{}' build dated --output image",
            builder.display()
        ))
        .arg("/dev/null")
        .current_dir(state.path())
        .env("SHELL", "/bin/sh")
        .env("NIXGATE_STATE_DIR", state.path().join("state"))
        .env("NIXGATE_NIX_OPTIONS", install::nix_options()?)
        .env(
            "NIXERY_PKGS_REPO",
            host.repository(&repository.path().join(".git")),
        )
        .env("GIT_SSH_COMMAND", ssh(&host.key(), Path::new("/dev/null")));
    // What was on the terminal.
    let seen = run(&mut terminal).err().context("it built the image")?;
    let seen = format!("{seen:#}");
    assert!(seen.contains("known_hosts of the builder's user"), "{seen}");
    assert!(!seen.contains("Are you sure"), "{seen}");
    Ok(())
}
