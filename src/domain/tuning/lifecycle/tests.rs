//! A world in miniature: a provider that loses answers and carries out late what was lost, a ledger, a row, and a process
//! that dies anywhere. Whatever happens, there is one job at the provider, one hold, one settlement.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::money::PerToken;
use crate::domain::tuning::bill::{Rate, TrainingPrice};
use crate::domain::tuning::wire::ProviderFileStatus;
use crate::domain::usage::UsageSource;

const GRACE_MS: i64 = 1_000;

/// How one step goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Fine,
    /// The process dies before the act, behind the row that announces it.
    DiesBefore,
    /// The process dies behind the act, before its row.
    DiesBehind,
    /// The answer is lost; the act was carried out.
    Lost,
    /// The answer is lost; the act is carried out a little later.
    Late,
    /// Nothing was sent.
    Unsent,
}

/// What somebody does between two steps.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Nothing,
    Wishes(Wish),
}

struct Hold {
    seq: Seq,
    amount: Usd,
    /// What it was ended with; a release is nothing.
    ended: Option<Usd>,
}

struct World {
    now_ms: i64,
    // the row
    row: Course,
    wish: Option<Wish>,
    // the ledger
    holds: Vec<Hold>,
    wealth: Usd,
    // the provider
    files: Vec<(Side, bool)>,
    jobs: Vec<ProviderJob>,
    late: Vec<(i64, Act)>,
    /// What it makes of `auto`.
    epochs: u64,
    looks: u32,
    registered: bool,
    /// The process has just begun.
    is_new: bool,
}

fn price(per_million: &str) -> TrainingPrice {
    let picos = PerToken::parse_per_million(per_million).expect("a price").picos();
    TrainingPrice { row: "r".into(), version: "v".into(), rate: Rate::PerToken { picos }, free: None }
}

pub(super) fn job(status: JobStatus) -> ProviderJob {
    ProviderJob {
        id: "theirs".into(),
        status,
        ours: Some("ours".into()),
        training_file: None,
        created_at: None,
        finished_at: None,
        estimated_finish: None,
        model: None,
        trained_tokens: None,
        compute_seconds: None,
        epochs: None,
        batch_size: None,
        seed: None,
        hyperparameters: None,
        method: None,
        result_files: Vec::new(),
        error: None,
        raw: Value::Null,
    }
}

impl World {
    fn new(plan: Plan, epochs: u64, wealth: Usd) -> Self {
        Self {
            now_ms: 1_000_000,
            row: Course::new(plan, 1_000_000),
            wish: None,
            holds: Vec::new(),
            wealth,
            files: Vec::new(),
            jobs: Vec::new(),
            late: Vec::new(),
            epochs,
            looks: 0,
            registered: false,
            is_new: true,
        }
    }

    fn standing(&self) -> Vec<&Hold> {
        self.holds.iter().filter(|hold| hold.ended.is_none()).collect()
    }

    fn holds(&mut self, amount: Usd) -> Told {
        if amount > self.wealth {
            return Told::NoMoney("not enough".to_owned());
        }
        let seq = i64::try_from(self.holds.len()).expect("few") + 1;
        self.holds.push(Hold { seq, amount, ended: None });
        Told::Held(Some((seq, amount)))
    }

    /// The provider's job goes its way, a little at each look.
    fn goes_on(&mut self) {
        let epochs = self.epochs;
        let Some(job) = self.jobs.first_mut() else { return };
        self.looks += 1;
        job.status = match job.status {
            JobStatus::ValidatingFiles => JobStatus::Queued,
            JobStatus::Queued => JobStatus::Running,
            JobStatus::Running if self.looks > 12 => JobStatus::Succeeded,
            JobStatus::Pausing => JobStatus::Paused,
            other => other,
        };
        if job.status == JobStatus::Running {
            job.epochs = Some(epochs);
        }
        if job.status == JobStatus::Succeeded {
            job.trained_tokens = Some(1_000_000 * epochs);
            job.model = Some("ft:x".into());
        }
    }

    fn events(&self) -> Vec<TrainingEvent> {
        let step = u64::from(self.looks).min(12);
        vec![TrainingEvent {
            id: format!("e{step}").into(),
            created_at: self.now_ms / 1_000,
            level: "info".into(),
            kind: "metrics".into(),
            message: String::new(),
            data: serde_json::json!({"step": step, "total_steps": 12}),
        }]
    }

