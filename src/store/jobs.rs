//! Rows of fine-tuning jobs, their events and their checkpoints.
//!
//! Only who steps jobs writes a job's course, and each time claims the version that it has read: where another process was
//! first, nothing is written. A wish is a column of its own, so that whoever has one waits for nobody.

use std::sync::Arc;

use serde_json::Value;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{Statement, write};
use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;
use crate::domain::ledger::Attribution;
use crate::domain::tuning::lifecycle::{Course, Stage, Wish};
use crate::domain::tuning::{JobStatus, Owner};

/// Jobs that are read at once, at most.
pub const MOST_JOBS: i64 = 1_000;

const COLUMNS: &str = "id, owner, booked_on, provider, base, training_file, validation_file, request, seed, idempotency, \
                       version, course, raw, result_files, wish, wishes, created_at_ms, ended_at_ms";

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Our id of it.
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whom and what its money is booked on.
    pub booked_on: Arc<Attribution>,
    /// The provider's name.
    pub provider: String,
    /// The provider's own name of the base model.
    pub base: String,
    /// Our id of the training file.
    pub training_file: String,
    /// Our id of the validation file.
    pub validation_file: Option<String>,
    /// The body that it was asked for with.
    pub request: String,
    /// The seed, made up where none was asked for.
    pub seed: i64,
    /// What it can't be asked for twice by: whose, and their key for it.
    pub idempotency: Option<String>,
    /// Changes whenever the course does.
    pub version: i64,
    /// All that its next step goes by.
    pub course: Course,
    /// What the provider said last, as it came.
    pub raw: Value,
    /// Our ids of its result files.
    pub result_files: Vec<String>,
    /// What somebody wants of it.
    pub wish: Option<Wish>,
    /// How often somebody wanted something.
    pub wishes: i64,
    /// When it was asked for, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// When nothing more was to be done, ms since 1970 UTC.
    pub ended_at_ms: Option<i64>,
}

/// An event of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Our id of it.
    pub id: String,
    /// The provider's; none for our own words.
    pub provider_id: Option<String>,
    /// When, seconds since 1970 UTC.
    pub created_at: i64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// `message` or `metrics`.
    pub kind: String,
    /// For people.
    pub message: String,
    /// Figures of a step, or null.
    pub figures: Value,
}

/// A model of the middle of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointRow {
    /// Our id of it.
    pub id: String,
    /// When it was made, seconds since 1970 UTC.
    pub created_at: i64,
    /// Behind which step.
    pub step: i64,
    /// The model's name.
    pub model: String,
    /// Figures, in OpenAI's form.
    pub metrics: Value,
}

/// What a job has come to on a worker of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The provider's name.
    pub provider: String,
    /// What was trained.
    pub base: String,
    /// Trained tokens, every epoch counted.
    pub tokens: u64,
    /// How long was computed, seconds.
    pub computed_seconds: u64,
}

/// What a step writes beside the job's own row.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// What happened.
    pub events: Vec<EventRow>,
    /// What was made on the way.
    pub checkpoints: Vec<CheckpointRow>,
    /// The wish that was read is over.
    pub granted: bool,
    /// When the job is to be looked at again, ms since 1970 UTC; a wish that came meanwhile is looked at at once.
    pub next_at_ms: i64,
}

/// So many jobs of one provider stand like that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCount {
    /// The provider's name.
    pub provider: String,
    /// How they stand.
    pub status: JobStatus,
    /// How many.
    pub jobs: u64,
    /// What is held for them, nano-dollars.
    pub held_nanos: i64,
}

/// The tables of jobs.
#[derive(Debug, Clone)]
pub struct JobRows {
    pool: Pool,
}

