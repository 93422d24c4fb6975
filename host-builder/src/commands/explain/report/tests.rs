use std::collections::BTreeSet;

use expect_test::expect;
use nixgate_core::package_set::System;

use super::*;
use crate::image::Execution;
use crate::layer::{Reach, Tree, merge};
use crate::request::recipes::Recipes;

fn path(name: &str) -> StorePath {
    format!("/nix/store/{}-{name}", "0".repeat(32))
        .parse()
        .unwrap()
}

/// A package of these files.
fn tree(files: &[&str]) -> Tree {
    let file = Tree::File {
        executable: true,
        size: 1,
    };
    let names: BTreeSet<&str> = files
        .iter()
        .map(|file| file.split('/').next().unwrap())
        .collect();
    let entries = names.into_iter().map(|name| {
        let below = |file: &&str| {
            file.strip_prefix(name)?
                .strip_prefix('/')
                .map(str::to_owned)
        };
        let below: Vec<String> = files.iter().filter_map(below).collect();
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        let entry = match below.is_empty() {
            true => file.clone(),
            false => tree(&below),
        };
        (name.into(), entry)
    });
    Tree::Directory(entries.collect())
}

/// The report on an image of these packages.
fn report(name: &str, packages: &[(&str, &str, &[&str])]) -> Report {
    let target: Target = name.parse().unwrap();
    let recipes = Recipes::default();
    let named = NamedImage::of(&target.repository, &recipes, System::X86_64Linux).unwrap();
    let trees: Vec<(StorePath, Tree)> = packages
        .iter()
        .map(|(_, stored, files)| (path(stored), tree(files)))
        .collect();
    let reach = Reach {
        has_utf8: true,
        ..Reach::default()
    };
    let merged = merge(trees.iter().map(|(path, tree)| (path, tree)), [&reach]);
    let names = packages.iter();
    let explanation = Explanation {
        packages: names
            .map(|(name, stored, _)| ((*name).to_owned(), vec![path(stored)]))
            .collect(),
        execution: Execution {
            cmd: vec!["bash".to_owned()],
            env: merged.environment.clone(),
            ..Execution::default()
        },
        merged,
    };
    let mut request = ImageRequest::example(&["git"]);
    request.pin.revision = "git 5fbc".to_owned();
    Report::new(&target, &named, &request, explanation)
}

const SET: &[(&str, &str, &[&str])] = &[
    (
        "bashinteractive",
        "bash-5.2",
        &["bin/bash", "bin/sh", "share/man/bash.1"],
    ),
    ("cacert", "cacert-3", &["etc/ssl/certs/ca-bundle.crt"]),
    (
        "git",
        "git-2.39",
        &["bin/git", "bin/sh", "share/man/git.1", "tmp"],
    ),
];

#[test]
fn a_person_reads_where_everything_comes_from() {
    expect![[r#"
        shell/git:latest
          canonical name  bashinteractive/cacert/coreutils/git/iana-etc/moreutils/nano
          length          9 characters; with a host of more than 246 podman, skopeo and older Dockers refuse it
          platform        x86_64-linux
          package set     git 5fbc
          entrypoint      none
          command         bash

        packages
          bashinteractive  shell in the name
          cacert           every image
          git              the name

        variables
          PATH=/bin:/sbin:/usr/bin                        every image
          SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt      every image
          NIX_SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt  every image
          LANG=C.UTF-8                                    the C library has this locale
          MANPATH=/share/man                              /share/man of bashinteractive, git
          XDG_DATA_DIRS=/share                            /share of bashinteractive, git

        /
          /dev/   the image's own
          /home/  the image's own
          /proc/  the image's own
          /root/  the image's own
          /run/   the image's own
          /sys/   the image's own
          /tmp/   the image's own

        /bin
          /bin/bash  bashinteractive
          /bin/git   git
          /bin/sh    bashinteractive

        /etc
          /etc/group          the image's own
          /etc/nsswitch.conf  the image's own
          /etc/os-release     the image's own
          /etc/passwd         the image's own
          /etc/ssl/           cacert

        /nix
          /nix/var/  the image's own

        /share
          /share/man/  bashinteractive, git

        /var
          /var/tmp/  the image's own

        left out
          /bin/sh of git: bashinteractive has it
          /tmp of git: it is the image's own
    "#]].assert_eq(&report("shell/git", SET).text(20));
}

#[test]
fn long_folders_are_cut_unless_all_is_asked_for() {
    let files: Vec<String> = (0..50).map(|number| format!("bin/p{number:02}")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let report = report("git", &[("git", "git-2.39", &files)]);
    let text = report.text(20);
    assert!(
        text.contains("/bin/p19") && !text.contains("/bin/p20"),
        "{text}"
    );
    assert!(text.contains("and 30 more: see all with --all"), "{text}");
    assert!(report.text(usize::MAX).contains("/bin/p49"));
    assert_eq!(
        report
            .entries
            .iter()
            .filter(|one| one.path.starts_with("/bin/"))
            .count(),
        50
    );
}

#[test]
fn a_name_that_clients_refuse_is_told_of() {
    let long = ["p".repeat(100), "q".repeat(100), "r".repeat(100)].join("/");
    let text = report(&long, SET).text(20);
    assert!(
        text.contains("302 characters, but clients refuse"),
        "{text}"
    );
    assert!(text.contains("define a recipe"), "{text}");
    let text = report("git", SET).text(20);
    assert!(
        text.contains("3 characters; with a host of more than 252 "),
        "{text}"
    );
}

#[test]
fn a_package_is_there_for_the_name_a_meta_package_or_always() {
    for (name, package, expected) in [
        ("git", "git", "the name"),
        ("shell/git", "nano", "shell in the name"),
        ("shell/nano", "nano", "the name"),
        ("builder", "gnumake", "builder in the name"),
        ("git", "cacert", "every image"),
        ("git/cacert", "cacert", "the name"),
    ] {
        let repository = Repository::parse(name).unwrap();
        assert_eq!(
            in_the_name(&repository, package),
            expected,
            "{package} in {name}"
        );
    }
}

#[test]
fn a_terminal_is_not_controlled_by_names_of_files() {
    let text = report("git", &[("git", "git-2.39", &["bin/\u{1b}]0;owned\u{7}"])]).text(20);
    assert!(
        text.contains("owned") && !text.contains('\u{1b}'),
        "{text:?}"
    );
}
