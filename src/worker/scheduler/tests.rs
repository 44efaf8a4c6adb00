use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::monotonic;
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
            .map(|item| {
                item.logits.then(|| {
                    let mut logits = vec![0.0; 49_152];
                    // `a` is 81, `b` 82 and so on; after a prompt, `a`.
                    let last = item.tokens[item.tokens.len() - 1];
                    logits[if (81..106).contains(&last) { last as usize + 1 } else { 81 }] = 9.0;
                    logits
                })
            })
            .collect())
    }
}

fn limits() -> Limits {
    Limits { batch: 2, queue: 2, tokens: 100_000, unread: Duration::from_secs(60) }
}

fn start(script: &Script, limits: Limits) -> Scheduler {
    let (tokenizer, shape) = testing::tokenizer();
    Scheduler::start(script.clone(), shape, tokenizer, limits, monotonic).unwrap()
}

fn job(prompt: usize, most: usize) -> Job {
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 0 };
    let deadline = monotonic() + Duration::from_secs(600);
    Job { prompt: vec![500; prompt], most, sampling, stops: Vec::new(), deadline }
}

fn all(mut events: mpsc::Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.blocking_recv()).collect()
}

fn text(events: &[Event]) -> String {
    events
        .iter()
        .filter_map(|event| if let Event::Text(text) = event { Some(text.as_str()) } else { None })
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
    assert_eq!(events[0], Event::Started);
    assert_eq!(text(&events), "abcd");
    assert_eq!(events[5], Event::Finished { reason: FinishReason::Length, tokens: 4 });
    let mut stopped = job(3, 40);
    stopped.stops = vec!["ef".into()];
    let events = all(scheduler.submit(stopped).unwrap());
    assert_eq!(text(&events), "abcd");
    assert_eq!(events.last(), Some(&Event::Finished { reason: FinishReason::Stop, tokens: 6 }));
    wait_for("nothing runs", || scheduler.load() == Load { active: 0, queued: 0 });
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
    assert_eq!(scheduler.submit(job(3, 20)).unwrap_err(), Denied::Full);
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
    assert_eq!(scheduler.load(), Load { active: 1, queued: 1 });
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
    assert_eq!(scheduler.submit(job(3, 5)).unwrap_err(), Denied::Stopping);
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
