//! nixgate's builder: makes images of package lists with Nix, and serves them to the edge.
//!
//! ```text
//!   commands ──► engine ──► builder ──┬─ source    where packages come from, pinned
//!      │           │                  ├─ nix       resolves and realises them
//!      ▼           ▼                  ├─ closure, layering, layer, image   what is published
//!   server      storage, records      └─ storage, records                  and where
//! ```
//!
//! docs/src/architecture.md lists the modules in the order in which they import each other.

mod builder;
mod closure;
mod commands;
mod config;
mod engine;
mod files;
mod fingerprint;
mod image;
mod index;
mod layer;
mod layering;
mod login;
mod memo;
mod negative_ttl;
mod nix;
mod process;
mod records;
mod request;
mod server;
mod source;
mod storage;
mod telemetry;

pub use commands::{Command, run};
pub use telemetry::logging::{CRITICAL, LogFormat, start_log};
pub use telemetry::redact::{keep_environment, redact};
