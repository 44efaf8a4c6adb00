use std::sync::atomic::{AtomicUsize, Ordering};

use tunegate_engine::Wanted;

use super::*;
use crate::clock::monotonic;
use crate::telemetry::metrics::Occupancy;
use crate::worker::testing;

/// A stand-in for the engine: says `a`, `b`, `c`, … for ever, or breaks.
#[derive(Clone, Default)]
struct Script {
    steps: Arc<AtomicUsize>,
    /// Items of each step so far.
    widest: Arc<AtomicUsize>,
    most_prompt_tokens: Arc<AtomicUsize>,
    /// Panics when it meets this token.
    poison: Option<u32>,
    pace: Option<Arc<Mutex<mpsc::UnboundedReceiver<()>>>>,
}

impl Forward for Script {
    fn forward(&mut self, items: &mut [Item<'_>]) -> Result<Vec<Option<Vec<f32>>>, ForwardError> {
        if let Some(pace) = &self.pace {
            pace.lock().unwrap().blocking_recv();
        }
        self.steps.fetch_add(1, Ordering::SeqCst);
        self.widest.fetch_max(items.len(), Ordering::SeqCst);
        let prompt_tokens = items.iter().map(|item| item.tokens.len()).filter(|count| *count > 1).sum();
        self.most_prompt_tokens.fetch_max(prompt_tokens, Ordering::SeqCst);
        assert!(
            !items.iter().any(|item| self.poison.is_some_and(|poison| item.tokens.contains(&poison))),
            "poison"
        );
        Ok(items
            .iter()
            .map(|item| match item.wanted {
                Wanted::Nothing => None,
                Wanted::Logits => {
                    let mut logits = vec![0.0; 49_152];
                    // `a` is 81, `b` 82 and so on; after a prompt, `a`.
                    let last = item.tokens[item.tokens.len() - 1];
                    logits[if (81..106).contains(&last) { last as usize + 1 } else { 81 }] = 9.0;
                    Some(logits)
                }
                // each as unlikely as its number is high
                Wanted::Scores(next) => Some(next.iter().flatten().map(|token| -(*token as f32)).collect()),
            })
            .collect())
    }
}

fn limits() -> Limits {
    Limits { batch: 2, queue: 2, tokens: 100_000, unread: Duration::from_secs(60) }
}

fn start(script: &Script, limits: Limits) -> Scheduler {
    let (tokenizer, shape) = testing::tokenizer();
    let most = Occupancy { queue: limits.queue, active: limits.batch, kv_tokens: limits.tokens };
    let metrics = Arc::new(WorkerMetrics::new("model", None, most).unwrap());
    Scheduler::start(script.clone(), shape, tokenizer, limits, metrics, monotonic).unwrap()
}

/// What the metrics say of a series, without its labels for provider and model.
fn told(scheduler: &Scheduler, series: &str) -> f64 {
    let Load { active, queued, tokens } = scheduler.load();
    let text = scheduler.desk.metrics.text(Occupancy { queue: queued, active, kv_tokens: tokens });
    let text = String::from_utf8(text).unwrap();
    let text = text.replace(",gen_ai_provider_name=\"candle\",gen_ai_request_model=\"model\"", "");
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

/// How many requests have ended in this way.
fn ended(scheduler: &Scheduler, operation: &str, error_type: &str) -> f64 {
    let labels = format!("error_type=\"{error_type}\",gen_ai_operation_name=\"{operation}\"");
    told(scheduler, &format!("gen_ai_server_request_duration_seconds_count{{{labels}}}"))
}

fn job(prompt: usize, most: usize) -> Job {
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 0 };
    let deadline = monotonic() + Duration::from_secs(600);
    Job {
        operation: WorkerOperation::Chat,
        arrived: monotonic(),
        prompt: vec![500; prompt],
        most,
        known: None,
        sampling,
        stops: Vec::new(),
        deadline,
        adapter: None,
    }
}

fn all(mut events: mpsc::Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.blocking_recv()).collect()
}

fn text(events: &[Event]) -> String {
    events
        .iter()
        .filter_map(|event| if let Event::Text { text, .. } = event { Some(text.as_str()) } else { None })
        .collect()
}

