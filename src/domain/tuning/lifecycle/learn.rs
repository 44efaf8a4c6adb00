//! What follows from an answer.

use serde_json::Value;

use super::{
    Act, Copied, Course, GONE_MS, MOST_EVENTS, Outcome, Progress, REST_MS, Seen, Side, Stage, Told, Wish,
};
use crate::domain::money::Usd;
use crate::domain::tuning::bill::Quote;
use crate::domain::tuning::status::JobStatus;
use crate::domain::tuning::wire::{JobError, ProviderFileStatus, ProviderJob, TrainingEvent};

/// The longest wait after failures, as so many times the usual one.
const MOST_DOUBLINGS: u32 = 6;

/// An event of our own: what a provider can't know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// For people.
    pub message: String,
}

impl Note {
    /// The first of a job's.
    pub fn created(job_id: &str) -> Self {
        Self::info(format!("Created fine-tuning job: {job_id}"))
    }

    fn info(message: impl Into<String>) -> Self {
        Self { level: "info", message: message.into() }
    }

    fn warn(message: impl Into<String>) -> Self {
        Self { level: "warn", message: message.into() }
    }

    fn error(message: impl Into<String>) -> Self {
        Self { level: "error", message: message.into() }
    }
}

/// When a job is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// At once.
    Now,
    /// After the usual time between two looks.
    Soon,
    /// The longer, the more often nothing was found: the usual time, doubled so often.
    Later(u32),
    /// As it was said, ms.
    In(u64),
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    /// The job.
    pub course: Course,
    /// When it goes on.
    pub again: Again,
    /// What is told about it.
    pub notes: Vec<Note>,
    /// What the provider told.
    pub events: Vec<TrainingEvent>,
    /// The wish is over: it came true, or can't.
    pub granted: bool,
}

impl Learnt {
    fn go(course: Course) -> Self {
        Self { course, again: Again::Now, notes: Vec::new(), events: Vec::new(), granted: false }
    }

    fn wait(course: Course, again: Again) -> Self {
        Self { again, ..Self::go(course) }
    }

    fn noting(mut self, note: Note) -> Self {
        self.notes.push(note);
        self
    }
}

impl Course {
    /// What follows from what came of an act.
    pub fn learn(&self, act: Act, told: Told, now_ms: i64) -> Learnt {
        if let Told::Away { perhaps, again_ms, words } = told {
            return self.away(act, perhaps, again_ms, &words);
        }
        // who doesn't let us look has not said that there is nothing
        if let (Act::FindFile(_) | Act::FindJob, Told::Declined(error)) = (act, &told) {
            return self.away(act, true, None, &words(error));
        }
        let course = Self { failures: 0, ..self.clone() };
        match act {
            Act::LookAtFiles => course.looked(told, now_ms),
            Act::Hold | Act::Rehold(_) => course.held_for(act, told, now_ms),
            Act::Moderate => match told {
                Told::Declined(error) => course.failed(error, now_ms),
                _ => Learnt::go(Self { moderated: true, ..course }),
            },
            Act::Upload(side) | Act::FindFile(side) | Act::AskFile(side) => {
                course.copied(act, side, told, now_ms)
            }
            Act::Create | Act::FindJob => course.created(act, told, now_ms),
            Act::Ask => course.asked(told, now_ms),
            Act::Tell(wish) => course.told(wish, told, now_ms),
            Act::Bill => match told {
                Told::Billed(bill) => Learnt::go(Self { bill: Some(bill), ..course }),
                _ => Learnt::wait(course, Again::Soon),
            },
            Act::Settle => course.settled(),
            Act::Close => Learnt::go(Self { stage: Stage::Cleaning, ..course }),
            Act::Clean => Learnt::go(Self { stage: Stage::Ended, ..course }),
        }
    }

    /// No answer: what may have been done is looked for later. Money and wishes stay as they are.
    fn away(&self, act: Act, perhaps: bool, again_ms: Option<u64>, words: &str) -> Learnt {
        let failures = self.failures.saturating_add(1);
        let tried_ms = match act {
            // it was not done, so it need not be looked for
            Act::Upload(_) | Act::Create if !perhaps => None,
            _ => self.tried_ms,
        };
        // what was told may have come true
        let doubt = self.doubt || matches!(act, Act::Tell(_));
        let course = Self { failures, tried_ms, doubt, ..self.clone() };
        let again = again_ms.map_or(Again::Later(failures.min(MOST_DOUBLINGS)), Again::In);
        let learnt = Learnt::wait(course, again);
        match failures {
            // said once, until it works again
            1 if !matches!(act, Act::LookAtFiles) => {
                learnt.noting(Note::warn(format!("{}: {words}; it is tried again", doing(act))))
            }
            _ => learnt,
        }
    }

