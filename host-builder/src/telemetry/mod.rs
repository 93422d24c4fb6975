//! What the builder tells of itself: its log, its counters, how far builds are, and no secret in any
//! of them.

pub(crate) mod build_log;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod redact;
