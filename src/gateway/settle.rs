//! At what a request is settled.
//!
//! What it used is known from the provider where it said so; else it is counted here and marked `estimated`; and where
//! tokens may have been made that nobody saw, it is an upper bound and marked `unconfirmed`.
//!
//! How long our own worker computed it says in the usage, too. Where that does not come, it is what the worker said when
//! the answer began, and the time since: it computes no longer than it is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admit::Admitted;
use crate::clock;
use crate::domain::catalog::{Deployment, Dialect, ProviderKind};
use crate::domain::endpoint::Endpoint;
use crate::domain::request::InferenceRequest;
use crate::domain::service_tier::ServiceTier;
use crate::domain::stream::StreamReader;
use crate::domain::tokens::TokenCounter;
use crate::domain::usage::{MOST_TOKENS, TokenCounts, Usage, UsageSource};

/// What an answer is taken to be at most when neither the client nor the catalog caps it: the largest cap of any
/// published model (OpenAI's model pages, November 2026).
pub(super) const LARGEST_OUTPUT_TOKENS: u64 = 128_000;

/// What settling needs to know of the request.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) admitted: Admitted,
    /// The request as the deployment got it.
    pub(super) request: Arc<InferenceRequest>,
    pub(super) deployment: Arc<Deployment>,
    /// Whether tokens are made that the client does not see.
    pub(super) unseen: bool,
    /// The prompt's tokens as our worker counted them.
    pub(super) prompt_tokens: Option<u64>,
    /// How long our worker has computed.
    pub(super) computing: Computing,
}

/// How long our worker has computed for a request, as far as that was told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Computing {
    /// As it said last, microseconds.
    told_us: u64,
    /// Since when it has said nothing: since it was asked, or since its answer began.
    since: Instant,
    /// Whether that costs anything.
    billed: bool,
}

impl Computing {
    /// Of a request that is sent now.
    pub(super) const fn begun(billed: bool, now: Instant) -> Self {
        Self { told_us: 0, since: now, billed }
    }

    /// Its answer begins, and says how long was computed until then.
    #[must_use]
    pub(super) const fn told(self, told_us: u64, now: Instant) -> Self {
        Self { told_us, since: now, ..self }
    }

    /// The most that it can be by now: what was told, and all of the time since.
    fn at_most(&self, now: Instant) -> Duration {
        Duration::from_micros(self.told_us).saturating_add(now.saturating_duration_since(self.since))
    }
}

impl Facts {
    /// The provider's conversation that it goes on in: what comes next must go to the same deployment.
    pub(super) fn conversation(&self) -> Option<String> {
        self.request.conversation.clone().filter(|_| self.request.endpoint == Endpoint::Responses)
    }

    fn counter(&self) -> TokenCounter {
        match &self.deployment.base_model {
            Some(base) => TokenCounter::estimating(base),
            None if self.deployment.upstream_model.contains('*') => {
                TokenCounter::estimating(self.request.model.as_str())
            }
            None => TokenCounter::estimating(&self.deployment.upstream_model),
        }
    }

    /// Whose word its usage is.
    pub(super) fn told_by(&self) -> ProviderKind {
        self.deployment.provider.dialect.kind()
    }

    fn is_worker(&self) -> bool {
        self.deployment.provider.dialect == Dialect::Candle
    }

    fn prompt(&self) -> u64 {
        match self.prompt_tokens {
            Some(counted) => counted,
            // a byte-level encoding never makes more tokens than there are bytes
            None if self.is_worker() => self.request.body().len() as u64,
            None => self.counter().count(self.request.endpoint, self.request.body()).input,
        }
    }

    /// What the provider said was used. A worker that does not say how long it computed, as one of an earlier version, is
    /// taken at its time where that costs anything.
    pub(super) fn reported(&self, tokens: TokenCounts, served: Option<ServiceTier>) -> Usage {
        let untold = self.is_worker() && self.computing.billed && tokens.compute_us == 0;
        let source = if untold { UsageSource::Estimated } else { UsageSource::Reported };
        let compute_us = if untold { self.compute_us() } else { tokens.compute_us.min(self.most_us()) };
        Usage { tokens: TokenCounts { compute_us, ..tokens }, source, served }
    }

    /// How long our worker can have computed until now; nothing of anybody else's.
    fn compute_us(&self) -> u64 {
        match self.is_worker() {
            true => micros(self.computing.at_most(clock::monotonic())).min(self.most_us()),
            false => 0,
        }
    }

    /// No request takes longer than it may, which is what was held for.
    fn most_us(&self) -> u64 {
        micros(self.deployment.timeouts.total)
    }

    /// Counted input and what was streamed. Takes 60 ms for 1 MiB of prose, and a third of a second for the most hostile
    /// body: longer ones are bounded, not counted.
    pub(super) fn estimated(&self, reader: &mut StreamReader) -> Usage {
        let streamed = reader.streamed();
        let completion = match self.is_worker() {
            true => streamed.pieces,
            false if streamed.text.is_empty() => 0,
            false => self.counter().count_text(streamed.text),
        };
        Usage::new(self.counted(completion), UsageSource::Estimated)
    }

    /// Counted input and the most that can have been made.
    pub(super) fn unconfirmed(&self) -> Usage {
        let model_cap = self.deployment.max_output_tokens.unwrap_or(LARGEST_OUTPUT_TOKENS);
        let completion = self.request.most_output(model_cap);
        Usage::new(self.counted(completion), UsageSource::Unconfirmed)
    }

    fn counted(&self, completion: u64) -> TokenCounts {
        let (prompt, compute_us) = (self.prompt(), self.compute_us());
        TokenCounts { prompt, completion, compute_us, ..TokenCounts::default() }
    }

    /// What was used where no head of an answer came.
    pub(super) fn unanswered(&self) -> Usage {
        match !self.request.stream || self.unseen {
            true => self.unconfirmed(),
            false => self.estimated(&mut StreamReader::new(self.request.endpoint, false)),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(MOST_TOKENS)
}
