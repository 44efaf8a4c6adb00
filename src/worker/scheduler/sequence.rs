//! One running request.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tunegate_engine::{Cache, Item, Sampler, Wanted};

use super::{Event, Failure, Job, Timing};
use crate::telemetry::metrics::WorkerEnding;
use crate::worker::text::{Tokenizer, Transcript};
use crate::worker::wire::FinishReason;

/// Events that one step may bring: the start, the last text, the end.
const EVENTS_A_STEP: usize = 3;

/// A request with all that belongs to it while it runs.
pub(super) struct Sequence {
    job: Job,
    events: mpsc::Sender<Event>,
    timing: Timing,
    cache: Cache,
    sampler: Sampler,
    transcript: Transcript,
    /// The token chosen last, to be computed next; none while the prompt is read.
    next: Option<[u32; 1]>,
    /// Tokens of the answer so far.
    tokens: usize,
    /// Tokens that the last item brought.
    brought: usize,
    /// Prompt tokens read so far.
    read: usize,
    /// What a known answer's tokens have come to so far: −Σ ln p.
    loss_sum: f64,
    /// How long was computed for it so far, microseconds.
    compute_us: u64,
    /// Since when the client has left its events unread.
    stalled: Option<Instant>,
}

impl Sequence {
    pub(super) fn new(mut job: Job, events: mpsc::Sender<Event>, timing: Timing, cache: Cache) -> Self {
        let transcript = Transcript::new(std::mem::take(&mut job.stops));
        let sampler = Sampler::new(job.sampling);
        let (next, stalled) = (None, None);
        Self {
            job,
            events,
            timing,
            cache,
            sampler,
            transcript,
            next,
            tokens: 0,
            brought: 0,
            read: 0,
            loss_sum: 0.0,
            compute_us: 0,
            stalled,
        }
    }

    /// Returns the tokens it may come to hold, whole pages.
    pub(super) fn reserved(&self) -> usize {
        Cache::rounded(self.job.prompt.len() + self.job.most)
    }

    /// Whether the prompt is read and the answer runs.
    pub(super) fn decodes(&self) -> bool {
        self.next.is_some() && self.has_room()
    }

    /// Whether the client is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the deadline has passed, or the client has read nothing for `unread`.
    pub(super) fn is_late(&mut self, now: Instant, unread: Duration) -> bool {
        if self.has_room() {
            self.stalled = None;
        } else {
            let since = *self.stalled.get_or_insert(now);
            if now.saturating_duration_since(since) >= unread {
                return true;
            }
        }
        now >= self.job.deadline
    }

    /// Whether all that a step may bring finds a place with the client.
    fn has_room(&self) -> bool {
        self.events.capacity() >= EVENTS_A_STEP
    }

    /// Returns the tokens of the prompt that are still to be read, none while the client has no room.
    pub(super) fn unread(&self) -> usize {
        if self.next.is_none() && self.has_room() { self.job.prompt.len() - self.read } else { 0 }
    }

    /// Returns its part of the next step: the last token, or up to `share` tokens of the prompt; none while it must
    /// wait.
    pub(super) fn item(&mut self, share: usize) -> Option<Item<'_>> {
        self.brought = 0;
        if !self.has_room() {
            return None;
        }
        let adapter = self.job.adapter.as_deref();
        if let Some(token) = &self.next {
            self.brought = 1;
            return Some(Item { tokens: token, cache: &mut self.cache, wanted: Wanted::Logits, adapter });
        }
        let left = &self.job.prompt[self.read..];
        let count = left.len().min(share);
        if count == 0 {
            return None;
        }
        self.brought = count;
        let wanted = match &self.job.known {
            Some(next) => Wanted::Scores(&next[self.read..][..count]),
            None if count == left.len() => Wanted::Logits,
            None => Wanted::Nothing,
        };
        Some(Item { tokens: &left[..count], cache: &mut self.cache, wanted, adapter })
    }

    /// Returns the tokens that the last item brought.
    pub(super) const fn brought(&self) -> usize {
        self.brought
    }

    /// So much of a step's time was its own, microseconds.
    pub(super) const fn computed(&mut self, share_us: u64) {
        self.compute_us = self.compute_us.saturating_add(share_us);
    }

    /// Takes what the step gave that is `done` now; returns whether the request has ended.
    pub(super) fn advance(&mut self, found: Option<&[f32]>, tokenizer: &Tokenizer, done: Instant) -> bool {
        if self.next.is_none() {
            self.read += self.brought;
            self.timing.read(self.brought);
        }
        let Some(logits) = found else { return false };
        if self.job.known.is_some() {
            return self.score(logits);
        }
        if self.next.is_none() {
            self.send(Event::Started { compute_us: self.compute_us });
        }
        let token = self.sampler.next(logits);
        if tokenizer.is_end(token) {
            return self.finish(FinishReason::Stop);
        }
        self.next = Some([token]);
        self.tokens += 1;
        self.timing.wrote(done);
        let piece = self.transcript.push(tokenizer, token);
        self.say(piece.text);
        if piece.stopped {
            return self.end(FinishReason::Stop);
        }
        if self.tokens >= self.job.most {
            return self.finish(FinishReason::Length);
        }
        false
    }

    /// Takes the scores of some tokens of a known answer; returns whether all are read.
    fn score(&mut self, scores: &[f32]) -> bool {
        self.loss_sum -= scores.iter().copied().map(f64::from).sum::<f64>();
        if self.read < self.job.prompt.len() {
            return false;
        }
        self.timing.ended(WorkerEnding::Finished);
        self.send(Event::Scored { loss_sum: self.loss_sum, compute_us: self.compute_us });
        true
    }

    fn finish(&mut self, reason: FinishReason) -> bool {
        let rest = self.transcript.finish();
        self.say(rest);
        self.end(reason)
    }

    fn end(&mut self, reason: FinishReason) -> bool {
        self.timing.ended(WorkerEnding::Finished);
        self.send(Event::Finished { reason, tokens: self.tokens, compute_us: self.compute_us });
        true
    }

    fn say(&self, text: String) {
        if !text.is_empty() {
            self.send(Event::Text { text, compute_us: self.compute_us });
        }
    }

    /// Sends what `has_room` made sure of; only a client that left does not get it.
    fn send(&self, event: Event) {
        let _ = self.events.try_send(event);
    }

    /// Ends the request. A client without room for the news sees its events end without a last one.
    pub(super) fn fail(mut self, failure: Failure) {
        self.timing.ended(failure.into());
        self.send(Event::Failed(failure));
    }
}