/// Waits for a condition, at most ten seconds.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let end = monotonic() + Duration::from_secs(10);
    while !condition() {
        assert!(monotonic() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_from_start_to_end() {
    let scheduler = start(&Script::default(), limits());
    let events = all(scheduler.submit(job(3, 4)).unwrap());
    assert!(matches!(events[0], Event::Started { .. }));
    assert_eq!(text(&events), "abcd");
    assert!(
        matches!(events[5], Event::Finished { reason: FinishReason::Length, tokens: 4, .. }),
        "{events:?}"
    );
    let mut stopped = job(3, 40);
    stopped.stops = vec!["ef".into()];
    let events = all(scheduler.submit(stopped).unwrap());
    assert_eq!(text(&events), "abcd");
    let last = events.last().unwrap();
    assert!(matches!(last, Event::Finished { reason: FinishReason::Stop, tokens: 6, .. }), "{last:?}");
    wait_for("nothing runs", || scheduler.load() == Load { active: 0, queued: 0, tokens: 0 });
}

/// The loss that is all that was said, and that some time was computed for.
fn loss(events: &[Event]) -> f64 {
    match events {
        [Event::Scored { loss_sum, compute_us }] if *compute_us > 0 => *loss_sum,
        other => panic!("no loss: {other:?}"),
    }
}

/// How long was computed for a request, by its last event.
fn computed_us(events: &[Event]) -> u64 {
    match events.last() {
        Some(Event::Finished { compute_us, .. }) => *compute_us,
        last => panic!("no good end: {last:?}"),
    }
}

#[test]
fn what_is_computed_is_shared_out_and_all_of_it() {
    let script = Script::default();
    let scheduler = start(&script, limits());
    let (long, short) = (scheduler.submit(job(600, 30)).unwrap(), scheduler.submit(job(2, 9)).unwrap());
    let (long, short) = (all(long), all(short));
    let Event::Started { compute_us: begun } = long[0] else { panic!("{long:?}") };
    assert!(begun > 0 && begun <= computed_us(&long), "reading the prompt is a part of it");
    wait_for("nothing runs", || scheduler.load() == Load { active: 0, queued: 0, tokens: 0 });
    // the metrics know the same steps, to the nanosecond: of each step less than a microsecond is nobody's
    let steps_us = told(&scheduler, "tunegate_worker_step_duration_seconds_sum") * 1e6;
    let shared_us = (computed_us(&long) + computed_us(&short)) as f64;
    let steps = script.steps.load(Ordering::SeqCst) as f64;
    assert!((-1.0..=steps + 1.0).contains(&(steps_us - shared_us)), "{shared_us} of {steps_us}");
}

#[test]
fn prompts_come_in_chunks() {
    let script = Script::default();
    let scheduler = start(&script, limits());
    let events = all(scheduler.submit(job(1000, 2)).unwrap());
    assert_eq!(text(&events), "ab");
    assert_eq!(script.most_prompt_tokens.load(Ordering::SeqCst), CHUNK);
    assert_eq!(script.steps.load(Ordering::SeqCst), 1000usize.div_ceil(CHUNK) + 1);
}

/// A known answer of so many tokens behind a prompt; each token's score is −2.
fn known(prompt: usize, answer: usize) -> Job {
    let next = std::iter::repeat_n(None, prompt).chain(std::iter::repeat_n(Some(2), answer)).collect();
    Job { operation: WorkerOperation::Score, known: Some(next), ..job(prompt + answer, 0) }
}

#[test]
fn a_known_answer_is_read_and_nothing_is_made() {
    let script = Script::default();
    let scheduler = start(&script, limits());
    assert_eq!(loss(&all(scheduler.submit(known(200, 100)).unwrap())), 200.0);
    assert_eq!(script.steps.load(Ordering::SeqCst), 300usize.div_ceil(CHUNK));
    assert_eq!(script.most_prompt_tokens.load(Ordering::SeqCst), CHUNK);
    assert_eq!(loss(&all(scheduler.submit(known(0, 1)).unwrap())), 2.0);
    assert_eq!(told(&scheduler, "tunegate_worker_tokens_total{class=\"prompt\"}"), 301.0);
    assert_eq!(told(&scheduler, "tunegate_worker_tokens_total{class=\"completion\"}"), 0.0);
    assert_eq!(ended(&scheduler, "score", ""), 2.0);
}

#[test]
fn a_long_known_answer_stops_no_running_one() {
    let (go, pace) = mpsc::unbounded_channel();
    let script = Script { pace: Some(Arc::new(Mutex::new(pace))), ..Script::default() };
    let scheduler = start(&script, limits());
    let answer = scheduler.submit(job(3, 12)).unwrap();
    wait_for("the answer runs", || scheduler.load().active == 1);
    let mut scored = scheduler.submit(known(100, 8_000)).unwrap();
    for _ in 0..12 {
        go.send(()).unwrap();
    }
    assert_eq!(text(&all(answer)), "abcdefghijkl");
    assert!(scored.try_recv().is_err(), "it is still being read");
    assert!(script.most_prompt_tokens.load(Ordering::SeqCst) <= CHUNK_BESIDE);
    drop(go);
    assert_eq!(loss(&all(scored)), 16_000.0);
}

#[test]
fn a_question_behind_a_book_is_answered_first() {
    let (go, pace) = mpsc::unbounded_channel();
    let script = Script { pace: Some(Arc::new(Mutex::new(pace))), ..Script::default() };
    let scheduler = start(&script, limits());
    let mut book = scheduler.submit(job(8_000, 1)).unwrap();
    wait_for("the book runs", || scheduler.load().active == 1);
    let question = scheduler.submit(job(40, 3)).unwrap();
    // One step may have begun with the book alone; one reads the question, two more finish it.
    for _ in 0..4 {
        go.send(()).unwrap();
    }
    assert_eq!(text(&all(question)), "abc");
    assert!(book.try_recv().is_err(), "the book is still being read");
    drop(go);
    assert_eq!(text(&all(book)), "a");
}

#[test]
fn a_full_queue_denies_and_a_batch_runs_together() {
    let (go, pace) = mpsc::unbounded_channel();
    let script = Script { pace: Some(Arc::new(Mutex::new(pace))), ..Script::default() };
    let scheduler = start(&script, limits());
    let first = scheduler.submit(job(3, 20)).unwrap();
    wait_for("the first runs", || scheduler.load().active == 1);
    let rest: Vec<_> = (0..3).map(|_| scheduler.submit(job(3, 20)).unwrap()).collect();
    assert_eq!(scheduler.submit(job(3, 20)).unwrap_err(), WorkerDenial::Full);
    drop(go);
    for events in rest.into_iter().chain([first]) {
        assert_eq!(text(&all(events)), "abcdefghijklmnopqrst");
    }
    assert_eq!(script.widest.load(Ordering::SeqCst), 2);
    assert!(scheduler.submit(job(3, 2)).is_ok());
}

#[test]
fn who_left_costs_no_further_step() {
    let (go, pace) = mpsc::unbounded_channel();
    let script = Script { pace: Some(Arc::new(Mutex::new(pace))), ..Script::default() };
    let scheduler = start(&script, limits());
    let events = scheduler.submit(job(3, 20)).unwrap();
    go.send(()).unwrap();
    wait_for("one step was made", || script.steps.load(Ordering::SeqCst) == 1);
    // The next step may have begun; none may begin after it.
    drop(events);
    go.send(()).unwrap();
    wait_for("it is gone", || scheduler.load().active == 0);
    assert!(script.steps.load(Ordering::SeqCst) <= 2);
}

#[test]
fn who_does_not_read_holds_up_nobody_and_is_dismissed() {
    let script = Script::default();
    let scheduler = start(&script, Limits { unread: Duration::from_millis(300), ..limits() });
    let mut deaf = scheduler.submit(job(3, 5_000)).unwrap();
    wait_for("its channel is full", || deaf.len() >= CHANNEL - 3);
    let events = all(scheduler.submit(job(3, 20)).unwrap());
    assert_eq!(text(&events), "abcdefghijklmnopqrst");
    assert!(deaf.len() <= CHANNEL);
    wait_for("the deaf one is dismissed", || scheduler.load().active == 0);
    let mut last = None;
    while let Some(event) = deaf.blocking_recv() {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Failed(Failure::TooSlow)));
}

#[test]
fn a_panic_fails_who_runs_and_nobody_else() {
    let scheduler = start(&Script { poison: Some(666), ..Script::default() }, limits());
    let mut poisoned = job(3, 5);
    poisoned.prompt[1] = 666;
    assert_eq!(all(scheduler.submit(poisoned).unwrap()), [Event::Failed(Failure::Engine)]);
    assert_eq!(text(&all(scheduler.submit(job(3, 3)).unwrap())), "abc");
    assert!(scheduler.is_open());
}

#[test]
fn the_budget_holds_back_who_does_not_fit() {
    let (go, pace) = mpsc::unbounded_channel();
    let script = Script { pace: Some(Arc::new(Mutex::new(pace))), ..Script::default() };
    let scheduler = start(&script, Limits { tokens: 128, ..limits() });
    let first = scheduler.submit(job(60, 20)).unwrap();
    wait_for("the first runs", || scheduler.load().active == 1);
    let second = scheduler.submit(job(60, 20)).unwrap();
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    wait_for("steps were made", || script.steps.load(Ordering::SeqCst) == 3);
    assert_eq!(scheduler.load(), Load { active: 1, queued: 1, tokens: Cache::rounded(80) });
    drop(go);
    assert_eq!((text(&all(first)).len(), text(&all(second)).len()), (20, 20));
    assert_eq!(script.widest.load(Ordering::SeqCst), 1);
}

#[test]
fn a_deadline_ends_an_answer() {
    let scheduler = start(&Script::default(), limits());
    let mut late = job(3, 5_000);
    late.deadline = monotonic();
    assert_eq!(all(scheduler.submit(late).unwrap()), [Event::Failed(Failure::TooSlow)]);
}

#[test]
fn draining_turns_away_who_waits_and_finishes_who_runs() {
    let (go, pace) = mpsc::unbounded_channel();
    let script = Script { pace: Some(Arc::new(Mutex::new(pace))), ..Script::default() };
    let scheduler = start(&script, Limits { batch: 1, ..limits() });
    let running = scheduler.submit(job(3, 5)).unwrap();
    wait_for("it runs", || scheduler.load().active == 1);
    let waiting = scheduler.submit(job(3, 5)).unwrap();
    scheduler.drain();
    assert_eq!(scheduler.submit(job(3, 5)).unwrap_err(), WorkerDenial::Stopping);
    drop(go);
    assert_eq!(text(&all(running)), "abcde");
    assert_eq!(all(waiting), [Event::Failed(Failure::Stopping)]);
    let endless = start(&Script::default(), limits());
    let mut events = endless.submit(job(3, 5_000)).unwrap();
    wait_for("it runs", || endless.load().active == 1);
    endless.end();
    let mut last = None;
    while let Some(event) = events.blocking_recv() {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Failed(Failure::Stopping)));
    wait_for("the thread has ended", || !endless.is_alive());
}

