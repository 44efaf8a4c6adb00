//! Who is computed in this step.
//!
//! One thread owns the engine and runs step after step. A step advances every running answer by one token and some
//! prompts by a chunk, all in one pass over the weights: requests join and leave between steps. What it promises:
//!
//! * a client that left costs nothing after the step that is running;
//! * a client that does not read holds up only itself, and no more than [`CHANNEL`] events of memory;
//! * prompts come in chunks, so a long one does not stop the running answers;
//! * a panic of the engine fails the requests of that moment, and the next are served;
//! * tokens held in memory never exceed the budget: who does not fit waits;
//! * each request is told how long was computed for it: its share of each of its steps (`share`).

mod sequence;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sequence::Sequence;
use tokio::sync::mpsc;
use tunegate_engine::adapter::Adapter;
use tunegate_engine::{Cache, Engine, ForwardError, Item, Pool, Sampling, Shape};

use super::share;
use super::text::Tokenizer;
use super::timing::Timing;
use super::wire::FinishReason;
use crate::telemetry::metrics::{WorkerDenial, WorkerEnding, WorkerMetrics, WorkerOperation};

/// Events that wait for a client at most.
const CHANNEL: usize = 32;
/// Prompt tokens of one step while nobody decodes.
const CHUNK: usize = 128;
/// Prompt tokens of one step while others decode: each step of theirs takes so much longer.
const CHUNK_BESIDE: usize = 48;
/// How long the thread rests when all clients are slow to read.
const REST: Duration = Duration::from_millis(5);

/// How much is served at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Answers computed together.
    pub(super) batch: usize,
    /// Requests that wait for their turn.
    pub(super) queue: usize,
    /// Tokens of all running requests, prompts and room for answers together.
    pub(super) tokens: usize,
    /// How long a client may leave its answer unread.
    pub(super) unread: Duration,
}

/// One request, ready to be computed.
pub(super) struct Job {
    /// What was asked.
    pub(super) operation: WorkerOperation,
    /// When the whole request was there.
    pub(super) arrived: Instant,
    /// The prompt; not empty, all ids known, shorter than the context.
    pub(super) prompt: Vec<u32>,
    /// The most tokens of the answer; at least 1. None of a known one is made: 0.
    pub(super) most: usize,
    /// Of an answer that is known and stands in the prompt: what follows each token, where that counts. Then how likely
    /// it is all that is computed.
    pub(super) known: Option<Vec<Option<u32>>>,
    /// How tokens are chosen.
    pub(super) sampling: Sampling,
    /// Texts before which the answer ends.
    pub(super) stops: Vec<String>,
    /// When the answer must be finished.
    pub(super) deadline: Instant,
    /// What is added to the base model for it.
    pub(super) adapter: Option<Arc<Adapter>>,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// The prompt was read; the answer begins.
    Started {
        /// How long was computed for it so far, microseconds.
        compute_us: u64,
    },
    /// Text of the answer.
    Text {
        /// Never empty.
        text: String,
        /// How long was computed for it so far, microseconds.
        compute_us: u64,
    },
    /// The answer is complete; the last event.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens of the answer, without the one that ended it.
        tokens: usize,
        /// How long was computed for it in all, microseconds.
        compute_us: u64,
    },
    /// The known answer was read; the last event.
    Scored {
        /// −Σ ln p of the tokens that count, nats.
        loss_sum: f64,
        /// How long was computed for it in all, microseconds.
        compute_us: u64,
    },
    /// The request failed; the last event.
    Failed(Failure),
}

/// Why a request failed after it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The engine panicked or refused the step.
    Engine,
    /// Its deadline passed, or the client read nothing for too long.
    TooSlow,
    /// The worker ends.
    Stopping,
}

impl From<Failure> for WorkerEnding {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Engine => Self::Failed,
            Failure::TooSlow => Self::Late,
            Failure::Stopping => Self::Stopped,
        }
    }
}

/// What runs and waits at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Requests being computed.
    pub(super) active: usize,
    /// Requests waiting.
    pub(super) queued: usize,
    /// Tokens that those being computed may come to hold, whole pages.
    pub(super) tokens: usize,
}

struct Waiting {
    job: Job,
    events: mpsc::Sender<Event>,
    timing: Timing,
}

impl Waiting {
    /// Turns it away.
    fn fail(mut self, failure: Failure) {
        self.timing.ended(failure.into());
        let _ = self.events.try_send(Event::Failed(failure));
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    active: usize,
    /// Tokens that the active ones may come to hold.
    tokens: usize,
    phase: Phase,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    #[default]
    Open,
    /// Nothing new is accepted; what runs goes on.
    Draining,
    /// The thread ends after its step.
    Ended,
}

struct Desk {
    state: Mutex<State>,
    news: Condvar,
    limits: Limits,
    metrics: Arc<WorkerMetrics>,
    clock: fn() -> Instant,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent at every point where its holder could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        if state.phase < phase {
            state.phase = phase;
        }
        drop(state);
        self.news.notify_all();
    }
}

