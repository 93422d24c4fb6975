//! The edge's cache: what is kept ([`Entry`]), under what name ([`Key`]), and where
//! ([`Directory`]).
//!
//! Envoy's shared data is one map for all workers, without deletion, lifetime or bound. So the
//! filter owns a fixed number of sets in it. Each set is one small *directory* and a few *slots*:
//!
//! ```text
//!   hash(key) ──► set ──► directory: [ fingerprint, length, expires, stamp ] × 16 ways
//!                             │ way whose fingerprint matches
//!                             ▼
//!                         slot: whole key, expiry, facts, content, seal
//! ```
//!
//! A lookup reads the directory and at most one slot. The slot's whole key is compared, so a
//! fingerprint that two keys share, or a directory that another worker has just changed, costs a
//! miss and never a wrong answer. Each set has its share of the bytes; what does not fit drives
//! out what is asked for least in the set.
//!
//! In front of it, each worker has copies of what it answers most ([`Copies`]).

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
