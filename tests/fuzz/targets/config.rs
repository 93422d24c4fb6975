//! The filter's configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::config::Config;

fuzz_target!(|json: &[u8]| {
    match Config::parse(json, |_| Some("token".to_owned())) {
        Ok(config) => {
            assert!((1..=22).contains(&config.hold));
            assert!(!config.cluster.is_empty() && !format!("{config:?}").contains("\"token\""));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
