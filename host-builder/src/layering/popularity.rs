//! How many other packages need a package, in the whole package set.
//!
//! Counts are made in advance, and seldom as fresh as the packages. So a name that is not among them
//! is looked up once more without version and output.

use std::collections::BTreeMap;

use crate::closure::{StorePath, package_name};

/// Packages that every image holds. They are more popular than anything that can be counted:
/// their layers should be the first of each image, and the same ones.
const IN_EVERY_IMAGE: [&str; 3] = ["cacert", "nss-cacert", "iana-etc"];

/// Popularity of [`IN_EVERY_IMAGE`]. Far above the number of packages that there are, and far
/// enough below the limits of 64 bits that sizes up to 4 GB still make a difference.
const OF_EVERY_IMAGE: u64 = u32::MAX as u64;

/// Popularity of packages that nobody has counted: their size alone rates them.
const UNKNOWN: u64 = 1;

/// Popularity of packages by name. The default knows none but those that every image holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Popularity {
    by_name: BTreeMap<String, u64>,
    /// Of several versions or outputs the one that most packages need.
    by_package: BTreeMap<String, u64>,
}

impl Popularity {
    /// How many packages need this one; never zero.
    pub(crate) fn of(&self, path: &StorePath) -> u64 {
        let package = path.package_name();
        if IN_EVERY_IMAGE.contains(&package) {
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
    fn nothing_is_more_popular_than_what_every_image_holds_or_less_than_once() {
        assert_eq!(popularity_of("nss-cacert-3.98"), OF_EVERY_IMAGE);
        assert_eq!(popularity_of("iana-etc-20231227"), OF_EVERY_IMAGE);
        assert!(popularity_of("vast-1") < OF_EVERY_IMAGE);
        assert_eq!(popularity_of("never-counted"), 1);
        assert_eq!(popularity_of("void-1"), 1);
    }
}
