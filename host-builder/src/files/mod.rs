//! Files of the builder's own: those that are read again when they change, that expire, or that fill a
//! disk.

pub(crate) mod disk;
pub(crate) mod expiry;
pub(crate) mod reload;
pub(crate) mod state_dir;