    fn told_job(&self) -> Told {
        match self.jobs.first() {
            Some(job) => Told::Job(Box::new(job.clone()), self.events()),
            None => Told::NoJob,
        }
    }

    fn file(&self, side: Side) -> Told {
        match self.files.iter().find(|(of, _)| *of == side) {
            None => Told::NoFile,
            Some((_, ready)) => Told::File(ProviderFile {
                id: format!("{side:?}").into(),
                filename: "f".into(),
                status: if *ready { ProviderFileStatus::Ready } else { ProviderFileStatus::Pending },
                why: None,
            }),
        }
    }

    /// Carries out an act, as the provider, the ledger or we do.
    fn act(&mut self, act: Act) -> Told {
        match act {
            Act::LookAtFiles => {
                Told::Sound(Quote { tokens: 1_000_000, epochs: 3, auto: true, price: price("2"), pace: None })
            }
            Act::Hold => match self.standing().first() {
                Some(hold) => Told::Held(Some((hold.seq, hold.amount))),
                None => self.holds(self.row.quote.as_ref().map(Quote::amount).expect("quoted")),
            },
            Act::Rehold(amount) => match self.holds(amount) {
                Told::Held(Some((seq, amount))) => {
                    let others = self.holds.iter_mut().filter(|hold| hold.seq != seq && hold.ended.is_none());
                    others.for_each(|hold| hold.ended = Some(Usd::ZERO));
                    Told::Held(Some((seq, amount)))
                }
                other => other,
            },
            Act::Moderate => Told::Clear,
            Act::Upload(side) => {
                self.files.push((side, false));
                self.file(side)
            }
            Act::FindFile(side) => self.file(side),
            Act::AskFile(side) => {
                let told = self.file(side);
                self.files.iter_mut().for_each(|(_, ready)| *ready = true);
                told
            }
            Act::Create => {
                self.jobs.push(job(JobStatus::ValidatingFiles));
                self.told_job()
            }
            Act::FindJob => self.told_job(),
            Act::Ask => {
                self.goes_on();
                self.told_job()
            }
            Act::Tell(wish) => {
                let Some(job) = self.jobs.first_mut() else { return Told::NoJob };
                match (wish, job.status) {
                    (Wish::Cancel, status) if !status.is_final() => job.status = JobStatus::Cancelled,
                    (Wish::Pause, JobStatus::Running) => job.status = JobStatus::Pausing,
                    (Wish::Resume, JobStatus::Paused) => job.status = JobStatus::Running,
                    _ => return Told::Declined(JobError::default()),
                }
                self.told_job()
            }
            Act::Bill => {
                let quote = self.row.quote.clone().unwrap_or(Quote {
                    tokens: 0,
                    epochs: 0,
                    auto: false,
                    price: TrainingPrice::nothing("r"),
                    pace: None,
                });
                Told::Billed(Bill::of(self.row.used(), &quote.price, self.now_ms, 0))
            }
            Act::Settle => {
                let cost = self.row.bill.expect("billed").cost();
                self.holds
                    .iter_mut()
                    .filter(|hold| hold.ended.is_none())
                    .for_each(|hold| hold.ended = Some(cost));
                Told::Done
            }
            Act::Close => {
                self.registered |=
                    self.row.outcome.as_ref().is_some_and(|end| end.status == JobStatus::Succeeded);
                Told::Done
            }
            Act::Clean => {
                self.files.clear();
                Told::Done
            }
        }
    }

    /// What was lost on the way arrives after all.
    fn arrives(&mut self) {
        let now_ms = self.now_ms;
        let (due, rest) = self.late.iter().partition(|(at_ms, _)| *at_ms <= now_ms);
        self.late = rest;
        let due: Vec<(i64, Act)> = due;
        for (_, act) in due {
            self.act(act);
        }
    }

