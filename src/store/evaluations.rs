//! Rows of evaluations: what is to be asked, every answer as it came, and what was found.
//!
//! An answer is written once and never changed: whoever goes on where another process has stopped asks only what is not
//! there.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditRow, Statement, all_audited, audited, write};
use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;
use crate::domain::evaluation::{Kept, Part, Report, Said, Scores};
use crate::domain::money::Usd;
use crate::domain::tuning::Owner;

const COLUMNS: &str =
    "id, owner, status, plan, questions, cancelled, why, report, created_at_ms, started_at_ms, ended_at_ms, \
                       (SELECT COUNT(*) FROM evaluation_answers WHERE evaluation = id) AS answers, \
                       (SELECT CAST(COALESCE(SUM(cost_nanos), 0) AS BIGINT) FROM evaluation_answers
                        WHERE evaluation = id) AS cost_nanos";
/// Reports of a model that are read at once, at most.
const MOST_REPORTS: i64 = 100;

/// How an evaluation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvaluationStatus {
    /// Others are before it.
    Queued,
    /// It is being asked.
    Running,
    /// All was asked, and there is a report.
    Succeeded,
    /// It could not go on.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl EvaluationStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The name in rows and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether nothing more happens.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationRow {
    /// Our id of it.
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// How it stands.
    pub status: EvaluationStatus,
    /// What is to be asked, as JSON.
    pub plan: String,
    /// How many questions that is, over all models.
    pub questions: i64,
    /// How many of them have an answer, or a reason why there is none.
    pub answers: i64,
    /// What the answers cost.
    pub cost: Usd,
    /// Whether somebody wants it to end.
    pub is_cancelled: bool,
    /// Why it could not go on; empty otherwise.
    pub why: String,
    /// What was found.
    pub report: Option<Report>,
    /// When it was asked for, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// When it was begun, ms since 1970 UTC.
    pub started_at_ms: Option<i64>,
    /// When it ended, ms since 1970 UTC.
    pub ended_at_ms: Option<i64>,
}

/// An answer with its words, where they are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRow {
    /// What is known of it.
    pub kept: Kept,
    /// What was said.
    pub said: Option<Said>,
}

/// Which answers are looked for; what is none is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerFilter {
    /// Of this set.
    pub part: Option<Part>,
    /// Of the model with this number.
    pub model: Option<usize>,
    /// Questions from this number on.
    pub from: u32,
    /// Behind this one, in the order of [`EvaluationRows::answers`].
    pub after: Option<(Part, u32, usize)>,
    /// At most so many.
    pub limit: i64,
}

/// How an evaluation ends.
#[derive(Debug, Clone)]
pub struct Ended {
    /// As what.
    pub status: EvaluationStatus,
    /// Why it could not go on.
    pub why: String,
    /// What was found.
    pub report: Option<Report>,
    /// Whether the words of the answers stay.
    pub keeps_words: bool,
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
}

/// The tables of evaluations.
#[derive(Debug, Clone)]
pub struct EvaluationRows {
    pool: Pool,
}

impl EvaluationRows {
    /// The tables in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a new evaluation together with its entry in the audit log, and notes that it needs its file: that one's content
    /// stays until [`EvaluationRows::end`]. [`StoreError::Taken`] where somebody has just deleted the file.
    pub async fn insert(
        &self,
        row: &EvaluationRow,
        file: Option<&str>,
        audit: &AuditRow,
    ) -> Result<(), StoreError> {
        let insert = sqlx::query(
            "INSERT INTO evaluations (id, owner, status, plan, questions, cancelled, why, created_at_ms)
             VALUES ($1, $2, $3, $4, $5, 0, '', $6)",
        )
        .bind(row.id.clone())
        .bind(row.owner.to_string())
        .bind(row.status.name())
        .bind(row.plan.clone())
        .bind(row.questions)
        .bind(row.created_at_ms);
        let held = file.into_iter().flat_map(|file| {
            let held =
                sqlx::query("UPDATE files SET uses = uses + 1 WHERE id = $1 AND deleted_at_ms IS NULL");
            let used = sqlx::query("INSERT INTO file_uses (file_id, job_id) VALUES ($1, $2)");
            [held.bind(file.to_owned()), used.bind(file.to_owned()).bind(row.id.clone())]
        });
        let steps = held.chain([insert]);
        all_audited(&self.pool, steps, std::slice::from_ref(audit)).await
    }

