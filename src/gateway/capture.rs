//! Answers on their way into a data set, beside their way to the client.
//!
//! Nothing here waits, and nothing here fails a request: what finds no room is let go and counted. No word of it is in
//! any log: nothing here has a `Debug`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

use super::prepare::{Asker, Prepared};
use super::record::Record;
use crate::clock;
use crate::domain::capture::{CaptureResult, Policy};
use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::request::InferenceRequest;
use crate::domain::tuning::Owner;
use crate::telemetry::metrics::Metrics;

/// Exchanges that wait to be written, at most.
const PLACES: usize = 256;
/// All of them together and those that are still being told, bytes.
const MOST_BYTES: usize = 64 << 20;
/// An answer is so many times longer than what it says, at most: each token of a stream has an envelope of its own.
const ENVELOPES: usize = 64;

/// An exchange that may become a row.
pub struct Captured {
    /// What is kept of its model's traffic.
    pub policy: Arc<Policy>,
    /// Its request's id.
    pub request_id: Arc<str>,
    /// When it was answered, ms since 1970 UTC.
    pub at_ms: i64,
    /// Whose it is.
    pub owner: Owner,
    /// The application's user; none where it named none.
    pub end_user: Option<Arc<str>>,
    /// The model that was asked for.
    pub model: Arc<str>,
    /// Who answered.
    pub deployment: Arc<Deployment>,
    /// The provider's own name of the model.
    pub upstream_model: Arc<str>,
    /// As it came.
    pub asked: Arc<InferenceRequest>,
    /// As the deployment got it.
    pub sent: Arc<InferenceRequest>,
    /// The deployment's answer.
    pub answer: Heard,
    /// The room that it takes.
    room: Room,
}

/// An answer as it came.
pub enum Heard {
    /// Whole.
    Whole(bytes::Bytes),
    /// As events.
    Stream(Vec<u8>),
}

/// What waits in the queue.
pub enum Queued {
    /// A row to be.
    Exchange(Box<Captured>),
    /// Somebody who wants to know when all before it is written.
    Until(oneshot::Sender<()>),
}

/// Bytes of a bound that all exchanges share; given back when it is dropped.
struct Room {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= MOST_BYTES
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Where exchanges are put down to be written.
#[derive(Clone)]
pub struct Capturer {
    queue: Sender<Queued>,
    held: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Capturer {
    /// An empty queue, and its other end.
    pub fn new(metrics: Arc<Metrics>) -> (Self, Receiver<Queued>) {
        let (queue, waiting) = mpsc::channel(PLACES);
        (Self { queue, held: Arc::default(), metrics }, waiting)
    }

    /// Waits until everything that was put down before has been written, or let go.
    pub async fn flushed(&self) {
        let (done, is_done) = oneshot::channel();
        if self.queue.send(Queued::Until(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Begins to listen to an answer, where its request was drawn.
    pub(super) fn begin(
        &self,
        prepared: &Prepared,
        deployment: &Arc<Deployment>,
        sent: &Arc<InferenceRequest>,
        upstream_model: &Arc<str>,
        record: &Record,
    ) -> Option<Capturing> {
        if prepared.asker == Asker::Ourselves {
            // rows that an evaluation holds out would be trained on
            return None;
        }
        let policy = prepared.resolved.model.capture.as_ref()?;
        let request_id = record.request_id();
        if !policy.takes(&deployment.name) || !policy.draws(&request_id) {
            return None;
        }
        let asked = Arc::clone(prepared.forms.asked());
        let mut capturing = Capturing {
            captured: Captured {
                policy: Arc::clone(policy),
                request_id,
                at_ms: clock::unix_ms(),
                owner: Owner::of(&prepared.admitted.key),
                end_user: prepared.attribution.end_user.clone(),
                model: Arc::clone(&prepared.attribution.model),
                deployment: Arc::clone(deployment),
                upstream_model: Arc::clone(upstream_model),
                asked,
                sent: Arc::clone(sent),
                answer: Heard::Stream(Vec::new()),
                room: Room { held: Arc::clone(&self.held), bytes: 0 },
            },
            capturer: self.clone(),
        };
        if !matches!(sent.endpoint, Endpoint::ChatCompletions | Endpoint::Responses) {
            capturing.ended(CaptureResult::Unfit);
            return None;
        }
        let bytes = sent.body().len();
        if bytes > policy.max_row_bytes.saturating_mul(2) {
            // it has more beside its messages than they are themselves, or they are too long
            capturing.ended(CaptureResult::TooLarge);
            return None;
        }
        capturing.grows(bytes).then_some(capturing)
    }
}

/// An answer that is listened to. Dropped before its end, nothing of it is kept.
pub(super) struct Capturing {
    captured: Captured,
    capturer: Capturer,
}

impl Capturing {
    fn ended(&self, result: CaptureResult) {
        self.capturer.metrics.captures.ended(&self.captured.model, result);
    }

    fn grows(&mut self, bytes: usize) -> bool {
        let has_room = self.captured.room.grow(bytes);
        if !has_room {
            self.ended(CaptureResult::Dropped);
        }
        has_room
    }

    /// The longest answer that may still become a row, bytes.
    fn most_bytes(&self) -> usize {
        self.captured.policy.max_row_bytes.saturating_mul(ENVELOPES)
    }

    /// Hears more of a stream; nothing is left of it where it became too long.
    pub(super) fn hears(mut self, chunk: &[u8]) -> Option<Self> {
        let most = self.most_bytes();
        let Heard::Stream(heard) = &mut self.captured.answer else { return Some(self) };
        if heard.len() + chunk.len() > most {
            self.ended(CaptureResult::TooLarge);
            return None;
        }
        heard.extend_from_slice(chunk);
        self.grows(chunk.len()).then_some(self)
    }

    /// The stream has come to its end, and well.
    pub(super) fn ends(self) {
        let Self { captured, capturer } = self;
        let model = Arc::clone(&captured.model);
        if capturer.queue.try_send(Queued::Exchange(Box::new(captured))).is_err() {
            capturer.metrics.captures.ended(&model, CaptureResult::Dropped);
        }
    }

    /// A whole answer has come.
    pub(super) fn ends_with(mut self, answer: bytes::Bytes, is_stream: bool) {
        if answer.len() > self.most_bytes() {
            return self.ended(CaptureResult::TooLarge);
        }
        if !self.grows(answer.len()) {
            return;
        }
        self.captured.answer = match is_stream {
            true => Heard::Stream(answer.to_vec()),
            false => Heard::Whole(answer),
        };
        self.ends();
    }

    /// It broke off, or said no.
    pub(super) fn broke(self) {
        self.ended(CaptureResult::Unfinished);
    }
}