    fn looked(self, told: Told, now_ms: i64) -> Learnt {
        match told {
            Told::Sound(quote) => Learnt::go(Self { stage: Stage::Holding, quote: Some(quote), ..self }),
            Told::Unsound(error) => self.failed(error, now_ms),
            _ => Learnt::wait(self, Again::Soon),
        }
    }

    fn held_for(self, act: Act, told: Told, now_ms: i64) -> Learnt {
        match (act, told) {
            (Act::Rehold(amount), Told::Held(Some((seq, held)))) => {
                let course = Self { hold: Some(seq), held_nanos: held.nanos(), ..self.requoted() };
                Learnt::go(course).noting(Note::info(format!("{amount} USD are held for it from now on")))
            }
            (Act::Rehold(amount), Told::NoMoney(words)) => {
                let note =
                    format!("it would cost {amount} USD, which can't be paid, and is cancelled: {words}");
                Learnt::go(Self { broke: Some(words), ..self.requoted() }).noting(Note::error(note))
            }
            (_, Told::Held(Some((seq, held)))) => {
                let course =
                    Self { stage: Stage::Reserved, hold: Some(seq), held_nanos: held.nanos(), ..self };
                Learnt::go(course).noting(Note::info(format!("{held} USD are held for it")))
            }
            (_, Told::Held(None)) => Learnt::go(Self { stage: Stage::Reserved, ..self }),
            (_, Told::NoMoney(words)) => {
                let error = JobError {
                    code: Some("insufficient_quota".to_owned()),
                    message: Some(words),
                    param: None,
                };
                self.failed(error, now_ms)
            }
            _ => Learnt::wait(self, Again::Soon),
        }
    }

    /// With the number of epochs that the provider has chosen.
    fn requoted(self) -> Self {
        let epochs = self.seen.as_ref().and_then(|seen| seen.epochs).filter(|epochs| *epochs > 0);
        let quote = self.quote.clone().map(|quote| match epochs {
            Some(epochs) => Quote { epochs, auto: false, ..quote },
            None => quote,
        });
        Self { quote, ..self }
    }

    fn copied(self, act: Act, side: Side, told: Told, now_ms: i64) -> Learnt {
        match told {
            Told::File(file) if file.status == ProviderFileStatus::Broken => {
                let error = JobError {
                    code: Some("invalid_training_file".to_owned()),
                    message: Some(file.why.unwrap_or_else(|| "the provider can't read the file".to_owned())),
                    param: Some(side.param().to_owned()),
                };
                self.failed(error, now_ms)
            }
            Told::File(file) => {
                let ready = file.status == ProviderFileStatus::Ready;
                let course = self.with_copy(side, Some(Copied { id: file.id, ready }));
                match (act, ready) {
                    (Act::AskFile(_), false) => Learnt::wait(course, Again::Soon),
                    _ => Learnt::go(course),
                }
            }
            // it was there, and is not any more
            Told::NoFile if matches!(act, Act::AskFile(_)) => {
                let course = self.with_copy(side, None);
                Learnt::go(Self { stage: Stage::Uploading, ..course })
                    .noting(Note::warn("the provider does not know its file any more: it is sent again"))
            }
            Told::NoFile => self.not_found(now_ms),
            Told::Declined(error) => self.failed(error, now_ms),
            _ => Learnt::wait(self, Again::Soon),
        }
    }

    fn with_copy(self, side: Side, copy: Option<Copied>) -> Self {
        let course = Self { tried_ms: None, ..self };
        match side {
            Side::Training => Self { training: copy, ..course },
            Side::Validation => Self { validation: copy, ..course },
        }
    }

    /// What may have been made is not there: it never was, once a lost call can't arrive any more.
    fn not_found(self, now_ms: i64) -> Learnt {
        // where the clock was set back since, it counts from now
        let tried_ms = self.tried_ms.map(|tried_ms| tried_ms.min(now_ms));
        let left = tried_ms.map_or(0, |tried_ms| tried_ms.saturating_add(self.plan.grace_ms) - now_ms);
        match u64::try_from(left) {
            Ok(left @ 1..) => Learnt::wait(Self { tried_ms, ..self }, Again::In(left)),
            _ => Learnt::go(Self { tried_ms: None, ..self }),
        }
    }

