//! Rows of stored prompts: names, versions that never change, labels and where they have pointed.
//!
//! A change claims what it has seen: the next number of a version, the version that a label points at. Where another
//! process was first nothing is written, and all is decided again.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditRow, Statement, all_audited};
use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;
use crate::domain::prompt::PromptVersion;

/// Moves that are read at once.
pub const MOST_MOVES: i64 = 1_000;

/// A prompt's name and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptRow {
    /// The name.
    pub name: String,
    /// When its first version was made, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// When it was archived, ms since 1970 UTC.
    pub archived_at_ms: Option<i64>,
}

/// A label as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// The prompt's name.
    pub prompt: String,
    /// The label.
    pub label: String,
    /// Which version it points at.
    pub version: u32,
    /// Since when, ms since 1970 UTC.
    pub moved_at_ms: i64,
    /// Who moved it there.
    pub author: String,
}

/// A label's way from one version to another; without one it was not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// In order of time, never twice the same.
    pub id: String,
    /// The prompt's name.
    pub prompt: String,
    /// The label.
    pub label: String,
    /// Where it pointed.
    pub from: Option<u32>,
    /// Where it points.
    pub to: Option<u32>,
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
    /// Who.
    pub author: String,
    /// Why.
    pub note: String,
}

/// One thing that is to be written.
#[derive(Debug, Clone)]
pub enum Change {
    /// A version; its prompt with it, or back from the archive.
    Version(PromptVersion),
    /// A label is made, moved or taken away.
    Label(Move),
    /// A prompt comes back from the archive, without a new version.
    Restore(String),
    /// A prompt goes into the archive.
    Archive {
        /// Its name.
        name: String,
        /// When, ms since 1970 UTC.
        at_ms: i64,
    },
}

/// The tables of prompts.
#[derive(Debug, Clone)]
pub struct PromptRows {
    pool: Pool,
}

impl PromptRows {
    /// The tables in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// All prompts, archived ones too, by name.
    pub async fn prompts(&self) -> Result<Vec<PromptRow>, StoreError> {
        let rows = sqlx::query("SELECT name, created_at_ms, archived_at_ms FROM prompts ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        let read = rows.iter().map(|row| {
            Ok(PromptRow {
                name: row.try_get(0)?,
                created_at_ms: row.try_get(1)?,
                archived_at_ms: row.try_get(2)?,
            })
        });
        read.collect()
    }

    /// All labels.
    pub async fn labels(&self) -> Result<Vec<LabelRow>, StoreError> {
        let rows = sqlx::query("SELECT prompt, label, version, moved_at_ms, author FROM prompt_labels")
            .fetch_all(&self.pool)
            .await?;
        let read = rows.iter().map(|row| {
            let prompt: String = row.try_get(0)?;
            Ok(LabelRow {
                version: number(row.try_get(2)?, &prompt)?,
                prompt,
                label: row.try_get(1)?,
                moved_at_ms: row.try_get(3)?,
                author: row.try_get(4)?,
            })
        });
        read.collect()
    }

    /// The last version of each prompt.
    pub async fn last_versions(&self) -> Result<Vec<(String, u32)>, StoreError> {
        let rows = sqlx::query("SELECT prompt, MAX(number) FROM prompt_versions GROUP BY prompt")
            .fetch_all(&self.pool)
            .await?;
        let read = rows.iter().map(|row| {
            let prompt: String = row.try_get(0)?;
            let last = number(row.try_get(1)?, &prompt)?;
            Ok((prompt, last))
        });
        read.collect()
    }

    /// A prompt's versions behind a number, in order.
    pub async fn versions_after(&self, prompt: &str, known: u32) -> Result<Vec<PromptVersion>, StoreError> {
        let rows = sqlx::query(
            "SELECT number, text, variables, sha256, author, note, created_at_ms FROM prompt_versions
             WHERE prompt = $1 AND number > $2 ORDER BY number",
        )
        .bind(prompt.to_owned())
        .bind(i64::from(known))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| version(row, prompt)).collect()
    }

    /// Where a prompt's labels have pointed, the latest move first; at most [`MOST_MOVES`].
    pub async fn moves(&self, prompt: &str) -> Result<Vec<Move>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, label, from_version, to_version, at_ms, author, note FROM prompt_moves
             WHERE prompt = $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(prompt.to_owned())
        .bind(MOST_MOVES)
        .fetch_all(&self.pool)
        .await?;
        let read = rows.iter().map(|row| {
            let end = |index: usize| -> Result<Option<u32>, StoreError> {
                let end: Option<i64> = row.try_get(index)?;
                end.map(|end| number(end, prompt)).transpose()
            };
            Ok(Move {
                id: row.try_get(0)?,
                prompt: prompt.to_owned(),
                label: row.try_get(1)?,
                from: end(2)?,
                to: end(3)?,
                at_ms: row.try_get(4)?,
                author: row.try_get(5)?,
                note: row.try_get(6)?,
            })
        });
        read.collect()
    }

    /// Writes changes and their rows of the audit log, all or none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Taken`] when another process has changed what one of them builds on.
    pub async fn write(&self, changes: Vec<Change>, audit: &[AuditRow]) -> Result<(), StoreError> {
        all_audited(&self.pool, changes.into_iter().flat_map(statements), audit).await
    }
}

