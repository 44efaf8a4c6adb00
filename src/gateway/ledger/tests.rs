//! The ledger's task against a journal in memory that many processes share, and that fails before and after it has
//! written.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;

use super::journal::{AppendError, Beat};
use super::*;
use crate::domain::budget::{Action, Scope};
use crate::domain::ledger::{EntryKind, Purpose};
use crate::domain::money::{Cost, PerToken};
use crate::domain::window::Window;

/// Longer than what is not tried after a first failure or two.
const BACK_SOON: Duration = Duration::from_millis(250);

#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    beats: BTreeMap<Arc<str>, (i64, bool)>,
    /// Appends until the next one fails; the failing one is written all the same if the number is odd.
    fails_in: Option<u64>,
    down: bool,
    /// It can be read; nothing is appended.
    appends_fail: bool,
    /// It can be read; nobody beats.
    beats_fail: bool,
    /// Appends with a hold wait.
    holds_stall: bool,
}

/// A journal in memory.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Table>>);

#[async_trait]
impl Journal for Shared {
    async fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), AppendError> {
        tokio::task::yield_now().await;
        while entries.iter().any(|entry| entry.kind == EntryKind::Hold) && self.0.lock().holds_stall {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let failed = || AppendError::Failed("pulled the plug".to_owned());
        let mut table = self.0.lock();
        if table.down || table.appends_fail {
            return Err(failed());
        }
        assert!(entries.len() <= journal::BATCH, "a batch of {}", entries.len());
        let next = table.entries.len() as i64 + 1;
        if entries[0].seq < next {
            return Err(AppendError::Conflict);
        }
        let fails = table.fails_in.map(|left| left.saturating_sub(1));
        table.fails_in = fails.filter(|left| *left > 0);
        let before = fails == Some(0) && next % 2 == 0;
        if before {
            return Err(failed());
        }
        for (entry, seq) in entries.iter().zip(next..) {
            assert_eq!(entry.seq, seq, "a gap");
            table.entries.push((**entry).clone());
        }
        if fails == Some(0) { Err(failed()) } else { Ok(()) }
    }

    async fn after(&mut self, seq: Seq, limit: usize) -> Result<Vec<Entry>, AppendError> {
        tokio::task::yield_now().await;
        let table = self.0.lock();
        if table.down {
            return Err(AppendError::Failed("down".to_owned()));
        }
        Ok(table.entries.iter().skip(usize::try_from(seq).expect("a number")).take(limit).cloned().collect())
    }

    async fn head(&mut self) -> Result<Seq, AppendError> {
        Ok(self.0.lock().entries.len() as Seq)
    }

    async fn start(&mut self) -> Result<(Seq, Vec<Entry>), AppendError> {
        Ok((0, Vec::new()))
    }

    async fn beat(&mut self, instance: &str, beat: i64, _open_from: Seq) -> Result<(), AppendError> {
        let mut table = self.0.lock();
        if table.down || table.beats_fail {
            return Err(AppendError::Failed("read-only".to_owned()));
        }
        table.beats.insert(instance.into(), (beat, false));
        Ok(())
    }

    async fn ended(&mut self, instance: &str) -> Result<(), AppendError> {
        self.0.lock().beats.entry(instance.into()).or_default().1 = true;
        Ok(())
    }

    async fn close(&mut self) {}

    async fn beats(&mut self) -> Result<Vec<Beat>, AppendError> {
        let table = self.0.lock();
        let beat = |(instance, (beat, ended)): (&Arc<str>, &(i64, bool))| Beat {
            instance: Arc::clone(instance),
            beat: *beat,
            ended: *ended,
        };
        Ok(table.beats.iter().map(beat).collect())
    }
}

struct Process {
    ledger: Arc<Ledger>,
    task: JoinHandle<()>,
    told: Arc<Mutex<Vec<Happened>>>,
}

