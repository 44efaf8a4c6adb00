//! At what a request is settled.
//!
//! What it used is known from the provider where it said so; else it is counted here and marked `estimated`; and where
//! tokens may have been made that nobody saw, it is an upper bound and marked `unconfirmed`.

use std::sync::Arc;

use super::admit::Admitted;
use crate::domain::catalog::{Deployment, Dialect};
use crate::domain::endpoint::Endpoint;
use crate::domain::request::InferenceRequest;
use crate::domain::stream::StreamReader;
use crate::domain::tokens::TokenCounter;
use crate::domain::usage::{TokenCounts, Usage, UsageSource};

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

    /// Counted input and what was streamed. Takes 60 ms for 1 MiB of prose, and a third of a second for the most hostile
    /// body: longer ones are bounded, not counted.
    pub(super) fn estimated(&self, reader: &mut StreamReader) -> Usage {
        let streamed = reader.streamed();
        let completion = match self.is_worker() {
            true => streamed.pieces,
            false if streamed.text.is_empty() => 0,
            false => self.counter().count_text(streamed.text),
        };
        let tokens = TokenCounts { prompt: self.prompt(), completion, ..TokenCounts::default() };
        Usage::new(tokens, UsageSource::Estimated)
    }

    /// Counted input and the most that can have been made.
    pub(super) fn unconfirmed(&self) -> Usage {
        let model_cap = self.deployment.max_output_tokens.unwrap_or(LARGEST_OUTPUT_TOKENS);
        let completion = self.request.most_output(model_cap);
        let tokens = TokenCounts { prompt: self.prompt(), completion, ..TokenCounts::default() };
        Usage::new(tokens, UsageSource::Unconfirmed)
    }

    /// What was used where no head of an answer came.
    pub(super) fn unanswered(&self) -> Usage {
        match !self.request.stream || self.unseen {
            true => self.unconfirmed(),
            false => self.estimated(&mut StreamReader::new(self.request.endpoint, false)),
        }
    }
}
