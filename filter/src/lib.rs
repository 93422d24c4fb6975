//! nixgate's edge: a proxy-wasm filter that turns host calls into values of `nixgate-core`, and
//! the core's decisions into host calls. It decides nothing itself.
//!
//! ```text
//!  Envoy ─► proxy-wasm SDK ─┬─► stream   one HTTP request: answer it, let it pass, or wait
//!                           │      │ inbox (in memory) + wake-up (shared queue)
//!                           │      ▼
//!                           └─► root     one configuration: flights, callouts, answers to all
//!                                  │          who wait
//!            shared_cache ◄────────┤
//!                  │    caller ◄───┤     who asks, as Envoy knows it
//!                  │               │
//!                  ├───► host ◄────┘     every host call of the crate, statuses as errors
//!            telemetry                   counters, and facts for access logs
//! ```
//!
//! Each Envoy worker has a VM of its own with one thread. After an update of the configuration
//! the old and the new root context live in one VM, so what a root and its streams share hangs on
//! `Rc`s that the root hands out. The one static is a count, by which the old one learns of the new.
//!
//! A panic takes down the VM and every stream in it. The lints below refuse what panics, and
//! `host` goes beneath those methods of the SDK that unwrap.

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

mod caller;
mod edge;
mod header_map;
mod host;
mod respond;
mod root;
mod shared_cache;
mod stream;
mod telemetry;

use root::Root;

/// The release, and of which sources it is; the builder says the same of itself.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("NIXGATE_SOURCES"));

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
}}