impl Process {
    #[expect(clippy::disallowed_methods, reason = "the test owns the task")]
    fn start(journal: &Shared, name: &str, config: Config) -> Self {
        let told = Arc::<Mutex<Vec<Happened>>>::default();
        let heard = Arc::clone(&told);
        let observer = move |happened| heard.lock().push(happened);
        let (ledger, task) = Ledger::new(journal.clone(), name.into(), config, Arc::new(observer));
        Self { ledger: Arc::new(ledger), task: tokio::spawn(task), told }
    }

    async fn with(self, budget: Budget) -> Self {
        self.ledger.define(vec![Arc::new(budget)], Vec::new(), 0).await.expect("defined");
        self
    }

    /// How often it was told of such.
    fn heard(&self, of: impl Fn(&Happened) -> bool) -> usize {
        self.told.lock().iter().filter(|happened| of(happened)).count()
    }

    /// Waits until it was told of such.
    async fn hears(&self, of: impl Fn(&Happened) -> bool) {
        let heard = async {
            while self.heard(&of) == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(20), heard).await.expect("told");
    }

    async fn close(self) {
        self.ledger.close().await;
        self.task.await.expect("ends");
    }
}

fn total(nanos: i64) -> Budget {
    Budget {
        name: "total".into(),
        scope: Scope::default(),
        limit: Usd::from_nanos(nanos),
        window: Window::Total,
        alert_at: Vec::new(),
        action: Action::Refuse,
        raise: None,
        declared: false,
    }
}

fn ask(nanos: u64) -> Ask {
    let nano = PerToken::from_picos(1_000).expect("a price");
    let bound = UpperBound {
        fixed: Cost::default().and(nanos, nano),
        per_output_token: nano,
        output_cap: 0,
        choices: 1,
        clampable: false,
    };
    Ask {
        request_id: "req".into(),
        attribution: Arc::default(),
        bound,
        tokens: TokenCounts::default(),
        price: "test".into(),
    }
}

fn used(nanos: i64) -> Settlement {
    Settlement::new(TokenCounts::default(), UsageSource::Reported, Usd::from_nanos(nanos))
}