    /// An evaluation by its id.
    pub async fn get(&self, id: &str) -> Result<Option<EvaluationRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM evaluations WHERE id = $1"));
        let row = sqlx::query(sql).bind(id.to_owned()).fetch_optional(&self.pool).await?;
        row.as_ref().map(evaluation_row).transpose()
    }

    /// At most so many, the latest first: the last ones, or those behind one (its time and id). What can't be read is left
    /// out.
    pub async fn page(
        &self,
        after: Option<(i64, &str)>,
        limit: i64,
    ) -> Result<Vec<EvaluationRow>, StoreError> {
        let (at_ms, id) = after.unwrap_or((i64::MAX, ""));
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM evaluations WHERE created_at_ms < $1 OR (created_at_ms = $1 AND id < $2)
             ORDER BY created_at_ms DESC, id DESC LIMIT $3"
        ));
        let query = sqlx::query(sql).bind(at_ms).bind(id.to_owned()).bind(limit);
        let rows = query.fetch_all(&self.pool).await?;
        Ok(rows.iter().map(evaluation_row).filter_map(readable).collect())
    }

    /// The one that is to go on, of those that nobody has taken: what runs before what waits, the oldest first.
    /// [`StoreError::Damaged`] has its id where it can't be read.
    pub async fn next(&self, taken: &BTreeSet<String>) -> Result<Option<EvaluationRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM evaluations WHERE status IN ('running', 'queued')
             ORDER BY status DESC, created_at_ms, id LIMIT $1"
        ));
        // all that are taken may stand before it
        let most = i64::try_from(taken.len()).unwrap_or(i64::MAX).saturating_add(1);
        let rows = sqlx::query(sql).bind(most).fetch_all(&self.pool).await?;
        for row in &rows {
            if !taken.contains(row.try_get::<&str, _>(0)?) {
                return evaluation_row(row).map(Some);
            }
        }
        Ok(None)
    }

    /// How many have not ended, by how they stand.
    pub async fn count(&self) -> Result<Vec<(EvaluationStatus, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT status, COUNT(*) FROM evaluations WHERE status IN ('running', 'queued') GROUP BY status",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((status_of(row, 0, "a count")?, row.try_get(1)?))).collect()
    }

    /// Notes that it is being asked.
    pub async fn begin(&self, id: &str, at_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE evaluations SET status = 'running', started_at_ms = COALESCE(started_at_ms, $2)
             WHERE id = $1 AND status IN ('queued', 'running')",
        )
        .bind(id.to_owned())
        .bind(at_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Notes that somebody wants it to end, with the entry in the audit log. Whether it had not ended yet.
    pub async fn cancel(&self, id: &str, audit: &AuditRow) -> Result<bool, StoreError> {
        let cancel = sqlx::query(
            "UPDATE evaluations SET cancelled = 1 WHERE id = $1 AND cancelled = 0 AND status IN ('queued', 'running')",
        );
        audited(&self.pool, cancel.bind(id.to_owned()), Vec::new(), audit).await
    }

    /// Whether somebody wants it to end.
    pub async fn is_cancelled(&self, id: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT cancelled FROM evaluations WHERE id = $1")
            .bind(id.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get::<i64, _>(0)).transpose()?.is_some_and(|cancelled| cancelled != 0))
    }

    /// Keeps an answer, unless one is there.
    pub async fn keep(&self, id: &str, answer: &AnswerRow) -> Result<(), StoreError> {
        let AnswerRow { kept, said } = answer;
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO evaluation_answers (evaluation, part, question, model, said, scores, failed, deployment,
                 latency_ms, cost_nanos, prompt_tokens, completion_tokens)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (evaluation, part, question, model) DO NOTHING",
        )
        .bind(id.to_owned())
        .bind(kept.part.name())
        .bind(i64::from(kept.row))
        .bind(kept.model as i64)
        .bind(said.as_ref().map(|said| serde_json::json!(said).to_string()).unwrap_or_default())
        .bind(serde_json::json!(kept.scores).to_string())
        .bind(kept.failed.clone().unwrap_or_default())
        .bind(kept.deployment.as_ref().map(ToString::to_string))
        .bind(number(kept.latency_ms))
        .bind(kept.cost.nanos())
        .bind(number(kept.prompt_tokens))
        .bind(number(kept.completion_tokens))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All answers of an evaluation, in the order of their questions.
    pub async fn answers(&self, id: &str) -> Result<Vec<AnswerRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT part, question, model, said, scores, failed, deployment, latency_ms, cost_nanos, prompt_tokens,
                    completion_tokens
             FROM evaluation_answers WHERE evaluation = $1 ORDER BY part, question, model",
        )
        .bind(id.to_owned())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| answer_row(row, id)).collect()
    }

    /// At most so many of its answers, in the same order.
    pub async fn answers_page(&self, id: &str, which: &AnswerFilter) -> Result<Vec<AnswerRow>, StoreError> {
        let (part, question, model) =
            which.after.map_or(("", 0, 0), |(part, question, model)| (part.name(), question, model as i64));
        let rows = sqlx::query(
            "SELECT part, question, model, said, scores, failed, deployment, latency_ms, cost_nanos, prompt_tokens,
                    completion_tokens
             FROM evaluation_answers
             WHERE evaluation = $1 AND ($2 = '' OR part = $2) AND ($3 < 0 OR model = $3) AND question >= $4
             AND (part > $5 OR (part = $5 AND (question > $6 OR (question = $6 AND model > $7))))
             ORDER BY part, question, model LIMIT $8",
        )
        .bind(id.to_owned())
        .bind(which.part.map(Part::name).unwrap_or_default())
        .bind(which.model.map_or(-1, |model| model as i64))
        .bind(i64::from(which.from))
        .bind(part)
        .bind(i64::from(question))
        .bind(model)
        .bind(which.limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| answer_row(row, id)).collect()
    }

    /// Writes how it ended, and which models were looked at; its file is needed no longer. Whether it had not ended before.
    pub async fn end(&self, id: &str, ended: &Ended) -> Result<bool, StoreError> {
        let report = ended.report.as_ref().map(|report| serde_json::json!(report).to_string());
        let update = sqlx::query(
            "UPDATE evaluations SET status = $2, why = $3, report = $4, ended_at_ms = $5
             WHERE id = $1 AND status IN ('queued', 'running')",
        )
        .bind(id.to_owned())
        .bind(ended.status.name())
        .bind(ended.why.clone())
        .bind(report)
        .bind(ended.at_ms);
        let models = ended.report.iter().flat_map(|report| &report.models).map(|of| {
            sqlx::query(
                "INSERT INTO model_evaluations (model, evaluation, ended_at_ms) VALUES ($1, $2, $3)
                 ON CONFLICT (model, evaluation) DO NOTHING",
            )
            .bind(of.model.to_string())
            .bind(id.to_owned())
            .bind(ended.at_ms)
        });
        let forget =
            sqlx::query("UPDATE evaluation_answers SET said = '' WHERE evaluation = $1").bind(id.to_owned());
        let forget = (!ended.keeps_words).then_some(forget);
        let release = [
            "UPDATE files SET uses = uses - 1 WHERE id IN (SELECT file_id FROM file_uses WHERE job_id = $1)",
            "DELETE FROM file_uses WHERE job_id = $1",
        ];
        let release = release.map(|text| sqlx::query(text).bind(id.to_owned()));
        let steps: Vec<Statement> =
            std::iter::once(update).chain(models).chain(forget).chain(release).collect();
        write(&self.pool, steps).await
    }

    /// The reports that have looked at a model by any of its names, the latest first, with their moments. What can't be read
    /// is left out.
    pub async fn reports(&self, model: &str) -> Result<Vec<(i64, Report)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, report, evaluations.ended_at_ms FROM evaluations
             JOIN model_evaluations ON model_evaluations.evaluation = id
             WHERE model = $1 AND status = 'succeeded' ORDER BY evaluations.ended_at_ms DESC, id LIMIT $2",
        )
        .bind(model.to_owned())
        .bind(MOST_REPORTS)
        .fetch_all(&self.pool)
        .await?;
        let reports = rows.iter().map(|row| {
            let id: String = row.try_get(0)?;
            let text: String = row.try_get(1)?;
            Ok((row.try_get(2)?, read(&text, &id)?))
        });
        Ok(reports.filter_map(readable).collect())
    }
}

