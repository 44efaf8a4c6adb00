//! Whose texts are computed next.
//!
//! One thread owns the encoder and computes batch after batch. A batch is short, and takes from the front of the queue;
//! a request with texts left goes to its end. So a single question behind a thousand texts waits for one batch, and
//! many single questions share one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tunegate_engine::{EncodeError, Encoder};

use crate::telemetry::metrics::{WorkerDenial, WorkerEnding, WorkerMetrics, WorkerOperation};
use crate::worker::scheduler::Failure;
use crate::worker::share::shares_us;
use crate::worker::timing::Timing;

/// Tokens of one batch, but for a single longer text: some 20 ms.
const BATCH_TOKENS: usize = 64;

/// What the thread computes with: the encoder, or a stand-in in tests.
pub(in crate::worker) trait Encode: Send + 'static {
    /// See [`Encoder::embed`].
    fn encode(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EncodeError>;
}

impl Encode for Encoder {
    fn encode(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EncodeError> {
        self.embed(texts)
    }
}

/// What came of a request.
#[derive(Debug, Default)]
pub(in crate::worker) struct Embedded {
    /// A vector for each text.
    pub(in crate::worker) vectors: Vec<Vec<f32>>,
    /// How long was computed for them, microseconds: the request's share of each of its batches.
    pub(in crate::worker) compute_us: u64,
}

/// Vectors, or why there are none.
type Vectors = Result<Embedded, Failure>;

struct Waiting {
    texts: Vec<Vec<u32>>,
    /// Those of the first texts.
    embedded: Embedded,
    deadline: Instant,
    answer: oneshot::Sender<Vectors>,
    timing: Timing,
}

impl Waiting {
    /// Tells the client, if it is still there.
    fn end(mut self, ending: WorkerEnding, vectors: Vectors) {
        self.timing.ended(ending);
        let _ = self.answer.send(vectors);
    }

    fn fail(self, failure: Failure) {
        self.end(failure.into(), Err(failure));
    }

    /// The texts that have no vector yet.
    fn left(&self) -> &[Vec<u32>] {
        &self.texts[self.embedded.vectors.len()..]
    }