    /// One step of one process; whether it goes on at once.
    fn step(&mut self, luck: Luck) {
        self.now_ms += 10;
        self.arrives();
        // whoever begins looks at what stands in the ledger
        if let [hold] = self.standing()[..]
            && self.row.hold.is_some_and(|seq| seq != hold.seq)
        {
            let (seq, amount) = (hold.seq, hold.amount);
            self.row.hold = Some(seq);
            self.row.held_nanos = amount.nanos();
        }
        // nor does it know what the provider was told last
        self.row.doubt |= std::mem::take(&mut self.is_new);
        self.is_new = matches!(luck, Luck::DiesBefore | Luck::DiesBehind);
        let act = match self.row.next(self.wish, self.now_ms) {
            Next::Write(course) => {
                if luck != Luck::DiesBefore {
                    self.row = *course;
                }
                return;
            }
            Next::Granted => {
                self.wish = None;
                return;
            }
            Next::Denied(course) => {
                self.row = *course;
                self.wish = None;
                return;
            }
            Next::Rest => {
                self.now_ms += 50;
                return;
            }
            Next::Over => return,
            Next::Intend(course, act) => {
                self.row = *course;
                act
            }
            Next::Act(act) => act,
        };
        let away = |perhaps| Told::Away { perhaps, again_ms: None, words: "away".to_owned() };
        // what is ours is not lost on a network
        let remote = matches!(
            act,
            Act::Upload(_) | Act::Create | Act::Tell(_) | Act::Ask | Act::FindJob | Act::FindFile(_)
        );
        let told = match luck {
            Luck::DiesBefore => return,
            Luck::DiesBehind => {
                self.act(act);
                return;
            }
            Luck::Lost if remote => {
                self.act(act);
                away(true)
            }
            Luck::Late if matches!(act, Act::Create | Act::Upload(_)) => {
                self.late.push((self.now_ms + GRACE_MS - 100, act));
                away(true)
            }
            Luck::Unsent if remote => away(false),
            _ => self.act(act),
        };
        let learnt = self.row.learn(act, told, self.now_ms);
        // the row is what JSON makes of it
        let text = serde_json::to_string(&learnt.course).expect("JSON");
        self.row = serde_json::from_str(&text).expect("the same");
        assert_eq!(self.row, learnt.course);
        if learnt.granted {
            self.wish = None;
        }
        self.now_ms += match learnt.again {
            Again::Now => 0,
            Again::Soon => 50,
            Again::Later(doublings) => 50 << doublings,
            Again::In(ms) => i64::try_from(ms).expect("short"),
        };
    }

    /// What must be so at every moment.
    fn check(&self) {
        assert!(self.standing().len() <= 1, "one hold");
        assert!(self.jobs.len() <= 1, "one job at the provider");
        let works = self.jobs.iter().any(|job| !job.status.is_final());
        assert!(!works || self.standing().len() == 1, "what works is held for");
        if self.row.status(self.wish).is_final() {
            assert!(self.standing().is_empty(), "a final word stands behind the bill");
        }
    }

    /// What must be so in the end.
    fn audit(&self) {
        let outcome = self.row.outcome.as_ref().expect("it ended");
        assert!(self.standing().is_empty() && self.late.is_empty());
        let cost = self.row.bill.expect("billed").cost();
        let paid: Vec<Usd> =
            self.holds.iter().filter_map(|hold| hold.ended).filter(|cost| cost.is_some()).collect();
        assert_eq!(paid.iter().copied().sum::<Usd>(), cost, "settled once, at the bill");
        assert!(paid.len() <= 1);
        assert!(self.files.is_empty(), "no copy is left");
        match self.jobs.first() {
            None => assert_eq!(cost, Usd::ZERO),
            Some(job) => {
                assert_eq!(job.status, outcome.status, "what became of it there");
                assert_eq!(self.registered, job.status == JobStatus::Succeeded);
                if let Some(tokens) = job.trained_tokens {
                    assert_eq!(cost, price("2").of_tokens_at_most(tokens), "what the provider billed");
                }
            }
        }
    }
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        4 => Just(Luck::Fine),
        2 => Just(Luck::DiesBefore),
        2 => Just(Luck::DiesBehind),
        1 => Just(Luck::Lost),
        1 => Just(Luck::Late),
        1 => Just(Luck::Unsent),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => Just(Deed::Nothing),
        1 => Just(Deed::Wishes(Wish::Cancel)),
        1 => Just(Deed::Wishes(Wish::Pause)),
        2 => Just(Deed::Wishes(Wish::Resume)),
    ]
}

