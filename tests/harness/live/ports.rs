//! Free ports on loopback.

use std::fs;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::{process, vec};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// Where most services that have no well-known port are, and no program of a fresh machine.
const CANDIDATES: RangeInclusive<u16> = 10_000..=60_999;

/// A port that nothing listens on, and that neither this process nor the kernel gives again soon.
///
/// It is none of those that the kernel takes for connections: it would give one away between the
/// choice and the bind, which the thousands of connections of a test beside this one make likely.
///
/// # Errors
/// When all are taken.
pub fn free() -> Result<u16> {
    static PORTS: Mutex<Option<vec::IntoIter<u16>>> = Mutex::new(None);
    let mut ports = PORTS.lock();
    ports
        .get_or_insert_with(|| candidates().into_iter())
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .context("no free port on loopback")
}

/// The ports to try, in turn. Test binaries that run at the same time start at different places.
fn candidates() -> Vec<u16> {
    let connections = ports_of_connections();
    let mut usable: Vec<u16> = CANDIDATES
        .filter(|port| !connections.contains(port))
        .collect();
    let start = process::id() as usize * 61 % usable.len().max(1);
    usable.rotate_left(start);
    usable
}

/// `ip_local_port_range` of ip(7): what the kernel chooses from for a connection.
fn ports_of_connections() -> RangeInclusive<u16> {
    let file = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = file.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        // The kernel's default.
        _ => 32_768..=60_999,
    }
}