impl JobRows {
    /// The tables in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a new job, to be looked at at a time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Taken`] where one was asked for by the same idempotency key.
    pub async fn insert(&self, job: &JobRow, next_at_ms: i64, events: &[EventRow]) -> Result<(), StoreError> {
        let insert = sqlx::query(
            "INSERT INTO fine_tuning_jobs (id, owner, booked_on, provider, base, training_file, validation_file, request,
                 seed, idempotency, status, stage, version, course, raw, result_files, wish, wishes, next_at_ms,
                 created_at_ms, held_nanos, price_row, billed_tokens, cost_nanos)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, '', 0, $17, $18, 0, '', 0, 0)",
        )
        .bind(job.id.clone())
        .bind(job.owner.to_string())
        .bind(text(&job.booked_on))
        .bind(job.provider.clone())
        .bind(job.base.clone())
        .bind(job.training_file.clone())
        .bind(job.validation_file.clone().unwrap_or_default())
        .bind(job.request.clone())
        .bind(job.seed)
        .bind(job.idempotency.clone())
        .bind(job.course.status(None).name())
        .bind(job.course.stage.name())
        .bind(job.version)
        .bind(text(&job.course))
        .bind(job.raw.to_string())
        .bind(text(&job.result_files))
        .bind(next_at_ms)
        .bind(job.created_at_ms);
        let steps: Vec<Statement> = std::iter::once(insert)
            .chain(events.iter().map(|event| event_statement(&job.id, event)))
            .collect();
        write(&self.pool, steps).await.map(drop)
    }

    /// Writes a job as a step has left it, if nobody else has stepped it since it was read; `job.version` is still the one
    /// that was read. Whether it was written.
    pub async fn save(&self, job: &JobRow, beside: &Beside) -> Result<bool, StoreError> {
        let bill = job.course.bill;
        // a wish that came since the row was read stays, and is looked at at once
        let update = sqlx::query(
            "UPDATE fine_tuning_jobs SET status = $3, stage = $4, version = version + 1, course = $5, raw = $6,
                 result_files = $7, ended_at_ms = $8, held_nanos = $9, bill_day = $10, billed_tokens = $11,
                 cost_nanos = $12, computed_seconds = $17, wish = CASE WHEN wishes = $13 THEN $14 ELSE wish END,
                 next_at_ms = CASE WHEN wishes = $13 THEN $15 ELSE 0 END, price_row = $16
             WHERE id = $1 AND version = $2",
        )
        .bind(job.id.clone())
        .bind(job.version)
        .bind(job.course.status(job.wish.filter(|_| !beside.granted)).name())
        .bind(job.course.stage.name())
        .bind(text(&job.course))
        .bind(job.raw.to_string())
        .bind(text(&job.result_files))
        .bind(job.ended_at_ms)
        .bind(job.course.held_nanos)
        .bind(bill.map(|bill| bill.day))
        .bind(i64::try_from(bill.map_or(0, |bill| bill.tokens)).unwrap_or(i64::MAX))
        .bind(bill.map_or(0, |bill| bill.nanos))
        .bind(job.wishes)
        .bind(job.wish.filter(|_| !beside.granted).map_or("", Wish::name))
        .bind(beside.next_at_ms)
        .bind(job.course.quote.as_ref().map(|quote| quote.price.row.to_string()).unwrap_or_default())
        .bind(i64::try_from(bill.map_or(0, |bill| bill.computed_seconds)).unwrap_or(i64::MAX));
        let events = beside.events.iter().map(|event| event_statement(&job.id, event));
        let checkpoints = checkpoint_statements(&job.id, &beside.checkpoints);
        let steps: Vec<Statement> = std::iter::once(update).chain(events).chain(checkpoints).collect();
        write(&self.pool, steps).await
    }

    /// Writes what a job has made on the way, whoever steps it. Whether it is at its provider still: its end writes all of
    /// them.
    pub async fn keep_checkpoints(&self, job: &str, made: &[CheckpointRow]) -> Result<bool, StoreError> {
        let is_there =
            sqlx::query("UPDATE fine_tuning_jobs SET version = version WHERE id = $1 AND stage = $2")
                .bind(job.to_owned())
                .bind(Stage::Following.name());
        write(&self.pool, std::iter::once(is_there).chain(checkpoint_statements(job, made)).collect()).await
    }

    /// Writes what somebody wants of a job, to be looked at at once. Whether it goes on at all.
    pub async fn wish(&self, id: &str, wish: Wish) -> Result<bool, StoreError> {
        let query = sqlx::query(
            "UPDATE fine_tuning_jobs SET wish = $2, wishes = wishes + 1, next_at_ms = 0
             WHERE id = $1 AND stage NOT IN ('settling', 'closing', 'cleaning', 'ended')
                   AND (wish <> 'cancel' OR $2 = 'cancel')",
        );
        let done = query.bind(id.to_owned()).bind(wish.name()).execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Makes all jobs due that one process was stepping, but those that are just being made by another.
    pub async fn wake_all(&self) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE fine_tuning_jobs SET next_at_ms = 0 WHERE stage NOT IN ('checking', 'holding', 'ended')",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes a job away that was refused before anything came of it. Not one that has been stepped since it was read. Whether
    /// it was.
    pub async fn delete(&self, id: &str, version: i64) -> Result<bool, StoreError> {
        let query = |sql: &'static str| sqlx::query(sql).bind(id.to_owned());
        let job = query("DELETE FROM fine_tuning_jobs WHERE id = $1 AND version = $2").bind(version);
        let events = query("DELETE FROM fine_tuning_events WHERE job = $1");
        write(&self.pool, vec![job, events]).await
    }

    /// A job by its id.
    pub async fn get(&self, id: &str) -> Result<Option<JobRow>, StoreError> {
        self.one("WHERE id = $1", id).await
    }

    /// The job that was asked for by an idempotency key.
    pub async fn asked_by(&self, idempotency: &str) -> Result<Option<JobRow>, StoreError> {
        self.one("WHERE idempotency = $1", idempotency).await
    }

    async fn one(&self, which: &'static str, value: &str) -> Result<Option<JobRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM fine_tuning_jobs {which}"));
        let row = sqlx::query(sql).bind(value.to_owned()).fetch_optional(&self.pool).await?;
        row.as_ref().map(job_row).transpose()
    }

    /// Jobs of an owner, or of all, the latest first, behind one of them (its time and id).
    pub async fn page(
        &self,
        owner: Option<&Owner>,
        after: Option<(i64, &str)>,
        limit: i64,
    ) -> Result<Vec<JobRow>, StoreError> {
        let (at_ms, id) = after.unwrap_or((i64::MAX, ""));
        let whose = if owner.is_some() { "owner = $4 AND" } else { "$4 = '' AND" };
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM fine_tuning_jobs
             WHERE {whose} (created_at_ms < $1 OR (created_at_ms = $1 AND id < $2))
             ORDER BY created_at_ms DESC, id DESC LIMIT $3"
        ));
        let rows = sqlx::query(sql)
            .bind(at_ms)
            .bind(id.to_owned())
            .bind(limit.min(MOST_JOBS))
            .bind(owner.map(Owner::to_string).unwrap_or_default())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(job_row).collect()
    }

    /// Jobs that are to be looked at by a moment, and their providers; those that waited longest first. One that would
    /// have to wait beyond `latest_ms` is, too: the clock was set back since that was written.
    pub async fn due(
        &self,
        now_ms: i64,
        latest_ms: i64,
        limit: i64,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, provider FROM fine_tuning_jobs
             WHERE stage <> 'ended' AND (next_at_ms <= $1 OR next_at_ms > $2) ORDER BY next_at_ms, id LIMIT $3",
        )
        .bind(now_ms)
        .bind(latest_ms)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Tokens that other jobs of a provider have been billed for by one row of prices on a UTC day, counted from
    /// 1970-01-01.
    pub async fn billed_on(
        &self,
        provider: &str,
        price_row: &str,
        day: i64,
        but: &str,
    ) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT CAST(COALESCE(SUM(billed_tokens), 0) AS BIGINT) FROM fine_tuning_jobs
             WHERE provider = $1 AND price_row = $2 AND bill_day = $3 AND id <> $4",
        )
        .bind(provider.to_owned())
        .bind(price_row.to_owned())
        .bind(day)
        .bind(but.to_owned())
        .fetch_one(&self.pool)
        .await?;
        let tokens: i64 = row.try_get(0)?;
        Ok(u64::try_from(tokens).unwrap_or(0))
    }

    /// Tokens that jobs were billed for on a UTC day, counted from 1970-01-01, by provider and row of prices.
    pub async fn billed_by_row(&self, day: i64) -> Result<Vec<((String, String), u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT provider, price_row, CAST(SUM(billed_tokens) AS BIGINT) FROM fine_tuning_jobs
             WHERE bill_day = $1 GROUP BY provider, price_row",
        )
        .bind(day)
        .fetch_all(&self.pool)
        .await?;
        let read = rows.iter().map(|row| {
            let tokens: i64 = row.try_get(2)?;
            Ok(((row.try_get(0)?, row.try_get(1)?), u64::try_from(tokens).unwrap_or(0)))
        });
        read.collect()
    }

    /// The jobs that workers of ours have computed last, the newest first, so many at most.
    pub async fn computed(&self, limit: i64) -> Result<Vec<Ran>, StoreError> {
        let rows = sqlx::query(
            "SELECT provider, base, billed_tokens, computed_seconds FROM fine_tuning_jobs
             WHERE computed_seconds > 0 AND billed_tokens > 0 ORDER BY created_at_ms DESC, id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let read = rows.iter().map(|row| {
            let count =
                |index: usize| row.try_get::<i64, _>(index).map(|count| u64::try_from(count).unwrap_or(0));
            Ok(Ran {
                provider: row.try_get(0)?,
                base: row.try_get(1)?,
                tokens: count(2)?,
                computed_seconds: count(3)?,
            })
        });
        read.collect()
    }

    /// How many jobs there are, by provider and status, and what is held for them.
    pub async fn counts(&self) -> Result<Vec<JobCount>, StoreError> {
        let rows = sqlx::query(
            "SELECT provider, status, COUNT(*), CAST(SUM(held_nanos) AS BIGINT) FROM fine_tuning_jobs
             GROUP BY provider, status ORDER BY provider, status",
        )
        .fetch_all(&self.pool)
        .await?;
        let read = rows.iter().map(|row| {
            let jobs: i64 = row.try_get(2)?;
            let status: String = row.try_get(1)?;
            Ok(JobCount {
                provider: row.try_get(0)?,
                status: JobStatus::read(&status),
                jobs: u64::try_from(jobs).unwrap_or(0),
                held_nanos: row.try_get(3)?,
            })
        });
        read.collect()
    }

    /// Jobs that are at their providers or on the way: at most [`MOST_JOBS`].
    pub async fn open(&self) -> Result<Vec<JobRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM fine_tuning_jobs WHERE stage <> 'ended' ORDER BY created_at_ms, id LIMIT $1"
        ));
        let rows = sqlx::query(sql).bind(MOST_JOBS).fetch_all(&self.pool).await?;
        rows.iter().map(job_row).collect()
    }

    /// Events of a job, the latest first, behind one of them; none where that is not the job's.
    pub async fn events(
        &self,
        job: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Option<Vec<EventRow>>, StoreError> {
        let before = match after {
            None => i64::MAX,
            Some(id) => {
                let found = sqlx::query("SELECT number FROM fine_tuning_events WHERE job = $1 AND id = $2")
                    .bind(job.to_owned())
                    .bind(id.to_owned())
                    .fetch_optional(&self.pool)
                    .await?;
                match found {
                    Some(row) => row.try_get(0)?,
                    None => return Ok(None),
                }
            }
        };
        let rows = sqlx::query(
            "SELECT id, provider_id, created_at, level, kind, message, figures FROM fine_tuning_events
             WHERE job = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        )
        .bind(job.to_owned())
        .bind(before)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(event_row).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Checkpoints of a job, the latest first.
    pub async fn checkpoints(&self, job: &str) -> Result<Vec<CheckpointRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, created_at, step, model, metrics FROM fine_tuning_checkpoints
             WHERE job = $1 ORDER BY step DESC LIMIT $2",
        )
        .bind(job.to_owned())
        .bind(MOST_JOBS)
        .fetch_all(&self.pool)
        .await?;
        let read = rows.iter().map(|row| {
            Ok(CheckpointRow {
                id: row.try_get(0)?,
                created_at: row.try_get(1)?,
                step: row.try_get(2)?,
                model: row.try_get(3)?,
                metrics: json(row, 4, job)?,
            })
        });
        read.collect()
    }
}

