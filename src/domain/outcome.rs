//! How a request ended: one Outcome for each, whether served or refused. Log line, metrics and the list of recent
//! requests are views of it.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::attempt::Attempt;
use super::cache::Cached;
use super::money::Usd;
use super::trace::{Trace, TraceId};
use super::usage::Usage;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The whole answer went to the client.
    Served,
    /// We said no, or no upstream could be asked; nothing was used.
    Refused,
    /// The upstream answered with an error, which the client was told.
    UpstreamError,
    /// The upstream broke off in the middle of its answer.
    UpstreamBroke,
    /// The client left before the end.
    ClientGone,
    /// We were stopped before the end.
    Interrupted,
}

impl Ending {
    /// All of them, for metrics that are born at 0.
    pub const ALL: [Self; 6] = [
        Self::Served,
        Self::Refused,
        Self::UpstreamError,
        Self::UpstreamBroke,
        Self::ClientGone,
        Self::Interrupted,
    ];

    /// The name in labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamBroke => "upstream_broke",
            Self::ClientGone => "client_gone",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Whose fault it is that a request failed, where it is not its sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blamed {
    /// Ours: full, without its database, or stopped.
    Gateway,
    /// A provider's, or nobody of the route could be asked.
    Upstream,
}

impl Blamed {
    /// Both, for metrics that are born at 0.
    pub const ALL: [Self; 2] = [Self::Gateway, Self::Upstream];

    /// The name in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// An attempt at a deployment that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedAttempt {
    /// Which one was asked.
    pub deployment: Arc<str>,
    /// Why it failed: a closed set.
    pub code: &'static str,
    /// What it used all the same, or may have.
    pub usage: Option<Usage>,
    /// What that costs.
    #[serde(rename = "cost_usd")]
    pub cost: Option<Usd>,
}

/// One request, as it ended. No word of the prompt or the answer is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The value of `x-request-id`.
    pub request_id: String,
    /// When it began, ms since 1970 UTC.
    pub at_ms: i64,
    /// The trace that it is part of: the caller's, or ours; none where neither makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// Where it stands in that trace, where we make spans.
    #[serde(skip)]
    pub trace: Option<Trace>,
    /// Which endpoint; empty where none was recognised.
    pub endpoint: &'static str,
    /// The key's alias, when one was recognised.
    pub key: Option<Arc<str>>,
    /// Its id.
    #[serde(skip)]
    pub key_id: Option<Arc<str>>,
    /// The alias of the team that owns the key.
    pub team: Option<Arc<str>>,
    /// The catalog's entry: a bounded set.
    pub model: Option<Arc<str>>,
    /// The name the client asked for.
    pub asked: Option<Arc<str>>,
    /// Which deployment answered, or was asked last.
    pub deployment: Option<Arc<str>>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// How it ended.
    pub ending: Ending,
    /// The status the client got; 0 when it left before one.
    pub status: u16,
    /// Our error code, when we made the error.
    pub code: Option<&'static str>,
    /// Whose fault it is where we said no, and not the sender's.
    #[serde(skip)]
    pub blames: Option<Blamed>,
    /// The upstream's status, when it gave one.
    pub upstream_status: Option<u16>,
    /// What the answer used, or else the last attempt at it; nothing when no upstream did any work.
    pub usage: Option<Usage>,
    /// Each time that a deployment was asked, in their order; written as how often that was.
    #[serde(serialize_with = "how_many")]
    pub attempts: Vec<Attempt>,
    /// The attempts before the answer, if there is one, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_attempts: Vec<FailedAttempt>,
    /// What the answer and all failed attempts cost.
    #[serde(rename = "cost_usd")]
    pub cost: Option<Usd>,
    /// Which stored prompt was put in, of the attempt that answered or was made last: `support@3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Arc<str>>,
    /// How many tokens that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected_tokens: Option<u64>,
    /// What the response cache did, of a request that came so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cached>,
    /// From the first byte at the door to the end, microseconds.
    pub duration_us: u64,
    /// The part of it in which neither the upstream nor the client nor a queue was waited for, microseconds.
    pub overhead_us: u64,
    /// From the first byte at the door to the answer's first byte from upstream, microseconds.
    pub first_byte_us: Option<u64>,
}

fn how_many<S: Serializer>(attempts: &[Attempt], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(attempts.len() as u64)
}

impl Outcome {
    /// Of a request of which nothing more is known yet; left so, it was interrupted.
    pub const fn begun(request_id: String, at_ms: i64) -> Self {
        Self {
            request_id,
            at_ms,
            endpoint: "",
            trace_id: None,
            trace: None,
            key: None,
            key_id: None,
            team: None,
            model: None,
            asked: None,
            deployment: None,
            stream: false,
            ending: Ending::Interrupted,
            status: 0,
            code: None,
            blames: None,
            upstream_status: None,
            usage: None,
            attempts: Vec::new(),
            failed_attempts: Vec::new(),
            cost: None,
            prompt: None,
            injected_tokens: None,
            cache: None,
            duration_us: 0,
            overhead_us: 0,
            first_byte_us: None,
        }
    }

    /// Whose fault it is that it failed, where it is not its sender's: what an error budget counts.
    pub fn blamed(&self) -> Option<Blamed> {
        match self.ending {
            Ending::Served | Ending::ClientGone => None,
            Ending::UpstreamBroke => Some(Blamed::Upstream),
            Ending::Interrupted => Some(Blamed::Gateway),
            Ending::UpstreamError => (self.status >= 500 || self.status == 429).then_some(Blamed::Upstream),
            Ending::Refused => self.blames,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn outcome(ending: Ending, status: u16, code: Option<&'static str>) -> Outcome {
        let begun = Outcome::begun("req_1".to_owned(), 0);
        Outcome { endpoint: "chat.completions", ending, status, code, ..begun }
    }

    #[test]
    fn whose_fault_it_is() {
        let (ours, theirs) = (Some(Blamed::Gateway), Some(Blamed::Upstream));
        for (ending, status, code, want) in [
            (Ending::Served, 200, None, None),
            (Ending::ClientGone, 0, Some("client_gone"), None),
            (Ending::Refused, 401, Some("invalid_api_key"), None),
            (Ending::UpstreamError, 400, None, None),
            (Ending::UpstreamError, 429, None, theirs),
            (Ending::UpstreamError, 502, Some("upstream_auth_failed"), theirs),
            (Ending::UpstreamBroke, 200, Some("upstream_broke"), theirs),
            (Ending::Interrupted, 0, None, ours),
        ] {
            assert_eq!(outcome(ending, status, code).blamed(), want, "{ending:?} {status} {code:?}");
        }
        // a refusal says itself whom it blames
        let refused = Outcome { blames: ours, ..outcome(Ending::Refused, 503, Some("overloaded")) };
        assert_eq!(refused.blamed(), ours);
    }
}
