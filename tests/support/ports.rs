//! Ports of the loopback address that tests may use.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use super::wait::eventually;

/// Below the range that the system hands out by itself, so that nobody takes a port between our look and its use.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let offset = u16::try_from(std::process::id() % 9_000).expect("below 9 000");
    eventually("a free port", || {
        let port = 20_000 + (offset + NEXT_PORT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    })
}