/// Numbers an event behind the last one; one that the provider told before is there already.
fn event_statement(job: &str, event: &EventRow) -> Statement {
    sqlx::query(
        "INSERT INTO fine_tuning_events (job, number, id, provider_id, created_at, level, kind, message, figures)
         SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, CAST($4 AS BIGINT), $5, $6, $7, $8
         FROM fine_tuning_events WHERE job = $1
         ON CONFLICT (job, provider_id) DO NOTHING",
    )
    .bind(job.to_owned())
    .bind(event.id.clone())
    .bind(event.provider_id.clone())
    .bind(event.created_at)
    .bind(event.level.clone())
    .bind(event.kind.clone())
    .bind(event.message.clone())
    .bind(event.figures.to_string())
}

/// Writes the checkpoints that a provider has; those before them it has dropped. A list that was fetched earlier may come
/// later: what it has before all that are there was dropped already, and stays so.
fn checkpoint_statements(job: &str, checkpoints: &[CheckpointRow]) -> impl Iterator<Item = Statement> {
    let mut in_order: Vec<&CheckpointRow> = checkpoints.iter().collect();
    in_order.sort_by_key(|checkpoint| checkpoint.step);
    let dropped = in_order.first().map(|first| first.step).map(|step| {
        sqlx::query("DELETE FROM fine_tuning_checkpoints WHERE job = $1 AND step < $2")
            .bind(job.to_owned())
            .bind(step)
    });
    in_order.into_iter().map(|checkpoint| checkpoint_statement(job, checkpoint)).chain(dropped)
}

