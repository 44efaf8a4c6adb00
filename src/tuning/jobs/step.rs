//! One job, stepped until it has to wait: each step's row is written before the next is taken. Where another process has
//! written it first, nothing more is done here.

use std::time::Duration;

use super::Jobs;
use super::create::note_row;
use crate::clock;
use crate::domain::provider::ProviderKind;
use crate::domain::tuning::lifecycle::{Act, Again, Course, Next, Stage};
use crate::domain::tuning::{Id, TrainingEvent};
use crate::store::StoreError;
use crate::store::jobs::{Beside, EventRow, JobRow};

/// The longest wait that a provider is granted, ms.
const LONGEST_WAIT_MS: u64 = 900_000;
/// The shortest wait between two looks, ms.
const SHORTEST_WAIT_MS: u64 = 20;

/// Whether a job goes on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Goes,
    Waits,
}

impl Jobs {
    /// Steps a job until it waits, is over, or is another process's to step. Whether its row was written: else it is due
    /// as before.
    pub(super) async fn advance(&self, id: &str) -> bool {
        self.try_advance(id).await.unwrap_or_else(|error| {
            tracing::warn!(%error, job = id, "a fine-tuning job could not be stepped; it is tried again");
            false
        })
    }

    async fn try_advance(&self, id: &str) -> Result<bool, StoreError> {
        let Some(mut job) = self.rows.get(id).await? else { return Ok(true) };
        let found = job.version;
        if !job.is_over() && !self.compared.lock().contains(id) {
            self.compare(&mut job).await?;
            self.compared.lock().insert(id.to_owned());
        }
        while self.lease.is_ours(clock::monotonic()) {
            if self.step(&mut job).await? == Then::Waits {
                break;
            }
            // what somebody wishes meanwhile is seen at once
            match self.rows.get(id).await? {
                Some(now) if now.version == job.version => job = now,
                _ => break,
            }
        }
        if job.is_over() {
            self.compared.lock().remove(id);
        }
        Ok(job.version > found)
    }

    async fn step(&self, job: &mut JobRow) -> Result<Then, StoreError> {
        let now_ms = clock::unix_ms();
        match job.course.next(job.wish, now_ms) {
            Next::Over => Ok(Then::Waits),
            Next::Write(course) => self.write(job, *course, due(now_ms)).await,
            Next::Granted => {
                let course = Course { declined: None, doubted: None, ..job.course.clone() };
                self.write(job, course, Beside { granted: true, ..due(now_ms) }).await
            }
            Next::Denied(course) => self.write(job, *course, Beside { granted: true, ..due(now_ms) }).await,
            // a wish wakes it
            Next::Rest => {
                let course = job.course.clone();
                let next_at_ms = now_ms.saturating_add(ms(self.config.poll_max));
                self.write(job, course, Beside { next_at_ms, ..Beside::default() }).await?;
                Ok(Then::Waits)
            }
            Next::Intend(course, act) => match self.write(job, *course, due(now_ms)).await? {
                Then::Goes => self.perform(job, act).await,
                Then::Waits => Ok(Then::Waits),
            },
            Next::Act(act) => self.perform(job, act).await,
        }
    }

    /// Carries out an act and writes what follows.
    async fn perform(&self, job: &mut JobRow, act: Act) -> Result<Then, StoreError> {
        // two bills of one day are drawn one after the other
        let _one_bill = match act {
            Act::Bill => Some(self.billing.lock().await),
            _ => None,
        };
        let mut beside = Beside::default();
        let told = self.carry_out(job, act, &mut beside).await;
        let now_ms = clock::unix_ms();
        self.count(job, act, &told);
        let learnt = job.course.learn(act, told, now_ms);
        if learnt.course.has_new_checkpoint(&job.course)
            && let Some(made) = self.made_on_the_way(job).await
        {
            beside.checkpoints = made;
        }
        let is_over = learnt.course.stage == Stage::Ended && job.course.stage != Stage::Ended;
        let mut events: Vec<EventRow> = learnt.events.iter().map(event_row).collect();
        events.extend(learnt.notes.iter().map(|note| note_row(note, now_ms)));
        beside.events.append(&mut events);
        beside.granted = learnt.granted;
        beside.next_at_ms = now_ms.saturating_add(self.wait_ms(&job.provider, &learnt.course, learnt.again));
        if is_over {
            job.ended_at_ms = Some(now_ms);
        }
        let then = self.write(job, learnt.course, beside).await?;
        match then {
            Then::Goes if learnt.again == Again::Now => Ok(Then::Goes),
            _ => Ok(Then::Waits),
        }
    }

    /// Writes a job as it is now. It waits where it was another's to write.
    async fn write(&self, job: &mut JobRow, course: Course, beside: Beside) -> Result<Then, StoreError> {
        let was_over = is_told(job.course.stage);
        job.course = course;
        if !self.rows.save(job, &beside).await? {
            tracing::info!(job = %job.id, "a fine-tuning job was stepped by another process");
            return Ok(Then::Waits);
        }
        job.version += 1;
        if !was_over && is_told(job.course.stage) {
            self.count_end(job);
        }
        Ok(Then::Goes)
    }

    /// How long a job waits, ms. A tenth more or less, so that not all are asked for at once.
    fn wait_ms(&self, provider: &str, course: &Course, again: Again) -> i64 {
        let kind = self.trainer(provider).map(|trainer| trainer.provider().dialect.kind());
        let usual = match (course.stage, kind) {
            // our own database is asked, no provider
            (Stage::Checking, _) => self.config.poll.min(OFTEN),
            // a step there takes a second or two, and asking costs nothing
            (_, Some(ProviderKind::Candle)) => self.config.poll.min(2 * OFTEN),
            _ => self.config.poll,
        };
        let wait = match again {
            Again::Now => return 0,
            Again::Soon => usual,
            Again::Later(doublings) => {
                usual.saturating_mul(1 << doublings.min(10)).min(self.config.poll_max.max(usual))
            }
            Again::In(ms) => Duration::from_millis(ms.clamp(SHORTEST_WAIT_MS, LONGEST_WAIT_MS)),
        };
        let tenth = u64::try_from(wait.as_millis() / 10).unwrap_or(0);
        let jitter = rand::random_range(0..=tenth);
        ms(wait).saturating_add(i64::try_from(jitter).unwrap_or(0))
    }
}

/// How often what is our own is asked.
const OFTEN: Duration = Duration::from_secs(1);

/// Whether a job's end is told.
fn is_told(stage: Stage) -> bool {
    stage >= Stage::Cleaning
}

fn due(now_ms: i64) -> Beside {
    Beside { next_at_ms: now_ms, ..Beside::default() }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A provider's event, under an id of our own.
fn event_row(event: &TrainingEvent) -> EventRow {
    EventRow {
        id: Id::Event.mint(rand::random()),
        provider_id: Some(event.id.to_string()),
        created_at: event.created_at,
        level: event.level.to_string(),
        kind: event.kind.to_string(),
        message: event.message.clone(),
        figures: event.data.clone(),
    }
}