/// A row among others; none where it can't be read, which stands in the log.
fn readable<T>(row: Result<T, StoreError>) -> Option<T> {
    row.inspect_err(|error| tracing::warn!(%error, "an evaluation is left out: it can't be read")).ok()
}

fn read<T: serde::de::DeserializeOwned>(text: &str, id: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Damaged(id.to_owned()))
}

fn status_of(row: &AnyRow, column: usize, id: &str) -> Result<EvaluationStatus, StoreError> {
    let name: String = row.try_get(column)?;
    EvaluationStatus::from_name(&name).ok_or_else(|| StoreError::Damaged(id.to_owned()))
}

fn evaluation_row(row: &AnyRow) -> Result<EvaluationRow, StoreError> {
    let id: String = row.try_get(0)?;
    let owner: String = row.try_get(1)?;
    let (report, why): (Option<String>, String) = (row.try_get(7)?, row.try_get(6)?);
    let read: Option<Report> = report.as_ref().and_then(|text| serde_json::from_str(text).ok());
    let is_lost = report.is_some() && read.is_none();
    Ok(EvaluationRow {
        owner: owner.parse().map_err(|_| StoreError::Damaged(id.clone()))?,
        status: status_of(row, 2, &id)?,
        plan: row.try_get(3)?,
        questions: row.try_get(4)?,
        is_cancelled: row.try_get::<i64, _>(5)? != 0,
        why: if is_lost {
            "its report can't be read: another version has written it".to_owned()
        } else {
            why
        },
        report: read,
        created_at_ms: row.try_get(8)?,
        started_at_ms: row.try_get(9)?,
        ended_at_ms: row.try_get(10)?,
        answers: row.try_get(11)?,
        cost: Usd::from_nanos(row.try_get(12)?),
        id,
    })
}