fn checkpoint_statement(job: &str, checkpoint: &CheckpointRow) -> Statement {
    sqlx::query(
        "INSERT INTO fine_tuning_checkpoints (job, step, id, created_at, model, metrics)
         SELECT $1, CAST($2 AS BIGINT), $3, CAST($4 AS BIGINT), $5, $6
         WHERE NOT EXISTS (SELECT 1 FROM fine_tuning_checkpoints WHERE job = $1)
            OR EXISTS (SELECT 1 FROM fine_tuning_checkpoints WHERE job = $1 AND step <= CAST($2 AS BIGINT))
         ON CONFLICT (job, step) DO NOTHING",
    )
    .bind(job.to_owned())
    .bind(checkpoint.step)
    .bind(checkpoint.id.clone())
    .bind(checkpoint.created_at)
    .bind(checkpoint.model.clone())
    .bind(checkpoint.metrics.to_string())
}

#[expect(clippy::expect_used, reason = "what we make is always JSON")]
fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("it is JSON")
}

fn json<T: serde::de::DeserializeOwned>(row: &AnyRow, index: usize, id: &str) -> Result<T, StoreError> {
    let text: String = row.try_get(index)?;
    serde_json::from_str(&text).map_err(|_| StoreError::Damaged(format!("the job {id}")))
}