/// The handle: hands requests to the thread, and ends it when dropped.
pub(super) struct Scheduler {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread computes with: the engine, or a stand-in in tests.
pub(super) trait Forward: Send + 'static {
    /// See [`Engine::forward`].
    fn forward(&mut self, items: &mut [Item<'_>]) -> Result<Vec<Option<Vec<f32>>>, ForwardError>;
}

/// The engine with its threads.
pub(super) struct Machine {
    pub(super) engine: Engine,
    pub(super) pool: Pool,
}

impl Forward for Machine {
    fn forward(&mut self, items: &mut [Item<'_>]) -> Result<Vec<Option<Vec<f32>>>, ForwardError> {
        self.engine.forward(&mut self.pool, items)
    }
}

impl Scheduler {
    /// Starts the thread. `clock` is asked twice a step, and at the end of a request.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        forward: impl Forward,
        shape: Shape,
        tokenizer: Arc<Tokenizer>,
        limits: Limits,
        metrics: Arc<WorkerMetrics>,
        clock: fn() -> Instant,
    ) -> std::io::Result<Self> {
        let desk = Arc::new(Desk { state: Mutex::default(), news: Condvar::new(), limits, metrics, clock });
        let runner = Runner { desk: Arc::clone(&desk), forward, shape, tokenizer, running: Vec::new() };
        let thread = std::thread::Builder::new().name("scheduler".to_owned()).spawn(move || runner.run())?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// Hands in a request; its events come through the receiver. Dropping the receiver cancels it.
    ///
    /// # Errors
    /// Why it is turned away.
    pub(super) fn submit(&self, job: Job) -> Result<mpsc::Receiver<Event>, WorkerDenial> {
        let submitted = self.take(job);
        if let Err(why) = submitted {
            self.desk.metrics.denied(why);
        }
        submitted
    }

    fn take(&self, job: Job) -> Result<mpsc::Receiver<Event>, WorkerDenial> {
        let limits = &self.desk.limits;
        let mut state = self.desk.state();
        if state.phase != Phase::Open {
            return Err(WorkerDenial::Stopping);
        }
        // Those whose clients left while they waited hold no place.
        state.waiting.retain(|waiting| !waiting.events.is_closed());
        if state.active + state.waiting.len() >= limits.batch + limits.queue {
            return Err(WorkerDenial::Full);
        }
        let (events, receiver) = mpsc::channel(CHANNEL);
        let (metrics, clock) = (Arc::clone(&self.desk.metrics), self.desk.clock);
        let timing = Timing::new(metrics, clock, job.operation, job.arrived);
        state.waiting.push_back(Waiting { job, events, timing });
        drop(state);
        self.desk.news.notify_all();
        Ok(receiver)
    }

    /// Returns what runs and waits.
    pub(super) fn load(&self) -> Load {
        let state = self.desk.state();
        Load { active: state.active, queued: state.waiting.len(), tokens: state.tokens }
    }

    /// Whether new requests are accepted and the thread is alive.
    pub(super) fn is_open(&self) -> bool {
        self.is_alive() && self.desk.state().phase == Phase::Open
    }

    /// Whether the thread runs; it ends only when told to, unless it is broken.
    pub(super) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Accepts nothing more and turns away who waits; what runs goes on.
    pub(super) fn drain(&self) {
        self.desk.enter(Phase::Draining);
    }

    /// Ends the thread after its step; what runs fails.
    pub(super) fn end(&self) {
        self.desk.enter(Phase::Ended);
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            // A broken thread was reported by `is_alive`; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// The thread's own side.
struct Runner<F> {
    desk: Arc<Desk>,
    forward: F,
    shape: Shape,
    tokenizer: Arc<Tokenizer>,
    running: Vec<Sequence>,
}

impl<F: Forward> Runner<F> {
    fn run(mut self) {
        while self.admit() {
            let now = (self.desk.clock)();
            self.dismiss(now);
            if self.step(now) {
                continue;
            }
            if !self.running.is_empty() {
                // All running clients are slow to read.
                let state = self.desk.state();
                drop(self.desk.news.wait_timeout(state, REST));
            }
        }
        for sequence in self.running.drain(..) {
            sequence.fail(Failure::Stopping);
        }
        let mut state = self.desk.state();
        for waiting in state.waiting.drain(..) {
            waiting.fail(Failure::Stopping);
        }
        (state.active, state.tokens) = (0, 0);
    }

    /// Lets waiting requests in, sleeping while there is nothing to do; returns whether to go on.
    fn admit(&mut self) -> bool {
        let desk = Arc::clone(&self.desk);
        let mut state = desk.state();
        loop {
            if state.phase == Phase::Ended {
                return false;
            }
            if state.phase == Phase::Draining {
                for waiting in state.waiting.drain(..) {
                    waiting.fail(Failure::Stopping);
                }
            }
            self.let_in(&mut state);
            state.active = self.running.len();
            if !self.running.is_empty() {
                return true;
            }
            state = desk.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn let_in(&mut self, state: &mut State) {
        let limits = &self.desk.limits;
        state.waiting.retain(|waiting| !waiting.events.is_closed());
        let mut tokens: usize = self.running.iter().map(Sequence::reserved).sum();
        while self.running.len() < limits.batch
            && let Some(next) = state.waiting.front()
        {
            let needed = Cache::rounded(next.job.prompt.len() + next.job.most);
            // Who needs more than all there is was turned away before; alone, everybody fits.
            if tokens + needed > limits.tokens && !self.running.is_empty() {
                break;
            }
            tokens += needed;
            if let Some(Waiting { job, events, timing }) = state.waiting.pop_front() {
                self.running.push(Sequence::new(job, events, timing, Cache::new(&self.shape)));
            }
        }
        state.tokens = tokens;
    }

    /// Lets go of who left, is late, or does not read.
    fn dismiss(&mut self, now: Instant) {
        let unread = self.desk.limits.unread;
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &mut self.running[at];
            if sequence.is_abandoned() {
                self.running.remove(at);
            } else if sequence.is_late(now, unread) {
                self.running.remove(at).fail(Failure::TooSlow);
            } else {
                at += 1;
            }
        }
    }

    /// Computes one step, begun `now`; returns whether there was anything to compute.
    fn step(&mut self, now: Instant) -> bool {
        let shares = self.prompt_shares();
        let mut items = Vec::with_capacity(self.running.len());
        let mut who = Vec::with_capacity(self.running.len());
        for (index, (sequence, share)) in self.running.iter_mut().zip(shares).enumerate() {
            if let Some(item) = sequence.item(share) {
                items.push(item);
                who.push(index);
            }
        }
        if items.is_empty() {
            return false;
        }
        let forward = &mut self.forward;
        let outcome = catch_unwind(AssertUnwindSafe(|| forward.forward(&mut items)));
        drop(items);
        match outcome {
            Ok(Ok(logits)) => {
                let done = (self.desk.clock)();
                let took = done.saturating_duration_since(now);
                self.desk.metrics.stepped(who.len(), took);
                self.shares_out(&who, took);
                self.advance(&who, logits, done);
            }
            Ok(Err(error)) => self.fail_all(&error.to_string()),
            Err(_) => self.fail_all("the engine panicked"),
        }
        true
    }

    /// Returns how many prompt tokens each sequence may bring to the next step.
    ///
    /// The prompts share the step alike; what a short one leaves goes to the longer ones. So a question behind a
    /// book is answered soon, and the book is read all the same.
    fn prompt_shares(&self) -> Vec<usize> {
        let mut left = if self.running.iter().any(Sequence::decodes) { CHUNK_BESIDE } else { CHUNK };
        let mut shares = vec![0; self.running.len()];
        let mut reading: Vec<(usize, usize)> =
            self.running.iter().map(Sequence::unread).enumerate().filter(|(_, unread)| *unread > 0).collect();
        reading.sort_by_key(|(_, unread)| *unread);
        for (done, (index, unread)) in reading.iter().enumerate() {
            let share = left.div_ceil(reading.len() - done).min(*unread);
            shares[*index] = share;
            left -= share;
        }
        shares
    }

    /// Tells those who were in a step what of its time was theirs.
    fn shares_out(&mut self, who: &[usize], took: Duration) {
        let brought: Vec<usize> = who.iter().map(|index| self.running[*index].brought()).collect();
        for (index, share_us) in who.iter().zip(share::shares_us(took, &brought)) {
            self.running[*index].computed(share_us);
        }
    }

    fn advance(&mut self, who: &[usize], logits: Vec<Option<Vec<f32>>>, done: Instant) {
        let mut ended = Vec::new();
        for (index, logits) in who.iter().zip(logits) {
            if self.running[*index].advance(logits.as_deref(), &self.tokenizer, done) {
                ended.push(*index);
            }
        }
        for index in ended.into_iter().rev() {
            self.running.remove(index);
        }
    }

    fn fail_all(&mut self, reason: &str) {
        tracing::error!(reason, requests = self.running.len(), "a step failed; its requests are given up");
        for sequence in self.running.drain(..) {
            sequence.fail(Failure::Engine);
        }
    }
}

#[cfg(test)]
mod tests;
