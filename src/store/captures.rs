//! Rows of exchanges that are kept to train on, and of what was said about them.
//!
//! A write is small: it shares the database with the ledger, whose writer must not wait behind it.

use futures_util::FutureExt as _;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;
use crate::domain::capture::{Feedback, Rating, Wanted};

/// Rows deleted in one statement, so that a writer never waits long.
const BATCH: i64 = 200;
/// An erasure is remembered so long, ms: no answer is longer on its way to its row.
const DAY_MS: i64 = 86_400_000;
/// What was said waits so long for its exchange, ms: that is written within minutes of its answer's end, or never.
const AWAITED_MS: i64 = 3_600_000;
/// So long after an erasure what it names is looked for again, ms: an exchange that was written in the same moment saw
/// nothing of it, and was not seen.
const ERASED_AGAIN_MS: i64 = 300_000;
/// Rows of a page, at most.
pub const PAGE: i64 = 100;

/// An exchange.
#[derive(Clone, PartialEq, Eq)]
pub struct CaptureRow {
    /// Its request's id.
    pub request_id: String,
    /// Whose it is, as `Owner` is written.
    pub owner: String,
    /// SHA-256 of the application's user; empty where it named none.
    pub end_user: String,
    /// The model that was asked for.
    pub model: String,
    /// Who answered.
    pub deployment: String,
    /// The provider's own name of the model.
    pub upstream: String,
    /// The provider's id of the answer.
    pub answer_id: String,
    /// SHA-256 of the prompt.
    pub prompt_hash: String,
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
    /// Until when it is kept, ms since 1970 UTC.
    pub until_ms: i64,
    /// How many pieces of it are masked.
    pub masked: i64,
    /// What was asked, JSON.
    pub prompt: String,
    /// The assistant's message, JSON.
    pub answer: String,
}

/// What was said about an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct FeedbackRow {
    /// Its request's id.
    pub request_id: String,
    /// Whose it is.
    pub owner: String,
    /// The model that was asked for.
    pub model: String,
    /// What was said.
    pub said: Feedback,
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
    /// Until when it is kept, ms since 1970 UTC.
    pub until_ms: i64,
}

/// Whose request it was that somebody speaks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub request_id: String,
    /// The model that was asked for.
    pub model: String,
    /// Until when it is kept, ms since 1970 UTC.
    pub until_ms: i64,
}

/// An exchange with what was said about it.
#[derive(Clone, PartialEq, Eq)]
pub struct Told {
    /// The exchange.
    pub row: CaptureRow,
    /// Whether it was good, where somebody said so.
    pub rating: Option<Rating>,
    /// What it should have said; empty for nothing.
    pub correction: String,
}

/// Which exchanges are looked for; what is none is all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of this model.
    pub model: String,
    /// Of this deployment.
    pub deployment: Option<String>,
    /// Of this owner.
    pub owner: Option<String>,
    /// From then on, ms since 1970 UTC.
    pub from_ms: i64,
    /// Before then, ms since 1970 UTC.
    pub to_ms: i64,
    /// By what was said about them.
    pub wanted: Wanted,
}

/// Which exchanges go; at least one of these is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erasure {
    /// Of this request.
    pub request_id: Option<String>,
    /// Of this user, by the hash.
    pub end_user: Option<String>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Of this model.
    pub model: Option<String>,
}

/// How much is kept of a deployment's answers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// The model that was asked for.
    pub model: String,
    /// Who answered.
    pub deployment: String,
    /// How many rows.
    pub rows: i64,
    /// What they take, bytes.
    pub bytes: i64,
    /// Of which somebody found so many good.
    pub up: i64,
    /// And so many bad.
    pub down: i64,
    /// And has corrected so many.
    pub corrected: i64,
    /// The oldest, ms since 1970 UTC.
    pub oldest_ms: i64,
    /// The newest, ms since 1970 UTC.
    pub newest_ms: i64,
}

/// How much is kept of a model's answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// The model that was asked for.
    pub model: String,
    /// How many rows.
    pub rows: i64,
    /// What they take, bytes.
    pub bytes: i64,
}

