//! One time that a deployment was asked on behalf of a request.

use std::sync::Arc;

use super::deployment::Deployment;
use super::endpoint::Endpoint;
use super::trace::SpanId;
use super::usage::Usage;

/// An attempt. Times are microseconds since the request's first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Who was asked.
    pub deployment: Arc<Deployment>,
    /// The provider's own name of the model.
    pub model: Arc<str>,
    /// What it was asked for: chat, where a Responses request was translated.
    pub endpoint: Endpoint,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Its span; nothing where no trace is made.
    pub span: Option<SpanId>,
    /// When the connection or the request was begun.
    pub begun_us: u64,
    /// When the first event of a stream had come.
    pub first_chunk_us: Option<u64>,
    /// When it was over; nothing while it lasts.
    pub ended_us: Option<u64>,
    /// The upstream's status, when it gave one.
    pub status: Option<u16>,
    /// Why it failed: a closed set; nothing where it went well.
    pub code: Option<&'static str>,
    /// What it used.
    pub usage: Option<Usage>,
}
