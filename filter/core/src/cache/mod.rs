//! The edge's cache: its entries ([`Entry`]), their keys ([`Key`]) and their places ([`Directory`]).
//!
//! Envoy's shared data is one map for all workers, without deletion, expiry or limit. So the filter uses a
//! fixed number of sets in it, like a set-associative cache. Each set has a small *directory* and *slots*:
//!
//! ```text
//!   hash(key) ──► set ──► directory: [ fingerprint, length, expires, stamp ] × 16 ways
//!                             │ way whose fingerprint matches
//!                             ▼
//!                         slot: whole key, expiry, facts, content, seal
//! ```
//!
//! A lookup reads the directory and at most one slot. It compares the slot's whole key, so a fingerprint
//! that two keys share, or a directory that another worker has just changed, costs a miss and never a
//! wrong answer. Each set has its share of the bytes; a full set evicts the entries with the least demand.
//!
//! In front of it, each worker has copies of the entries that it uses most ([`Copies`]).

mod copies;
mod directory;
mod entry;
mod key;
mod seal;

pub use copies::{Copies, TICK};
pub use directory::{Directory, Geometry, Placement, Way};
pub use entry::{Content, Entry};
pub use key::Key;
pub use seal::Seal;
