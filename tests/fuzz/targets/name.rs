//! A repository name, and the package set that it asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::PackageSet;
use nixgate_core::distribution::Repository;

fuzz_target!(|name: &str| {
    let Ok(repository) = Repository::parse(name) else {
        return;
    };
    assert_eq!(repository.as_str(), name);
    if let Ok(set) = PackageSet::of(&repository) {
        let canonical = Repository::parse(&set.to_string()).expect("the canonical name is one");
        assert_eq!(PackageSet::of(&canonical), Ok(set));
    }
});
