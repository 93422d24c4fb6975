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

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use super::foreign;
use super::known::Known;
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
    pub(super) modules: &'p [&'a Tree],
    /// Whether programs have the locale C.UTF-8.
    pub(super) has_utf8: bool,
}

impl Packages<'_, '_> {
    pub(super) fn environment(&self) -> Environment {
        let mut found = Environment::new();
        let mut set = |name: &str, path: &str| {
            found.insert(name.to_owned(), format!("/{path}"));
        };
        for (name, folder) in FOLDERS {
            if self.bring_folder(folder) {
                set(name, folder);
            }
        }
        for (name, folder, program) in MODULES {
            if self.bring_modules(folder, Path::new(program)) {
                set(name, folder);
            }
        }
        if let Some(python) = self.python() {
            let folder = format!("lib/{python}/site-packages");
            if self.bring_modules(&folder, &Path::new("bin").join(&python)) {
                set("PYTHONPATH", &folder);
            }
        }
        if self.bring_folder("share/fonts") {
            set("FONTCONFIG_FILE", FONTS_FILE);
        } else if self.bring("etc/fonts/fonts.conf") {
            set("FONTCONFIG_FILE", "etc/fonts/fonts.conf");
        }
        if self.bring("lib/locale/locale-archive") {
            set("LOCALE_ARCHIVE", "lib/locale/locale-archive");
        }
        if !foreign::libraries(self.known, self.requested.iter().copied()).is_empty() {
            set("LD_LIBRARY_PATH", foreign::FOLDER);
        }
        // Debian's place for them.
        if self.bring_folder("lib/terminfo") {
            let folders = found.entry("TERMINFO_DIRS".to_owned()).or_default();
            let separator = if folders.is_empty() { "" } else { ":" };
            folders.push_str(separator);
            folders.push_str("/lib/terminfo");
        }
        if self.has_utf8 {
            found.insert("LANG".to_owned(), "C.UTF-8".to_owned());
        }
        found
    }

    /// Versions of Python whose modules the image has, but that are not its Python's: `python3.12`.
    pub(super) fn other_pythons(&self) -> Vec<String> {
        let own = self.python();
        let library = Path::new("lib");
        let roots = self.requested.iter();
        let requested = roots.filter_map(|package| self.known.find(package, library));
        let modules = self.modules.iter();
        let modules = modules.filter_map(|tree| tree.below(library));
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
                    && self.bring_modules(&folder, &program)
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

    fn bring(&self, path: &str) -> bool {
        let packages = self.requested.iter().copied();
        self.known.any_has(packages, Path::new(path))
    }

    fn bring_folder(&self, path: &str) -> bool {
        let mut packages = self.requested.iter();
        packages.any(|package| {
            let found = self.known.find(package, Path::new(path));
            matches!(found, Some(Tree::Directory(_)))
        })
    }

    /// Whether packages have modules in a folder, other than the interpreter with this program.
    fn bring_modules(&self, folder: &str, interpreter: &Path) -> bool {
        let folder = Path::new(folder);
        let mut requested = self.requested.iter().filter(|package| {
            let found = self.known.find(package, folder);
            matches!(found, Some(Tree::Directory(_)))
        });
        let mut modules = self.modules.iter();
        requested.any(|package| self.known.find(package, interpreter).is_none())
            || modules.any(|tree| tree.below(folder).is_some())
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
