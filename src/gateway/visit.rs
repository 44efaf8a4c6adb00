//! A request's visit to one deployment: what is measured there and said to the board when it is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::{Board, Stay};
use crate::clock;
use crate::domain::fault::Fault;
use crate::domain::learned::Ended;
use crate::domain::speed::Observation;
use crate::domain::usage::{Usage, UsageSource};

/// An upstream that wants us to wait longer is asked again after this all the same.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(300);

/// A visit. Dropped, it says nothing about the deployment: the client has left, or we were refused for its own fault.
pub(super) struct Visit {
    stay: Stay,
    board: Arc<Board>,
    model: Arc<str>,
    deployment: Arc<str>,
    /// What its output was capped at, tokens.
    cap: Option<u64>,
    asked_at: Instant,
    first_at: Option<Instant>,
}

impl Visit {
    /// Begins when the request is sent.
    pub(super) const fn new(
        stay: Stay,
        board: Arc<Board>,
        model: Arc<str>,
        deployment: Arc<str>,
        cap: Option<u64>,
        asked_at: Instant,
    ) -> Self {
        Self { stay, board, model, deployment, cap, asked_at, first_at: None }
    }

    /// The stay itself, for what a head says.
    pub(super) const fn stay(&self) -> &Stay {
        &self.stay
    }

    /// The first of a stream has come.
    pub(super) fn first(&mut self) {
        let now = clock::monotonic();
        self.first_at.get_or_insert(now);
        self.stay.answered(now);
    }

    /// All has come, and well.
    pub(super) fn ended(self, usage: Option<&Usage>) {
        let now = clock::monotonic();
        let reported = usage.filter(|usage| usage.source == UsageSource::Reported);
        if let Some(usage) = reported {
            let was_cut = self.cap.is_some_and(|cap| usage.tokens.completion >= cap);
            let ended = if was_cut { Ended::AtItsCap } else { Ended::ByItself };
            self.board.note_usage(&self.model, &self.deployment, &usage.tokens, ended);
        }
        let total_us = micros(self.asked_at, now);
        // embeddings have no output: their time is all to the first token
        let observed = reported.map(|usage| usage.tokens.completion);
        let observation = observed.map(|tokens| match self.first_at {
            Some(first) => Observation::Stream { ttft_us: micros(self.asked_at, first), total_us, tokens },
            None => Observation::Whole { total_us, tokens },
        });
        self.stay.succeeded(observation, now);
    }

    /// It said no, and perhaps when to come again.
    pub(super) fn refused(self, fault: Fault, wait_asked: Option<Duration>) {
        let now = clock::monotonic();
        match (fault, wait_asked) {
            (Fault::Quota, _) => self.stay.out_of_quota(now),
            (Fault::Wait, Some(wait)) => self.stay.told_to_wait(wait.min(LONGEST_COOLDOWN), now),
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
    pub(super) fn failed(self, cause: &'static str) {
        self.stay.failed(cause, clock::monotonic());
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}