/// The tables.
#[derive(Debug, Clone)]
pub struct CaptureRows {
    pool: Pool,
}

// words of ours alone; values are bound
const TOLD: &str = "SELECT c.request_id, c.owner, c.end_user, c.model, c.deployment, c.upstream, c.answer_id, \
     c.prompt_hash, c.at_ms, c.until_ms, c.masked, c.prompt, c.answer, f.rating, f.correction \
     FROM captures c LEFT JOIN feedback f ON f.request_id = c.request_id AND f.owner = c.owner";

/// An index has all of it: this is asked again and again.
const SIZES: &str = "SELECT model, CAST(COUNT(*) AS BIGINT) AS kept, CAST(SUM(bytes) AS BIGINT) AS bytes
     FROM captures GROUP BY model ORDER BY model";

/// What a filter wants of `f`.
const fn clause(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Any => "1 = 1",
        Wanted::Up => "(f.rating = 1 OR f.correction <> '')",
        Wanted::NotDown => "(f.rating IS NULL OR f.rating = 1 OR f.correction <> '')",
        Wanted::Corrected => "f.correction <> ''",
    }
}

impl CaptureRows {
    /// The tables in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes exchanges, all of them or none. One that is there already stays; one that was erased before it came is let go.
    pub async fn insert(&self, rows: &[CaptureRow]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        let work = self.pool.transaction(|connection| {
            let all = async move {
                for row in rows {
                    let bytes = row.prompt.len() + row.answer.len();
                    sqlx::query(
                        "INSERT INTO captures (request_id, owner, end_user, model, deployment, upstream, answer_id,
                             prompt_hash, at_ms, until_ms, bytes, masked, prompt, answer)
                         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
                         WHERE NOT EXISTS (SELECT 1 FROM erasures WHERE at_ms >= $9
                             AND request_id IN ('', $1) AND owner IN ('', $2) AND end_user IN ('', $3)
                             AND model IN ('', $4))
                         ON CONFLICT (request_id) DO NOTHING",
                    )
                    .bind(row.request_id)
                    .bind(row.owner)
                    .bind(row.end_user)
                    .bind(row.model)
                    .bind(row.deployment)
                    .bind(row.upstream)
                    .bind(row.answer_id)
                    .bind(row.prompt_hash)
                    .bind(row.at_ms)
                    .bind(row.until_ms)
                    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
                    .bind(row.masked)
                    .bind(row.prompt)
                    .bind(row.answer)
                    .execute(&mut *connection)
                    .await?;
                }
                Ok(())
            };
            all.boxed()
        });
        Ok(work.await?)
    }

    /// Writes exchanges; where the database won't have one for what is in it, each by itself. Returns which it would not have.
    pub async fn insert_each(&self, rows: &[CaptureRow]) -> Result<Vec<usize>, StoreError> {
        match self.insert(rows).await {
            Err(error) if error.is_about_values() => {}
            done => return done.map(|()| Vec::new()),
        }
        let mut refused = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            match self.insert(std::slice::from_ref(row)).await {
                Err(error) if error.is_about_values() => refused.push(at),
                done => done?,
            }
        }
        Ok(refused)
    }

    /// Finds an owner's exchange by its request's id, or by its answer's.
    pub async fn known(&self, owner: &str, id: &str) -> Result<Option<Known>, StoreError> {
        let row = sqlx::query(
            "SELECT request_id, model, until_ms FROM captures
             WHERE (request_id = $1 OR answer_id = $1) AND owner = $2 ORDER BY at_ms DESC LIMIT 1",
        )
        .bind(id)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Known {
            request_id: row.try_get("request_id")?,
            model: row.try_get("model")?,
            until_ms: row.try_get("until_ms")?,
        }))
    }

    /// Writes what was said about an answer; what was said before gives way. What another owner said stays.
    pub async fn say(&self, row: &FeedbackRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO feedback (request_id, owner, model, rating, comment, correction, at_ms, until_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (request_id) DO UPDATE SET rating = $4, comment = $5, correction = $6, at_ms = $7, until_ms = $8
             WHERE feedback.owner = $2",
        )
        .bind(row.request_id.as_str())
        .bind(row.owner.as_str())
        .bind(row.model.as_str())
        .bind(row.said.rating.number())
        .bind(row.said.comment.as_str())
        .bind(row.said.correction.as_str())
        .bind(row.at_ms)
        .bind(row.until_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// At most [`PAGE`] exchanges, newest first: those before a moment and an id, or the newest.
    pub async fn page(&self, filter: &Filter, before: Option<(i64, &str)>) -> Result<Vec<Told>, StoreError> {
        let (before_ms, before_id) = before.unwrap_or((i64::MAX, ""));
        let text = format!(
            "{TOLD} WHERE c.model = $1 AND c.at_ms >= $2 AND c.at_ms < $3
             AND ($4 = '' OR c.deployment = $4) AND ($5 = '' OR c.owner = $5)
             AND (c.at_ms < $6 OR (c.at_ms = $6 AND c.request_id < $7)) AND {}
             ORDER BY c.at_ms DESC, c.request_id DESC LIMIT $8",
            clause(filter.wanted)
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(filter.model.as_str())
            .bind(filter.from_ms)
            .bind(filter.to_ms)
            .bind(filter.deployment.as_deref().unwrap_or_default())
            .bind(filter.owner.as_deref().unwrap_or_default())
            .bind(before_ms)
            .bind(before_id)
            .bind(PAGE)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(told).collect()
    }

    /// The newest answer to the same prompt that somebody found good, of the same model and owner.
    pub async fn better(&self, than: &CaptureRow) -> Result<Option<Told>, StoreError> {
        let text = format!(
            "{TOLD} WHERE c.prompt_hash = $1 AND c.model = $2 AND c.owner = $3 AND f.rating = 1
             ORDER BY c.at_ms DESC, c.request_id DESC LIMIT 1"
        );
        let row = sqlx::query(AssertSqlSafe(text))
            .bind(than.prompt_hash.as_str())
            .bind(than.model.as_str())
            .bind(than.owner.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(told).transpose()
    }

    /// How much is kept, by model and deployment.
    pub async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.model, c.deployment, CAST(COUNT(*) AS BIGINT) AS kept, CAST(SUM(c.bytes) AS BIGINT) AS bytes,
                    CAST(SUM(CASE WHEN f.rating = 1 THEN 1 ELSE 0 END) AS BIGINT) AS up,
                    CAST(SUM(CASE WHEN f.rating = -1 THEN 1 ELSE 0 END) AS BIGINT) AS down,
                    CAST(SUM(CASE WHEN f.correction <> '' THEN 1 ELSE 0 END) AS BIGINT) AS corrected,
                    MIN(c.at_ms) AS oldest_ms, MAX(c.at_ms) AS newest_ms
             FROM captures c LEFT JOIN feedback f ON f.request_id = c.request_id AND f.owner = c.owner
             GROUP BY c.model, c.deployment ORDER BY c.model, c.deployment",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(count).collect()
    }

    /// How much is kept, by model.
    pub async fn sizes(&self) -> Result<Vec<Size>, StoreError> {
        let rows = sqlx::query(SIZES).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let (model, rows, bytes) =
                    (row.try_get("model")?, row.try_get("kept")?, row.try_get("bytes")?);
                Ok(Size { model, rows, bytes })
            })
            .collect()
    }

    /// Notes what an operator wants to be gone: what was answered by now is written no more.
    pub async fn note_erasure(&self, which: &Erasure, now_ms: i64) -> Result<(), StoreError> {
        let mut note = sqlx::query(
            "INSERT INTO erasures (request_id, end_user, owner, model, at_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (request_id, end_user, owner, model) DO UPDATE SET at_ms = $5 WHERE erasures.at_ms < $5",
        );
        for value in which.names() {
            note = note.bind(value);
        }
        note.bind(now_ms).execute(&self.pool).await?;
        Ok(())
    }

    /// Deletes what an operator names, and what was said about it, in batches. Returns how many exchanges went.
    pub async fn erase(&self, which: &Erasure) -> Result<u64, StoreError> {
        let bound = which.names();
        let mut erased = 0;
        loop {
            let mut ids = sqlx::query(
                "SELECT request_id FROM captures WHERE ($1 = '' OR request_id = $1) AND ($2 = '' OR end_user = $2)
                 AND ($3 = '' OR owner = $3) AND ($4 = '' OR model = $4) LIMIT $5",
            );
            for value in &bound {
                ids = ids.bind(value.as_str());
            }
            let found = ids.bind(BATCH).fetch_all(&self.pool).await?;
            if found.is_empty() {
                self.unsay(which).await?;
                return Ok(erased);
            }
            let (exchanges, _) = self.delete(self::ids(&found)?).await?;
            erased += exchanges;
        }
    }

    /// Deletes what was said about answers that are not kept; an exchange's own goes with it. Nobody knows any more which user
    /// that was about: a sweep takes it within the hour.
    async fn unsay(&self, which: &Erasure) -> Result<(), StoreError> {
        if which.end_user.is_some() {
            return Ok(());
        }
        let [request_id, _, owner, model] = which.names();
        sqlx::query(
            "DELETE FROM feedback WHERE ($1 = '' OR request_id = $1) AND ($2 = '' OR owner = $2)
             AND ($3 = '' OR model = $3)",
        )
        .bind(request_id)
        .bind(owner)
        .bind(model)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Deletes exchanges with what was said about them. Returns how many went of either.
    async fn delete(&self, ids: Vec<String>) -> Result<(u64, u64), StoreError> {
        let work = self.pool.transaction(|connection| {
            let all = async move {
                let (mut exchanges, mut words) = (0, 0);
                for id in ids {
                    let said = sqlx::query("DELETE FROM feedback WHERE request_id = $1").bind(id.clone());
                    words += said.execute(&mut *connection).await?.rows_affected();
                    let row = sqlx::query("DELETE FROM captures WHERE request_id = $1").bind(id);
                    exchanges += row.execute(&mut *connection).await?.rows_affected();
                }
                Ok((exchanges, words))
            };
            all.boxed()
        });
        Ok(work.await?)
    }

    /// Deletes one batch of what is over. Returns how many rows went, of all tables. What was said before `looked_ms`, ms
    /// since 1970 UTC, was looked at already, whether its exchange has come.
    pub async fn sweep(&self, now_ms: i64, looked_ms: i64) -> Result<u64, StoreError> {
        let over =
            sqlx::query("SELECT request_id FROM captures WHERE until_ms <= $1 ORDER BY until_ms LIMIT $2");
        let over = over.bind(now_ms).bind(BATCH).fetch_all(&self.pool).await?;
        let (exchanges, words) = self.delete(ids(&over)?).await?;
        let mut gone = exchanges + words;
        let said = sqlx::query(
            "DELETE FROM feedback WHERE request_id IN
             (SELECT request_id FROM feedback WHERE until_ms <= $1 ORDER BY until_ms LIMIT $2)",
        );
        gone += said.bind(now_ms).bind(BATCH).execute(&self.pool).await?.rows_affected();
        let of_nothing = sqlx::query(
            "DELETE FROM feedback WHERE request_id IN
             (SELECT f.request_id FROM feedback f
              LEFT JOIN captures c ON c.request_id = f.request_id AND c.owner = f.owner
              WHERE f.at_ms > $1 AND f.at_ms <= $2 AND c.request_id IS NULL LIMIT $3)",
        );
        let of_nothing = of_nothing.bind(looked_ms).bind(now_ms - AWAITED_MS).bind(BATCH);
        gone += of_nothing.execute(&self.pool).await?.rows_affected();
        let notes = sqlx::query("DELETE FROM erasures WHERE at_ms <= $1").bind(now_ms - DAY_MS);
        Ok(gone + notes.execute(&self.pool).await?.rows_affected())
    }

    /// Deletes one batch of exchanges that were written in the moment in which they were said to go. Returns how many went.
    pub async fn erase_late(&self, now_ms: i64) -> Result<u64, StoreError> {
        let since_ms = now_ms - ERASED_AGAIN_MS;
        let note = sqlx::query("SELECT at_ms FROM erasures WHERE at_ms > $1 LIMIT 1").bind(since_ms);
        // all exchanges are looked at: not where nothing was said
        if note.fetch_optional(&self.pool).await?.is_none() {
            return Ok(0);
        }
        let late = sqlx::query(
            "SELECT c.request_id FROM captures c WHERE EXISTS (SELECT 1 FROM erasures e
             WHERE e.at_ms > $1 AND e.at_ms >= c.at_ms AND e.request_id IN ('', c.request_id)
             AND e.owner IN ('', c.owner) AND e.end_user IN ('', c.end_user) AND e.model IN ('', c.model)) LIMIT $2",
        );
        let late = late.bind(since_ms).bind(BATCH).fetch_all(&self.pool).await?;
        let (exchanges, _) = self.delete(ids(&late)?).await?;
        Ok(exchanges)
    }

    /// Deletes one batch of a model's exchanges with what was said about them: those from before a moment, and the oldest of
    /// more than so many; then the oldest of more than so many words about answers. Returns how many of either went.
    pub async fn trim(&self, model: &str, before_ms: i64, most: i64) -> Result<u64, StoreError> {
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT at_ms FROM captures WHERE model = $1 ORDER BY at_ms DESC, request_id DESC LIMIT 1 OFFSET $2",
        )
        .bind(model)
        .bind(most)
        .fetch_optional(&self.pool)
        .await?;
        let until_ms = last.map_or(before_ms, |at_ms| before_ms.max(at_ms.saturating_add(1)));
        let old = sqlx::query(
            "SELECT request_id FROM captures WHERE model = $1 AND at_ms < $2 ORDER BY at_ms LIMIT $3",
        );
        let old = old.bind(model).bind(until_ms).bind(BATCH).fetch_all(&self.pool).await?;
        let (exchanges, _) = self.delete(ids(&old)?).await?;
        // of exchanges that are not there yet, and may never be, anybody can say much
        let words = sqlx::query(
            "DELETE FROM feedback WHERE request_id IN (SELECT request_id FROM feedback WHERE model = $1
             ORDER BY at_ms DESC, request_id DESC LIMIT $2 OFFSET $3)",
        );
        let words = words.bind(model).bind(BATCH).bind(most).execute(&self.pool).await?;
        Ok(exchanges + words.rows_affected())
    }
}