proptest! {
    #[test]
    fn one_job_one_hold_one_settlement_whatever_happens(
        script in proptest::collection::vec((luck(), deed()), 0..80),
        epochs in 1_u64..6,
        wealth in 2_i64..12,
        (waits_for_files, moderates, validates) in any::<(bool, bool, bool)>(),
    ) {
        let plan = Plan { waits_for_files, moderates, validates, grace_ms: GRACE_MS };
        let mut world = World::new(plan, epochs, Usd::dollars(wealth));
        for (luck, deed) in script {
            match deed {
                // who has cancelled it does not take that back
                Deed::Wishes(wish) if world.wish != Some(Wish::Cancel) => world.wish = Some(wish),
                _ => {}
            }
            world.step(luck);
            world.check();
        }
        // whatever was paused goes on
        if world.wish != Some(Wish::Cancel) {
            world.wish = Some(Wish::Resume);
        }
        for _ in 0..500 {
            world.step(Luck::Fine);
            world.check();
        }
        prop_assert_eq!(world.row.stage, Stage::Ended);
        world.audit();
    }
}

/// Steps without a mishap until a stage is reached.
fn reach(world: &mut World, stage: Stage) {
    for _ in 0..200 {
        if world.row.stage == stage {
            return;
        }
        world.step(Luck::Fine);
    }
    panic!("{stage:?} is not reached from {:?}", world.row.stage);
}

fn plan() -> Plan {
    Plan { grace_ms: GRACE_MS, ..Plan::default() }
}

/// What is not found is taken for never made once a lost call can't arrive any more; a clock that is set meanwhile makes
/// that longer by one such time at most, and never for ever.
#[test]
fn what_is_not_found_is_made_anew_whatever_the_clock_does() {
    let tried_ms = 1_000_000;
    let hour = 3_600_000;
    for (act, stage, told) in [
        (Act::FindJob, Stage::Creating, Told::NoJob),
        (Act::FindFile(Side::Training), Stage::Uploading, Told::NoFile),
    ] {
        let course = Course { stage, tried_ms: Some(tried_ms), ..Course::new(plan(), 0) };
        let look = |course: &Course, at_ms| course.learn(act, told.clone(), at_ms);
        let wait = |learnt: &Learnt| match learnt.again {
            Again::In(ms) => i64::try_from(ms).expect("a short time"),
            _ => 0,
        };
        // a clock that goes as it should
        let soon = look(&course, tried_ms + 1);
        assert_eq!((soon.course.tried_ms, wait(&soon)), (Some(tried_ms), GRACE_MS - 1), "{act:?}");
        let late = look(&course, tried_ms + GRACE_MS);
        assert_eq!((late.course.tried_ms, late.again), (None, Again::Now), "{act:?}");
        // set back by an hour: it counts from then
        let back = look(&course, tried_ms - hour);
        assert_eq!((back.course.tried_ms, wait(&back)), (Some(tried_ms - hour), GRACE_MS), "{act:?}");
        let then = look(&back.course, tried_ms - hour + GRACE_MS);
        assert_eq!((then.course.tried_ms, then.again), (None, Again::Now), "{act:?}");
        // and once more in between
        let again = look(&back.course, tried_ms - 2 * hour);
        assert_eq!(wait(&again), GRACE_MS, "{act:?}");
        // set forward: as if the time had passed
        assert_eq!(look(&course, tried_ms + hour).course.tried_ms, None, "{act:?}");
    }
}

#[test]
fn a_wish_before_the_provider_is_ours_to_fulfil() {
    for stage in [Stage::Checking, Stage::Reserved, Stage::Uploading] {
        let mut world = World::new(plan(), 3, Usd::dollars(100));
        reach(&mut world, stage);
        world.wish = Some(Wish::Cancel);
        reach(&mut world, Stage::Ended);
        assert!(world.jobs.is_empty());
        assert_eq!(world.row.status(None), JobStatus::Cancelled);
        assert_eq!(world.row.bill.expect("billed").cost(), Usd::ZERO);
    }
    let mut world = World::new(plan(), 3, Usd::dollars(100));
    reach(&mut world, Stage::Reserved);
    world.wish = Some(Wish::Pause);
    for _ in 0..20 {
        world.step(Luck::Fine);
    }
    assert_eq!((world.row.stage, world.row.status(world.wish)), (Stage::Reserved, JobStatus::Paused));
    world.wish = Some(Wish::Resume);
    reach(&mut world, Stage::Ended);
    assert_eq!(world.row.status(None), JobStatus::Succeeded);
}