fn event_row(row: &AnyRow) -> Result<EventRow, StoreError> {
    let id: String = row.try_get(0)?;
    Ok(EventRow {
        provider_id: row.try_get(1)?,
        created_at: row.try_get(2)?,
        level: row.try_get(3)?,
        kind: row.try_get(4)?,
        message: row.try_get(5)?,
        figures: json(row, 6, &id)?,
        id,
    })
}

fn job_row(row: &AnyRow) -> Result<JobRow, StoreError> {
    let id: String = row.try_get(0)?;
    let owner: String = row.try_get(1)?;
    let validation: String = row.try_get(6)?;
    let wish: String = row.try_get(14)?;
    Ok(JobRow {
        owner: owner.parse().map_err(|_| StoreError::Damaged(format!("the job {id}")))?,
        booked_on: json(row, 2, &id)?,
        provider: row.try_get(3)?,
        base: row.try_get(4)?,
        training_file: row.try_get(5)?,
        validation_file: Some(validation).filter(|file| !file.is_empty()),
        request: row.try_get(7)?,
        seed: row.try_get(8)?,
        idempotency: row.try_get(9)?,
        version: row.try_get(10)?,
        course: json(row, 11, &id)?,
        raw: json(row, 12, &id)?,
        result_files: json(row, 13, &id)?,
        wish: Wish::from_name(&wish),
        wishes: row.try_get(15)?,
        created_at_ms: row.try_get(16)?,
        ended_at_ms: row.try_get(17)?,
        id,
    })
}

