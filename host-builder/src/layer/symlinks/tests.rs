//! Packages drawn as lists of lines: `bin/` a directory, `bin/git` a file, `sbin -> bin` a link.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn store_path(name: &str) -> StorePath {
    format!("/nix/store/{}-{name}", "0".repeat(32))
        .parse()
        .unwrap()
}

fn tree(lines: &[&str]) -> Tree {
    let mut root = Directory::new();
    for line in lines {
        let (path, leaf) = match line.split_once(" -> ") {
            Some((path, target)) => (path, Tree::Symlink(target.into())),
            None if line.ends_with('/') => (*line, Tree::Directory(Directory::new())),
            None => (
                *line,
                Tree::File {
                    executable: true,
                    size: 1,
                },
            ),
        };
        let mut directory = &mut root;
        let names: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let (last, parents) = names.split_last().unwrap();
        for parent in parents {
            let entry = directory
                .entry(parent.into())
                .or_insert_with(|| Tree::Directory(Directory::new()));
            let Tree::Directory(below) = entry else {
                panic!("{parent} is no directory")
            };
            directory = below;
        }
        directory.insert(last.into(), leaf);
    }
    Tree::Directory(root)
}

fn merged(packages: &[(&str, Tree)]) -> Merged {
    let packages: Vec<(StorePath, &Tree)> = packages
        .iter()
        .map(|(name, tree)| (store_path(name), tree))
        .collect();
    merge(packages.iter().map(|(path, tree)| (path, *tree)))
}

fn list(out: &mut String, at: &Path, entries: &BTreeMap<OsString, RootEntry>) {
    for (name, entry) in entries {
        let path = at.join(name);
        let shown = path.display();
        match entry {
            RootEntry::Directory { mode, entries } => {
                writeln!(out, "{mode:04o} {shown}/").unwrap();
                list(out, &path, entries);
            }
            RootEntry::File(text) => writeln!(out, "file {shown}: {} bytes", text.len()).unwrap(),
            RootEntry::Symlink(target) => {
                let target = target.to_str().unwrap().replace(&"0".repeat(32), "…");
                writeln!(out, "link {shown} -> {target}").unwrap();
            }
        }
    }
}

/// All that is not in an image without packages, then what did not fit.
fn check(packages: &[(&str, &[&str])], expected: &Expect) {
    let packages: Vec<(&str, Tree)> = packages
        .iter()
        .map(|(name, lines)| (*name, tree(lines)))
        .collect();
    let merged = merged(&packages);
    let (shown, base) = (listed(&merged.root), listed(&merge([]).root));
    let mut report: String = shown
        .lines()
        .filter(|line| !base.lines().any(|known| known == *line))
        .map(|line| format!("{line}\n"))
        .collect();
    for collision in &merged.collisions {
        writeln!(
            report,
            "{}",
            collision.to_string().replace(&"0".repeat(32), "…")
        )
        .unwrap();
    }
    expected.assert_eq(&report);
}

fn listed(root: &RootTree) -> String {
    let mut out = String::new();
    list(&mut out, Path::new(""), &root.entries);
    out
}

