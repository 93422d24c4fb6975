//! Debian's package index, as apt has it on this machine.
//!
//! ```text
//!   bookworm ─────────────────────► first version of a package
//!   bookworm, -updates, -security ► last version, size, dependencies
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::universe::{Package, Universe};

/// Reads apt's files, however they are compressed.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// As nix/debian/index.py: what brings files into being at installation, or looks after a machine that is
/// installed. There is neither in an image.
const DROPPED: &[&str] = &[
    "adduser",
    "base-files",
    "base-passwd",
    "ca-certificates-java",
    "cdebconf",
    "debconf",
    "debconf-2.0",
    "debianutils",
    "default-logind",
    "dpkg",
    "init-system-helpers",
    "install-info",
    "libc-bin",
    "lsb-base",
    "man-db",
    "passwd",
    "sensible-utils",
    "sysvinit-utils",
    "ucf",
    "usrmerge",
    "util-linux-extra",
    "x11-common",
];

/// Sections of packages that nobody names in an image: they come as dependencies, or not at all.
const NOT_PROGRAMS: &[&str] = &[
    "libs",
    "libdevel",
    "oldlibs",
    "debug",
    "doc",
    "kernel",
    "localization",
    "fonts",
    "metapackages",
    "introspection",
];

/// A larger package is a game's or an atlas's data.
const LARGEST: u64 = 1_000_000_000;

#[derive(Debug, Default, Clone)]
struct Stanza {
    version: String,
    source: String,
    section: String,
    size: u64,
    packed: u64,
    depends: Vec<Vec<String>>,
    provides: Vec<String>,
}

/// The whole index of Debian.
pub(crate) fn whole(lists: &Path) -> Result<Universe> {
    let (first, last) = states(lists)?;
    let mut providers: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, stanza) in &last {
        for provided in &stanza.provides {
            providers.entry(provided).or_insert(name);
        }
    }
    let choose = |alternatives: &Vec<String>| {
        let known = alternatives.iter().find(|name| last.contains_key(*name));
        let provided = || {
            alternatives
                .iter()
                .find_map(|name| providers.get(name.as_str()).map(|p| (*p).to_owned()))
        };
        known.cloned().or_else(provided)
    };
    let packages = last
        .iter()
        .filter(|(name, stanza)| !is_dropped(name) && stanza.size <= LARGEST)
        .map(|(name, stanza)| {
            let depends = stanza
                .depends
                .iter()
                .filter_map(choose)
                .filter(|name| !is_dropped(name));
            package(name, stanza, first.get(name), depends.collect())
        })
        .collect();
    Ok(Universe::new(packages))
}

/// The package set that nixgate embeds. Its index has the dependencies.
pub(crate) fn embedded(lists: &Path, index: &Path) -> Result<Universe> {
    #[derive(Deserialize)]
    struct Index {
        packages: BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        depends: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Attribute {
        debian: Vec<String>,
    }
    let text =
        std::fs::read_to_string(index).with_context(|| format!("reading {}", index.display()))?;
    let index: Index = serde_json::from_str(&text)?;
    let attributes = include_str!("../../nix/debian/packages.json");
    let attributes: BTreeMap<String, Attribute> = serde_json::from_str(attributes)?;
    let roots: BTreeSet<String> = attributes
        .into_values()
        .filter_map(|a| a.debian.into_iter().next())
        .collect();
    let (first, last) = states(lists)?;
    let packages = index.packages.into_iter().filter_map(|(name, entry)| {
        let mut package = package(&name, last.get(&name)?, first.get(&name), entry.depends);
        package.is_program = roots.contains(&name);
        Some(package)
    });
    Ok(Universe::new(packages.collect()))
}

fn package(name: &str, last: &Stanza, first: Option<&Stanza>, depends: Vec<String>) -> Package {
    Package {
        name: name.to_owned(),
        source: last.source.clone(),
        versions: [first.unwrap_or(last).version.clone(), last.version.clone()],
        size: last.size,
        packed: last.packed,
        depends,
        is_program: !NOT_PROGRAMS.contains(&last.section.as_str()),
    }
}

fn is_dropped(name: &str) -> bool {
    DROPPED.contains(&name) || name.starts_with("libpam-")
}

/// The packages of the release itself, and the same with all updates.
fn states(lists: &Path) -> Result<(BTreeMap<String, Stanza>, BTreeMap<String, Stanza>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(lists)
        .with_context(|| format!("reading {}", lists.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.to_string_lossy()
                .contains("_main_binary-amd64_Packages")
        })
        .collect();
    // The release has the shortest name of a suite: bookworm, bookworm-updates, bookworm-security.
    files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let Some((release, updates)) = files.split_first() else {
        bail!(
            "there is no package index in {}. Make one: scripts/package-set.sh amd64",
            lists.display()
        );
    };
    let first = stanzas(release)?;
    let mut last = first.clone();
    for update in updates {
        last.extend(stanzas(update)?);
    }
    Ok((first, last))
}

fn stanzas(file: &Path) -> Result<BTreeMap<String, Stanza>> {
    let output = Command::new(APT_HELPER)
        .arg("cat-file")
        .arg(file)
        .output()
        .with_context(|| format!("starting {APT_HELPER}"))?;
    if !output.status.success() {
        bail!(
            "{APT_HELPER} cannot read {}: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// The stanzas of a `Packages` file by package. Of several versions, the last.
fn parse(text: &str) -> BTreeMap<String, Stanza> {
    let mut stanzas = BTreeMap::new();
    for text in text.split("\n\n") {
        let mut stanza = Stanza::default();
        let mut name = String::new();
        for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            match key {
                "Package" => name = value.to_owned(),
                "Version" => stanza.version = value.to_owned(),
                "Source" => stanza.source = value.split(' ').next().unwrap_or(value).to_owned(),
                "Section" => stanza.section = value.to_owned(),
                "Installed-Size" => stanza.size = value.parse::<u64>().unwrap_or(0) * 1024,
                "Size" => stanza.packed = value.parse().unwrap_or(0),
                "Depends" | "Pre-Depends" => stanza.depends.extend(relations(value)),
                "Provides" => stanza
                    .provides
                    .extend(relations(value).into_iter().flatten()),
                _ => {}
            }
        }
        if stanza.source.is_empty() {
            stanza.source.clone_from(&name);
        }
        if !name.is_empty() {
            stanzas.insert(name, stanza);
        }
    }
    stanzas
}

/// `a (>= 1) | b:any, c` → `[[a, b], [c]]`
fn relations(text: &str) -> Vec<Vec<String>> {
    let name = |text: &str| {
        text.trim()
            .split([' ', ':', '('])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    text.split(',')
        .map(|one| one.split('|').map(name).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_is_read() {
        let text = "Package: git\nVersion: 1:2.39\nSource: git-src (1)\nInstalled-Size: 2\nSize: 700\n\
                    Depends: libc6 (>= 2.34), perl:any | perl-base\n\nPackage: sed\nVersion: 4\n";
        let stanzas = parse(text);
        let git = &stanzas["git"];
        assert_eq!(
            (git.version.as_str(), git.size, git.packed),
            ("1:2.39", 2048, 700)
        );
        assert_eq!(git.source, "git-src");
        assert_eq!(git.depends, [vec!["libc6"], vec!["perl", "perl-base"]]);
        assert_eq!(stanzas["sed"].source, "sed");
    }
}
