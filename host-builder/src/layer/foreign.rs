//! What programs need that were not built by Nix, such as the Node.js that GitHub's runner mounts into the
//! container of a job.
//!
//! # The loader
//!
//! A program for glibc names its loader by the path that every distribution has. nixpkgs' glibc has it in
//! `lib`, which is the right folder on aarch64 and not on `x86_64`, so the image adds a link.
//!
//! # Libraries
//!
//! nixpkgs' loader finds the libraries of its own glibc. It reads neither `/lib` nor `/etc/ld.so.cache`, so a
//! program does not find the C++ library that nearly every one needs. `LD_LIBRARY_PATH` is the only way to
//! tell it that needs no other program. But the variable holds for every program of the image, and goes before
//! the paths that Nix has written into its own: with `/lib`, any library there would replace another version
//! that a program was built with. So the variable names a folder with the two libraries of the compiler alone.
//! They are the ones that the set's own programs use, and newer versions of them work for older programs.
//!
//! Other libraries (zlib, OpenSSL) stay where they are: those that a foreign program needs are for whoever
//! starts it to name. A loader passes over libraries of another architecture, and a loader of other
//! distributions, as in the embedded set, finds its libraries in `/lib` itself: then the folder is not made.

use std::path::Path;

use super::known::Known;
use crate::closure::StorePath;

/// Loaders as nixpkgs' glibc has them, which read no folder outside of the store.
const LOADERS: [&str; 2] = ["lib/ld-linux-aarch64.so.1", "lib/ld-linux-x86-64.so.2"];

/// The loader in nixpkgs' glibc, and where programs look for it.
pub(super) const LOADER: (&str, &str) = ("lib/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2");

/// The folder of the libraries.
pub(super) const FOLDER: &str = "usr/lib/foreign";

/// The libraries in packages, and in that folder.
const LIBRARIES: [(&str, &str); 2] = [
    ("lib/libgcc_s.so.1", "usr/lib/foreign/libgcc_s.so.1"),
    ("lib/libstdc++.so.6", "usr/lib/foreign/libstdc++.so.6"),
];

/// The libraries of the folder in an image of these packages: their paths in the packages, and in the image.
pub(super) fn libraries<'a>(
    known: &Known<'a>,
    packages: impl Iterator<Item = &'a StorePath> + Clone,
) -> Vec<(&'static str, &'static str)> {
    let has = |path: &str| known.any_has(packages.clone(), Path::new(path));
    if !LOADERS.iter().any(|loader| has(loader)) {
        return Vec::new();
    }
    let libraries = LIBRARIES.into_iter();
    libraries.filter(|(library, _)| has(library)).collect()
}
