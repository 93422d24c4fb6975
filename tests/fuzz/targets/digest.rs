//! A digest, from a client or from the builder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::distribution::Digest;

fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_bytes(*digest.as_bytes()), digest);
    }
});
