//! The decisions that nixgate's two halves must make alike, as pure functions and state machines.
//!
//! ```text
//!              filter (wasm, in Envoy)                 host-builder (native)
//!        host calls ↔ values │                                 │ HTTP ↔ values
//!                            ▼                                 ▼
//!  ┌──────────────────────── nixgate-core ──────────────────────────────┐
//!  │ distribution   routes, names, digests, errors of the OCI spec      │
//!  │ image_name     repository name → package list, or opaque           │
//!  │ package_set    list of packages → canonical package set            │
//!  │ policy         who may have which packages                         │
//!  │ wire           the headers between edge and builder                │
//!  │ signature      signed requests of the edge to the builder          │
//!  │ entity_tags    conditions by digest (`If-None-Match`)              │
//!  │ json           JSON without duplicate keys                         │
//!  │ config         the filter's settings                               │
//!  │ cache          keys, entries and slots: pure over bytes            │
//!  │ exchange       one request, and the flight that several share      │
//!  └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing in here reads a clock, a file, the environment or a socket (`clippy.toml` refuses it). Time is
//! an argument, in whole seconds since the Unix epoch. Nothing panics: invalid input is an
//! [`Error`](distribution::Error) with a message for its sender.

#![cfg_attr(
    not(test),
    deny(
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::unreachable,
        clippy::arithmetic_side_effects
    )
)]

pub mod cache;
pub mod config;
pub mod distribution;
pub mod entity_tags;
pub mod exchange;
pub mod image_name;
mod json;
pub mod package_set;
pub mod policy;
#[cfg(any(test, feature = "test"))]
#[allow(clippy::panic, reason = "only tests write documentation")]
pub mod reference;
#[cfg(any(test, feature = "test"))]
pub mod requests;
pub mod signature;
#[cfg(test)]
mod untrusted_input;
pub mod wire;

pub use image_name::{ImageName, OpaqueNamespaces};
pub use json::each_key_once;
pub use package_set::PackageSet;

/// Seconds since the Unix epoch, the core's only notion of time.
pub type Seconds = u64;
