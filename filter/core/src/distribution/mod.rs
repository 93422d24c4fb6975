//! The types of the OCI distribution specification.
//!
//! Each is parsed once, where input enters the program, and holds only values that the grammar allows.

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
pub use repository::Repository;
pub(crate) use repository::{MAX_LENGTH as MAX_NAME_LENGTH, SHORTER};
pub use route::Route;
pub(crate) use route::split_query;
