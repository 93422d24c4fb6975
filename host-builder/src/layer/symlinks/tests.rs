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
    merge(packages.iter().map(|(path, tree)| (path, *tree)), [])
}

fn list(out: &mut String, at: &Path, entries: &BTreeMap<OsString, RootEntry>) {
    for (name, entry) in entries {
        let path = at.join(name);
        let shown = path.display();
        match entry {
            RootEntry::Directory(directory) => {
                writeln!(out, "{:04o} {shown}/", directory.mode).unwrap();
                list(out, &path, &directory.entries);
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
    let (shown, base) = (listed(&merged.root), listed(&merge([], []).root));
    let mut report: String = shown
        .lines()
        .filter(|line| !base.lines().any(|known| known == *line))
        .map(|line| format!("{line}\n"))
        .collect();
    for dropped in &merged.dropped {
        writeln!(report, "{dropped}").unwrap();
    }
    expected.assert_eq(&report);
}

/// All but the profile.
fn listed(root: &RootTree) -> String {
    let mut entries = root.entries.clone();
    entries.remove(OsStr::new("nix"));
    let mut out = String::new();
    list(&mut out, Path::new(""), &entries);
    out
}

/// The profile alone.
fn check_profile(packages: &[(&str, &[&str])], expected: &Expect) {
    let packages: Vec<(&str, Tree)> = packages
        .iter()
        .map(|(name, lines)| (*name, tree(lines)))
        .collect();
    let merged = merged(&packages);
    let Some(RootEntry::Directory(profile)) = merged.root.get(Path::new(PROFILE)) else {
        panic!("no profile in {:?}", merged.root)
    };
    let mut out = String::new();
    list(&mut out, Path::new(""), &profile.entries);
    expected.assert_eq(&out);
}

#[test]
fn the_profile_has_one_link_for_what_one_package_alone_has() {
    check_profile(
        &[
            (
                "bash",
                &["bin/bash", "bin/sh -> bash", "share/man/man1/bash.1"],
            ),
            (
                "git",
                &[
                    "bin/git",
                    "etc/x",
                    "libexec/git-core/git-add",
                    "nix-support/x",
                    "sbin -> bin",
                    "share/git/hooks/",
                    "share/man/man1/git.1",
                    "share/man/man5/git.5",
                ],
            ),
        ],
        &expect![[r#"
            0755 bin/
            link bin/bash -> /nix/store/…-bash/bin/bash
            link bin/git -> /nix/store/…-git/bin/git
            link bin/sh -> /nix/store/…-bash/bin/sh
            link etc -> /nix/store/…-git/etc
            link libexec -> /nix/store/…-git/libexec
            link sbin -> bin
            0755 share/
            link share/git -> /nix/store/…-git/share/git
            0755 share/man/
            0755 share/man/man1/
            link share/man/man1/bash.1 -> /nix/store/…-bash/share/man/man1/bash.1
            link share/man/man1/git.1 -> /nix/store/…-git/share/man/man1/git.1
            link share/man/man5 -> /nix/store/…-git/share/man/man5
        "#]],
    );
}

#[test]
fn nothing_of_the_profile_leads_out_of_the_store() {
    check_profile(
        &[
            (
                "a",
                &["bin/a", "tmp -> /var/tmp", "etc/hosts -> /run/hosts"],
            ),
            ("b", &["bin/b", "bin/sh -> /bin/sh", "etc/b", "proc/x"]),
        ],
        &expect![[r#"
            0755 bin/
            link bin/a -> /nix/store/…-a/bin/a
            link bin/b -> /nix/store/…-b/bin/b
            0755 etc/
            link etc/b -> /nix/store/…-b/etc/b
        "#]],
    );
}

#[test]
fn a_package_that_is_there_for_its_modules_has_no_link_to_more() {
    let (python, needed) = (store_path("python"), store_path("needed"));
    let program = tree(&["bin/python3"]);
    let reach = Reach {
        modules: vec![(needed, tree(&["lib/python3.13/site-packages/x.py"]))],
        ..Reach::default()
    };
    let merged = merge([(&python, &program)], [&reach]);
    let at = |path: &str| merged.root.get(&Path::new(PROFILE).join(path));
    assert!(matches!(
        at("lib/python3.13"),
        Some(RootEntry::Directory(_))
    ));
    let modules = at("lib/python3.13/site-packages");
    assert!(
        matches!(modules, Some(RootEntry::Symlink(_))),
        "{modules:?}"
    );
}

#[test]
fn an_image_without_packages_has_the_base() {
    expect![[r#"
        0755 dev/
        0755 etc/
        file etc/group: 43 bytes
        file etc/nsswitch.conf: 107 bytes
        file etc/os-release: 52 bytes
        file etc/passwd: 71 bytes
        0755 home/
        0755 proc/
        0700 root/
        0755 run/
        0755 sys/
        1777 tmp/
        0755 var/
        1777 var/tmp/
    "#]]
    .assert_eq(&listed(&merge([], []).root));
}

#[test]
fn programs_not_built_by_nix_find_their_loader_and_the_libraries_of_the_compiler() {
    // As in nixpkgs, one is in another output.
    let libgcc = format!("lib/libgcc_s.so.1 -> {}/lib/x", store_path("gcc-libgcc"));
    let gcc: &[&str] = &[
        &libgcc,
        "lib/libgomp.so.1",
        "lib/libstdc++.so.6",
        "lib64 -> lib",
    ];
    let glibc: &[&str] = &["lib/ld-linux-x86-64.so.2", "lib/libc.so.6"];
    check(
        &[("gcc", gcc), ("glibc", glibc)],
        &expect![[r#"
        0755 lib/
        link lib/ld-linux-x86-64.so.2 -> /nix/store/…-glibc/lib/ld-linux-x86-64.so.2
        link lib/libc.so.6 -> /nix/store/…-glibc/lib/libc.so.6
        link lib/libgcc_s.so.1 -> /nix/store/…-gcc-libgcc/lib/x
        link lib/libgomp.so.1 -> /nix/store/…-gcc/lib/libgomp.so.1
        link lib/libstdc++.so.6 -> /nix/store/…-gcc/lib/libstdc++.so.6
        0755 lib64/
        link lib64/ld-linux-x86-64.so.2 -> /lib/ld-linux-x86-64.so.2
        link lib64/libgcc_s.so.1 -> /nix/store/…-gcc-libgcc/lib/x
        link lib64/libgomp.so.1 -> /nix/store/…-gcc/lib64/libgomp.so.1
        link lib64/libstdc++.so.6 -> /nix/store/…-gcc/lib64/libstdc++.so.6
        0755 usr/
        0755 usr/lib/
        0755 usr/lib/foreign/
        link usr/lib/foreign/libgcc_s.so.1 -> /lib/libgcc_s.so.1
        link usr/lib/foreign/libstdc++.so.6 -> /lib/libstdc++.so.6
    "#]],
    );
    // A package's own file stays, here Debian's.
    check(
        &[("libc6", &["lib64/ld-linux-x86-64.so.2"])],
        &expect![[r#"
            0755 lib64/
            link lib64/ld-linux-x86-64.so.2 -> /nix/store/…-libc6/lib64/ld-linux-x86-64.so.2
        "#]],
    );
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
            /nix of a is left out: it is the image's own
        "#]],
    );
}

#[test]
fn the_first_package_wins_between_files_and_the_others_are_reported() {
    check(
        &[
            ("a", &["bin/vi", "lib/x/y"]),
            ("b", &["bin/vi", "lib/x", "share"]),
            ("c", &["share/z", "bin/vi/"]),
        ],
        &expect![[r#"
            0755 bin/
            0755 bin/vi/
            0755 lib/
            0755 lib/x/
            link lib/x/y -> /nix/store/…-a/lib/x/y
            0755 share/
            link share/z -> /nix/store/…-c/share/z
            /bin/vi of a is left out: c has it
            /bin/vi of b is left out: c has it
            /lib/x of b is left out: a has it
            /share of b is left out: c has it
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
    assert_eq!(merged.root, merge([], []).root);
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
            link usr/bin/env -> /bin/env
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
            link tmp/x -> /nix/store/…-a/tmp/x
            /root of a is left out: it is the image's own
        "#]],
    );
    check(
        &[("a", &["etc"])],
        &expect![[r#"
            /etc of a is left out: it is the image's own
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
    /// Each leaf of each package is in the image, or it leads to a directory that is merged, or it lies at
    /// or below what is reported.
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
                    .dropped
                    .iter()
                    .any(|dropped| dropped.package == package && path.starts_with(&dropped.path));
                let leaf = path.iter().try_fold(tree, |at, name| match at {
                    Tree::Directory(entries) => entries.get(name),
                    _ => None,
                });
                let leaf = leaf.unwrap();
                let known: Known<'_> = [(&package, tree)].into_iter().collect();
                let expected = Target::of(&Part::root(&package, root), &path, leaf).text;
                let present = match merged.root.get(&path) {
                    Some(RootEntry::Symlink(target)) => {
                        // Another package may have written the same link in another way.
                        *target == expected || matches!(leaf, Tree::Symlink(_))
                    }
                    Some(RootEntry::Directory(_)) => {
                        matches!(known.find(&package, &path), Some(Tree::Directory(_)))
                    }
                    _ => false,
                };
                prop_assert!(present || dropped, "{path:?} of {name}");
            }
        }
    }

    /// The order of packages decides between files alone: the directories are the same.
    #[test]
    fn directories_are_the_same_in_every_order(trees in prop::collection::vec(random_tree(), 0..4)) {
        let names = ["p0", "p1", "p2", "p3"];
        let mut packages: Vec<(&str, Tree)> = names.into_iter().zip(trees).collect();
        let first = folders(&merged(&packages).root);
        packages.reverse();
        prop_assert_eq!(first, folders(&merged(&packages).root));
    }
}

fn folders(root: &RootTree) -> Vec<String> {
    let listed = listed(root);
    let folders = listed.lines().filter(|line| line.ends_with('/'));
    folders.map(str::to_owned).collect()
}

/// Runs [`check`] for both orders of two packages, which give the same.
fn check_both_orders(one: (&str, &[&str]), other: (&str, &[&str]), expected: &Expect) {
    check(&[one, other], expected);
    check(&[other, one], expected);
}

#[test]
fn a_directory_behind_a_link_is_merged_in_every_order() {
    let bash: (&str, &[&str]) = ("bash", &["bin/bash"]);
    for target in ["lib/openjdk/bin", "./lib/openjdk/../openjdk/bin"] {
        let link = format!("bin -> {target}");
        let jdk = ["lib/openjdk/bin/java", &link];
        check_both_orders(
            bash,
            ("jdk", &jdk),
            &expect![[r#"
            0755 bin/
            link bin/bash -> /nix/store/…-bash/bin/bash
            link bin/java -> /nix/store/…-jdk/bin/java
            0755 lib/
            0755 lib/openjdk/
            0755 lib/openjdk/bin/
            link lib/openjdk/bin/java -> /nix/store/…-jdk/lib/openjdk/bin/java
        "#]],
        );
    }
    // Absolute, behind another link.
    let zeros = "0".repeat(32);
    let link = format!("bin -> /nix/store/{zeros}-jdk/lib/vm/bin");
    let jdk = ["lib/openjdk/bin/java", "lib/vm -> openjdk", &link];
    check_both_orders(
        bash,
        ("jdk", &jdk),
        &expect![[r#"
        0755 bin/
        link bin/bash -> /nix/store/…-bash/bin/bash
        link bin/java -> /nix/store/…-jdk/bin/java
        0755 lib/
        0755 lib/openjdk/
        0755 lib/openjdk/bin/
        link lib/openjdk/bin/java -> /nix/store/…-jdk/lib/openjdk/bin/java
        link lib/vm -> openjdk
    "#]],
    );
    // At any depth.
    check_both_orders(
        ("a", &["man/man1/a.1", "share/man -> ../man"]),
        ("b", &["share/man/man1/b.1"]),
        &expect![[r#"
            0755 man/
            0755 man/man1/
            link man/man1/a.1 -> /nix/store/…-a/man/man1/a.1
            0755 share/
            0755 share/man/
            0755 share/man/man1/
            link share/man/man1/a.1 -> /nix/store/…-a/share/man/man1/a.1
            link share/man/man1/b.1 -> /nix/store/…-b/share/man/man1/b.1
        "#]],
    );
}

#[test]
fn sbin_has_the_programs_of_those_that_have_it_and_of_those_that_link_it() {
    check_both_orders(
        ("box", &["bin/box", "sbin/ifconf"]),
        ("linked", &["bin/linked", "sbin -> bin"]),
        &expect![[r#"
            0755 bin/
            link bin/box -> /nix/store/…-box/bin/box
            link bin/linked -> /nix/store/…-linked/bin/linked
            0755 sbin/
            link sbin/ifconf -> /nix/store/…-box/sbin/ifconf
            link sbin/linked -> /nix/store/…-linked/sbin/linked
        "#]],
    );
}

#[test]
fn a_directory_goes_before_a_file_in_every_order() {
    check_both_orders(
        ("a", &["lib/x/y", "share/z"]),
        ("b", &["lib/x", "share"]),
        &expect![[r#"
            0755 lib/
            0755 lib/x/
            link lib/x/y -> /nix/store/…-a/lib/x/y
            0755 share/
            link share/z -> /nix/store/…-a/share/z
            /lib/x of b is left out: a has it
            /share of b is left out: a has it
        "#]],
    );
    check_both_orders(
        ("a", &["lib/y", "x -> lib"]),
        ("b", &["x"]),
        &expect![[r#"
        0755 lib/
        link lib/y -> /nix/store/…-a/lib/y
        0755 x/
        link x/y -> /nix/store/…-a/x/y
        /x of b is left out: a has it
    "#]],
    );
}

#[test]
fn a_directory_of_the_image_is_no_link() {
    check_both_orders(
        ("a", &["real/etc/hi", "etc -> real/etc"]),
        ("b", &["etc/services", "bin/env"]),
        &expect![[r#"
            0755 bin/
            link bin/env -> /nix/store/…-b/bin/env
            link etc/hi -> /nix/store/…-a/etc/hi
            link etc/services -> /nix/store/…-b/etc/services
            0755 real/
            0755 real/etc/
            link real/etc/hi -> /nix/store/…-a/real/etc/hi
            0755 usr/
            0755 usr/bin/
            link usr/bin/env -> /bin/env
        "#]],
    );
    check(
        &[("a", &["real/etc/hi", "etc -> real/etc", "usr -> ."])],
        &expect![[r#"
            link etc/hi -> /nix/store/…-a/etc/hi
            0755 real/
            0755 real/etc/
            link real/etc/hi -> /nix/store/…-a/real/etc/hi
            link usr -> .
        "#]],
    );
}

#[test]
fn the_image_s_own_directories_are_not_replaced() {
    check(
        &[(
            "a",
            &[
                "dev -> x",
                "home/user/.profile",
                "nix/store/y",
                "proc -> x",
                "root -> /home",
                "run",
                "sys/z",
                "tmp -> /var/tmp",
                "var/tmp -> ../x",
                "x/in",
            ],
        )],
        &expect![[r#"
            0755 home/user/
            link home/user/.profile -> /nix/store/…-a/home/user/.profile
            link var/tmp/in -> /nix/store/…-a/var/tmp/in
            0755 x/
            link x/in -> /nix/store/…-a/x/in
            /dev of a is left out: it is the image's own
            /nix of a is left out: it is the image's own
            /proc of a is left out: it is the image's own
            /root of a is left out: it is the image's own
            /run of a is left out: it is the image's own
            /sys of a is left out: it is the image's own
            /tmp of a is left out: it is the image's own
        "#]],
    );
}

#[test]
fn an_output_that_is_a_link_is_what_it_leads_to() {
    let zeros = "0".repeat(32);
    let link = Tree::Symlink(format!("/nix/store/{zeros}-real/env").into());
    let outputs = [(store_path("out"), &link)];
    let outputs = outputs.iter().map(|(path, tree)| (path, *tree));
    let reach = Reach {
        linked: vec![(store_path("real"), tree(&["env/bin/tool", "other"]))],
        ..Reach::default()
    };
    let merged = merge(outputs, [&reach]);
    assert_eq!(merged.without_directory, []);
    assert_eq!(
        merged.root.get(Path::new("bin/tool")),
        Some(&RootEntry::Symlink(
            format!("/nix/store/{zeros}-out/bin/tool").into()
        ))
    );
    assert_eq!(merged.root.get(Path::new("other")), None);
}

#[test]
fn modules_that_packages_need_come_last() {
    let (a, b) = (store_path("a"), store_path("b"));
    let module = |names: &[&str]| {
        let names = names
            .iter()
            .map(|name| format!("lib/python3.13/site-packages/{name}"));
        let names: Vec<String> = names.collect();
        tree(&names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (first, second) = (module(&["a.py", "same.py"]), module(&["b.py"]));
    let reach = Reach {
        modules: vec![
            (store_path("c"), module(&["c.py", "same.py"])),
            // That one was asked for.
            (b.clone(), module(&["b.py"])),
        ],
        ..Reach::default()
    };
    let merged = merge([(&a, &first), (&b, &second)], [&reach, &reach]);
    let listed = listed(&merged.root);
    let python = listed.lines().filter(|line| line.contains(".py"));
    expect![[r#"
        link lib/python3.13/site-packages/a.py -> /nix/store/…-a/lib/python3.13/site-packages/a.py
        link lib/python3.13/site-packages/b.py -> /nix/store/…-b/lib/python3.13/site-packages/b.py
        link lib/python3.13/site-packages/c.py -> /nix/store/…-c/lib/python3.13/site-packages/c.py
        link lib/python3.13/site-packages/same.py -> /nix/store/…-a/lib/python3.13/site-packages/same.py"#]].assert_eq(&python.collect::<Vec<_>>().join("\n"));
    assert_eq!(merged.dropped.len(), 1, "{:?}", merged.dropped);
}

#[test]
fn links_do_not_make_a_small_package_large() {
    // Each of 40 directories leads twice to the next, which is 2^40 entries.
    let chain = |with: &str| {
        let lines = (0..40).flat_map(|number| {
            ["x", "y"].map(|name| format!("d{number}/{name} -> ../d{}", number + 1))
        });
        let mut lines: Vec<String> = lines.chain(["d40/end".to_owned()]).collect();
        lines.push(format!("{with} -> d0"));
        tree(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let b = tree(&["top/x/b", "top/y/b"]);
    let merged = merged(&[("a", chain("top")), ("b", b), ("c", chain("top"))]);
    assert!(!merged.dropped.is_empty());
    let entries = listed(&merged.root).lines().count();
    assert!(entries < 2 * MAX_FOLLOWED, "{entries}");
}