#[test]
fn an_image_without_packages_has_the_base() {
    expect![[r#"
        0755 etc/
        file etc/group: 43 bytes
        file etc/nsswitch.conf: 107 bytes
        file etc/passwd: 71 bytes
        0700 root/
        1777 tmp/
    "#]]
    .assert_eq(&listed(&merge([]).root));
}

#[test]
fn directories_are_merged_and_the_rest_is_linked() {
    check(
        &[
            (
                "bash",
                &[
                    "bin/bash",
                    "bin/sh -> bash",
                    "share/man/man1/bash.1",
                    "share/empty/",
                ],
            ),
            (
                "git",
                &["bin/git", "share/man/man1/git.1", "share/man/man5/git.5"],
            ),
        ],
        &expect![[r#"
            0755 bin/
            link bin/bash -> /nix/store/…-bash/bin/bash
            link bin/git -> /nix/store/…-git/bin/git
            link bin/sh -> /nix/store/…-bash/bin/sh
            0755 share/
            0755 share/empty/
            0755 share/man/
            0755 share/man/man1/
            link share/man/man1/bash.1 -> /nix/store/…-bash/share/man/man1/bash.1
            link share/man/man1/git.1 -> /nix/store/…-git/share/man/man1/git.1
            0755 share/man/man5/
            link share/man/man5/git.5 -> /nix/store/…-git/share/man/man5/git.5
        "#]],
    );
}

#[test]
fn files_for_nix_s_builders_are_left_out_at_the_root() {
    check(
        &[(
            "a",
            &[
                "nix-support/x",
                "propagated-build-inputs",
                "nix/store/",
                "share/nix-support/y",
                "share/nix/",
            ],
        )],
        &expect![[r#"
            0755 share/
            0755 share/nix/
            0755 share/nix-support/
            link share/nix-support/y -> /nix/store/…-a/share/nix-support/y
        "#]],
    );
}

#[test]
fn the_first_package_wins_and_the_others_are_reported() {
    check(
        &[
            ("a", &["bin/vi", "lib/x/y"]),
            ("b", &["bin/vi", "lib/x", "share"]),
            ("c", &["share/z", "bin/vi/"]),
        ],
        &expect![[r#"
            0755 bin/
            link bin/vi -> /nix/store/…-a/bin/vi
            0755 lib/
            0755 lib/x/
            link lib/x/y -> /nix/store/…-a/lib/x/y
            link share -> /nix/store/…-b/share
            /bin/vi is from /nix/store/…-a, not from /nix/store/…-b
            /bin/vi is from /nix/store/…-a, not from /nix/store/…-c
            /lib/x is from /nix/store/…-a, not from /nix/store/…-b
            /share is from /nix/store/…-b, not from /nix/store/…-c
        "#]],
    );
}

#[test]
fn links_to_directories_of_the_same_package_are_repeated() {
    check(
        &[
            (
                "a",
                &[
                    "bin/a",
                    "sbin -> bin",
                    "lib/",
                    "lib64 -> lib",
                    "share/doc -> ../lib",
                ],
            ),
            ("b", &["bin/b", "sbin -> ./bin"]),
            ("c", &["bin/c", "sbin -> bin"]),
        ],
        &expect![[r#"
            0755 bin/
            link bin/a -> /nix/store/…-a/bin/a
            link bin/b -> /nix/store/…-b/bin/b
            link bin/c -> /nix/store/…-c/bin/c
            0755 lib/
            link lib64 -> lib
            link sbin -> bin
            0755 share/
            link share/doc -> ../lib
            /sbin is from /nix/store/…-a, not from /nix/store/…-b
        "#]],
    );
}

#[test]
fn links_that_an_image_could_not_repeat_are_linked_to() {
    check(
        &[(
            "a",
            &[
                "bin/dangling -> nowhere",
                "bin/file -> f",
                "bin/f",
                "bin/out -> ../../other/bin",
                "bin/hidden -> ../nix-support",
                "bin/abs -> /nix/store/other",
                "bin/via -> ../loop/x",
                "loop -> .",
                "nix-support/",
            ],
        )],
        &expect![[r#"
            0755 bin/
            link bin/abs -> /nix/store/other
            link bin/dangling -> /nix/store/…-a/bin/dangling
            link bin/f -> /nix/store/…-a/bin/f
            link bin/file -> /nix/store/…-a/bin/file
            link bin/hidden -> /nix/store/…-a/bin/hidden
            link bin/out -> /nix/store/…-a/bin/out
            link bin/via -> /nix/store/…-a/bin/via
            link loop -> .
        "#]],
    );
}

#[test]
fn packages_that_are_no_directory_are_reported() {
    let packages = [
        (
            "file",
            Tree::File {
                executable: false,
                size: 3,
            },
        ),
        ("link", Tree::Symlink("/nix/store".into())),
    ];
    let merged = merged(&packages);
    assert_eq!(
        merged.without_directory,
        [store_path("file"), store_path("link")]
    );
    assert_eq!(merged.root, merge([]).root);
}

#[test]
fn usr_bin_env_is_there_when_bin_env_is() {
    check(
        &[("coreutils", &["bin/env"])],
        &expect![[r#"
            0755 bin/
            link bin/env -> /nix/store/…-coreutils/bin/env
            0755 usr/
            0755 usr/bin/
            link usr/bin/env -> /nix/store/…-coreutils/bin/env
        "#]],
    );
    check(
        &[("a", &["bin/env", "usr/bin/env"])],
        &expect![[r#"
            0755 bin/
            link bin/env -> /nix/store/…-a/bin/env
            0755 usr/
            0755 usr/bin/
            link usr/bin/env -> /nix/store/…-a/usr/bin/env
        "#]],
    );
}

#[test]
fn a_package_keeps_its_own_files_but_tmp_stays_open_to_all() {
    check(
        &[("a", &["etc/passwd", "tmp/x", "root -> /home"])],
        &expect![[r#"
            link etc/passwd -> /nix/store/…-a/etc/passwd
            link root -> /home
            link tmp/x -> /nix/store/…-a/tmp/x
        "#]],
    );
    check(
        &[("a", &["etc"])],
        &expect![[r#"
            link etc -> /nix/store/…-a/etc
        "#]],
    );
}

/// Random packages over few names, so that they collide often.
fn random_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::File {
            executable: false,
            size: 1
        }),
        prop::sample::select(vec!["a", "../a", ".", "/x"]).prop_map(|to| Tree::Symlink(to.into())),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::btree_map(
            prop::sample::select(vec!["a", "b", "c"]).prop_map(OsString::from),
            inner,
            0..3,
        )
        .prop_map(Tree::Directory)
    })
}

fn leaves(at: &Path, tree: &Tree, out: &mut Vec<PathBuf>) {
    match tree {
        Tree::Directory(entries) => {
            entries
                .iter()
                .for_each(|(name, entry)| leaves(&at.join(name), entry, out));
        }
        Tree::File { .. } | Tree::Symlink(_) => out.push(at.to_owned()),
    }
}

proptest! {
    /// Each leaf of each package is in the image, or lies at or below a reported collision.
    #[test]
    fn nothing_gets_lost_without_a_word(trees in prop::collection::vec(random_tree(), 0..4)) {
        let names = ["p0", "p1", "p2", "p3"];
        let packages: Vec<(&str, Tree)> = names.into_iter().zip(trees).collect();
        let merged = merged(&packages);
        for (name, tree) in &packages {
            let package = store_path(name);
            let Tree::Directory(root) = tree else {
                prop_assert!(merged.without_directory.contains(&package));
                continue;
            };
            let mut paths = Vec::new();
            leaves(Path::new(""), tree, &mut paths);
            for path in paths {
                let dropped = merged
                    .collisions
                    .iter()
                    .any(|collision| collision.dropped == package && path.starts_with(&collision.path));
                let leaf = path.iter().try_fold(tree, |at, name| match at {
                    Tree::Directory(entries) => entries.get(name),
                    _ => None,
                });
                let target = link_target(Package { path: &package, root }, &path, leaf.unwrap());
                let present = merged.root.get(&path) == Some(&RootEntry::Symlink(target));
                prop_assert!(present != dropped, "{path:?} of {name}");
            }
        }
    }
}