fn answer_row(row: &AnyRow, id: &str) -> Result<AnswerRow, StoreError> {
    let damaged = || StoreError::Damaged(id.to_owned());
    let text = |column: usize| -> Result<String, StoreError> { Ok(row.try_get(column)?) };
    let count = |column: usize| -> Result<u64, StoreError> {
        u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| damaged())
    };
    let (said, failed) = (text(3)?, text(5)?);
    let scores: Scores = read(&text(4)?, id)?;
    let deployment: Option<String> = row.try_get(6)?;
    let kept = Kept {
        part: Part::from_name(&text(0)?).ok_or_else(damaged)?,
        row: u32::try_from(count(1)?).map_err(|_| damaged())?,
        model: usize::try_from(count(2)?).map_err(|_| damaged())?,
        scores,
        failed: (!failed.is_empty()).then_some(failed),
        deployment: deployment.map(Arc::from),
        latency_ms: count(7)?,
        cost: Usd::from_nanos(row.try_get(8)?),
        prompt_tokens: count(9)?,
        completion_tokens: count(10)?,
    };
    let said = (!said.is_empty()).then(|| read(&said, id)).transpose()?;
    Ok(AnswerRow { kept, said })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::evaluation::report::Facts;
    use crate::domain::evaluation::{Gate, Measure};
    use crate::store::audit::tests::change;
    use crate::store::testing::for_each_database;

    fn row(id: &str, at_ms: i64) -> EvaluationRow {
        EvaluationRow {
            id: id.to_owned(),
            owner: Owner::Operator,
            status: EvaluationStatus::Queued,
            plan: "{}".to_owned(),
            questions: 2,
            answers: 0,
            cost: Usd::ZERO,
            is_cancelled: false,
            why: String::new(),
            report: None,
            created_at_ms: at_ms,
            started_at_ms: None,
            ended_at_ms: None,
        }
    }

    fn answer(row: u32) -> AnswerRow {
        let kept = Kept {
            part: Part::HeldOut,
            row,
            model: 0,
            scores: Scores::from([(Measure::Exact, 1.0)]),
            failed: None,
            deployment: Some("d".into()),
            latency_ms: 5,
            cost: Usd::from_nanos(7),
            prompt_tokens: 1,
            completion_tokens: 2,
        };
        AnswerRow { kept, said: Some(Said { text: "yes".to_owned(), calls: Vec::new() }) }
    }

    #[tokio::test]
    async fn an_answer_is_kept_once_and_the_words_go_at_the_end() {
        for_each_database(async |database| {
            let store = database.open().await;
            let rows = EvaluationRows::new(&store);
            for (id, at_ms) in [("eval_1", 1), ("eval_2", 2)] {
                rows.insert(&row(id, at_ms), None, &change(id)).await.expect("written");
            }
            let none = BTreeSet::new();
            assert_eq!(rows.next(&none).await.expect("read").expect("one").id, "eval_1");
            let mut taken = BTreeSet::from(["eval_1".to_owned()]);
            assert_eq!(rows.next(&taken).await.expect("read").expect("one").id, "eval_2");
            taken.insert("eval_2".to_owned());
            assert_eq!(rows.next(&taken).await.expect("read"), None);
            rows.begin("eval_2", 5).await.expect("written");
            let next = rows.next(&none).await.expect("read").expect("one");
            assert_eq!(
                (next.id.as_str(), next.started_at_ms),
                ("eval_2", Some(5)),
                "what runs goes on first"
            );
            for _ in 0..2 {
                rows.keep("eval_2", &answer(0)).await.expect("written");
            }
            rows.keep("eval_2", &answer(1)).await.expect("written");
            let answers = rows.answers("eval_2").await.expect("read");
            assert_eq!(answers, [answer(0), answer(1)]);
            let shown = rows.get("eval_2").await.expect("read").expect("there");
            assert_eq!((shown.answers, shown.cost.nanos()), (2, 14));
            let kept: Vec<Kept> = answers.into_iter().map(|one| one.kept).collect();
            let models = [Arc::from("m")];
            let gate = Gate::default();
            let facts = Facts {
                evaluation: "eval_2",
                file: None,
                general: &[],
                seed: 1,
                models: &models,
                judge: None,
                loss: None,
                gate: &gate,
            };
            let report = Report::of(facts, &kept);
            let ended = Ended {
                status: EvaluationStatus::Succeeded,
                why: String::new(),
                report: Some(report.clone()),
                keeps_words: false,
                at_ms: 9,
            };
            assert!(rows.end("eval_2", &ended).await.expect("written"));
            assert!(!rows.end("eval_2", &ended).await.expect("asked"), "it has ended");
            assert!(rows.answers("eval_2").await.expect("read").iter().all(|one| one.said.is_none()));
            assert_eq!(rows.reports("m").await.expect("read"), [(9, report)]);
            assert_eq!(rows.reports("n").await.expect("read"), []);
            let spoil = "UPDATE evaluations SET report = '{}' WHERE id = 'eval_2'";
            sqlx::query(spoil).execute(store.pool()).await.expect("written");
            assert_eq!(rows.reports("m").await.expect("read"), [], "of another version");
            let shown = rows.get("eval_2").await.expect("read").expect("there");
            assert!(shown.report.is_none() && shown.why.contains("can't be read"), "{shown:?}");
            assert_eq!(rows.next(&none).await.expect("read").expect("one").id, "eval_1");
        })
        .await;
    }

    #[tokio::test]
    async fn a_cancelled_one_is_known_to_whoever_asks() {
        for_each_database(async |database| {
            let rows = EvaluationRows::new(&database.open().await);
            rows.insert(&row("eval_1", 1), None, &change("1")).await.expect("written");
            assert_eq!(rows.count().await.expect("read"), [(EvaluationStatus::Queued, 1)]);
            assert!(!rows.is_cancelled("eval_1").await.expect("read"));
            assert!(rows.cancel("eval_1", &change("2")).await.expect("asked"));
            assert!(!rows.cancel("eval_1", &change("3")).await.expect("asked"), "once is enough");
            assert!(rows.is_cancelled("eval_1").await.expect("read"));
            let page = rows.page(None, 10).await.expect("read");
            assert_eq!(rows.page(Some((1, "eval_1")), 10).await.expect("read"), []);
            assert_eq!((page.len(), page[0].is_cancelled), (1, true));
        })
        .await;
    }

    #[tokio::test]
    async fn what_can_t_be_read_stands_in_nobody_s_way() {
        for_each_database(async |database| {
            let store = database.open().await;
            let rows = EvaluationRows::new(&store);
            for (id, at_ms) in [("eval_1", 1), ("eval_2", 2)] {
                rows.insert(&row(id, at_ms), None, &change(id)).await.expect("written");
            }
            let spoil = "UPDATE evaluations SET owner = 'nonsense' WHERE id = 'eval_1'";
            sqlx::query(spoil).execute(store.pool()).await.expect("written");
            let page = rows.page(None, 10).await.expect("read");
            assert_eq!(page.iter().map(|row| &*row.id).collect::<Vec<_>>(), ["eval_2"]);
            let none = BTreeSet::new();
            let next = rows.next(&none).await;
            assert!(matches!(&next, Err(StoreError::Damaged(id)) if id == "eval_1"), "{next:?}");
            let ended = Ended {
                status: EvaluationStatus::Failed,
                why: "it can't be read".to_owned(),
                report: None,
                keeps_words: false,
                at_ms: 3,
            };
            assert!(rows.end("eval_1", &ended).await.expect("written"));
            assert_eq!(rows.next(&none).await.expect("read").expect("one").id, "eval_2");
        })
        .await;
    }

    #[tokio::test]
    async fn many_pages_have_each_answer_once() {
        for_each_database(async |database| {
            let rows = EvaluationRows::new(&database.open().await);
            rows.insert(&row("eval_1", 1), None, &change("1")).await.expect("written");
            for part in [Part::HeldOut, Part::General, Part::Judge] {
                for number in 0..3 {
                    for model in 0..2 {
                        let kept = Kept { part, model, ..answer(number).kept };
                        rows.keep("eval_1", &AnswerRow { kept, said: None }).await.expect("written");
                    }
                }
            }
            let all = async |which: AnswerFilter| {
                let (mut found, mut which) = (Vec::new(), AnswerFilter { limit: 2, ..which });
                loop {
                    let page = rows.answers_page("eval_1", &which).await.expect("read");
                    let Some(last) = page.last() else { return found };
                    which.after = Some((last.kept.part, last.kept.row, last.kept.model));
                    found.extend(page);
                }
            };
            assert_eq!(all(AnswerFilter::default()).await, rows.answers("eval_1").await.expect("read"));
            let judged =
                AnswerFilter { part: Some(Part::Judge), model: Some(1), from: 1, ..Default::default() };
            let places: Vec<_> = all(judged).await.iter().map(|one| (one.kept.row, one.kept.model)).collect();
            assert_eq!(places, [(1, 1), (2, 1)]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_file_is_needed_from_the_first_row_to_the_end() {
        for_each_database(async |database| {
            let store = database.open().await;
            let rows = EvaluationRows::new(&store);
            let file =
                "INSERT INTO files (id, owner, filename, purpose, size_bytes, sha256, status, created_at_ms)
                        VALUES ('file-1', 'operator', 'f', 'fine-tune', 1, 'x', 'processed', 1)";
            sqlx::query(file).execute(store.pool()).await.expect("written");
            let uses = async || -> (i64, i64) {
                let uses = sqlx::query_scalar("SELECT uses FROM files WHERE id = 'file-1'");
                let noted = sqlx::query_scalar("SELECT COUNT(*) FROM file_uses");
                let uses = uses.fetch_one(store.pool()).await.expect("read");
                (uses, noted.fetch_one(store.pool()).await.expect("read"))
            };
            let gone = rows.insert(&row("eval_1", 1), Some("file-2"), &change("1")).await;
            assert!(matches!(gone, Err(StoreError::Taken)), "{gone:?}");
            assert!(rows.get("eval_1").await.expect("read").is_none(), "all of it or nothing");
            assert_eq!(uses().await, (0, 0));
            rows.insert(&row("eval_1", 1), Some("file-1"), &change("2")).await.expect("written");
            assert_eq!(uses().await, (1, 1));
            let ended = Ended {
                status: EvaluationStatus::Cancelled,
                why: String::new(),
                report: None,
                keeps_words: false,
                at_ms: 3,
            };
            for _ in 0..2 {
                rows.end("eval_1", &ended).await.expect("written");
                assert_eq!(uses().await, (0, 0), "once");
            }
        })
        .await;
    }
}