/// What the journal says was spent, after checking that every hold ended once and no prefix is above a ceiling.
fn audited(journal: &Shared, ceiling: i64) -> i64 {
    let table = journal.0.lock();
    let mut open = BTreeMap::new();
    let (mut spent, mut held) = (0, 0);
    for entry in &table.entries {
        match entry.kind {
            EntryKind::Hold => drop(open.insert(entry.seq, entry.held)),
            kind if kind.ends_a_hold() => {
                assert_eq!(open.remove(&entry.of), Some(entry.held), "ended twice: {entry:?}");
            }
            _ => {}
        }
        spent += entry.spends().nanos();
        held += entry.reserves().nanos();
        assert!(spent + held <= ceiling, "{spent} + {held} above {ceiling} at {}", entry.seq);
    }
    assert!(open.is_empty(), "never ended: {open:?}");
    assert_eq!(held, 0);
    spent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once_and_money_for_a_hundred() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(1_000)).await;
    let asks = (0..1_000).map(|_| {
        let ledger = Arc::clone(&process.ledger);
        async move {
            match ledger.hold(ask(10)).await {
                Ok(mut reservation) => {
                    reservation.sent();
                    tokio::task::yield_now().await;
                    reservation.settle(used(10));
                    true
                }
                Err(HoldError::Exceeded(exceeded)) => {
                    assert!(exceeded.spent + exceeded.reserved + exceeded.wanted > exceeded.limit);
                    false
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
    let served = futures_util::future::join_all(asks).await.into_iter().filter(|served| *served).count();
    assert_eq!(served, 100);
    process.close().await;
    assert_eq!(audited(&journal, 1_000), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_use_a_budget_up() {
    let journal = Shared::default();
    let config = Config { hold_wait: Duration::from_secs(30), ..Config::default() };
    let process = Process::start(&journal, "one", config).with(total(1_000)).await;
    let asks = (0..1_000).map(|_| {
        let ledger = Arc::clone(&process.ledger);
        async move {
            let Ok(reservation) = ledger.hold(ask(100)).await else { return 0 };
            tokio::task::yield_now().await;
            reservation.settle(used(10));
            1
        }
    });
    let served: i64 = futures_util::future::join_all(asks).await.into_iter().sum();
    process.close().await;
    let spent = audited(&journal, 1_000);
    assert_eq!(spent, served * 10);
    assert!(1_000 - spent < 100, "less than one hold is left, not {}", 1_000 - spent);
}

#[tokio::test]
async fn a_dropped_reservation_is_released_or_charged_whole() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(100)).await;
    drop(process.ledger.hold(ask(40)).await.expect("held"));
    let mut sent = process.ledger.hold(ask(50)).await.expect("held");
    sent.sent();
    drop(sent);
    // a request that leaves while its hold is on the way
    assert!(process.ledger.hold(ask(30)).now_or_never().is_none());
    process.ledger.hold(ask(10)).await.expect("held").settle(used(25));
    let told = Arc::clone(&process.told);
    process.close().await;
    assert_eq!(audited(&journal, 1_000), 75);
    let overshot = told.lock().iter().filter(|happened| matches!(happened, Happened::Overshot(_))).count();
    assert_eq!(overshot, 1, "25 on a hold of 10");
    let unconfirmed = |entry: &&Entry| entry.source == Some(UsageSource::Unconfirmed);
    assert_eq!(journal.0.lock().entries.iter().filter(unconfirmed).count(), 1);
}

#[tokio::test]
async fn a_database_that_is_away_refuses_holds_and_loses_no_settlement() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(100)).await;
    let reservation = process.ledger.hold(ask(60)).await.expect("held");
    journal.0.lock().down = true;
    reservation.settle(used(55));
    assert!(matches!(process.ledger.hold(ask(1)).await, Err(HoldError::Unavailable(_))));
    assert!(matches!(process.ledger.hold(ask(1)).await, Err(HoldError::Unavailable(_))));
    journal.0.lock().down = false;
    let held = timeout(Duration::from_secs(10), async {
        loop {
            match process.ledger.hold(ask(45)).await {
                Ok(reservation) => break reservation,
                Err(HoldError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(other) => panic!("{other}"),
            }
        }
    });
    held.await.expect("it comes back").settle(used(45));
    process.close().await;
    assert_eq!(audited(&journal, 100), 100);
}

#[tokio::test]
async fn only_a_process_that_is_gone_is_settled_by_another() {
    let journal = Shared::default();
    // so long that one who lives is not taken for dead on a busy machine
    let config = Config { lease: Duration::from_secs(2), ..Config::default() };
    let dead = Process::start(&journal, "dead", config).with(total(100)).await;
    let alive = Process::start(&journal, "alive", config).with(total(100)).await;
    let orphan = dead.ledger.hold(ask(40)).await.expect("held");
    let living = alive.ledger.hold(ask(30)).await.expect("held");
    let refused = alive.ledger.hold(ask(31)).await;
    let Err(HoldError::Exceeded(exceeded)) = refused else { panic!("the other's hold counts") };
    assert_eq!(exceeded.reserved, Usd::from_nanos(70));
    dead.task.abort();
    let ended = timeout(Duration::from_secs(60), async {
        while alive.ledger.open_holds().0 > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    ended.await.expect("settled for the dead");
    living.settle(used(30));
    drop(orphan);
    alive.close().await;
    assert_eq!(audited(&journal, 100), 70, "the orphan is charged whole");
}

/// What a job asks for.
fn ask_for_a_job(job: &str, nanos: u64) -> Ask {
    let attribution = Attribution { purpose: Purpose::Training, ..Attribution::default() };
    Ask { request_id: job.into(), attribution: Arc::new(attribution), ..ask(nanos) }
}

#[tokio::test]
async fn a_jobs_hold_outlives_its_process_and_ends_once_by_anybody() {
    let journal = Shared::default();
    let config = Config { lease: Duration::from_millis(100), ..Config::default() };
    let dead = Process::start(&journal, "dead", config).with(total(100)).await;
    let (one, two) = (Process::start(&journal, "one", config), Process::start(&journal, "two", config));
    let (one, two) = (one.with(total(100)).await, two.with(total(100)).await);
    let standing = dead.ledger.hold(ask_for_a_job("job", 40)).await.expect("held").stands();
    let orphan = dead.ledger.hold(ask(30)).await.expect("held");
    dead.task.abort();
    for process in [&one, &two] {
        let ended = timeout(Duration::from_secs(10), async {
            while process.ledger.open_holds().0 != 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        ended.await.expect("the request's hold is charged, the job's stands");
        assert_eq!(process.ledger.standing("job"), [standing]);
        assert_eq!(process.ledger.standing("req"), []);
    }
    let ended = futures_util::future::join(
        one.ledger.end_standing(standing.seq, Some(used(50))),
        two.ledger.end_standing(standing.seq, Some(used(50))),
    );
    let (first, second) = ended.await;
    assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
    assert_eq!(first.and(second), Err(BookError::Ended(standing.seq)));
    drop(orphan);
    one.close().await;
    two.close().await;
    // a provider may bill above its quote
    assert_eq!(audited(&journal, 120), 80);
}

#[tokio::test]
async fn a_job_without_a_hold_is_charged_once() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(100)).await;
    let bill = |job: &str| {
        let ask = ask_for_a_job(job, 0);
        let drafted = Entry::drafted(EntryKind::Training, 0, ask.request_id, ask.attribution);
        Entry { cost: Usd::from_nanos(7), ..drafted }
    };
    process.ledger.book(bill("job")).await.expect("booked");
    assert_eq!(process.ledger.book(bill("job")).await, Err(BookError::Charged("job".into())));
    process.ledger.book(bill("other")).await.expect("booked");
    process.close().await;
    assert_eq!(audited(&journal, 100), 14);
}

#[tokio::test]
async fn another_amount_is_held_instead_or_nothing_changes() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(100)).await;
    let ledger = &process.ledger;
    let first = ledger.hold(ask_for_a_job("job", 60)).await.expect("held").stands();
    let refused = ledger.rehold(ask_for_a_job("job", 101), first.seq).await;
    assert!(matches!(refused, Err(HoldError::Exceeded(_))));
    assert_eq!(ledger.standing("job"), [first], "as it stood");
    let more = ledger.rehold(ask_for_a_job("job", 100), first.seq).await.expect("held").stands();
    assert_eq!(ledger.standing("job"), [more]);
    assert_eq!(ledger.end_standing(first.seq, None).await, Err(BookError::Ended(first.seq)));
    let less = ledger.rehold(ask_for_a_job("job", 10), more.seq).await.expect("held").stands();
    assert_eq!(ledger.open_holds(), (1, Usd::from_nanos(10)));
    ledger.end_standing(less.seq, None).await.expect("released");
    process.close().await;
    assert_eq!(audited(&journal, 100), 0);
}

#[tokio::test]
async fn one_that_was_taken_for_dead_corrects_what_it_was_charged() {
    let journal = Shared::default();
    let config = Config { lease: Duration::from_millis(200), ..Config::default() };
    let asleep = Process::start(&journal, "asleep", Config::default()).with(total(100)).await;
    let reservation = asleep.ledger.hold(ask(40)).await.expect("held");
    // from here on it is not heard by the other, whose lease is shorter than its beat
    let alive = Process::start(&journal, "alive", config).with(total(100)).await;
    let ended = timeout(Duration::from_secs(10), async {
        while alive.ledger.open_holds().0 > 0
            || alive.ledger.left_for(&Attribution::default(), 0) != Some(Usd::from_nanos(60))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    ended.await.expect("charged whole");
    let words = Injected { prompt: "support@3".into(), tokens: 4, cost: Usd::from_nanos(2) };
    reservation.settle(Settlement { injected: Some(Arc::new(words.clone())), ..used(15) });
    asleep.close().await;
    alive.close().await;
    assert_eq!(audited(&journal, 100), 15);
    let table = journal.0.lock();
    let booked: Vec<&Injected> = table.entries.iter().filter_map(|entry| entry.injected.as_deref()).collect();
    assert_eq!(booked, [&words], "once, by who knows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_under_one_ceiling_whatever_fails() {
    const CEILING: i64 = 5_000;
    for seed in 0..12 {
        let journal = Shared::default();
        journal.0.lock().fails_in = Some(5 + seed % 7);
        let mut processes = Vec::new();
        for name in ["a", "b", "c"] {
            let config = Config { hold_wait: Duration::from_millis(seed % 3), ..Config::default() };
            processes.push(Process::start(&journal, name, config).with(total(CEILING)).await);
        }
        let work = (0..300_u64).map(|i| {
            let ledger = Arc::clone(&processes[i as usize % 3].ledger);
            let journal = journal.clone();
            async move {
                let mut random = StdRng::seed_from_u64(seed << 32 | i);
                if random.random_range(0..40) == 0 {
                    journal.0.lock().fails_in = Some(random.random_range(1..5));
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
                let wanted = random.random_range(1..100);
                let Ok(mut reservation) = ledger.hold(ask(wanted)).await else { return };
                if random.random_bool(0.8) {
                    reservation.sent();
                }
                match random.random_range(0..4) {
                    0 => drop(reservation),
                    1 => reservation.release(),
                    _ => reservation.settle(used(random.random_range(0..=wanted as i64))),
                }
            }
        });
        futures_util::future::join_all(work).await;
        journal.0.lock().fails_in = None;
        let held = |journal: &Shared| {
            journal.0.lock().entries.iter().map(|entry| entry.reserves().nanos()).sum::<i64>()
        };
        let spent = |journal: &Shared| {
            journal.0.lock().entries.iter().map(|entry| entry.spends().nanos()).sum::<i64>()
        };
        let agreed = timeout(Duration::from_secs(10), async {
            loop {
                let left = Some(Usd::from_nanos(CEILING - spent(&journal)));
                let sees = |process: &Process| process.ledger.left_for(&Attribution::default(), 0) == left;
                if held(&journal) == 0 && processes.iter().all(sees) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        agreed.await.unwrap_or_else(|_| panic!("seed {seed}: the budgets are not what the ledger says"));
        for process in processes {
            process.close().await;
        }
        audited(&journal, CEILING);
    }
}

#[tokio::test]
async fn what_waits_to_be_written_is_seen_with_its_age() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(100)).await;
    assert_eq!(process.ledger.backlog(), Backlog::default());
    let held = [
        process.ledger.hold(ask(10)).await.expect("held"),
        process.ledger.hold(ask(20)).await.expect("held"),
    ];
    assert_eq!(process.ledger.open_holds(), (2, Usd::from_nanos(30)));
    journal.0.lock().down = true;
    let before = clock::monotonic();
    for reservation in held {
        reservation.settle(used(5));
    }
    // whoever has taken them, desk or writer: they wait until they are written
    let reached = |want: (usize, usize)| {
        let ledger = Arc::clone(&process.ledger);
        async move {
            loop {
                let backlog = ledger.backlog();
                if (backlog.holds, backlog.ends) == want {
                    return backlog;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let limit = Duration::from_secs(10);
    for _ in 0..20 {
        let backlog = timeout(limit, reached((0, 2))).await.expect("both wait");
        assert!(backlog.oldest.is_some_and(|since| since >= before && since <= clock::monotonic()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    journal.0.lock().down = false;
    assert_eq!(timeout(limit, reached((0, 0))).await.expect("written").oldest, None);
    assert_eq!(process.ledger.open_holds(), (0, Usd::ZERO));
    process.close().await;
}

#[tokio::test]
async fn budgets_that_nobody_waits_for_any_more_do_not_come_into_force() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(100)).await;
    process.ledger.hold(ask(60)).await.expect("held").settle(used(60));
    let written = timeout(Duration::from_secs(10), async {
        while journal.0.lock().entries.len() < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    written.await.expect("settled");
    // another counter of the same name, given up on the way, as by an operator who leaves
    let other = Budget { window: Window::Rolling { seconds: 60 }, ..total(100) };
    let given_up = process.ledger.define(vec![Arc::new(other)], Vec::new(), 0).now_or_never();
    assert!(given_up.is_none());
    // the first one is in force, so nobody reads its history
    let first = vec![Arc::new(total(100))];
    assert!(process.ledger.new_among(&first).is_empty());
    let until = journal.0.lock().entries.len() as Seq;
    process.ledger.define(first, Vec::new(), until).await.expect("defined");
    assert!(matches!(process.ledger.hold(ask(50)).await, Err(HoldError::Exceeded(_))), "60 are spent");
    process.close().await;
}

#[tokio::test]
async fn an_entry_is_corrected_once_whoever_tries() {
    let journal = Shared::default();
    let one = Process::start(&journal, "one", Config::default()).with(total(100)).await;
    let two = Process::start(&journal, "two", Config::default()).with(total(100)).await;
    let mut sent = one.ledger.hold(ask(50)).await.expect("held");
    sent.sent();
    drop(sent);
    let charged = async {
        loop {
            let found = journal.0.lock().entries.iter().find(|entry| entry.kind == EntryKind::Usage).cloned();
            match found {
                Some(usage) => break usage,
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    let usage = timeout(Duration::from_secs(10), charged).await.expect("charged whole");
    let correction = Entry {
        of: usage.seq,
        cost: Usd::from_nanos(-40),
        ..Entry::drafted(EntryKind::Adjustment, usage.at_ms, "req".into(), Arc::default())
    };
    let (a, b, c) = tokio::join!(
        one.ledger.book(correction.clone()),
        one.ledger.book(correction.clone()),
        two.ledger.book(correction.clone()),
    );
    let results = [a, b, c];
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let refused = Err(BookError::Corrected(usage.seq));
    assert_eq!(results.iter().filter(|result| **result == refused).count(), 2, "{results:?}");
    one.close().await;
    two.close().await;
    assert_eq!(audited(&journal, 100), 10);
}

/// What is spent, and how often it was corrected, where a hold of 40 is charged whole by another process, somebody else
/// may correct that, and then its own process says how it ended.
async fn late(corrected: Option<i64>, end: impl FnOnce(Reservation)) -> (i64, usize) {
    let journal = Shared::default();
    let config = Config { lease: Duration::from_millis(200), ..Config::default() };
    let asleep = Process::start(&journal, "asleep", Config::default()).with(total(100)).await;
    let mut reservation = asleep.ledger.hold(ask(40)).await.expect("held");
    let alive = Process::start(&journal, "alive", config).with(total(100)).await;
    let usage = || journal.0.lock().entries.iter().find(|entry| entry.kind == EntryKind::Usage).cloned();
    let charged = timeout(Duration::from_secs(10), async {
        loop {
            match usage() {
                Some(usage) => break usage,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let charged = charged.await.expect("charged whole");
    if let Some(cost) = corrected {
        let drafted = Entry::drafted(
            EntryKind::Adjustment,
            charged.at_ms,
            Arc::clone(&charged.request_id),
            Arc::default(),
        );
        let by_hand = Entry { of: charged.of, cost: Usd::from_nanos(cost - 40), ..drafted };
        alive.ledger.book(by_hand).await.expect("booked");
    }
    reservation.sent();
    end(reservation);
    asleep.close().await;
    alive.close().await;
    let corrections =
        journal.0.lock().entries.iter().filter(|entry| entry.kind == EntryKind::Adjustment).count();
    (audited(&journal, 100), corrections)
}

#[tokio::test]
async fn what_was_charged_after_the_lease_is_corrected_by_who_knows_better_and_once() {
    let unconfirmed = |nanos| Settlement { source: UsageSource::Unconfirmed, ..used(nanos) };
    assert_eq!(late(None, drop).await, (40, 0), "nobody knows: a correction says that somebody does");
    assert_eq!(late(None, |one| one.settle(unconfirmed(40))).await, (40, 0));
    // how long our own machine can have computed is known, whatever it made
    assert_eq!(late(None, |one| one.settle(unconfirmed(25))).await, (25, 1));
    // what its tokens cost is not, and may be resolved
    let open = Settlement { open: true, ..unconfirmed(25) };
    assert_eq!(late(None, |one| one.settle(open)).await, (40, 0));
    assert_eq!(late(None, |one| one.settle(used(10))).await, (10, 1));
    // an operator was first
    assert_eq!(late(Some(0), |one| one.settle(used(10))).await, (0, 1));
    assert_eq!(late(Some(5), |one| one.settle(unconfirmed(25))).await, (5, 1));
}

#[tokio::test]
async fn nothing_is_written_behind_entries_that_the_database_has_lost() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(100)).await;
    process.ledger.hold(ask(10)).await.expect("held").settle(used(10));
    let reservation = process.ledger.hold(ask(10)).await.expect("held");
    // it fails, and comes back without its last entry
    let lost = {
        let mut table = journal.0.lock();
        table.down = true;
        table.entries.pop().expect("an entry")
    };
    assert!(process.ledger.hold(ask(1)).await.is_err());
    journal.0.lock().down = false;
    let before = journal.0.lock().entries.len();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(process.ledger.hold(ask(1)).await.is_err(), "a gap in the journal");
    }
    assert_eq!(journal.0.lock().entries.len(), before);
    journal.0.lock().entries.push(lost);
    let put_back = timeout(Duration::from_secs(10), async {
        while process.ledger.hold(ask(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    put_back.await.expect("nothing is missing any more");
    reservation.settle(used(10));
    process.close().await;
    assert_eq!(audited(&journal, 100), 20);
}

#[tokio::test]
async fn a_lost_writer_is_told_at_once() {
    let journal = Shared::default();
    let observer = |happened| {
        assert!(!matches!(happened, Happened::Wrote(..)), "an observer that panics");
    };
    let (ledger, task) = Ledger::new(journal.clone(), "one".into(), Config::default(), Arc::new(observer));
    #[expect(clippy::disallowed_methods, reason = "the test owns the task")]
    let task = tokio::spawn(task);
    let held = timeout(Duration::from_secs(5), ledger.hold(ask(1))).await.expect("told");
    drop(held);
    let again = timeout(Duration::from_secs(5), ledger.hold(ask(1))).await.expect("told");
    assert!(matches!(again, Err(HoldError::Unavailable(_))));
    timeout(Duration::from_secs(5), ledger.define(Vec::new(), Vec::new(), 0))
        .await
        .expect("told")
        .expect_err("lost");
    timeout(Duration::from_secs(5), ledger.close()).await.expect("told");
    let _ = timeout(Duration::from_secs(5), task).await.expect("the ticker ends");
}

#[tokio::test]
async fn a_hold_behind_a_full_batch_is_written_with_the_next() {
    let journal = Shared::default();
    let process = Process::start(&journal, "one", Config::default()).with(total(1_000)).await;
    let mut held = Vec::new();
    for _ in 0..journal::BATCH {
        held.push(process.ledger.hold(ask(1)).await.expect("held"));
    }
    // before the writer gets to any of them
    held.into_iter().for_each(|reservation| reservation.settle(used(1)));
    process.ledger.hold(ask(1)).await.expect("held").settle(used(1));
    process.close().await;
    assert_eq!(audited(&journal, 1_000), 65);
}

#[tokio::test]
async fn what_was_written_though_its_answer_was_lost_is_told_once() {
    let journal = Shared::default();
    let budget = Budget { alert_at: vec![50], ..total(40) };
    let process = Process::start(&journal, "one", Config::default()).with(budget).await;
    let settled = process.ledger.hold(ask(10)).await.expect("held");
    let released = process.ledger.hold(ask(10)).await.expect("held");
    // the third entry is written, and nobody hears of it
    journal.0.lock().fails_in = Some(1);
    settled.settle(used(25));
    process.hears(|happened| matches!(happened, Happened::Crossed(_))).await;
    released.release();
    let told = Arc::clone(&process.told);
    process.close().await;
    assert_eq!(audited(&journal, 100), 25);
    let told = told.lock();
    let of = |kind: fn(&Happened) -> bool| told.iter().filter(|happened| kind(happened)).count();
    assert_eq!(of(|happened| matches!(happened, Happened::Failed(_))), 1);
    let lost = |happened: &Happened| matches!(happened, Happened::Wrote(entries, None) if entries.len() == 1);
    assert_eq!(of(lost), 1, "{told:?}");
    let wrote = told.iter().filter_map(|happened| match happened {
        Happened::Wrote(entries, _) => Some(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(wrote.flatten().collect::<Vec<_>>(), [1, 2, 3, 4], "each once");
    assert_eq!(of(|happened| matches!(happened, Happened::Booked(_))), 1);
    assert_eq!(of(|happened| matches!(happened, Happened::Overshot(_))), 1);
    assert_eq!(of(|happened| matches!(happened, Happened::Crossed(_))), 1);
}

#[tokio::test]
async fn an_idle_process_sees_that_nothing_can_be_written() {
    let journal = Shared::default();
    let config = Config { lease: Duration::from_millis(200), ..Config::default() };
    let process = Process::start(&journal, "one", config).with(total(100)).await;
    journal.0.lock().beats_fail = true;
    process.hears(|happened| matches!(happened, Happened::Failed(_))).await;
    assert_eq!(process.heard(|happened| matches!(happened, Happened::Recovered)), 0);
    journal.0.lock().beats_fail = false;
    process.hears(|happened| matches!(happened, Happened::Recovered)).await;
    process.close().await;
}

#[tokio::test]
async fn a_beat_does_not_say_that_what_could_not_be_appended_can_be_now() {
    let journal = Shared::default();
    let config = Config { lease: Duration::from_millis(100), ..Config::default() };
    let process = Process::start(&journal, "one", config).with(total(100)).await;
    journal.0.lock().appends_fail = true;
    process.ledger.hold(ask(1)).await.err().expect("it can't be written");
    // many beats, and a look
    tokio::time::sleep(Duration::from_millis(900)).await;
    let recovered = |happened: &Happened| matches!(happened, Happened::Recovered);
    assert_eq!(process.heard(recovered), 0);
    // nobody asks for anything any more: beats are all that there is to go by
    process.hears(recovered).await;
    process.ledger.hold(ask(1)).await.err().expect("it can't be written");
    journal.0.lock().appends_fail = false;
    tokio::time::sleep(BACK_SOON).await;
    process.ledger.hold(ask(1)).await.expect("held").release();
    assert_eq!(process.heard(recovered), 2, "an append says it at once");
    process.close().await;
}

#[tokio::test]
async fn who_waited_for_money_has_not_waited_to_be_written() {
    let journal = Shared::default();
    let config = Config { hold_wait: Duration::from_secs(5), ..Config::default() };
    let process = Process::start(&journal, "one", config).with(total(journal::BATCH as i64)).await;
    let mut held = Vec::new();
    for _ in 0..journal::BATCH {
        held.push(process.ledger.hold(ask(1)).await.expect("held"));
    }
    let waits = {
        let ledger = Arc::clone(&process.ledger);
        async move { ledger.hold(ask(1)).await }
    };
    #[expect(clippy::disallowed_methods, reason = "the test owns the task")]
    let waits = tokio::spawn(waits);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(process.ledger.backlog(), Backlog::default(), "it waits for money");
    journal.0.lock().holds_stall = true;
    let freed = clock::monotonic();
    // they fill a batch: who waited comes with the next
    held.into_iter().for_each(Reservation::release);
    let backlog = timeout(Duration::from_secs(10), async {
        loop {
            let backlog = process.ledger.backlog();
            if (backlog.holds, backlog.ends) == (1, 0) {
                return backlog;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let oldest = backlog.await.expect("it waits to be written").oldest;
    assert!(oldest.is_some_and(|since| since >= freed), "not since it came");
    journal.0.lock().holds_stall = false;
    waits.await.expect("ends").expect("held").release();
    process.close().await;
    audited(&journal, 1_000);
}
