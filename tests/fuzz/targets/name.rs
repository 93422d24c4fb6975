//! A repository name, and what it asks for: a package set, or an image with an opaque name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::distribution::Repository;
use nixgate_core::{ImageName, OpaqueNamespaces, PackageSet};

fuzz_target!(|name: &str| {
    let Ok(repository) = Repository::parse(name) else {
        return;
    };
    assert_eq!(repository.as_str(), name);
    if let Ok(set) = PackageSet::of(&repository) {
        let canonical = Repository::parse(&set.to_string()).expect("the canonical name is one");
        assert_eq!(PackageSet::of(&canonical), Ok(set));
    }
    // Short, so that many names have them as components.
    let namespaces = ["a", "1"].map(str::to_owned);
    let namespaces = OpaqueNamespaces::new(namespaces).expect("components of names");
    if let Ok(image) = ImageName::of(&repository, &namespaces) {
        let canonical = Repository::parse(&image.to_string()).expect("the canonical name is one");
        assert_eq!(ImageName::of(&canonical, &namespaces), Ok(image));
    }
});
