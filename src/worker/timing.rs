//! What the metrics learn of one request: once, however it ends.

use std::sync::Arc;
use std::time::Instant;

use crate::telemetry::metrics::{WorkerEnding, WorkerMetrics, WorkerOperation};

/// The times of an accepted request. One that is dropped before its end was told has lost its client.
pub(super) struct Timing {
    metrics: Arc<WorkerMetrics>,
    clock: fn() -> Instant,
    operation: WorkerOperation,
    arrived: Instant,
    /// When the first token and the last one were computed.
    answer: Option<(Instant, Instant)>,
    /// Tokens behind the first.
    further: u32,
    ended: bool,
}

impl Timing {
    pub(super) fn new(
        metrics: Arc<WorkerMetrics>,
        clock: fn() -> Instant,
        operation: WorkerOperation,
        arrived: Instant,
    ) -> Self {
        Self { metrics, clock, operation, arrived, answer: None, further: 0, ended: false }
    }

    /// Tokens of texts became vectors.
    pub(super) fn embedded(&self, tokens: usize) {
        self.metrics.embedded(tokens);
    }

    /// Tokens of the prompt were read.
    pub(super) fn read(&self, tokens: usize) {
        self.metrics.read(tokens);
    }

    /// A token of the answer was computed.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.metrics.wrote();
        if let Some((_, last)) = &mut self.answer {
            *last = now;
            self.further += 1;
            return;
        }
        self.answer = Some((now, now));
        self.metrics.first_token(self.operation, now.saturating_duration_since(self.arrived));
    }

    /// The request has ended. Told before its client hears it, who may ask for the metrics next.
    pub(super) fn ended(&mut self, ending: WorkerEnding) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some((first, last)) = self.answer
            && let Some(mean) = last.saturating_duration_since(first).checked_div(self.further)
        {
            self.metrics.between_tokens(self.operation, mean);
        }
        let now = (self.clock)();
        self.metrics.ended(self.operation, ending, now.saturating_duration_since(self.arrived));
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.ended(WorkerEnding::ClientGone);
    }
}