    fn created(self, act: Act, told: Told, now_ms: i64) -> Learnt {
        match told {
            Told::Job(job, events) => {
                let found = matches!(act, Act::FindJob);
                let course = Self { stage: Stage::Following, tried_ms: None, changed_ms: now_ms, ..self };
                let learnt = course.sees(&job, events, now_ms);
                match found {
                    true => {
                        learnt.noting(Note::info("the job was found at its provider after an interruption"))
                    }
                    false => learnt,
                }
            }
            Told::NoJob => self.not_found(now_ms),
            Told::Declined(error) => self.failed(error, now_ms),
            _ => Learnt::wait(self, Again::Soon),
        }
    }

    fn asked(self, told: Told, now_ms: i64) -> Learnt {
        match told {
            Told::Job(job, events) => self.sees(&job, events, now_ms),
            Told::NoJob => {
                let since_ms = self.gone_ms.unwrap_or(now_ms).min(now_ms);
                let course = Self { gone_ms: Some(since_ms), doubt: false, ..self };
                if now_ms - since_ms < GONE_MS {
                    let learnt = Learnt::wait(course, Again::Later(2));
                    return match since_ms == now_ms {
                        true => {
                            learnt.noting(Note::warn("the provider does not know the job; it is asked again"))
                        }
                        false => learnt,
                    };
                }
                let error = JobError {
                    code: Some("job_lost".to_owned()),
                    message: Some("the provider does not know the job any more".to_owned()),
                    param: None,
                };
                let outcome = Outcome {
                    status: JobStatus::Failed,
                    error: Some(error),
                    at_ms: now_ms,
                    unconfirmed: true,
                };
                Learnt::go(course.over(outcome))
                    .noting(Note::error("the provider does not know the job any more: it is given up"))
            }
            // our credential, most likely: the job goes on without us
            Told::Declined(error) => {
                let failures = self.failures.saturating_add(1);
                let note = Note::warn(format!("the provider does not tell how it stands: {}", words(&error)));
                let learnt = Learnt::wait(Self { failures, doubt: false, ..self }, Again::Later(2));
                if failures == 1 { learnt.noting(note) } else { learnt }
            }
            _ => Learnt::wait(self, Again::Soon),
        }
    }

    fn told(self, wish: Wish, told: Told, now_ms: i64) -> Learnt {
        let forced = self.broke.is_some();
        match told {
            Told::Job(job, events) => {
                let course = Self { declined: None, doubted: None, ..self };
                let learnt = course.sees(&job, events, now_ms);
                let status = learnt.course.seen.as_ref().map(|seen| seen.status);
                let granted = match wish {
                    Wish::Cancel => false,
                    Wish::Pause => matches!(status, Some(JobStatus::Pausing | JobStatus::Paused)),
                    Wish::Resume => !matches!(status, Some(JobStatus::Pausing | JobStatus::Paused)),
                };
                Learnt { granted, ..learnt }
            }
            // before the first step there is nothing to stop: it is asked again behind it
            Told::Declined(_) if wish == Wish::Pause && self.progress.step == 0 => {
                Learnt::wait(Self { doubt: true, ..self }, Again::Soon)
            }
            // it may have come true before, and the answer been lost: how it stands decides
            Told::Declined(error) => {
                let said = words(&error);
                let note = Note::warn(format!("the provider does not {} it: {said}", wish.name()));
                let doubted = (!forced).then_some(said);
                let again = if forced { Again::Soon } else { Again::Now };
                Learnt::wait(Self { doubt: true, doubted, ..self }, again).noting(note)
            }
            Told::NoJob => match wish {
                Wish::Cancel => Learnt::go(Self { doubt: true, ..self }),
                Wish::Pause | Wish::Resume => {
                    let said = "this provider can't pause and resume jobs".to_owned();
                    let course = Self { doubt: true, declined: Some(said.clone()), ..self };
                    Learnt { granted: true, ..Learnt::go(course) }.noting(Note::warn(said))
                }
            },
            _ => Learnt::wait(self, Again::Soon),
        }
    }

