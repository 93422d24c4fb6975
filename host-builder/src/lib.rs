//! nixgate's builder: makes images of package lists with Nix, and serves them to the edge.
//!
//! ```text
//!   main ── config ── run
//!                      │
//!   server ────────────┤ HTTP: the registry API, for the filter alone
//!   login ─────────────┤ who a client is, for a token that Envoy checks
//!   wanted, recipes ───┤ what a name asks for
//!   builder ───────────┤ one build per image: resolve, realise, group, pack, publish
//!     ├─ source        │ where packages come from, pinned
//!     ├─ nix           │ Nix as a few questions
//!     ├─ closure       │ store paths and their graph            pure
//!     ├─ layering      │ which paths share a layer              pure
//!     ├─ layer         │ tar, gzip, the tree of symlinks        reads the Nix store
//!     └─ image         │ config and manifests                   pure
//!   publish, storage ──┤ what is kept, and in which order
//!   facts ─────────────┤ what is known of an image beyond its documents
//!   state_dir, disk ───┘ what is in the making, and whether there is room for it
//!
//!   logging, redact ───── what is told of all this, and no secret with it
//!
//!   policy ────────────── check, explain and test policies      pure, but for `--package-set`
//!   build ─────────────── builds one image, without a server
//!   warm ──────────────── builds ahead what a policy allows, by the parts above
//!   catalogue ─────────── the names of a package set, for both
//! ```

mod builder;
mod closure;
mod commands;
mod config;
mod engine;
mod files;
mod fingerprint;
mod image;
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
