//! Variables by which programs find what an image's packages bring: those that a Nix profile, or NixOS,
//! would set.
//!
//! | variable | when packages bring |
//! | --- | --- |
//! | `PYTHONPATH` | `lib/python<version>/site-packages`, for the version of the image's Python |
//! | `PERL5LIB` | `lib/perl5/site_perl` |
//! | `NODE_PATH` | `lib/node_modules` |
//! | `LOCALE_ARCHIVE` | `lib/locale/locale-archive` |
//! | `LANG=C.UTF-8` | programs whose C library has this locale |
//! | `TERMINFO_DIRS` | `share/terminfo`, `lib/terminfo` |
//! | `XDG_DATA_DIRS` | `share` |
//! | `MANPATH` | `share/man` |
//! | `FONTCONFIG_FILE` | `share/fonts`: a file of the image's that names it; or `etc/fonts/fonts.conf` |
//! | `TZDIR` | `share/zoneinfo` |
//! | `LD_LIBRARY_PATH` | a loader as nixpkgs has it, and libraries of the compiler ([`foreign`]) |
//!
//! # Modules
//!
//! An interpreter finds the modules that it came with by itself, so these alone set no variable. Perl looks
//! for its own version below `PERL5LIB`; Python doesn't, and modules of one version break another. So
//! `PYTHONPATH` is for one Python: the one that `/bin/python3` is. An image without a Python has none:
//! programs that bring their own know their modules.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

use super::foreign;
use super::known::Known;
use super::origins::Reason;
use super::tree::{Directory, Tree};
use crate::closure::StorePath;

pub(crate) type Environment = BTreeMap<String, String>;

/// The image's file of fonts, for fontconfig.
pub(super) const FONTS_FILE: &str = "etc/fonts/image.conf";

/// Variables that name one folder.
const FOLDERS: [(&str, &str); 4] = [
    ("MANPATH", "share/man"),
    ("TERMINFO_DIRS", "share/terminfo"),
    ("TZDIR", "share/zoneinfo"),
    ("XDG_DATA_DIRS", "share"),
];

/// Variables for folders of modules, and the program that has such a folder of its own.
const MODULES: [(&str, &str, &str); 2] = [
    ("NODE_PATH", "lib/node_modules", "bin/node"),
    ("PERL5LIB", "lib/perl5/site_perl", "bin/perl"),
];

/// The packages of an image.
pub(super) struct Packages<'p, 'a> {
    pub(super) known: &'p Known<'a>,
    pub(super) requested: &'p [&'a StorePath],
    /// The folders of modules of others.
    pub(super) modules: &'p [(&'a StorePath, &'a Tree)],
    /// Whether programs have the locale C.UTF-8.
    pub(super) has_utf8: bool,
}