#[test]
fn more_epochs_than_can_be_paid_end_the_job() {
    // 3 epochs of a million at 2 USD are held, 5 would cost 10
    let mut world = World::new(plan(), 5, Usd::dollars(8));
    reach(&mut world, Stage::Ended);
    let outcome = world.row.outcome.clone().expect("ended");
    assert_eq!(outcome.status, JobStatus::Cancelled);
    assert_eq!(outcome.error.expect("why").code.as_deref(), Some("insufficient_quota"));
    let bill = world.row.bill.expect("billed");
    assert_eq!(bill.source, UsageSource::Estimated, "by the steps that were done");
    assert!(bill.tokens > 0 && bill.tokens < 5_000_000);
    world.audit();
}

#[test]
fn what_the_provider_does_not_say_is_estimated_or_nothing() {
    let quote = Quote { tokens: 1_000, epochs: 2, auto: false, price: price("2"), pace: None };
    let of = |status, trained_tokens, step, unconfirmed, (total, before_ms)| {
        let mut course = Course { quote: Some(quote.clone()), ..Course::new(plan(), 0) };
        course.seen = Some(Seen { trained_tokens, ..Seen::of(&job(status)) });
        course.progress = Progress { step, total };
        course.running = Running { before_ms, since_ms: None };
        course.outcome = Some(Outcome { status, error: None, at_ms: 0, unconfirmed });
        let used = course.used();
        (used.tokens, used.source)
    };
    use JobStatus::{Cancelled, Failed, Succeeded};
    use UsageSource::{Estimated, Reported, Unconfirmed};
    for (status, tokens, step, unconfirmed, want) in [
        (Succeeded, Some(2_100), 10, false, (2_100, Reported)),
        (Succeeded, None, 10, false, (2_000, Estimated)),
        (Cancelled, Some(700), 3, false, (700, Reported)),
        (Cancelled, None, 3, false, (600, Estimated)),
        (Cancelled, None, 0, false, (0, Reported)),
        (Failed, None, 9, false, (0, Reported)),
        (Failed, Some(50), 9, false, (50, Reported)),
        (Failed, None, 9, true, (1_800, Unconfirmed)),
    ] {
        assert_eq!(of(status, tokens, step, unconfirmed, (10, 0)), want, "{status:?} {tokens:?} {step}");
    }
    for (status, step, ran, want) in [
        (Cancelled, 0, (0, 60_000), (2_000, Estimated)),
        (Cancelled, 0, (0, 59_000), (0, Estimated)),
        (Cancelled, 0, (0, 0), (0, Reported)),
        (Cancelled, 3, (10, 1), (600, Estimated)),
        (Failed, 0, (0, 1), (0, Reported)),
    ] {
        assert_eq!(of(status, None, step, false, ran), want, "{status:?} {step} {ran:?}");
    }
}

#[test]
fn a_job_that_its_provider_forgets_is_given_up_after_an_hour() {
    let mut world = World::new(plan(), 3, Usd::dollars(100));
    reach(&mut world, Stage::Following);
    for _ in 0..4 {
        world.step(Luck::Fine);
    }
    world.jobs.clear();
    let ask = |world: &World, at_ms| world.row.learn(Act::Ask, Told::NoJob, at_ms);
    let now = world.now_ms;
    world.row = ask(&world, now).course;
    assert_eq!(ask(&world, now + GONE_MS - 1).course.stage, Stage::Following);
    let given_up = ask(&world, now + GONE_MS).course;
    assert_eq!(given_up.stage, Stage::Settling);
    assert_eq!(given_up.used().source, UsageSource::Unconfirmed);
}

