//! From a repository name to the package set that it requests.
//!
//! ```text
//!   arm64/shell/htop/git/git        what a client wrote
//!        │ split at `/`, expand meta-packages, add what every image has,
//!        │ drop repetitions, sort
//!        ▼
//!   system aarch64-linux
//!   bashinteractive cacert coreutils git htop iana-etc moreutils nano
//!        │ print
//!        ▼
//!   arm64/bashinteractive/cacert/coreutils/git/htop/iana-etc/moreutils/nano
//! ```
//!
//! The order of a name never matters: `git/htop` and `htop/git` are one set, hence one cache
//! entry, one build and one digest. The printed form is a repository name again, and parses to
//! the set that it was printed from; filter and builder exchange nothing else.
//!
//! A meta-package is expanded in any position, unlike in Nixery, where only the first one is: sorting
//! would otherwise change the meaning of a name. So attributes with one of these names can't be
//! requested; nixpkgs has none.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::distribution::{Error, MAX_NAME_LENGTH, Repository, SHORTER};

/// A platform that images are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum System {
    /// `x86_64-linux`, the meta-package `amd64`
    #[serde(rename = "x86_64-linux")]
    X86_64Linux,
    /// `aarch64-linux`, the meta-package `arm64`
    #[serde(rename = "aarch64-linux")]
    Aarch64Linux,
}

impl System {
    const ALL: [Self; 2] = [Self::X86_64Linux, Self::Aarch64Linux];

    /// Nix's name for it.
    pub const fn nix(self) -> &'static str {
        match self {
            Self::X86_64Linux => "x86_64-linux",
            Self::Aarch64Linux => "aarch64-linux",
        }
    }

    /// The image spec's name for its processor (`GOARCH`), which is the meta-package's too.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::X86_64Linux => "amd64",
            Self::Aarch64Linux => "arm64",
        }
    }

    /// The platform that Nix calls `name`.
    pub fn from_nix(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.nix() == name)
    }

    fn from_architecture(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|system| system.architecture() == name)
    }
}

/// In every image: TLS roots, and the tables of protocols and services.
const BASE: [&str; 2] = ["cacert", "iana-etc"];
/// The meta-package `shell`.
const SHELL: [&str; 4] = ["bashinteractive", "coreutils", "moreutils", "nano"];
/// The meta-package `builder` adds these to a shell. nixpkgs' `stdenv` alone adds no program to `/bin`,
/// so the compiler and make are listed beside it.
const BUILDER: [&str; 3] = ["stdenv", "stdenv.cc", "gnumake"];

/// The meta-package `ci` adds these to a shell: what jobs of CI systems use, and what programs need that Nix
/// has not built. GitHub's runner mounts its own Node.js into the container of a job.
///
/// Outputs are named where nixpkgs would install another: `glibc.out` has the loader, `glibc` alone `ldd` and
/// `getconf`, by which installers tell which C library there is; `tzdata.out` has the zones.
/// `gcc-unwrapped.lib` is the C++ library that nixpkgs' own programs use.
const CI: [&str; 13] = [
    "diffutils",
    "findutils",
    "gawk",
    "gcc-unwrapped.lib",
    "glibc",
    "glibc.out",
    "gnugrep",
    "gnused",
    "gnutar",
    "gzip",
    "tzdata.out",
    "xz",
    "zstd",
];

/// The meta-packages, and what each adds to [`SHELL`].
const META: [(&str, &[&str]); 3] = [("builder", &BUILDER), ("ci", &CI), ("shell", &[])];

/// The most packages of an image, with those of meta-packages and those that every image has. It
/// bounds the length of an evaluation and of an error message.
pub const MAX_PACKAGES: usize = 128;

/// The members of a meta-package; none when `name` is another package or a platform.
pub fn members(name: &str) -> Option<Vec<&'static str>> {
    let (_, more) = META.iter().find(|(meta, _)| *meta == name)?;
    Some(SHELL.iter().chain(*more).copied().collect())
}

