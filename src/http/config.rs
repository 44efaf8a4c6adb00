//! What the doors need to know.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

/// How the doors listen and what they bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The data address.
    pub listen: SocketAddr,
    /// The admin address.
    pub admin_listen: SocketAddr,
    /// A certificate for the data address: HTTP/1.1 and h2 by ALPN.
    pub tls: Option<Tls>,
    /// Plain-text HTTP/2, for an internal network only: a silent peer holds a connection there.
    pub h2c_listen: Option<SocketAddr>,
    /// Threads of the data plane.
    pub threads: usize,
    /// What a connection may ask of us.
    pub limits: Limits,
    /// What a request is told that a budget has no money for.
    pub budget_exceeded: StatusCode,
    /// How long running answers may finish after SIGTERM.
    pub drain_timeout: Duration,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The chain, leaf first.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// What a connection may ask of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Larger request bodies get 413.
    pub max_body_bytes: usize,
    /// For a whole request head.
    pub head_timeout: Duration,
    /// For each read of a request body.
    pub body_read_timeout: Duration,
    /// For the whole request body; of a file that is uploaded, for each mebibyte of it.
    pub body_total_timeout: Duration,
    /// An idle kept-alive connection.
    pub keepalive_timeout: Duration,
    /// A comment line after so much silence in a stream.
    pub sse_keepalive: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            head_timeout: Duration::from_secs(30),
            body_read_timeout: Duration::from_secs(60),
            body_total_timeout: Duration::from_secs(300),
            keepalive_timeout: Duration::from_secs(75),
            sse_keepalive: None,
        }
    }
}
