//! What goes wrong between us and an upstream.

use std::fmt;

/// Which wait ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// For the connection.
    Connect,
    /// For the answer's head.
    FirstByte,
    /// Between two pieces of the answer.
    BetweenChunks,
    /// For everything.
    Total,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::FirstByte => "waiting for the answer",
            Self::BetweenChunks => "waiting for more of the answer",
            Self::Total => "the whole exchange",
        })
    }
}

/// What goes wrong between us and an upstream. Never the client's fault; no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// Its name could not be looked up.
    #[error("its address can't be found: {0}")]
    Resolve(String),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// We have no credential to show.
    #[error("no credential: {0}")]
    Credential(String),
    /// A wait ran out.
    #[error("time-out while {0}")]
    Timeout(Phase),
    /// It broke off.
    #[error("it broke off: {0}")]
    Broken(String),
    /// Its answer is larger than we keep.
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl UpstreamError {
    /// The code in refusals, logs and metrics: a closed set.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Resolve(_) | Self::Connect(_) => "upstream_unreachable",
            Self::Credential(_) => "upstream_auth_failed",
            Self::Timeout(_) => "upstream_timeout",
            Self::Broken(_) | Self::TooLarge(_) => "upstream_broke",
        }
    }

    /// Whether the upstream can't have seen any of the request: only then is it safe to ask another.
    pub const fn nothing_was_sent(&self) -> bool {
        matches!(
            self,
            Self::Resolve(_) | Self::Connect(_) | Self::Credential(_) | Self::Timeout(Phase::Connect)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::UNANSWERED;

    #[test]
    fn every_code_has_a_series() {
        for error in [
            UpstreamError::Resolve(String::new()),
            UpstreamError::Connect(String::new()),
            UpstreamError::Credential(String::new()),
            UpstreamError::Timeout(Phase::Total),
            UpstreamError::Broken(String::new()),
            UpstreamError::TooLarge(1),
        ] {
            assert!(UNANSWERED.contains(&error.code()), "{error}");
        }
    }
}
