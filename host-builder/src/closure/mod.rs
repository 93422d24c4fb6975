//! What Nix says of an image's packages: which store paths they need at run time.
//!
//! ```text
//!   requested packages          their closure
//!
//!   …-git-2.44 ──────────────▶ …-openssl-3.0 ──▶ …-glibc-2.39
//!            └───────────────▶ …-zlib-1.3 ─────────▲
//! ```
//!
//! [`StorePath`] is a path's parsed name, [`Closure`] the graph of the paths. Neither touches a
//! disk or asks Nix: both are made from what Nix has already answered, or from records of it.

mod graph;
mod store_path;

pub(crate) use graph::{Closure, PathInfo};
pub(crate) use store_path::{STORE_DIR, StorePath, package_name};