/// Whether `package` is in every image.
pub fn is_in_every_image(package: &str) -> bool {
    BASE.contains(&package)
}

/// Whether a component is reserved: a meta-package or a platform, or a package that expansion adds.
pub(crate) fn has_meaning(component: &str) -> bool {
    members(component).is_some()
        || System::from_architecture(component).is_some()
        || is_in_every_image(component)
        || SHELL
            .iter()
            .chain(META.iter().flat_map(|(_, more)| *more))
            .any(|member| *member == component)
}

/// An attribute path as image names have it: in lower case, and without the `_` that Nix puts before a
/// digit.
pub fn canonical_path(path: &str) -> String {
    let lower = path.to_ascii_lowercase();
    let attributes: Vec<&str> = lower
        .split('.')
        .map(|attribute| match attribute.strip_prefix('_') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
            _ => attribute,
        })
        .collect();
    attributes.join(".")
}

/// A package, then its parents: `git.doc`, `git`. A policy that denies a package denies everything below
/// it.
pub fn with_parents(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| Some(path.rsplit_once('.')?.0))
}

/// The output `out` that a path goes on below. Every output has all outputs of its package as
/// attributes, so `git.out.out` would be another name of `git.out`, and so on without end. Only the
/// builder knows the other outputs.
fn output_with_more(path: &str) -> Option<&str> {
    let (package, _) = path.split_once(".out.")?;
    path.get(..package.len().saturating_add(".out".len()))
}

/// How many different packages a client wrote: a meta-package counts as one, a platform as none.
pub fn written(repository: &Repository) -> usize {
    let components: BTreeSet<&str> = repository.components().collect();
    let is_package = |name: &&&str| System::from_architecture(name).is_none();
    components.iter().filter(is_package).count()
}

/// The contents of an image: attribute paths, and the platform if the name has one.
///
/// Attribute paths are in lower case, as repository names are; the builder finds
/// `haskellPackages.hoogle` for `haskellpackages.hoogle`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageSet {
    system: Option<System>,
    packages: BTreeSet<String>,
}

impl PackageSet {
    /// Parses a repository name.
    ///
    /// # Errors
    /// [`ErrorKind::NameInvalid`](crate::distribution::ErrorKind::NameInvalid) for two platforms, a path
    /// below an output, more than [`MAX_PACKAGES`] packages, or a canonical form over the limit of names.
    pub fn of(repository: &Repository) -> Result<Self, Error> {
        let mut packages: BTreeSet<&str> = BASE.into();
        let mut systems = BTreeSet::new();
        for component in repository.components() {
            if let Some(members) = members(component) {
                packages.extend(members);
            } else if let Some(system) = System::from_architecture(component) {
                systems.insert(system);
            } else if let Some(output) = output_with_more(component) {
                return Err(Error::name_invalid(format!(
                    "{component} goes on below the output {output}, which contains no packages. Ask \
                     for {output}"
                )));
            } else {
                packages.insert(component);
            }
        }
        if systems.len() > 1 {
            return Err(Error::name_invalid(
                "the name asks for two platforms, amd64 and arm64. Ask for one of them",
            ));
        }
        let count = packages.len();
        if count > MAX_PACKAGES {
            return Err(Error::name_invalid(format!(
                "the name asks for {count} packages, including those of meta-packages; at most \
                 {MAX_PACKAGES} are allowed. {SHORTER}"
            )));
        }
        let set = Self {
            system: systems.pop_first(),
            packages: packages.into_iter().map(str::to_owned).collect(),
        };
        let length = set.canonical_length();
        if length > MAX_NAME_LENGTH {
            return Err(Error::name_invalid(format!(
                "the name is too long: with its meta-packages expanded it has {length} characters; \
                 at most {MAX_NAME_LENGTH} are allowed. {SHORTER}"
            )));
        }
        Ok(set)
    }