#[test]
fn steps_and_tokens_are_told() {
    let (go, pace) = mpsc::unbounded_channel();
    let script = Script { pace: Some(Arc::new(Mutex::new(pace))), ..Script::default() };
    let scheduler = start(&script, limits());
    let first = scheduler.submit(job(300, 5)).unwrap();
    wait_for("the first runs", || scheduler.load().active == 1);
    let completion = Job { operation: WorkerOperation::TextCompletion, ..job(3, 4) };
    let second = scheduler.submit(completion).unwrap();
    let third = scheduler.submit(job(3, 1)).unwrap();
    drop(scheduler.submit(job(7, 1)).unwrap());
    assert_eq!(told(&scheduler, "tunegate_worker_queue"), 3.0);
    assert_eq!(told(&scheduler, "tunegate_worker_active"), 1.0);
    assert_eq!(told(&scheduler, "tunegate_worker_kv_tokens"), Cache::rounded(305) as f64);
    assert_eq!(told(&scheduler, "tunegate_worker_tokens_total{class=\"prompt\"}"), 0.0);
    drop(go);
    assert_eq!(
        (text(&all(first)), text(&all(second)), text(&all(third))),
        ("abcde".into(), "abcd".into(), "a".into())
    );
    wait_for("nothing runs", || scheduler.load() == Load { active: 0, queued: 0, tokens: 0 });
    let steps = script.steps.load(Ordering::SeqCst) as f64;
    assert_eq!(told(&scheduler, "tunegate_worker_batch_size_count"), steps);
    assert_eq!(told(&scheduler, "tunegate_worker_step_duration_seconds_count"), steps);
    let alone = told(&scheduler, "tunegate_worker_batch_size_bucket{le=\"1\"}");
    assert!(alone < steps, "some steps had two");
    assert_eq!(told(&scheduler, "tunegate_worker_batch_size_bucket{le=\"2\"}"), steps);
    assert_eq!(told(&scheduler, "tunegate_worker_batch_size_sum"), alone + 2.0 * (steps - alone));
    assert_eq!(told(&scheduler, "tunegate_worker_tokens_total{class=\"prompt\"}"), 306.0);
    assert_eq!(told(&scheduler, "tunegate_worker_tokens_total{class=\"completion\"}"), 10.0);
    assert_eq!(ended(&scheduler, "chat", ""), 2.0);
    assert_eq!(ended(&scheduler, "chat", "client_gone"), 1.0);
    assert_eq!(ended(&scheduler, "text_completion", ""), 1.0);
    for (operation, first_tokens, means) in [("chat", 2.0, 1.0), ("text_completion", 1.0, 1.0)] {
        let count = |family: &str| {
            told(
                &scheduler,
                &format!("gen_ai_server_{family}_seconds_count{{gen_ai_operation_name=\"{operation}\"}}"),
            )
        };
        assert_eq!(count("time_to_first_token"), first_tokens);
        // an answer of one token has no time between two
        assert_eq!(count("time_per_output_token"), means);
    }
}

