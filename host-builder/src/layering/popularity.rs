//! Popularity: the number of packages in the package set that need a package.
//!
//! Counts are made in advance, and may be for older versions. So a name without a count is looked up again
//! without version and output.

use std::collections::BTreeMap;

use crate::closure::{StorePath, package_name};

/// Packages of every image. They are more popular than all others, so that every image begins with the same
/// layers.
const IN_EVERY_IMAGE: [&str; 3] = ["cacert", "nss-cacert", "iana-etc"];

/// Whether the package of this name is in every image.
pub(super) fn is_in_every_image(package: &str) -> bool {
    IN_EVERY_IMAGE.contains(&package)
}

/// Popularity of [`IN_EVERY_IMAGE`]: far above the number of packages, and small enough that the
/// product with a size of 4 GB fits into 64 bits.
const OF_EVERY_IMAGE: u64 = u32::MAX as u64;

/// Popularity of packages without a count.
const UNKNOWN: u64 = 1;

/// Popularity by name. The default has only the packages of every image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Popularity {
    by_name: BTreeMap<String, u64>,
    /// The highest count of all versions and outputs.
    by_package: BTreeMap<String, u64>,
}

impl Popularity {
    /// Never zero.
    pub(crate) fn of(&self, path: &StorePath) -> u64 {
        let package = path.package_name();
        if is_in_every_image(package) {
            return OF_EVERY_IMAGE;
        }
        self.by_name
            .get(path.name())
            .or_else(|| self.by_package.get(package))
            .map_or(UNKNOWN, |&count| count.clamp(UNKNOWN, OF_EVERY_IMAGE - 1))
    }
}

impl FromIterator<(String, u64)> for Popularity {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(counts: I) -> Popularity {
        let by_name: BTreeMap<String, u64> = counts.into_iter().collect();
        let mut by_package = BTreeMap::new();
        for (name, &count) in &by_name {
            let most = by_package
                .entry(package_name(name).to_owned())
                .or_insert(count);
            *most = count.max(*most);
        }
        Popularity {
            by_name,
            by_package,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popularity_of(name: &str) -> u64 {
        let counts = [
            ("glibc-2.39-5", 900),
            ("glibc-2.39-5-dev", 30),
            ("zlib", 70),
            ("void-1", 0),
            ("iana-etc-1", 2),
            ("vast-1", u64::MAX),
        ];
        let counts = counts.map(|(name, count)| (name.to_owned(), count));
        let path = format!("/nix/store/{}-{name}", "0".repeat(32))
            .parse()
            .unwrap();
        Popularity::from_iter(counts).of(&path)
    }

    #[test]
    fn the_exact_name_counts_before_the_package() {
        assert_eq!(popularity_of("glibc-2.39-5-dev"), 30);
        assert_eq!(popularity_of("glibc-2.39-5"), 900);
        assert_eq!(popularity_of("glibc-2.40"), 900);
        assert_eq!(popularity_of("zlib-1.3.1"), 70);
    }

    #[test]
    fn packages_of_every_image_are_the_most_popular_and_none_counts_less_than_one() {
        assert_eq!(popularity_of("nss-cacert-3.98"), OF_EVERY_IMAGE);
        assert_eq!(popularity_of("iana-etc-20231227"), OF_EVERY_IMAGE);
        assert!(popularity_of("vast-1") < OF_EVERY_IMAGE);
        assert_eq!(popularity_of("never-counted"), 1);
        assert_eq!(popularity_of("void-1"), 1);
    }
}
