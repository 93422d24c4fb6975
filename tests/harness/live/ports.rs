//! Free ports on loopback.

use std::net::TcpListener;

use anyhow::{Context, Result};

/// A port that nothing listens on.
///
/// Another program could take it before it is used; the kernel gives the same one again only
/// after it went through the others, so that is rare enough.
///
/// # Errors
/// When the system has none.
pub fn free() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
    Ok(listener.local_addr()?.port())
}