impl<'a> Packages<'_, 'a> {
    /// The variables, and why each is set.
    pub(super) fn environment(&self) -> (Environment, BTreeMap<String, Vec<Reason>>) {
        let mut found = Found::default();
        for (name, folder) in FOLDERS {
            found.set(name, folder, folder, self.bring_folder(folder));
        }
        for (name, folder, program) in MODULES {
            let packages = self.bring_modules(folder, Path::new(program));
            found.set(name, folder, folder, packages);
        }
        if let Some(python) = self.python() {
            let folder = format!("lib/{python}/site-packages");
            let packages = self.bring_modules(&folder, &Path::new("bin").join(&python));
            found.set("PYTHONPATH", &folder, &folder, packages);
        }
        let fonts = "share/fonts";
        found.set(
            "FONTCONFIG_FILE",
            FONTS_FILE,
            fonts,
            self.bring_folder(fonts),
        );
        if !found.environment.contains_key("FONTCONFIG_FILE") {
            let file = "etc/fonts/fonts.conf";
            found.set("FONTCONFIG_FILE", file, file, self.bring(file));
        }
        let archive = "lib/locale/locale-archive";
        found.set("LOCALE_ARCHIVE", archive, archive, self.bring(archive));
        let packages = self.requested.iter().copied();
        let libraries = foreign::libraries(self.known, packages);
        if let Some((library, _)) = libraries.first() {
            let bring = libraries
                .iter()
                .flat_map(|(library, _)| self.bring(library));
            let packages: BTreeSet<_> = bring.collect();
            let packages = packages.into_iter().collect();
            found.set("LD_LIBRARY_PATH", foreign::FOLDER, library, packages);
        }
        // Debian's place for them.
        let terminfo = "lib/terminfo";
        found.set(
            "TERMINFO_DIRS",
            terminfo,
            terminfo,
            self.bring_folder(terminfo),
        );
        if self.has_utf8 {
            let value = "C.UTF-8".to_owned();
            found.environment.insert("LANG".to_owned(), value);
            let reason = Reason {
                what: "the C library has this locale".to_owned(),
                packages: Vec::new(),
            };
            found.reasons.insert("LANG".to_owned(), vec![reason]);
        }
        (found.environment, found.reasons)
    }

    /// Versions of Python whose modules the image has, but that are not its Python's: `python3.12`.
    pub(super) fn other_pythons(&self) -> Vec<String> {
        let own = self.python();
        let library = Path::new("lib");
        let roots = self.requested.iter();
        let requested = roots.filter_map(|package| self.known.find(package, library));
        let modules = self.modules.iter();
        let modules = modules.filter_map(|(_, tree)| tree.below(library));
        let mut found: Vec<String> = Vec::new();
        for folders in requested.chain(modules) {
            let Tree::Directory(folders) = folders else {
                continue;
            };
            for name in folders.keys().filter_map(|name| name.to_str()) {
                let folder = format!("lib/{name}/site-packages");
                let program = Path::new("bin").join(name);
                if version(name).is_some()
                    && own.as_deref() != Some(name)
                    && !found.iter().any(|known| known == name)
                    && !self.bring_modules(&folder, &program).is_empty()
                {
                    found.push(name.to_owned());
                }
            }
        }
        found
    }

    /// The image's Python, as its program is called: `python3.13`.
    pub(super) fn python(&self) -> Option<String> {
        let first_with = |program: &str| {
            let mut packages = self.requested.iter();
            packages.find(|package| self.known.find(package, Path::new(program)).is_some())
        };
        let programs = ["bin/python3", "bin/python"];
        let python = programs.iter().find_map(|program| first_with(program))?;
        let Some(Tree::Directory(programs)) = self.known.find(python, Path::new("bin")) else {
            return None;
        };
        highest_python(programs)
    }

    /// The packages that have a path.
    fn bring(&self, path: &str) -> Vec<&'a StorePath> {
        let packages = self.requested.iter().copied();
        let found = packages.filter(|package| self.known.has(package, Path::new(path)));
        found.collect()
    }

    fn bring_folder(&self, path: &str) -> Vec<&'a StorePath> {
        let packages = self.requested.iter().copied();
        packages
            .filter(|package| {
                let found = self.known.find(package, Path::new(path));
                matches!(found, Some(Tree::Directory(_)))
            })
            .collect()
    }

    /// The packages that have modules in a folder, other than the interpreter with this program.
    fn bring_modules(&self, folder: &str, interpreter: &Path) -> Vec<&'a StorePath> {
        let requested = self.bring_folder(folder).into_iter();
        let requested = requested.filter(|package| self.known.find(package, interpreter).is_none());
        let modules = self.modules.iter();
        let modules = modules.filter(|(_, tree)| tree.below(Path::new(folder)).is_some());
        requested
            .chain(modules.map(|(package, _)| *package))
            .collect()
    }
}

#[derive(Default)]
struct Found {
    environment: Environment,
    reasons: BTreeMap<String, Vec<Reason>>,
}

impl Found {
    /// Sets a variable to a path, or adds the path to it, if any packages bring what it is for.
    fn set(&mut self, name: &str, path: &str, what: &str, packages: Vec<&StorePath>) {
        if packages.is_empty() {
            return;
        }
        let value = self.environment.entry(name.to_owned()).or_default();
        if !value.is_empty() {
            value.push(':');
        }
        value.push('/');
        value.push_str(path);
        let reason = Reason {
            what: format!("/{what}"),
            packages: packages.into_iter().cloned().collect(),
        };
        self.reasons
            .entry(name.to_owned())
            .or_default()
            .push(reason);
    }
}

/// The version in `python3.13`.
fn version(name: &str) -> Option<(u32, u32)> {
    let (major, minor) = name.strip_prefix("python")?.split_once('.')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let both = is_number(major) && is_number(minor);
    both.then(|| Some((major.parse().ok()?, minor.parse().ok()?)))?
}

fn highest_python(programs: &Directory) -> Option<String> {
    let names = programs.keys().filter_map(|name| OsStr::to_str(name));
    let versions = names.filter_map(|name| Some((version(name)?, name)));
    versions.max().map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests;
