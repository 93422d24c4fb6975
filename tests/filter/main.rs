//! The filter's module in a proxy-wasm host: what clients are answered, what the builder is asked.

mod blobs;
mod boundary;
mod cache;
mod configuration;
mod flights;
mod policy;
mod protocol;
mod shipped;
mod storm;
mod support;
mod telemetry;
