//! Packages as nixpkgs has them, and the variables that they need.

use super::super::reach::Reach;
use super::super::symlinks::merge;
use super::*;

fn store_path(name: &str) -> StorePath {
    format!("/nix/store/{}-{name}", "0".repeat(32))
        .parse()
        .unwrap()
}

/// A package of these files; those that end with a slash are directories.
fn tree(files: &[&str]) -> Tree {
    let mut root = Directory::new();
    for file in files {
        let mut directory = &mut root;
        let names: Vec<&str> = file.trim_end_matches('/').split('/').collect();
        for (index, name) in names.iter().enumerate() {
            let is_file = index + 1 == names.len() && !file.ends_with('/');
            let entry = directory.entry(name.into());
            let entry = entry.or_insert_with(|| match is_file {
                true => Tree::File {
                    executable: true,
                    size: 1,
                },
                false => Tree::Directory(Directory::new()),
            });
            if let Tree::Directory(below) = entry {
                directory = below;
            } else {
                break;
            }
        }
    }
    Tree::Directory(root)
}

const PYTHON: &[&str] = &[
    "bin/python3",
    "bin/python3.13",
    "lib/python3.13/site-packages/README.txt",
];
const REQUESTS: &[&str] = &["lib/python3.13/site-packages/requests/__init__.py"];
const OLD: &[&str] = &["lib/python3.12/site-packages/old.py"];

/// The variables of an image with these packages, as `NAME=value NAME=value`, and the Pythons that it
/// lacks.
fn check(packages: &[&[&str]], reach: Reach, expected: &str) {
    let trees: Vec<(StorePath, Tree)> = packages
        .iter()
        .enumerate()
        .map(|(index, files)| (store_path(&format!("p{index}")), tree(files)))
        .collect();
    let merged = merge(trees.iter().map(|(path, tree)| (path, tree)), [&reach]);
    let variables = merged.environment.iter();
    let mut shown: Vec<String> = variables
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let absent = merged.absent_pythons.iter();
    shown.extend(absent.map(|python| format!("no {python}")));
    assert_eq!(shown.join(" "), expected, "{packages:?}");
}

fn alone(packages: &[&[&str]], expected: &str) {
    check(packages, Reach::default(), expected);
}

#[test]
fn what_packages_bring_is_found_by_variables() {
    alone(&[&["bin/git"]], "");
    alone(
        &[&["share/man/man1/git.1", "share/terminfo/x/xterm"]],
        "MANPATH=/share/man TERMINFO_DIRS=/share/terminfo XDG_DATA_DIRS=/share",
    );
    alone(&[&["lib/terminfo/x/xterm"]], "TERMINFO_DIRS=/lib/terminfo");
    alone(
        &[&["lib/terminfo/"], &["share/terminfo/"]],
        "TERMINFO_DIRS=/share/terminfo:/lib/terminfo XDG_DATA_DIRS=/share",
    );
    alone(
        &[&["share/zoneinfo/Europe/Berlin"]],
        "TZDIR=/share/zoneinfo XDG_DATA_DIRS=/share",
    );
    alone(
        &[&["lib/locale/locale-archive"]],
        "LOCALE_ARCHIVE=/lib/locale/locale-archive",
    );
    let utf8 = Reach {
        has_utf8: true,
        ..Reach::default()
    };
    check(&[&["bin/git"]], utf8, "LANG=C.UTF-8");
    let libraries: &[&str] = &["lib/libstdc++.so.6", "lib/libz.so.1"];
    let foreign = "LD_LIBRARY_PATH=/usr/lib/foreign";
    alone(&[&["lib/ld-linux-x86-64.so.2"], libraries], foreign);
    alone(
        &[&["lib/ld-linux-aarch64.so.1"], &["lib/libgcc_s.so.1"]],
        foreign,
    );
    alone(&[libraries], "");
    alone(&[&["lib/ld-linux-x86-64.so.2", "lib/libc.so.6"]], "");
    // Debian's loader finds them in this folder.
    let debian: &[&str] = &["lib/x86_64-linux-gnu/libstdc++.so.6"];
    alone(&[debian, &["lib64/ld-linux-x86-64.so.2"]], "");
    // A file is no folder.
    alone(&[&["share", "lib/node_modules"]], "");
}

#[test]
fn fonts_are_found_beside_the_configuration_of_fontconfig() {
    let fonts = "FONTCONFIG_FILE=/etc/fonts/image.conf XDG_DATA_DIRS=/share";
    alone(&[&["share/fonts/x.ttf"], &["etc/fonts/fonts.conf"]], fonts);
    alone(
        &[&["etc/fonts/fonts.conf"]],
        "FONTCONFIG_FILE=/etc/fonts/fonts.conf",
    );
    let (path, tree) = (store_path("fonts"), tree(&["share/fonts/x.ttf"]));
    let merged = merge([(&path, &tree)], []);
    assert!(merged.root.get(Path::new(FONTS_FILE)).is_some());
}

#[test]
fn interpreters_find_their_own_modules_by_themselves() {
    alone(
        &[
            PYTHON,
            &["bin/perl", "lib/perl5/site_perl/5.40.0/x.pm"],
            &["bin/node", "lib/node_modules/npm/index.js"],
        ],
        "",
    );
    alone(
        &[&["lib/perl5/site_perl/5.40.0/URI.pm"], &["bin/perl"]],
        "PERL5LIB=/lib/perl5/site_perl",
    );
    alone(
        &[&["lib/node_modules/typescript/index.js"], &["bin/node"]],
        "NODE_PATH=/lib/node_modules",
    );
}

#[test]
fn modules_are_for_the_python_of_the_image() {
    let found = "PYTHONPATH=/lib/python3.13/site-packages";
    alone(&[PYTHON, REQUESTS], found);
    alone(&[REQUESTS, PYTHON], found);
    alone(&[PYTHON, REQUESTS, OLD], &format!("{found} no python3.12"));
    alone(&[PYTHON, OLD], "no python3.12");
    // Without a Python, modules are for nobody.
    alone(&[REQUESTS], "no python3.13");
    // The first one is what /bin/python3 is.
    let other: &[&str] = &["bin/python3", "bin/python3.12"];
    alone(&[PYTHON, other, REQUESTS], found);
    alone(
        &[other, PYTHON, OLD],
        "PYTHONPATH=/lib/python3.12/site-packages",
    );
    alone(&[other, PYTHON, REQUESTS], "no python3.13");
}

#[test]
fn modules_that_others_need_count_as_well() {
    let reach = Reach {
        modules: vec![(store_path("urllib3"), tree(REQUESTS))],
        ..Reach::default()
    };
    check(&[PYTHON], reach, "PYTHONPATH=/lib/python3.13/site-packages");
}
