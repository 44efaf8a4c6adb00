//! The attempts of a request, as its Outcome keeps them: for its spans.

use std::sync::Arc;
use std::time::Instant;

use super::{Record, micros_between, micros_since};
use crate::domain::attempt::Attempt;
use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::{Ending, Outcome};
use crate::domain::trace::SpanId;
use crate::domain::usage::Usage;

/// Whom a request asks, and for what.
#[derive(Clone, Copy)]
pub(in crate::gateway) struct Asked<'a> {
    /// The deployment.
    pub(in crate::gateway) deployment: &'a Arc<Deployment>,
    /// The provider's own name of the model.
    pub(in crate::gateway) model: &'a Arc<str>,
    /// What it is asked for.
    pub(in crate::gateway) endpoint: Endpoint,
    /// Whether a stream is asked for.
    pub(in crate::gateway) stream: bool,
}

impl Record {
    /// A deployment is asked, since a moment. Returns the attempt's span, if we make spans.
    pub(in crate::gateway) fn asks(&mut self, asked: Asked<'_>, since: Instant) -> Option<SpanId> {
        let span = self.trace().map(|_| SpanId::new(rand::random()));
        let begun_us = micros_between(self.started, since);
        self.note(|outcome| {
            outcome.attempts.push(Attempt {
                deployment: Arc::clone(asked.deployment),
                model: Arc::clone(asked.model),
                endpoint: asked.endpoint,
                stream: asked.stream,
                span,
                begun_us,
                first_chunk_us: None,
                ended_us: None,
                status: None,
                code: None,
                usage: None,
            });
        });
        span
    }

    /// Notes more about the attempt that is under way.
    fn note_attempt(&mut self, with: impl FnOnce(&mut Attempt, u64)) {
        let now_us = micros_since(self.started);
        let last = self.outcome.as_mut().and_then(|outcome| outcome.attempts.last_mut());
        if let Some(attempt) = last.filter(|attempt| attempt.ended_us.is_none()) {
            with(attempt, now_us);
        }
    }

    /// Notes the upstream's status.
    pub(in crate::gateway) fn upstream_status(&mut self, status: u16) {
        self.note(|outcome| outcome.upstream_status = Some(status));
        self.note_attempt(|attempt, _| attempt.status = Some(status));
    }

    /// The first event of a stream has come.
    pub(in crate::gateway) fn first_chunk(&mut self) {
        self.note_attempt(|attempt, now_us| attempt.first_chunk_us = attempt.first_chunk_us.or(Some(now_us)));
    }

    /// The upstream has given all it had to give.
    pub(in crate::gateway) fn attempt_ended(&mut self, usage: Option<Usage>) {
        self.note_attempt(|attempt, now_us| (attempt.ended_us, attempt.usage) = (Some(now_us), usage));
    }
}

/// Notes why the last attempt failed; one that was not sent is none.
pub(super) fn failed_last(outcome: &mut Outcome, deployment: &Arc<str>, code: &'static str) {
    if let Some(last) = outcome.attempts.last_mut().filter(|last| last.deployment.name == *deployment) {
        last.code = last.code.or(Some(code));
    }
}

/// Notes how the last attempt ended, of a request that has ended: with an answer, broken, or left alone.
pub(super) fn end_last(outcome: &mut Outcome) {
    let (duration_us, usage) = (outcome.duration_us, outcome.usage);
    let broke = matches!(outcome.ending, Ending::UpstreamBroke | Ending::UpstreamError);
    let code = outcome.code.filter(|_| broke);
    let Some(last) = outcome.attempts.last_mut() else { return };
    if last.ended_us.is_none() {
        (last.ended_us, last.usage) = (Some(duration_us), usage);
    }
    last.code = last.code.or(code);
}
