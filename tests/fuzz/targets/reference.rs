//! The tag or digest at the end of a manifest's path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::distribution::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
});
