//! A request's visit to one deployment: what is measured there and said to the board when it is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::{Board, Stay};
use crate::clock;
use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::fault::Fault;
use crate::domain::learned::Ended;
use crate::domain::speed::Observation;
use crate::domain::usage::{Usage, UsageSource};
use crate::telemetry::metrics::{AttemptSeen, Metrics, Operation};

/// An upstream that wants us to wait longer is asked again after this all the same.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(300);

/// A visit. Dropped, it says nothing about the deployment: the client has left, or we were refused for its own fault.
pub(super) struct Visit {
    stay: Stay,
    board: Arc<Board>,
    /// What its output was capped at, tokens.
    cap: Option<u64>,
    seen: Seen,
}

/// Who asks whom, and what for.
pub(super) struct Purpose {
    /// The catalog's model.
    pub(super) model: Arc<str>,
    /// Who is asked.
    pub(super) deployment: Arc<Deployment>,
    /// In which words.
    pub(super) endpoint: Endpoint,
    /// Whether the answer is asked for as a stream.
    pub(super) stream: bool,
}

impl Visit {
    /// Begins when the request is sent.
    pub(super) fn new(
        stay: Stay,
        board: Arc<Board>,
        purpose: Purpose,
        cap: Option<u64>,
        asked_at: Instant,
    ) -> Self {
        let seen = Seen::new(Arc::clone(board.metrics()), purpose, asked_at);
        Self { stay, board, cap, seen }
    }

    /// The stay itself, for what a head says.
    pub(super) const fn stay(&self) -> &Stay {
        &self.stay
    }

    /// The first of a stream has come.
    pub(super) fn first(&mut self) {
        let now = clock::monotonic();
        let came_at = self.seen.last_chunk_at.unwrap_or(now);
        self.seen.first_at.get_or_insert(came_at);
        self.stay.answered(now);
    }

    /// A chunk of a stream has come.
    pub(super) fn chunk(&mut self, now: Instant) {
        self.seen.chunk(now);
    }

    /// All has come, and well.
    pub(super) fn ended(mut self, usage: Option<&Usage>) {
        let now = clock::monotonic();
        // a score says nothing about how long answers are, or how fast
        let answers = self.seen.purpose.endpoint != Endpoint::Score;
        let reported = usage.filter(|usage| answers && usage.source == UsageSource::Reported);
        if let Some(usage) = reported {
            let was_cut = self.cap.is_some_and(|cap| usage.tokens.completion >= cap);
            let ended = if was_cut { Ended::AtItsCap } else { Ended::ByItself };
            let Purpose { model, deployment, .. } = &self.seen.purpose;
            self.board.note_usage(model, &deployment.name, &usage.tokens, ended);
        }
        self.seen.over(None, usage, now);
        let asked_at = self.seen.asked_at;
        let total_us = micros(asked_at, now);
        // embeddings have no output: their time is all to the first token
        let observed = reported.map(|usage| usage.tokens.completion);
        let observation = observed.map(|tokens| match self.seen.first_at {
            Some(first) => Observation::Stream { ttft_us: micros(asked_at, first), total_us, tokens },
            None => Observation::Whole { total_us, tokens },
        });
        self.stay.succeeded(observation, now);
    }

    /// It said no, and perhaps when to come again.
    pub(super) fn refused(mut self, fault: Fault, wait_asked: Option<Duration>) {
        let now = clock::monotonic();
        self.seen.over(Some(fault.code()), None, now);
        match (fault, wait_asked) {
            (Fault::Quota, _) => self.stay.out_of_quota(now),
            (Fault::Wait, Some(wait)) => self.stay.told_to_wait(wait.min(LONGEST_COOLDOWN), now),
            // a server without scores may be well in all else: that says nothing of the deployment
            (Fault::DeploymentMissing, _) if self.seen.purpose.endpoint == Endpoint::Score => {}
            // nothing else tells for how long to leave it alone
            (Fault::Wait | Fault::Transient | Fault::Auth | Fault::DeploymentMissing, _) => {
                self.stay.failed(fault.name(), now);
            }
            // it answers, so it is well
            (
                Fault::TooLarge
                | Fault::ContextLength
                | Fault::ContentFilter
                | Fault::Unsupported
                | Fault::Told,
                _,
            ) => self.stay.succeeded(None, now),
        }
    }

    /// It failed by the deployment's fault.
    pub(super) fn failed(mut self, cause: &'static str) {
        let now = clock::monotonic();
        self.seen.over(Some(cause), None, now);
        self.stay.failed(cause, now);
    }
}

/// What the metrics see of a visit: exactly one observation, however it ends.
struct Seen {
    metrics: Arc<Metrics>,
    purpose: Purpose,
    operation: Operation,
    asked_at: Instant,
    first_at: Option<Instant>,
    last_chunk_at: Option<Instant>,
    over: bool,
}

impl Seen {
    fn new(metrics: Arc<Metrics>, purpose: Purpose, asked_at: Instant) -> Self {
        let Purpose { model, deployment, endpoint, stream } = &purpose;
        let operation = metrics.upstreams.operation(model, deployment, *endpoint, *stream);
        Self { metrics, purpose, operation, asked_at, first_at: None, last_chunk_at: None, over: false }
    }

    fn chunk(&mut self, now: Instant) {
        if let (Some(last), Some(_)) = (self.last_chunk_at.replace(now), self.first_at) {
            self.operation.chunk(now.saturating_duration_since(last));
        }
    }

    fn over(&mut self, error: Option<&'static str>, usage: Option<&Usage>, now: Instant) {
        self.over = true;
        self.metrics.upstreams.over(&AttemptSeen {
            model: &self.purpose.model,
            deployment: &self.purpose.deployment,
            endpoint: self.purpose.endpoint,
            took: now.saturating_duration_since(self.asked_at),
            first_chunk_after: self.first_at.map(|first| first.saturating_duration_since(self.asked_at)),
            error,
            usage,
        });
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if !self.over {
            // nobody waits for it any more
            self.over(Some("client_gone"), None, clock::monotonic());
        }
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}
