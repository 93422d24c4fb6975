//! The builder's log, metrics and progress of builds, and redaction of secrets in all of them.

pub(crate) mod build_log;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod redact;
