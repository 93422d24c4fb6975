//! Store paths and their closures.
//!
//! ```text
//!   requested packages          their closure
//!
//!   …-git-2.44 ──────────────▶ …-openssl-3.0 ──▶ …-glibc-2.39
//!            └───────────────▶ …-zlib-1.3 ─────────▲
//! ```
//!
//! [`StorePath`] is a path's parsed name, [`Closure`] the graph of the paths. Neither touches a disk or
//! asks Nix.

mod graph;
mod store_path;

pub(crate) use graph::{Closure, PathInfo};
pub(crate) use store_path::{STORE_DIR, StorePath, package_name};
