//! Shared data, which is open to every plugin of the same `vm_id`: directories and slots.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::PackageSet;
use nixgate_core::cache::{Directory, Entry, Key};
use nixgate_core::distribution::Repository;

fuzz_target!(|bytes: &[u8]| {
    let repository = Repository::parse("git").expect("a name of the grammar");
    let packages = PackageSet::of(&repository).expect("a name of one platform");
    let key = Key::tags("builder", &packages.into());

    // The key in front, which the fuzzer would hardly find: it is in no branch.
    let length = key.as_bytes().len() as u32;
    let slot = [&length.to_be_bytes(), key.as_bytes(), bytes].concat();
    if let Some(entry) = Entry::decode(&slot, &key) {
        assert_eq!(entry.encode(&key), slot);
    }

    let mut directory = Directory::decode(bytes);
    assert_eq!(Directory::decode(&directory.encode()), directory);
    directory.touch(bytes.len() % 20);
    if let Some(placement) = directory.place(&key, bytes.len() << 8, 10, 0) {
        assert_eq!(directory.find(&key), Some(placement.way));
    }
});
