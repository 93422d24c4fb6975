//! What the tests of nixgate's parts stand on.

pub mod envoy_config;
#[cfg(feature = "e2e")]
pub mod live;
pub mod wasm_host;