    /// Takes in what the provider says.
    fn sees(mut self, job: &ProviderJob, events: Vec<TrainingEvent>, now_ms: i64) -> Learnt {
        let seen = Seen::of(job);
        let is_new = self.seen.as_ref() != Some(&seen) || !events.is_empty();
        for event in &events {
            self.progress = advanced(self.progress, &event.data);
            self.last_event = Some(event.id.clone());
        }
        let began_ms = began(&events);
        let ended_ms = seen.finished_at.map_or(now_ms, |at| at.saturating_mul(1_000));
        match seen.status {
            JobStatus::Running => {
                self.running.turn(true, began_ms.unwrap_or(now_ms));
                self.running.began(began_ms);
            }
            // it began and ended between two looks
            status if status.is_final() => {
                if let Some(began_ms) = began_ms.filter(|_| self.running.before_ms == 0) {
                    self.running.turn(true, began_ms);
                }
                self.running.began(began_ms);
                self.running.turn(false, ended_ms);
            }
            JobStatus::Pausing => {}
            _ => self.running.turn(false, now_ms),
        }
        (self.gone_ms, self.doubt) = (None, false);
        if is_new {
            (self.quiet, self.changed_ms) = (0, now_ms);
        } else {
            self.quiet = self.quiet.saturating_add(1);
        }
        let status = seen.status;
        if status.is_final() && events.len() >= MOST_EVENTS {
            // what it has done is not all told yet, and decides what is billed: its end waits for that
            let before = self.seen.as_ref().map_or(JobStatus::Running, |before| before.status);
            let course = Self { seen: Some(Seen { status: before, ..seen }), doubt: true, ..self };
            return Learnt { events, ..Learnt::wait(course, Again::In(REST_MS)) };
        }
        let outcome = status.is_final().then(|| Outcome {
            status,
            error: seen.error.clone(),
            at_ms: ended_ms,
            unconfirmed: false,
        });
        self.seen = Some(seen);
        let doublings = (self.quiet / 4).min(MOST_DOUBLINGS);
        let again = if doublings == 0 { Again::Soon } else { Again::Later(doublings) };
        let broke = self.broke.clone();
        let (course, again) = match outcome {
            Some(mut outcome) => {
                // it was cancelled by us: why, only we know
                if outcome.status == JobStatus::Cancelled && broke.is_some() {
                    outcome.error = self.cancelled(ended_ms).error;
                }
                (self.over(outcome), Again::Now)
            }
            // what it turned out to be is held for at once
            None if self.wants_held(now_ms).is_some() && broke.is_none() => (self, Again::Now),
            None => (self, again),
        };
        Learnt { events, ..Learnt::wait(course, again) }
    }

    fn settled(self) -> Learnt {
        let cost = self.bill.map_or(Usd::ZERO, |bill| bill.cost());
        let held = self.held_nanos > 0;
        let course = Self { stage: Stage::Closing, hold: None, held_nanos: 0, ..self };
        match (cost.is_some(), held) {
            (false, false) => Learnt::go(course),
            (false, true) => {
                Learnt::go(course).noting(Note::info("it costs nothing: what was held is free again"))
            }
            (true, _) => Learnt::go(course).noting(Note::info(format!("it costs {cost} USD"))),
        }
    }

    fn failed(self, error: JobError, now_ms: i64) -> Learnt {
        let note = Note::error(words(&error));
        let outcome =
            Outcome { status: JobStatus::Failed, error: Some(error), at_ms: now_ms, unconfirmed: false };
        Learnt::go(self.over(outcome)).noting(note)
    }
}

impl Side {
    /// The parameter of the request.
    pub const fn param(self) -> &'static str {
        match self {
            Self::Training => "training_file",
            Self::Validation => "validation_file",
        }
    }
}

fn words(error: &JobError) -> String {
    error.message.clone().or_else(|| error.code.clone()).unwrap_or_else(|| "without a reason".to_owned())
}

const fn doing(act: Act) -> &'static str {
    match act {
        Act::LookAtFiles => "its files can't be looked at",
        Act::Hold | Act::Rehold(_) => "its money can't be held",
        Act::Moderate => "its rows can't be moderated",
        Act::FindFile(_) | Act::Upload(_) | Act::AskFile(_) => "its file can't be sent to the provider",
        Act::FindJob | Act::Create => "it can't be made at the provider",
        Act::Ask => "the provider does not say how it stands",
        Act::Tell(_) => "the provider can't be told",
        Act::Bill | Act::Settle => "it can't be settled",
        Act::Close => "its results can't be fetched",
        Act::Clean => "its files can't be taken away at the provider",
    }
}

/// How far it has come, by the figures of an event.
fn advanced(known: Progress, figures: &Value) -> Progress {
    let figure = |name: &str| figures.get(name).and_then(Value::as_u64);
    Progress {
        step: figure("step").unwrap_or(0).max(known.step),
        total: figure("total_steps").unwrap_or(0).max(known.total),
    }
}

/// When training began, by the events: the first figures, or the words that OpenAI and Azure use for it.
fn began(events: &[TrainingEvent]) -> Option<i64> {
    let is_begin = |event: &&TrainingEvent| {
        &*event.kind == "metrics" || event.message.to_ascii_lowercase().contains("job started")
    };
    let first = events.iter().filter(is_begin).min_by_key(|event| event.created_at);
    first.map(|event| event.created_at.saturating_mul(1_000))
}