/// The ids of rows that have no other column.
fn ids(rows: &[AnyRow]) -> Result<Vec<String>, StoreError> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

impl Erasure {
    /// Request, user, owner and model; empty for what is not named.
    fn names(&self) -> [String; 4] {
        [&self.request_id, &self.end_user, &self.owner, &self.model]
            .map(|name| name.clone().unwrap_or_default())
    }
}

fn told(row: &AnyRow) -> Result<Told, StoreError> {
    let rating: Option<i64> = row.try_get("rating")?;
    let correction: Option<String> = row.try_get("correction")?;
    Ok(Told {
        row: CaptureRow {
            request_id: row.try_get("request_id")?,
            owner: row.try_get("owner")?,
            end_user: row.try_get("end_user")?,
            model: row.try_get("model")?,
            deployment: row.try_get("deployment")?,
            upstream: row.try_get("upstream")?,
            answer_id: row.try_get("answer_id")?,
            prompt_hash: row.try_get("prompt_hash")?,
            at_ms: row.try_get("at_ms")?,
            until_ms: row.try_get("until_ms")?,
            masked: row.try_get("masked")?,
            prompt: row.try_get("prompt")?,
            answer: row.try_get("answer")?,
        },
        rating: rating.and_then(Rating::from_number),
        correction: correction.unwrap_or_default(),
    })
}

fn count(row: &AnyRow) -> Result<Count, StoreError> {
    Ok(Count {
        model: row.try_get("model")?,
        deployment: row.try_get("deployment")?,
        rows: row.try_get("kept")?,
        bytes: row.try_get("bytes")?,
        up: row.try_get("up")?,
        down: row.try_get("down")?,
        corrected: row.try_get("corrected")?,
        oldest_ms: row.try_get("oldest_ms")?,
        newest_ms: row.try_get("newest_ms")?,
    })
}

#[cfg(test)]
mod tests;