    /// The platform of the name; without one, the builder's own applies.
    pub const fn system(&self) -> Option<System> {
        self.system
    }

    /// The attribute paths, sorted.
    pub fn packages(&self) -> impl ExactSizeIterator<Item = &str> {
        self.packages.iter().map(String::as_str)
    }

    /// The parts of the canonical name.
    fn components(&self) -> impl Iterator<Item = &str> {
        let system = self.system.map(System::architecture);
        system.into_iter().chain(self.packages())
    }

    /// The length of the canonical name, in bytes.
    fn canonical_length(&self) -> usize {
        let with_slashes = self.components().map(|part| part.len().saturating_add(1));
        with_slashes.sum::<usize>().saturating_sub(1)
    }

    /// The shortest name of the set: with meta-packages, and without the packages of every image.
    pub fn short_name(&self) -> String {
        let has = |members: &[&str]| members.iter().all(|one| self.packages.contains(*one));
        let mut members: Vec<&str> = Vec::new();
        let mut parts: Vec<&str> = Vec::new();
        for (meta, more) in META.into_iter().filter(|_| has(&SHELL)) {
            // `shell` is part of the others.
            if has(more) && (parts.is_empty() || !more.is_empty()) {
                parts.push(meta);
                members.extend(SHELL.iter().chain(more));
            }
        }
        let rest = self
            .packages()
            .filter(|package| !is_in_every_image(package) && !members.contains(package));
        parts.extend(rest);
        if parts.is_empty() {
            parts.extend(BASE.first());
        }
        let system = self.system.map(System::architecture);
        let parts: Vec<&str> = system.into_iter().chain(parts).collect();
        parts.join("/")
    }

    /// Whether the image has the shell of the meta-package `shell`, and starts it.
    pub fn has_shell(&self) -> bool {
        self.packages.contains("bashinteractive")
    }
}