    /// How many of them go into a batch that has `tokens` already.
    fn share(&self, tokens: usize) -> usize {
        let mut sum = tokens;
        let fits = |text: &&Vec<u32>| {
            sum += text.len();
            sum <= BATCH_TOKENS
        };
        let share = self.left().iter().take_while(fits).count();
        // A text that is longer than a batch is one alone.
        if tokens == 0 { share.max(1) } else { share }
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Requests in the batch that is being computed.
    active: usize,
    phase: Phase,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    #[default]
    Open,
    /// Nothing new is accepted; what was accepted goes on.
    Draining,
    /// The thread ends after its batch.
    Ended,
}

struct Shared {
    state: Mutex<State>,
    news: Condvar,
    /// Requests that may wait.
    queue: usize,
    metrics: Arc<WorkerMetrics>,
    clock: fn() -> Instant,
}

impl Shared {
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
pub(in crate::worker) struct EmbeddingDesk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddingDesk {
    /// Starts the thread; `queue` requests may wait while one is computed.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(in crate::worker) fn start(
        encoder: impl Encode,
        queue: usize,
        metrics: Arc<WorkerMetrics>,
        clock: fn() -> Instant,
    ) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), news: Condvar::new(), queue, metrics, clock });
        let runner = Runner { shared: Arc::clone(&shared), encoder };
        let thread = std::thread::Builder::new().name("embeddings".to_owned()).spawn(move || runner.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands in the tokens of texts, of a request that has `arrived`. Dropping the receiver cancels it.
    ///
    /// # Errors
    /// Why it is turned away.
    pub(in crate::worker) fn submit(
        &self,
        texts: Vec<Vec<u32>>,
        arrived: Instant,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Vectors>, WorkerDenial> {
        let submitted = self.take(texts, arrived, deadline);
        if let Err(why) = submitted {
            self.shared.metrics.denied(why);
        }
        submitted
    }

    fn take(
        &self,
        texts: Vec<Vec<u32>>,
        arrived: Instant,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Vectors>, WorkerDenial> {
        let Shared { queue, metrics, clock, .. } = &*self.shared;
        let mut state = self.shared.state();
        if state.phase != Phase::Open {
            return Err(WorkerDenial::Stopping);
        }
        // Those whose clients left while they waited hold no place.
        state.waiting.retain(|waiting| !waiting.answer.is_closed());
        if state.active + state.waiting.len() > *queue {
            return Err(WorkerDenial::Full);
        }
        let (answer, receiver) = oneshot::channel();
        let timing = Timing::new(Arc::clone(metrics), *clock, WorkerOperation::Embeddings, arrived);
        let embedded = Embedded { vectors: Vec::with_capacity(texts.len()), compute_us: 0 };
        state.waiting.push_back(Waiting { texts, embedded, deadline, answer, timing });
        drop(state);
        self.shared.news.notify_all();
        Ok(receiver)
    }

    /// Whether the thread runs; it ends only when told to, unless it is broken.
    pub(in crate::worker) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Accepts nothing more.
    pub(in crate::worker) fn drain(&self) {
        self.shared.enter(Phase::Draining);
    }

    /// Ends the thread after its batch; what is not done by then fails.
    pub(in crate::worker) fn end(&self) {
        self.shared.enter(Phase::Ended);
    }
}

impl Drop for EmbeddingDesk {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            // A broken thread was reported by `is_alive`; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// The thread's own side.
struct Runner<E> {
    shared: Arc<Shared>,
    encoder: E,
}

/// Requests in one batch, each with the number of its texts there.
type Batch = Vec<(Waiting, usize)>;

impl<E: Encode> Runner<E> {
    fn run(mut self) {
        while let Some(batch) = self.next() {
            self.compute(batch);
        }
        let mut state = self.shared.state();
        state.active = 0;
        for waiting in state.waiting.drain(..) {
            waiting.fail(Failure::Stopping);
        }
    }

    /// Waits for requests; none when the thread is to end.
    fn next(&self) -> Option<Batch> {
        let mut state = self.shared.state();
        loop {
            state.active = 0;
            if state.phase == Phase::Ended {
                return None;
            }
            let batch = self.gather(&mut state.waiting);
            if !batch.is_empty() {
                state.active = batch.len();
                return Some(batch);
            }
            state = self.shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn gather(&self, queue: &mut VecDeque<Waiting>) -> Batch {
        let now = (self.shared.clock)();
        let (mut batch, mut tokens) = (Batch::new(), 0);
        while let Some(waiting) = queue.pop_front() {
            if waiting.answer.is_closed() {
                continue;
            }
            if now >= waiting.deadline {
                waiting.fail(Failure::TooSlow);
                continue;
            }
            let share = waiting.share(tokens);
            if share == 0 {
                queue.push_front(waiting);
                break;
            }
            tokens += waiting.left()[..share].iter().map(Vec::len).sum::<usize>();
            batch.push((waiting, share));
        }
        batch
    }

    fn compute(&mut self, batch: Batch) {
        let texts = batch.iter().flat_map(|(waiting, share)| &waiting.left()[..*share]);
        let texts: Vec<&[u32]> = texts.map(Vec::as_slice).collect();
        let encoder = &mut self.encoder;
        let begun = (self.shared.clock)();
        let outcome = catch_unwind(AssertUnwindSafe(|| encoder.encode(&texts)));
        let why = match outcome {
            Ok(Ok(vectors)) => {
                let took = (self.shared.clock)().saturating_duration_since(begun);
                return self.deliver(batch, vectors, took);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the encoder panicked".to_owned(),
        };
        tracing::error!(why, requests = batch.len(), "a batch of texts failed; its requests are given up");
        for (waiting, _) in batch {
            waiting.fail(Failure::Engine);
        }
    }

    /// Gives each request its vectors, and its share of the time; one with texts left goes to the end of the queue.
    fn deliver(&self, batch: Batch, vectors: Vec<Vec<f32>>, took: Duration) {
        let mut vectors = vectors.into_iter();
        let tokens_of =
            |(waiting, share): &(Waiting, usize)| waiting.left()[..*share].iter().map(Vec::len).sum();
        let tokens: Vec<usize> = batch.iter().map(tokens_of).collect();
        let times = shares_us(took, &tokens);
        for (((mut waiting, share), tokens), time_us) in batch.into_iter().zip(tokens).zip(times) {
            waiting.timing.embedded(tokens);
            waiting.embedded.vectors.extend(vectors.by_ref().take(share));
            waiting.embedded.compute_us += time_us;
            if waiting.left().is_empty() {
                let embedded = std::mem::take(&mut waiting.embedded);
                waiting.end(WorkerEnding::Finished, Ok(embedded));
            } else {
                self.shared.state().waiting.push_back(waiting);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::monotonic;
    use crate::telemetry::metrics::Occupancy;

    /// A stand-in for the encoder: a vector is its text's first token. Tells each batch, and waits to be let on.
    struct Script {
        batches: mpsc::UnboundedSender<Vec<u32>>,
        pace: mpsc::UnboundedReceiver<()>,
    }

    const POISON: u32 = 666;

    impl Encode for Script {
        fn encode(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EncodeError> {
            self.batches.send(texts.iter().map(|text| text[0]).collect()).unwrap();
            self.pace.blocking_recv();
            assert!(!texts.iter().any(|text| text[0] == POISON), "poison");
            Ok(texts.iter().map(|text| vec![text[0] as f32]).collect())
        }
    }

    struct Scene {
        desk: EmbeddingDesk,
        metrics: Arc<WorkerMetrics>,
        batches: mpsc::UnboundedReceiver<Vec<u32>>,
        pace: mpsc::UnboundedSender<()>,
    }

    impl Scene {
        fn new(queue: usize) -> Self {
            let (told, batches) = mpsc::unbounded_channel();
            let (pace, paced) = mpsc::unbounded_channel();
            let most = Occupancy { queue: 1, active: 1, kv_tokens: 1 };
            let metrics = Arc::new(WorkerMetrics::new("model", Some("mini"), most).unwrap());
            let script = Script { batches: told, pace: paced };
            let desk = EmbeddingDesk::start(script, queue, Arc::clone(&metrics), monotonic).unwrap();
            Self { desk, metrics, batches, pace }
        }

        /// Hands in one text for each first token, `length` tokens long.
        fn ask(&self, first: &[u32], length: usize) -> Result<oneshot::Receiver<Vectors>, WorkerDenial> {
            let texts = first.iter().map(|first| [vec![*first], vec![0; length - 1]].concat()).collect();
            self.desk.submit(texts, monotonic(), monotonic() + Duration::from_secs(600))
        }

        /// The batch that is computed next, which is then let on.
        fn batch(&mut self) -> Vec<u32> {
            let batch = self.batches.blocking_recv().unwrap();
            self.pace.send(()).unwrap();
            batch
        }

        fn told(&self, series: &str) -> f64 {
            let now = Occupancy { queue: 0, active: 0, kv_tokens: 0 };
            let text = String::from_utf8(self.metrics.text(now)).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
        }

        fn ended(&self, error_type: &str) -> f64 {
            self.told(&format!(
                "gen_ai_server_request_duration_seconds_count{{error_type=\"{error_type}\",\
                 gen_ai_operation_name=\"embeddings\",gen_ai_provider_name=\"candle\",\
                 gen_ai_request_model=\"mini\"}}"
            ))
        }
    }

    fn got(answer: oneshot::Receiver<Vectors>) -> Result<Vec<u32>, Failure> {
        let embedded = answer.blocking_recv().unwrap()?;
        assert!(embedded.compute_us > 0, "each batch of it took its time");
        Ok(embedded.vectors.into_iter().map(|vector| vector[0] as u32).collect())
    }

    #[test]
    fn short_requests_share_a_batch_and_a_long_one_lets_them_pass() {
        let mut scene = Scene::new(10);
        let long = scene.ask(&[1, 2, 3, 4, 5], 30).unwrap();
        assert_eq!(scene.batches.blocking_recv().unwrap(), [1, 2]);
        let (one, other) = (scene.ask(&[8], 20).unwrap(), scene.ask(&[9], 20).unwrap());
        let huge = scene.ask(&[7], 200).unwrap();
        scene.pace.send(()).unwrap();
        assert_eq!(scene.batch(), [8, 9], "the huge one does not fit beside them");
        assert_eq!((got(one), got(other)), (Ok(vec![8]), Ok(vec![9])));
        assert_eq!(scene.batch(), [7]);
        assert_eq!(got(huge), Ok(vec![7]));
        assert_eq!((scene.batch(), scene.batch()), (vec![3, 4], vec![5]));
        assert_eq!(got(long), Ok(vec![1, 2, 3, 4, 5]), "in the order of its texts");
        assert_eq!(scene.ended(""), 4.0);
        assert_eq!(scene.told("tunegate_worker_tokens_total{class=\"embedding\"}"), 390.0);
    }

    #[test]
    fn a_full_queue_turns_away_and_who_left_holds_no_place() {
        let mut scene = Scene::new(1);
        let first = scene.ask(&[1], 3).unwrap();
        assert_eq!(scene.batches.blocking_recv().unwrap(), [1]);
        let second = scene.ask(&[2], 3).unwrap();
        assert_eq!(scene.ask(&[3], 3).err(), Some(WorkerDenial::Full));
        drop(second);
        let third = scene.ask(&[3], 3).unwrap();
        scene.pace.send(()).unwrap();
        assert_eq!(scene.batch(), [3]);
        assert_eq!((got(first), got(third)), (Ok(vec![1]), Ok(vec![3])));
        assert_eq!(scene.ended("client_gone"), 1.0);
        assert_eq!(scene.told("tunegate_worker_denied_total{reason=\"full\"}"), 1.0);
    }

    #[test]
    fn a_client_that_leaves_ends_its_long_request() {
        let mut scene = Scene::new(1);
        let long = scene.ask(&[1, 2, 3], 60).unwrap();
        assert_eq!(scene.batches.blocking_recv().unwrap(), [1]);
        drop(long);
        scene.pace.send(()).unwrap();
        let next = scene.ask(&[9], 3).unwrap();
        assert_eq!(scene.batch(), [9]);
        assert_eq!(got(next), Ok(vec![9]));
        assert_eq!(scene.ended("client_gone"), 1.0);
    }

    #[test]
    fn a_panic_costs_its_batch_and_no_other() {
        let mut scene = Scene::new(4);
        let bad = scene.ask(&[POISON], 3).unwrap();
        assert_eq!(scene.batch(), [POISON]);
        assert_eq!(got(bad), Err(Failure::Engine));
        let good = scene.ask(&[5], 3).unwrap();
        assert_eq!(scene.batch(), [5]);
        assert_eq!(got(good), Ok(vec![5]));
        assert!(scene.desk.is_alive());
        assert_eq!(scene.ended("engine_failed"), 1.0);
    }

    #[test]
    fn the_late_are_told_and_a_stop_finishes_what_was_accepted() {
        let mut scene = Scene::new(4);
        let late = scene.desk.submit(vec![vec![1]], monotonic(), monotonic()).unwrap();
        assert_eq!(got(late), Err(Failure::TooSlow));
        let first = scene.ask(&[1], 3).unwrap();
        assert_eq!(scene.batches.blocking_recv().unwrap(), [1]);
        let second = scene.ask(&[2], 3).unwrap();
        scene.desk.drain();
        assert_eq!(scene.ask(&[3], 3).err(), Some(WorkerDenial::Stopping));
        scene.pace.send(()).unwrap();
        assert_eq!(scene.batches.blocking_recv().unwrap(), [2]);
        assert_eq!(got(first), Ok(vec![1]));
        scene.desk.end();
        scene.pace.send(()).unwrap();
        assert_eq!(got(second), Ok(vec![2]), "the batch that runs is finished");
        assert_eq!((scene.ended("request_timeout"), scene.ended("")), (1.0, 2.0));
    }

    #[test]
    fn the_end_leaves_nobody_waiting() {
        let mut scene = Scene::new(4);
        let first = scene.ask(&[1, 2], 60).unwrap();
        assert_eq!(scene.batches.blocking_recv().unwrap(), [1]);
        let second = scene.ask(&[2], 3).unwrap();
        scene.desk.end();
        scene.pace.send(()).unwrap();
        assert_eq!((got(first), got(second)), (Err(Failure::Stopping), Err(Failure::Stopping)));
        assert_eq!(scene.ended("server_is_stopping"), 2.0);
    }
}
