//! The vocabulary of the OCI distribution specification: what a registry's clients say and hear.
//!
//! Each type is parsed once, at the edge of the program, and holds only what the grammar allows;
//! functions further in take the type and need not check again.

mod digest;
mod error;
mod media_type;
mod method;
mod reference;
mod referrers;
mod repository;
mod route;

pub use digest::{Digest, DigestInvalid};
pub use error::{Code, Error, ErrorKind};
pub use media_type::MediaType;
pub use method::Method;
pub use reference::{Reference, Tag};
pub use referrers::{INDEX_MEDIA_TYPE, no_referrers};
pub(crate) use repository::MAX_LENGTH as MAX_NAME_LENGTH;
pub use repository::Repository;
pub use route::Route;
pub(crate) use route::split_query;