/// The canonical repository name.
impl fmt::Display for PackageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, component) in self.components().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(component)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::distribution::ErrorKind;

    fn canonical(name: &str) -> String {
        PackageSet::of(&Repository::parse(name).unwrap())
            .unwrap()
            .to_string()
    }

    fn check(name: &str, expected: Expect) {
        expected.assert_eq(&canonical(name));
    }

    #[test]
    fn every_image_has_tls_roots_and_protocol_tables() {
        check("git", expect!["cacert/git/iana-etc"]);
        check("cacert", expect!["cacert/iana-etc"]);
    }

    #[test]
    fn meta_packages_are_expanded_wherever_they_stand() {
        check(
            "shell/git",
            expect!["bashinteractive/cacert/coreutils/git/iana-etc/moreutils/nano"],
        );
        check(
            "git/shell",
            expect!["bashinteractive/cacert/coreutils/git/iana-etc/moreutils/nano"],
        );
        check(
            "builder/hello",
            expect![
                "bashinteractive/cacert/coreutils/gnumake/hello/iana-etc/moreutils/nano/stdenv/stdenv.cc"
            ],
        );
        check(
            "ci/go",
            expect![
                "bashinteractive/cacert/coreutils/diffutils/findutils/gawk/gcc-unwrapped.lib/glibc/glibc.out/gnugrep/gnused/gnutar/go/gzip/iana-etc/moreutils/nano/tzdata.out/xz/zstd"
            ],
        );
        check(
            "arm64/shell",
            expect!["arm64/bashinteractive/cacert/coreutils/iana-etc/moreutils/nano"],
        );
        check("git/arm64/arm64", expect!["arm64/cacert/git/iana-etc"]);
    }

    #[test]
    fn the_shortest_name_has_what_was_meant() {
        let short = |name: &str| {
            let set = PackageSet::of(&Repository::parse(name).unwrap()).unwrap();
            set.short_name()
        };
        for (name, expected) in [
            ("git", "git"),
            ("htop/iana-etc/git/git", "git/htop"),
            ("cacert", "cacert"),
            ("iana-etc", "cacert"),
            ("shell", "shell"),
            ("nano/moreutils/coreutils/bashinteractive/git", "shell/git"),
            (
                "nano/moreutils/coreutils/git",
                "coreutils/git/moreutils/nano",
            ),
            ("hello/builder/arm64/shell", "arm64/builder/hello"),
            ("ci/git/shell", "ci/git"),
            ("git/ci/builder", "builder/ci/git"),
            ("builder/gawk", "builder/gawk"),
        ] {
            assert_eq!(short(name), expected, "{name}");
        }
    }

    #[test]
    fn two_platforms_are_refused() {
        let name = Repository::parse("arm64/amd64/git").unwrap();
        assert_eq!(
            PackageSet::of(&name).unwrap_err().kind,
            ErrorKind::NameInvalid
        );
    }

    #[test]
    fn nothing_is_below_an_output() {
        let set = |name: &str| PackageSet::of(&Repository::parse(name).unwrap());
        for (name, output) in [
            ("git.out.out", "git.out"),
            ("git.out.doc", "git.out"),
            ("hello/a.b.out.out.out", "a.b.out"),
        ] {
            let error = set(name).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NameInvalid, "{name}");
            assert!(
                error.message.ends_with(&format!("Ask for {output}")),
                "{error}"
            );
        }
        for name in [
            "git.out",
            "git.doc",
            "out.out",
            "git.outer.out",
            "git.out-1.x",
        ] {
            assert!(set(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_path_has_parents() {
        let all = |path| with_parents(path).collect::<Vec<_>>();
        assert_eq!(all("git"), ["git"]);
        assert_eq!(all("a.b-1.c"), ["a.b-1.c", "a.b-1", "a"]);
    }

    #[test]
    fn a_name_whose_canonical_form_would_be_none_is_refused() {
        // What is added to it: `cacert/` and `/iana-etc`.
        let room = MAX_NAME_LENGTH - "cacert/".len() - "/iana-etc".len();
        let set = |name: &str| PackageSet::of(&Repository::parse(name).unwrap());
        let longest = set(&"f".repeat(room)).unwrap().to_string();
        assert_eq!(longest.len(), MAX_NAME_LENGTH);
        assert!(set(&longest).is_ok(), "the canonical form is a name again");
        for name in [
            "f".repeat(room + 1),
            format!("{}/shell", "f".repeat(room - 6)),
        ] {
            assert_eq!(set(&name).unwrap_err().kind, ErrorKind::NameInvalid);
        }
    }

    #[test]
    fn more_packages_than_an_image_may_have_are_refused() {
        let set = |count: usize| {
            let names: Vec<_> = (0..count).map(|number| format!("p{number}")).collect();
            PackageSet::of(&Repository::parse(&names.join("/")).unwrap())
        };
        let added = BASE.len();
        assert_eq!(
            set(MAX_PACKAGES - added).unwrap().packages().len(),
            MAX_PACKAGES
        );
        let error = set(MAX_PACKAGES - added + 1).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NameInvalid);
        assert!(error.message.contains("129 packages"), "{error}");
    }

    #[test]
    fn separators_keep_names_apart() {
        assert_ne!(canonical("jq/nano"), canonical("jqnano"));
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(
            mut components in prop::collection::vec(
                prop::sample::select(vec!["shell", "builder", "ci", "git", "htop", "arm64", "1password", "stdenv.cc"]),
                1..8,
            ),
            rotate in 0_usize..8,
        ) {
            let first = canonical(&components.join("/"));
            let by = rotate % components.len();
            components.rotate_left(by);
            components.push(components[0]);
            prop_assert_eq!(&first, &canonical(&components.join("/")));
            prop_assert_eq!(&first, &canonical(&first), "the printed form parses to the same set");
            let set = PackageSet::of(&Repository::parse(&first).unwrap()).unwrap();
            prop_assert_eq!(&first, &canonical(&set.short_name()), "and so does the shortest");
        }
    }
}
