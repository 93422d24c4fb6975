//! The limit of open files, which includes connections.
//!
//! The soft limit protects programs with `select`, which can't wait for file 1024 and beyond. The builder
//! uses none, so it raises its limit to the hard one. Its children keep the soft one, since builds are
//! programs of all kinds.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit at the builder's start.
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit to the hard one; returns the new limit.
pub(crate) fn raise() -> u64 {
    let given = GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = Rlimit {
        current: given.maximum,
        ..*given
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The limit of a child; none if the builder's was not raised.
pub(crate) fn of_child() -> Option<Rlimit> {
    GIVEN.get().copied()
}
