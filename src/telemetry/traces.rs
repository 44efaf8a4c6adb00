//! Where traces go.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use crate::domain::secret::Secret;
use crate::domain::trace::SampleRatio;

/// A collector, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The whole address.
    pub url: String,
    /// Its host, for logs.
    pub authority: String,
    /// Sent with each batch.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Trusted instead of the system's roots, PEM.
    pub ca_file: Option<PathBuf>,
    /// The share of the traces begun here that is kept.
    pub ratio: SampleRatio,
    /// `service.name`.
    pub service_name: String,
    /// More attributes of the resource.
    pub resource: Vec<(String, String)>,
    /// For the collector to take a batch.
    pub timeout: Duration,
    /// How many requests may wait to be sent.
    pub queue: usize,
}