impl JobRow {
    /// Whether nothing more is to be done.
    pub fn is_over(&self) -> bool {
        self.course.stage == Stage::Ended
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::tuning::bill::{Bill, Quote, TrainingPrice};
    use crate::domain::tuning::lifecycle::Plan;
    use crate::domain::usage::UsageSource;
    use crate::store::testing::for_each_database;

    fn job(id: &str, owner: &str, created_at_ms: i64) -> JobRow {
        JobRow {
            id: id.to_owned(),
            owner: owner.parse().expect("an owner"),
            booked_on: Arc::new(Attribution { model: "m".into(), ..Attribution::default() }),
            provider: "openai".to_owned(),
            base: "gpt-4.1-mini-2025-04-14".to_owned(),
            training_file: "file-1".to_owned(),
            validation_file: None,
            request: "{}".to_owned(),
            seed: 7,
            idempotency: None,
            version: 1,
            course: Course::new(Plan::default(), created_at_ms),
            raw: Value::Null,
            result_files: Vec::new(),
            wish: None,
            wishes: 0,
            created_at_ms,
            ended_at_ms: None,
        }
    }

    fn event(id: &str, provider_id: Option<&str>) -> EventRow {
        EventRow {
            id: id.to_owned(),
            provider_id: provider_id.map(str::to_owned),
            created_at: 5,
            level: "info".to_owned(),
            kind: "message".to_owned(),
            message: "it's \"so\"".to_owned(),
            figures: json!({"step": 1}),
        }
    }

    #[tokio::test]
    async fn a_job_is_stepped_by_one_and_wished_by_all() {
        for_each_database(async |database| {
            let rows = JobRows::new(&database.open().await);
            let mut made = job("ftjob-1", "team:a", 10);
            made.idempotency = Some("team:a\nx".to_owned());
            rows.insert(&made, 50, &[event("e0", None)]).await.expect("written");
            let twin = JobRow { id: "ftjob-9".to_owned(), ..made.clone() };
            assert!(matches!(rows.insert(&twin, 50, &[]).await, Err(StoreError::Taken)));
            assert_eq!(rows.asked_by("team:a\nx").await.expect("read").as_ref(), Some(&made));
            let due = async |now_ms, latest_ms| -> Vec<String> {
                let due = rows.due(now_ms, latest_ms, 9).await.expect("read");
                due.into_iter().map(|(id, _)| id).collect()
            };
            assert_eq!(due(49, 50).await, Vec::<String>::new());
            assert_eq!(due(50, 60).await, ["ftjob-1"]);
            assert_eq!(due(20, 49).await, ["ftjob-1"], "nobody waits so long: the clock was set back");

            // a wish comes between reading and writing: it stays, and the job is due at once
            assert!(rows.wish("ftjob-1", Wish::Pause).await.expect("asked"));
            let mut stepped = made.clone();
            stepped.course.stage = Stage::Uploading;
            let beside = Beside {
                events: vec![event("e1", Some("p1")), event("e2", Some("p2")), event("e3", Some("p1"))],
                checkpoints: Vec::new(),
                granted: true,
                next_at_ms: 1_000,
            };
            assert!(rows.save(&stepped, &beside).await.expect("asked"));
            let found = rows.get("ftjob-1").await.expect("read").expect("there");
            assert_eq!((found.wish, found.wishes, found.version), (Some(Wish::Pause), 1, 2));
            assert_eq!(found.course.stage, Stage::Uploading);
            assert_eq!(due(0, 9).await, ["ftjob-1"]);
            // of the version before, nothing is written
            let lost = Beside { events: vec![event("e4", None)], ..Beside::default() };
            assert!(!rows.save(&stepped, &lost).await.expect("asked"));
            let ids = async |after, limit| {
                let events = rows.events("ftjob-1", after, limit).await.expect("read");
                events.map(|events| events.into_iter().map(|event| event.id).collect::<Vec<_>>())
            };
            let all = Some(["e2", "e1", "e0"].map(str::to_owned).to_vec());
            assert_eq!(ids(None, 9).await, all, "each of a provider's once, the latest first");
            assert_eq!(ids(Some("e2"), 1).await, Some(vec!["e1".to_owned()]));
            assert_eq!(ids(Some("e9"), 1).await, None);

            let granted = Beside { granted: true, next_at_ms: 70, ..Beside::default() };
            assert!(rows.save(&found, &granted).await.expect("asked"));
            let found = rows.get("ftjob-1").await.expect("read").expect("there");
            assert_eq!(found.wish, None);
            assert!(rows.wish("ftjob-1", Wish::Cancel).await.expect("asked"));
            assert!(!rows.wish("ftjob-1", Wish::Resume).await.expect("asked"), "a cancel stays");
        })
        .await;
    }

    fn checkpoint(step: i64) -> CheckpointRow {
        CheckpointRow {
            id: format!("ftckpt_{step}"),
            created_at: 1,
            step,
            model: "ft:x".to_owned(),
            metrics: json!({"train_loss": 0.5}),
        }
    }

    #[tokio::test]
    async fn checkpoints_are_those_that_the_provider_has() {
        for_each_database(async |database| {
            let rows = JobRows::new(&database.open().await);
            let mut made = job("ftjob-1", "team:a", 10);
            rows.insert(&made, 0, &[]).await.expect("written");
            let steps = async || -> Vec<i64> {
                let all = rows.checkpoints("ftjob-1").await.expect("read");
                all.iter().map(|checkpoint| checkpoint.step).collect()
            };
            let keep = async |steps: &[i64]| {
                let made: Vec<CheckpointRow> = steps.iter().copied().map(checkpoint).collect();
                rows.keep_checkpoints("ftjob-1", &made).await.expect("asked")
            };
            assert!(!keep(&[1]).await, "it is not at its provider yet");
            assert_eq!(steps().await, Vec::<i64>::new());
            made.course.stage = Stage::Following;
            assert!(rows.save(&made, &Beside::default()).await.expect("asked"));
            assert!(keep(&[1, 2, 3]).await);
            assert!(keep(&[2, 3, 4]).await);
            assert_eq!(steps().await, [4, 3, 2], "the first is dropped there");
            assert!(keep(&[1, 2, 3]).await, "a list that was fetched before the last");
            assert_eq!(steps().await, [4, 3, 2], "what was dropped comes back no more");
            assert!(keep(&[]).await);
            assert_eq!(steps().await, [4, 3, 2]);
            // whoever steps the job has not been overtaken
            assert_eq!(rows.get("ftjob-1").await.expect("read").expect("there").version, made.version + 1);
        })
        .await;
    }

    #[tokio::test]
    async fn jobs_are_listed_counted_and_billed() {
        for_each_database(async |database| {
            let rows = JobRows::new(&database.open().await);
            for (id, owner, at_ms) in
                [("ftjob-1", "team:a", 10), ("ftjob-2", "team:b", 20), ("ftjob-3", "team:a", 20)]
            {
                rows.insert(&job(id, owner, at_ms), 0, &[]).await.expect("written");
            }
            let ids = async |owner: Option<&str>, after, limit| -> Vec<String> {
                let owner: Option<Owner> = owner.map(|owner| owner.parse().expect("an owner"));
                let page = rows.page(owner.as_ref(), after, limit).await.expect("read");
                page.into_iter().map(|job| job.id).collect()
            };
            assert_eq!(ids(None, None, 9).await, ["ftjob-3", "ftjob-2", "ftjob-1"]);
            assert_eq!(ids(Some("team:a"), None, 9).await, ["ftjob-3", "ftjob-1"]);
            assert_eq!(ids(None, Some((20, "ftjob-3")), 1).await, ["ftjob-2"]);
            let mut billed = job("ftjob-1", "team:a", 10);
            billed.course.held_nanos = 40;
            let price = TrainingPrice::nothing("ft:x");
            billed.course.quote = Some(Quote { tokens: 300, epochs: 3, auto: false, price, pace: None });
            billed.course.bill = Some(Bill {
                tokens: 900,
                seconds: 9,
                computed_seconds: 3,
                source: UsageSource::Reported,
                nanos: 5,
                day: 3,
            });
            let made = checkpoint(4);
            let beside = Beside { checkpoints: vec![made.clone(), made.clone()], ..Beside::default() };
            assert!(rows.save(&billed, &beside).await.expect("asked"));
            assert_eq!(rows.checkpoints("ftjob-1").await.expect("read"), [made]);
            assert_eq!(rows.billed_on("openai", "ft:x", 3, "ftjob-2").await.expect("read"), 900);
            assert_eq!(rows.billed_on("openai", "ft:x", 3, "ftjob-1").await.expect("read"), 0, "not its own");
            assert_eq!(rows.billed_on("openai", "ft:y", 3, "").await.expect("read"), 0);
            let all = rows.billed_by_row(3).await.expect("read");
            assert_eq!(all, [(("openai".to_owned(), "ft:x".to_owned()), 900)]);
            assert_eq!(rows.billed_by_row(4).await.expect("read"), []);
            let ran = Ran {
                provider: "openai".into(),
                base: billed.base.clone(),
                tokens: 900,
                computed_seconds: 3,
            };
            assert_eq!(rows.computed(9).await.expect("read"), [ran]);
            let counts = rows.counts().await.expect("read");
            let want = JobCount {
                provider: "openai".to_owned(),
                status: JobStatus::ValidatingFiles,
                jobs: 3,
                held_nanos: 40,
            };
            assert_eq!(counts, [want]);
            assert!(!rows.delete("ftjob-2", 7).await.expect("asked"));
            assert_eq!(rows.open().await.expect("read").len(), 3, "not one that was stepped");
            assert!(rows.delete("ftjob-2", 1).await.expect("asked"));
            assert_eq!(rows.open().await.expect("read").len(), 2);
        })
        .await;
    }
}
