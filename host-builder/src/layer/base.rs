//! What every image has that ordinary programs need.
//!
//! | path | for |
//! | --- | --- |
//! | `/tmp`, `/var/tmp`, mode 1777 | nearly everything |
//! | `/root`, mode 0700 | `HOME` of root: git, ssh and shells write there |
//! | `/home`, `/run` | other users' `HOME`; sockets and locks |
//! | `/dev`, `/proc`, `/sys` | a runtime mounts over them, and can't make them when the root is read-only |
//! | `/usr/bin/env` | `#!/usr/bin/env`; only when a package brings `bin/env` |
//! | `/lib64/ld-linux-x86-64.so.2`, `/usr/lib/foreign` | programs not built by Nix ([`foreign`]) |
//! | `/etc/os-release` | what asks which distribution this is; GitHub's runner so finds Alpine |
//! | `/etc/passwd`, `/etc/group` | `whoami`, ssh and git over ssh fail for a user without a name |
//! | `/etc/nsswitch.conf` | without it, some programs ask DNS before `/etc/hosts` |
//! | `/etc/ssl/certs/ca-certificates.crt` | Debian's name of the bundle, which many programs have compiled in |
//! | `/etc/fonts/image.conf` | fontconfig, which knows no `/share/fonts`; only when a package brings that |
//!
//! A package's own file wins. The directories are the image's, whatever a package has in their place.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::environment::FONTS_FILE;
use super::foreign;
use super::known::Known;
use super::root_tree::{RootEntry, RootTree};
use crate::closure::StorePath;

const DIRECTORIES: [(&str, u32); 8] = [
    ("dev", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var/tmp", 0o1777),
];

/// Directories of the root that container runtimes mount over, and the store.
const MOUNTED: [&str; 4] = ["dev", "nix", "proc", "sys"];

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
";

/// The group of `nobody` has both names that programs look for.
const GROUP: &str = "\
root:x:0:
nogroup:x:65534:
nobody:x:65534:
";

/// Without a version: one set of packages has one digest.
const OS_RELEASE: &str = "\
NAME=nixgate
ID=nixgate
PRETTY_NAME=\"nixgate image\"
";

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
services: files
protocols: files
";

/// The packages' own configuration is included, if they have one.
const FONTS: &str = r#"<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
</fontconfig>
"#;

/// Whether a runtime mounts over a directory of the root, or it has the store.
pub(super) fn is_mounted(name: &OsStr) -> bool {
    MOUNTED.iter().any(|mounted| name == *mounted)
}

/// Whether everybody may write to a directory of the image's own, or a runtime mounts something there.
pub(super) fn is_for_everybody(path: &Path) -> bool {
    let is_mounted = path.iter().next().is_some_and(is_mounted);
    let shared = |(own, mode): &(&str, u32)| Path::new(own) == path && mode & 0o002 != 0;
    is_mounted || DIRECTORIES.iter().any(shared)
}

/// What one image gets.
#[derive(Debug)]
pub(super) struct Base {
    files: Vec<(&'static str, RootEntry)>,
    /// The directories, and those above the files.
    directories: BTreeSet<PathBuf>,
}

impl Base {
    /// For an image of these packages.
    pub(super) fn new<'a>(
        known: &Known<'a>,
        packages: impl Iterator<Item = &'a StorePath> + Clone,
    ) -> Self {
        let has = |path: &str| known.any_has(packages.clone(), Path::new(path));
        let file = |text: &'static str| RootEntry::File(text.into());
        let mut files = vec![
            ("etc/passwd", file(PASSWD)),
            ("etc/group", file(GROUP)),
            ("etc/nsswitch.conf", file(NSSWITCH)),
            ("etc/os-release", file(OS_RELEASE)),
        ];
        let link = |target: &str| RootEntry::Symlink(target.into());
        let (loader, foreign_loader) = foreign::LOADER;
        for (of, path, entry) in [
            ("bin/env", "usr/bin/env", link("/bin/env")),
            (
                "etc/ssl/certs/ca-bundle.crt",
                "etc/ssl/certs/ca-certificates.crt",
                link("ca-bundle.crt"),
            ),
            ("share/fonts", FONTS_FILE, file(FONTS)),
            (loader, foreign_loader, link(&format!("/{loader}"))),
        ] {
            if has(of) {
                files.push((path, entry));
            }
        }
        for (library, path) in foreign::libraries(known, packages.clone()) {
            files.push((path, link(&format!("/{library}"))));
        }
        let above = |path: &'static str| Path::new(path).ancestors().skip(1);
        let own = DIRECTORIES
            .iter()
            .flat_map(|(path, _)| Path::new(path).ancestors());
        let directories = files.iter().flat_map(|(path, _)| above(path)).chain(own);
        Self {
            directories: directories.map(Path::to_owned).collect(),
            files,
        }
    }

    /// Whether the image needs a directory there.
    pub(super) fn needs_directory(&self, path: &Path) -> bool {
        self.directories.contains(path)
    }

    /// Adds the directories, and those files that no package has.
    pub(super) fn add(&self, root: &mut RootTree) {
        for (path, mode) in DIRECTORIES {
            root.put_directory(Path::new(path), mode);
        }
        for (path, entry) in &self.files {
            root.put_if_absent(Path::new(path), entry.clone());
        }
    }
}