/// The statements of a change, each of which has to find its row.
fn statements(change: Change) -> Vec<Statement> {
    match change {
        Change::Version(version) => {
            let prompt = sqlx::query(
                "INSERT INTO prompts (name, created_at_ms) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET archived_at_ms = NULL",
            );
            let prompt = prompt.bind(version.prompt.to_string()).bind(version.created_at_ms);
            let variables = serde_json::json!(version.variables).to_string();
            let version = sqlx::query(
                "INSERT INTO prompt_versions (prompt, number, text, variables, sha256, author, note, created_at_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(version.prompt.to_string())
            .bind(i64::from(version.number))
            .bind(version.text.to_string())
            .bind(variables)
            .bind(version.sha256.to_string())
            .bind(version.author.to_string())
            .bind(version.note.to_string())
            .bind(version.created_at_ms);
            vec![prompt, version]
        }
        Change::Label(moved) if moved.from.is_none() => {
            vec![claimed(&moved.prompt), label(&moved), noted(moved)]
        }
        Change::Label(moved) => vec![label(&moved), noted(moved)],
        Change::Restore(name) => {
            let restore = sqlx::query(
                "UPDATE prompts SET archived_at_ms = NULL WHERE name = $1 AND archived_at_ms IS NOT NULL",
            );
            vec![restore.bind(name)]
        }
        Change::Archive { name, at_ms } => {
            // not where a label was made that nobody knew of
            let archive = sqlx::query(
                "UPDATE prompts SET archived_at_ms = $2
                 WHERE name = $1 AND NOT EXISTS (SELECT 1 FROM prompt_labels WHERE prompt = $1)",
            );
            vec![claimed(&name), archive.bind(name).bind(at_ms)]
        }
    }
}

/// Claims that a prompt is not archived, and holds its row: a label that is made and an archive wait for each other.
fn claimed(prompt: &str) -> Statement {
    let claim = "UPDATE prompts SET archived_at_ms = NULL WHERE name = $1 AND archived_at_ms IS NULL";
    sqlx::query(claim).bind(prompt.to_owned())
}

/// What becomes of a label's row.
fn label(moved: &Move) -> Statement {
    let (prompt, label) = (moved.prompt.clone(), moved.label.clone());
    match (moved.from, moved.to) {
        (None, to) => sqlx::query(
            "INSERT INTO prompt_labels (prompt, label, version, moved_at_ms, author) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(prompt)
        .bind(label)
        .bind(i64::from(to.unwrap_or(0)))
        .bind(moved.at_ms)
        .bind(moved.author.clone()),
        (Some(from), Some(to)) => sqlx::query(
            "UPDATE prompt_labels SET version = $4, moved_at_ms = $5, author = $6
             WHERE prompt = $1 AND label = $2 AND version = $3",
        )
        .bind(prompt)
        .bind(label)
        .bind(i64::from(from))
        .bind(i64::from(to))
        .bind(moved.at_ms)
        .bind(moved.author.clone()),
        (Some(from), None) => {
            sqlx::query("DELETE FROM prompt_labels WHERE prompt = $1 AND label = $2 AND version = $3")
                .bind(prompt)
                .bind(label)
                .bind(i64::from(from))
        }
    }
}

/// The row of the labels' history.
fn noted(moved: Move) -> Statement {
    sqlx::query(
        "INSERT INTO prompt_moves (id, prompt, label, from_version, to_version, at_ms, author, note)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(moved.id)
    .bind(moved.prompt)
    .bind(moved.label)
    .bind(moved.from.map(i64::from))
    .bind(moved.to.map(i64::from))
    .bind(moved.at_ms)
    .bind(moved.author)
    .bind(moved.note)
}

fn version(row: &AnyRow, prompt: &str) -> Result<PromptVersion, StoreError> {
    let text = |index: usize| row.try_get::<String, _>(index);
    let damaged = |_| StoreError::Damaged(format!("a version of the prompt {prompt}"));
    Ok(PromptVersion {
        prompt: prompt.into(),
        number: number(row.try_get(0)?, prompt)?,
        text: text(1)?.into(),
        variables: serde_json::from_str(&text(2)?).map_err(damaged)?,
        sha256: text(3)?.into(),
        author: text(4)?.into(),
        note: text(5)?.into(),
        created_at_ms: row.try_get(6)?,
    })
}

fn number(number: i64, prompt: &str) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| StoreError::Damaged(format!("a number of the prompt {prompt}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::audit::AuditRows;
    use crate::store::audit::tests::change;
    use crate::store::testing::for_each_database;

    fn written(number: u32, text: &str) -> PromptVersion {
        let variables = json!([{"name": "tone", "type": "list", "default": ["plain"]}, {"name": "user"}]);
        PromptVersion {
            prompt: "support".into(),
            number,
            text: text.into(),
            variables: serde_json::from_value(variables).expect("variables"),
            sha256: "ab".into(),
            author: "ann".into(),
            note: "why".into(),
            created_at_ms: 1_700_000_000_000 + i64::from(number),
        }
    }

    fn moved(id: &str, from: Option<u32>, to: Option<u32>) -> Move {
        Move {
            id: id.to_owned(),
            prompt: "support".to_owned(),
            label: "production".to_owned(),
            from,
            to,
            at_ms: 7,
            author: "ann".to_owned(),
            note: "because".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_change_is_written_whole_or_not_at_all() {
        for_each_database(async |database| {
            let store = database.open().await;
            let (rows, log) = (PromptRows::new(&store), AuditRows::new(&store));
            let first = written(1, "Be kind, {{ user }}.\nAlways: é");
            let made = vec![Change::Version(first.clone()), Change::Label(moved("m1", None, Some(1)))];
            rows.write(made, &[change("1")]).await.expect("written");
            // another process has the number, the label is elsewhere, or is there already
            for (number, late) in [
                vec![Change::Version(written(1, "Be brief."))],
                vec![Change::Version(written(2, "Be brief.")), Change::Label(moved("m2", Some(9), Some(2)))],
                vec![Change::Version(written(2, "Be brief.")), Change::Label(moved("m2", None, Some(2)))],
                vec![Change::Label(moved("m2", Some(2), None))],
            ]
            .into_iter()
            .enumerate()
            {
                let error = rows.write(late, &[change("2")]).await.expect_err("too late");
                assert!(matches!(error, StoreError::Taken), "{number}: {error}");
            }
            assert_eq!(rows.versions_after("support", 0).await.expect("read"), std::slice::from_ref(&first));
            let second = written(2, "Be brief.");
            let made = vec![Change::Version(second.clone()), Change::Label(moved("m2", Some(1), Some(2)))];
            rows.write(made, &[change("3"), change("4")]).await.expect("written");
            assert_eq!(rows.versions_after("support", 1).await.expect("read"), [second]);
            assert_eq!(rows.versions_after("other", 0).await.expect("read"), []);
            assert_eq!(rows.last_versions().await.expect("read"), [("support".to_owned(), 2)]);
            let label = LabelRow {
                prompt: "support".to_owned(),
                label: "production".to_owned(),
                version: 2,
                moved_at_ms: 7,
                author: "ann".to_owned(),
            };
            assert_eq!(rows.labels().await.expect("read"), [label]);
            let moves = [moved("m2", Some(1), Some(2)), moved("m1", None, Some(1))];
            assert_eq!(rows.moves("support").await.expect("read"), moves);
            let told = log.page(None, 9).await.expect("read");
            assert_eq!(told, [change("4"), change("3"), change("1")], "only what was done is in the log");
        })
        .await;
    }

    #[tokio::test]
    async fn an_archived_prompt_comes_back_with_its_next_version() {
        for_each_database(async |database| {
            let rows = PromptRows::new(&database.open().await);
            let archive = || vec![Change::Archive { name: "support".to_owned(), at_ms: 9 }];
            let none = rows.write(archive(), &[change("1")]).await;
            assert!(matches!(none, Err(StoreError::Taken)), "there is none: {none:?}");
            rows.write(vec![Change::Version(written(1, "a"))], &[change("1")]).await.expect("written");
            rows.write(archive(), &[change("2")]).await.expect("archived");
            let twice = rows.write(archive(), &[change("3")]).await;
            assert!(matches!(twice, Err(StoreError::Taken)), "already: {twice:?}");
            let row = |archived_at_ms| PromptRow {
                name: "support".to_owned(),
                created_at_ms: 1_700_000_000_001,
                archived_at_ms,
            };
            assert_eq!(rows.prompts().await.expect("read"), [row(Some(9))]);
            let label = |from, to| vec![Change::Label(moved("m1", from, to))];
            let late = rows.write(label(None, Some(1)), &[change("3")]).await;
            assert!(matches!(late, Err(StoreError::Taken)), "an archived one gets no label: {late:?}");
            rows.write(vec![Change::Version(written(2, "b"))], &[change("4")]).await.expect("written");
            rows.write(label(None, Some(1)), &[change("8")]).await.expect("a label");
            let labelled = rows.write(archive(), &[change("3")]).await;
            assert!(matches!(labelled, Err(StoreError::Taken)), "a label stays: {labelled:?}");
            let gone = Change::Label(moved("m2", Some(1), None));
            rows.write(vec![gone], &[change("9")]).await.expect("taken away");
            assert_eq!(rows.prompts().await.expect("read"), [row(None)]);
            rows.write(archive(), &[change("5")]).await.expect("archived");
            let restore = || vec![Change::Restore("support".to_owned())];
            rows.write(restore(), &[change("6")]).await.expect("restored");
            assert_eq!(rows.prompts().await.expect("read"), [row(None)]);
            let twice = rows.write(restore(), &[change("7")]).await;
            assert!(matches!(twice, Err(StoreError::Taken)), "it is back: {twice:?}");
        })
        .await;
    }
}