#[test]
fn the_times_of_a_request_are_its_own() {
    /// A clock that goes on by a second each time it is read.
    fn ticking() -> Instant {
        static READ: AtomicUsize = AtomicUsize::new(0);
        static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let read = u32::try_from(READ.fetch_add(1, Ordering::SeqCst)).unwrap();
        *BEGUN.get_or_init(monotonic) + Duration::from_secs(1) * read
    }
    let (tokenizer, shape) = testing::tokenizer();
    let most = Occupancy { queue: 2, active: 2, kv_tokens: 100_000 };
    let metrics = Arc::new(WorkerMetrics::new("model", None, most).unwrap());
    let scheduler =
        Scheduler::start(Script::default(), shape, tokenizer, limits(), metrics, ticking).unwrap();
    let arrived = ticking();
    let long_ago = Job { arrived, deadline: arrived + Duration::from_secs(600), ..job(3, 4) };
    assert_eq!(text(&all(scheduler.submit(long_ago).unwrap())), "abcd");
    // Read at the beginning and the end of each of four steps, and when it was finished.
    let chat = "{gen_ai_operation_name=\"chat\"}";
    assert_eq!(told(&scheduler, &format!("gen_ai_server_time_to_first_token_seconds_sum{chat}")), 2.0);
    assert_eq!(told(&scheduler, &format!("gen_ai_server_time_per_output_token_seconds_sum{chat}")), 2.0);
    let labels = "{error_type=\"\",gen_ai_operation_name=\"chat\"}";
    assert_eq!(told(&scheduler, &format!("gen_ai_server_request_duration_seconds_sum{labels}")), 9.0);
    assert_eq!(told(&scheduler, "tunegate_worker_step_duration_seconds_sum"), 4.0);
}