#[test]
fn time_that_is_billed_is_held_ahead_and_paused_time_is_not_billed() {
    let rate = Rate::PerHour { nanos: Usd::dollars(100).nanos(), increment_seconds: 900 };
    let price = TrainingPrice { rate, ..price("0") };
    let quote = Quote { tokens: 10, epochs: 1, auto: false, price, pace: None };
    let hour = 3_600_000;
    let mut course = Course { stage: Stage::Following, quote: Some(quote), ..Course::new(plan(), 0) };
    course.held_nanos = Usd::dollars(100).nanos();
    course = course.learn(Act::Ask, Told::Job(Box::new(job(JobStatus::Running)), Vec::new()), 0).course;
    assert_eq!(course.next(None, 0), Next::Act(Act::Ask), "an hour ahead is held");
    let Next::Act(Act::Rehold(amount)) = course.next(None, hour / 2) else { panic!("more time is held") };
    assert_eq!(amount.to_string(), "200.00");
    let paused = Told::Job(Box::new(job(JobStatus::Paused)), Vec::new());
    course = course.learn(Act::Ask, paused, hour).course;
    let running = Told::Job(Box::new(job(JobStatus::Running)), Vec::new());
    course = course.learn(Act::Ask, running, 9 * hour).course;
    let ended = ProviderJob { finished_at: Some(9 * 3_600 + 1_200), ..job(JobStatus::Succeeded) };
    course = course.learn(Act::Ask, Told::Job(Box::new(ended), Vec::new()), 10 * hour).course;
    // an hour and twenty minutes, in quarters of an hour
    let used = course.used();
    let price = course.quote.expect("quoted").price;
    assert_eq!(Bill::of(used, &price, 0, 0).cost().to_string(), "150.00");
}

#[test]
fn a_worker_of_ours_is_paid_for_the_time_that_it_computed() {
    let of = |kind: &str, compute_seconds, seen_ms| {
        let rate =
            Rate::PerHour { nanos: Usd::parse("0.36").expect("a price").nanos(), increment_seconds: 1 };
        let price = TrainingPrice { rate, ..price("0") };
        let mut course = Course::new(plan(), 0);
        let job = ProviderJob { compute_seconds, trained_tokens: Some(9), ..job(JobStatus::read(kind)) };
        course.seen = Some(Seen::of(&job));
        course.running = Running { before_ms: seen_ms, since_ms: None };
        let (status, error) = (JobStatus::read(kind), None);
        course.outcome = Some(Outcome { status, error, at_ms: 0, unconfirmed: false });
        let bill = Bill::of(course.used(), &price, 0, 0);
        (bill.seconds, bill.computed_seconds, bill.cost().to_string())
    };
    for (kind, told, seen_ms, want) in [
        // it was seen to run for two hours, of which it computed a hundred seconds
        ("succeeded", Some(100), 7_200_000, (100, 100, "0.01")),
        ("cancelled", Some(100), 7_200_000, (100, 100, "0.01")),
        ("failed", Some(1), 7_200_000, (1, 1, "0.0001")),
        ("cancelled", Some(0), 7_200_000, (0, 0, "0.00")),
        // one of an earlier version says nothing
        ("succeeded", None, 7_200_000, (7_200, 0, "0.72")),
    ] {
        let found = of(kind, told, seen_ms);
        assert_eq!((found.0, found.1, found.2.as_str()), want, "{kind} {told:?}");
    }
}

/// The first `count` events of a training run that began at a moment, seconds.
fn metrics(count: i64, began: i64) -> Vec<TrainingEvent> {
    let event = |step: i64| TrainingEvent {
        id: format!("e{began}-{step}").into(),
        created_at: began + step,
        level: "info".into(),
        kind: "metrics".into(),
        message: String::new(),
        data: serde_json::json!({"step": step}),
    };
    (0..count).map(event).collect()
}

#[test]
fn a_run_counts_from_its_first_event_whenever_that_is_told() {
    let course = || Course { stage: Stage::Following, ..Course::new(plan(), 0) };
    let told = |status, events| Told::Job(Box::new(job(status)), events);
    use JobStatus::{Paused, Running, Succeeded};
    let lost = |acts: Vec<(Act, i64, Told)>| {
        let end = acts
            .into_iter()
            .fold(course(), |course, (act, at_ms, told)| course.learn(act, told, at_ms).course);
        end.used().seconds
    };
    for (what, acts, want) in [
        ("found when it had ended", vec![(Act::FindJob, 100_000, told(Succeeded, metrics(3, 40)))], 60),
        (
            "found while it ran",
            vec![
                (Act::FindJob, 90_000, told(Running, metrics(3, 40))),
                (Act::Ask, 100_000, told(Succeeded, Vec::new())),
            ],
            60,
        ),
        (
            "its events came later",
            vec![
                (Act::Ask, 70_000, told(Running, Vec::new())),
                (Act::Ask, 80_000, told(Running, metrics(3, 40))),
                (Act::Ask, 100_000, told(Succeeded, Vec::new())),
            ],
            60,
        ),
        (
            "its events came with its end",
            vec![
                (Act::Ask, 70_000, told(Running, Vec::new())),
                (Act::Ask, 100_000, told(Succeeded, metrics(3, 40))),
            ],
            60,
        ),
        (
            "behind a pause they are not taken for its beginning",
            vec![
                (Act::Ask, 40_000, told(Running, Vec::new())),
                (Act::Ask, 50_000, told(Paused, Vec::new())),
                (Act::Ask, 80_000, told(Running, Vec::new())),
                (Act::Ask, 90_000, told(Running, metrics(3, 40))),
                (Act::Ask, 100_000, told(Succeeded, Vec::new())),
            ],
            30,
        ),
    ] {
        assert_eq!(lost(acts), want, "{what}");
    }
}

