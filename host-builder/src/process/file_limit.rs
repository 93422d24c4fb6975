//! How many files the builder may have open at once: its connections among them.
//!
//! The soft limit is what programs get that use `select`, which can't wait for a file beyond number
//! 1023. The builder doesn't, so it takes the hard one. What it starts keeps the soft one, since builds
//! are programs of all kinds.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit as the builder was given it.
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit as far as it may be raised, and says how many files that are.
pub(crate) fn raise() -> u64 {
    let given = GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = Rlimit {
        current: given.maximum,
        ..*given
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files can't be raised: {error}");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What a child gets; nothing when the limit is as it was.
pub(crate) fn of_children() -> Option<Rlimit> {
    GIVEN.get().copied()
}