#[test]
fn each_way_to_end_is_told_once() {
    let poisoned = start(&Script { poison: Some(666), ..Script::default() }, limits());
    let mut poison = job(3, 5);
    poison.prompt[1] = 666;
    all(poisoned.submit(poison).unwrap());
    assert_eq!(ended(&poisoned, "chat", "engine_failed"), 1.0);
    assert_eq!(told(&poisoned, "tunegate_worker_step_duration_seconds_count"), 0.0);

    let mut late = job(3, 5_000);
    late.deadline = monotonic();
    all(poisoned.submit(late).unwrap());
    assert_eq!(ended(&poisoned, "chat", "request_timeout"), 1.0);
    assert_eq!((ended(&poisoned, "chat", ""), ended(&poisoned, "chat", "client_gone")), (0.0, 0.0));

    let (go, pace) = mpsc::unbounded_channel();
    let script = Script { pace: Some(Arc::new(Mutex::new(pace))), ..Script::default() };
    let scheduler = start(&script, Limits { batch: 1, queue: 1, ..limits() });
    let running = scheduler.submit(job(3, 5)).unwrap();
    wait_for("it runs", || scheduler.load().active == 1);
    let waiting = scheduler.submit(job(3, 5)).unwrap();
    assert_eq!(scheduler.submit(job(3, 5)).unwrap_err(), WorkerDenial::Full);
    scheduler.drain();
    assert_eq!(scheduler.submit(job(3, 5)).unwrap_err(), WorkerDenial::Stopping);
    drop(running);
    drop(go);
    all(waiting);
    wait_for("nothing runs", || scheduler.load().active == 0);
    assert_eq!(ended(&scheduler, "chat", "server_is_stopping"), 1.0);
    assert_eq!(ended(&scheduler, "chat", "client_gone"), 1.0);
    assert_eq!(told(&scheduler, "tunegate_worker_denied_total{reason=\"full\"}"), 1.0);
    assert_eq!(told(&scheduler, "tunegate_worker_denied_total{reason=\"stopping\"}"), 1.0);
}
