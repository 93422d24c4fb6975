//! Files on the builder's machine: reloading, expiry, free disk space, the state folder.

pub(crate) mod disk;
pub(crate) mod expiry;
pub(crate) mod reload;
pub(crate) mod state_dir;
