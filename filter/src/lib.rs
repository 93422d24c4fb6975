//! nixgate's edge: a proxy-wasm filter that turns host calls into values of `nixgate-core`, and the core's
//! decisions into host calls. It decides nothing itself.
//!
//! ```text
//!  Envoy ─► proxy-wasm SDK ─┬─► stream   one HTTP request: answer it, pass it on, or wait
//!                           │      │ inbox (in memory) + wake-up (shared queue)
//!                           │      ▼
//!                           └─► root     one configuration: flights, callouts, answers
//!                                  │
//!            shared_cache ◄────────┤
//!                  │    caller ◄───┤     the caller's attributes, from Envoy
//!                  │               │
//!                  ├───► host ◄────┘     every host call of the crate, statuses as errors
//!            telemetry                   counters, and facts for access logs
//! ```
//!
//! Each Envoy worker has its own VM with one thread. After an update of the configuration the old and the
//! new root context share a VM, so a root and its streams share state by `Rc`. The only static is a count
//! by which the old root notices the new policy.
//!
//! A panic kills the VM with every stream in it. The lints below forbid panics, and `host` avoids the
//! methods of the SDK that unwrap.

#![cfg_attr(
    not(test),
    deny(
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::unreachable
    )
)]
#![allow(
    missing_docs,
    reason = "the only public item is the entry point that the SDK's macro makes"
)]

mod active_config;
mod caller;
mod header_map;
mod host;
mod last_good;
mod respond;
mod root;
mod shared_cache;
mod stream;
mod telemetry;

use root::Root;

/// The release and a hash of the sources, as the builder has it.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("NIXGATE_SOURCES"));

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
}}