#[test]
fn an_end_waits_for_all_that_happened_before() {
    let course = Course { stage: Stage::Following, ..Course::new(plan(), 0) };
    let most = i64::try_from(MOST_EVENTS).expect("few");
    for (act, count, stage) in [
        (Act::Ask, most - 1, Stage::Settling),
        (Act::Ask, most, Stage::Following),
        (Act::Tell(Wish::Cancel), most, Stage::Following),
        (Act::FindJob, most, Stage::Following),
    ] {
        let told = Told::Job(Box::new(job(JobStatus::Cancelled)), metrics(count, 40));
        let learnt = course.learn(act, told, 1_000_000);
        assert_eq!((learnt.course.stage, learnt.events.len()), (stage, metrics(count, 0).len()), "{act:?}");
        if stage == Stage::Settling {
            continue;
        }
        assert_eq!(learnt.again, Again::In(REST_MS));
        assert_eq!(learnt.course.next(Some(Wish::Cancel), 0), Next::Act(Act::Ask), "{act:?}");
        let rest = Told::Job(Box::new(job(JobStatus::Cancelled)), metrics(7, 4_000));
        let end = learnt.course.learn(Act::Ask, rest, 1_000_100).course;
        assert_eq!(end.stage, Stage::Settling);
        assert_eq!(end.progress.step, u64::try_from(most - 1).expect("few"));
    }
}

#[test]
fn a_pause_that_is_not_possible_is_said_and_forgotten() {
    let mut world = World::new(plan(), 3, Usd::dollars(100));
    reach(&mut world, Stage::Following);
    world.row.progress = Progress { step: 0, total: 10 };
    let no = || Told::Declined(JobError { message: Some("no".to_owned()), ..JobError::default() });
    let early = world.row.learn(Act::Tell(Wish::Pause), no(), 0);
    assert!(!early.granted && early.course.doubt, "it is tried again behind the first step");
    world.row.progress.step = 1;
    let late = world.row.learn(Act::Tell(Wish::Pause), no(), 0).course;
    assert_eq!(late.next(Some(Wish::Pause), 0), Next::Act(Act::Ask), "its answer may have been lost");
    let seen = |status| {
        let told = Told::Job(Box::new(job(status)), Vec::new());
        late.learn(Act::Ask, told, 0).course.next(Some(Wish::Pause), 0)
    };
    assert_eq!(seen(JobStatus::Paused), Next::Granted);
    let Next::Denied(denied) = seen(JobStatus::Running) else { panic!("it is given up") };
    assert_eq!(denied.declined.as_deref(), Some("no"));
    let unable = world.row.learn(Act::Tell(Wish::Pause), Told::NoJob, 0);
    assert!(unable.granted && unable.course.declined.is_some());
}

#[test]
fn ids_of_stages_are_stored_and_read() {
    for stage in Stage::ALL {
        let text = serde_json::to_string(&stage).expect("JSON");
        assert_eq!(text.trim_matches('"'), stage.name());
    }
    for wish in [Wish::Cancel, Wish::Pause, Wish::Resume] {
        assert_eq!(Wish::from_name(wish.name()), Some(wish));
    }
    let copied = Copied { id: Arc::from("x"), ready: true };
    assert_eq!(serde_json::to_string(&copied).expect("JSON"), r#"{"id":"x","ready":true}"#);
}
