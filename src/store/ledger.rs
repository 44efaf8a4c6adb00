//! Rows of the ledger. One writer appends through a connection of its own; operators read pages through the pool.
//!
//! An append is one statement: all of its rows or none. Its first number is also the claim to have seen every entry
//! before it: where another process has written that number, nothing is appended.

mod hits;
mod row;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::fmt::Write as _;
use std::sync::OnceLock;

use futures_util::FutureExt as _;
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

pub use self::hits::Hits;
use self::row::{COLUMNS, columns};
pub(super) use self::row::{Prepared, attribution, bind_attribution, bind_counts, counts, entry};
use super::connection::Connection;
use super::engine::{Marks, StoreError};
use super::open::Store;
use super::pool::Pool;
use crate::domain::ledger::{Entry, EntryKind, Seq};
use crate::domain::usage::UsageSource;

/// Entries in one append, at most.
pub const BATCH: usize = 64;
/// Entries on one page, at most.
pub const PAGE: usize = 1_000;
/// The latest settlements at an upper bound that are looked at when they are counted.
const MOST_UNCONFIRMED: i64 = 10_000;

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another process has written an entry of that number: read what is new and decide again.
    #[error("another process has written first")]
    Conflict,
    /// One of the holds has been ended, by an entry that is there already.
    #[error("a hold was ended before")]
    EndedBefore,
    /// The database failed. After a time-out the entries may or may not be there, now or a little later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The journal, for the one task that writes it.
#[derive(Debug)]
pub struct LedgerRows {
    connection: Connection,
}

impl LedgerRows {
    /// The journal of a store, through a connection of its own.
    pub fn new(store: &Store) -> Self {
        Self { connection: store.dedicated() }
    }

    /// Appends entries with contiguous numbers, all or none, as durably as it is configured; at most [`BATCH`], none is
    /// no work.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] when another process was first.
    pub async fn append<E: Borrow<Entry> + Sync>(&mut self, entries: &[E]) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut insert = sqlx::query(insert_of(entries.len(), self.connection.marks()));
        for entry in entries {
            insert = row::bind(insert, entry.borrow());
        }
        let done = self.connection.run(|connection| insert.execute(connection).boxed()).await;
        match done {
            Ok(_) => Ok(()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                // SQLite names the column, PostgreSQL the index
                let ends = error.message().contains("ends_seq") || error.constraint() == Some("ledger_ends");
                Err(if ends { AppendError::EndedBefore } else { AppendError::Conflict })
            }
            Err(error) => Err(StoreError::Database(error).into()),
        }
    }

    /// Closes its connection.
    pub async fn close(&mut self) {
        self.connection.close().await;
    }

    /// The entries behind a number, in order; at most `limit`.
    pub async fn after(&mut self, seq: Seq, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let rows = self.connection.run(|connection| after(seq, limit).fetch_all(connection).boxed()).await?;
        rows.iter().map(row::entry).collect()
    }

    /// The number of the last entry; 0 before the first.
    pub async fn head(&mut self) -> Result<Seq, StoreError> {
        let head = sqlx::query_scalar(HEAD);
        Ok(self.connection.run(|connection| head.fetch_one(connection).boxed()).await?)
    }

    /// The holds that have no end, in order, from a number on.
    pub async fn open_holds(&mut self, from: Seq) -> Result<Vec<Entry>, StoreError> {
        let query = sqlx::query(concat!(
            "SELECT ",
            columns!(),
            " FROM ledger h WHERE kind = 'hold' AND seq >= $1
              AND NOT EXISTS (SELECT 1 FROM ledger e WHERE e.ends_seq = h.seq) ORDER BY seq"
        ));
        let rows = self.connection.run(|connection| query.bind(from).fetch_all(connection).boxed()).await?;
        rows.iter().map(row::entry).collect()
    }

    /// The number up to which every hold has ended: [`LedgerRows::open_holds`] need not look before it.
    pub async fn settled(&mut self) -> Result<Seq, StoreError> {
        let settled = sqlx::query_scalar("SELECT settled_seq FROM spend_head WHERE id = 1");
        Ok(self.connection.run(|connection| settled.fetch_one(connection).boxed()).await?)
    }
}

/// The last number there is or was: all may have been cleaned up.
const HEAD: &str =
    "SELECT COALESCE((SELECT MAX(seq) FROM ledger), (SELECT closed_seq FROM spend_head WHERE id = 1))";

/// Asks for the entries behind a number, in order.
pub(super) fn after(seq: Seq, limit: usize) -> Prepared<'static> {
    sqlx::query(concat!("SELECT ", columns!(), " FROM ledger WHERE seq > $1 ORDER BY seq LIMIT $2"))
        .bind(seq)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
}

/// The statement that inserts so many rows: made once, prepared once by each connection.
fn insert_of(rows: usize, marks: Marks) -> SqlStr {
    static UNNAMED: [OnceLock<SqlStr>; BATCH] = [const { OnceLock::new() }; BATCH];
    static NUMBERED: [OnceLock<SqlStr>; BATCH] = [const { OnceLock::new() }; BATCH];
    // marks of ours alone
    let made = || AssertSqlSafe(insert_text(rows, marks)).into_sql_str();
    let kept = match marks {
        Marks::Unnamed => &UNNAMED,
        Marks::Numbered => &NUMBERED,
    };
    kept.get(rows - 1).map_or_else(made, |kept| kept.get_or_init(made).clone())
}

fn insert_text(rows: usize, marks: Marks) -> String {
    let mut text = concat!("INSERT INTO ledger (", columns!(), ") VALUES ").to_owned();
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..COLUMNS {
            text.push_str(if column == 0 { "" } else { ", " });
            let _ = match marks {
                Marks::Unnamed => write!(text, "?"),
                Marks::Numbered => write!(text, "${}", row * COLUMNS + column + 1),
            };
        }
        text.push(')');
    }
    text
}

/// Which entries are asked for. What is not given is not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerFilter {
    /// The key's id or alias.
    pub key: Option<String>,
    /// The team.
    pub team: Option<String>,
    /// The end user.
    pub end_user: Option<String>,
    /// One of the tags.
    pub tag: Option<String>,
    /// The catalog's model.
    pub model: Option<String>,
    /// The deployment.
    pub deployment: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// The kind; without one: all but holds.
    pub kind: Option<EntryKind>,
    /// How the tokens are known.
    pub source: Option<UsageSource>,
    /// At or after this time, ms since 1970 UTC.
    pub from_ms: Option<i64>,
    /// Before this time, ms since 1970 UTC.
    pub until_ms: Option<i64>,
    /// Only those before this number.
    pub before: Option<Seq>,
}

/// The journal, for those who read.
#[derive(Debug, Clone)]
pub struct LedgerPages {
    pool: Pool,
}

impl LedgerPages {
    /// The journal of a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// One entry.
    pub async fn get(&self, seq: Seq) -> Result<Option<Entry>, StoreError> {
        let row = sqlx::query(concat!("SELECT ", columns!(), " FROM ledger WHERE seq = $1"))
            .bind(seq)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(row::entry).transpose()
    }

    /// All entries of a request, in order: its holds, what ended them, and corrections.
    pub async fn by_request(&self, request_id: &str) -> Result<Vec<Entry>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            columns!(),
            " FROM ledger WHERE request_id = $1 AND ends_seq IS NULL
              UNION ALL SELECT ",
            columns!(),
            " FROM ledger WHERE ends_seq IN (SELECT seq FROM ledger WHERE request_id = $1 AND ends_seq IS NULL)
              ORDER BY 1"
        ))
        .bind(request_id)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(row::entry).collect()
    }

    /// The entries that a filter lets through, the latest first; at most `limit`, and never more than [`PAGE`].
    pub async fn page(&self, filter: &LedgerFilter, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.fetch(Page::new(filter), "", limit).await
    }

    /// Settlements that were charged an upper bound and that nobody has corrected yet, the latest first.
    pub async fn unconfirmed(&self, before: Option<Seq>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let filter = LedgerFilter {
            kind: Some(EntryKind::Usage),
            source: Some(UsageSource::Unconfirmed),
            before,
            ..LedgerFilter::default()
        };
        // a correction names the settlement or the hold that it ended
        let uncorrected =
            " AND NOT EXISTS (SELECT 1 FROM ledger c WHERE c.corrects_seq IN (l.seq, l.ends_seq))";
        self.fetch(Page::new(&filter), uncorrected, limit).await
    }

    /// How many of the latest settlements at an upper bound nobody has corrected yet: of `MOST_UNCONFIRMED` at most.
    pub async fn count_unconfirmed(&self) -> Result<i64, StoreError> {
        // the words of its index, not bound: SQLite compares them
        let query = sqlx::query_scalar(
            "SELECT COUNT(*) FROM (
                 SELECT seq, ends_seq FROM ledger WHERE source = 'unconfirmed' AND kind = 'usage'
                 ORDER BY seq DESC LIMIT $1
             ) AS l WHERE NOT EXISTS (SELECT 1 FROM ledger c WHERE c.corrects_seq IN (l.seq, l.ends_seq))",
        );
        Ok(query.bind(MOST_UNCONFIRMED).fetch_one(&self.pool).await?)
    }

    async fn fetch(&self, mut page: Page, more: &str, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let limit = page.bind(Value::Number(i64::try_from(limit.min(PAGE)).unwrap_or(i64::MAX)));
        let text = format!(
            "SELECT {} FROM ledger l WHERE {}{more} ORDER BY seq DESC LIMIT {limit}",
            columns!(),
            page.conditions
        );
        // conditions of ours; every value is bound
        let mut query = sqlx::query(AssertSqlSafe(text)).persistent(false);
        for value in page.values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
            };
        }
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(row::entry).collect()
    }
}

/// A value of a condition.
enum Value {
    Text(String),
    Number(i64),
}

/// The conditions of a page, and what is bound to them.
struct Page {
    conditions: String,
    values: Vec<Value>,
}

/// The columns that are compared with one text.
const COMPARED: [&str; 5] = ["team", "end_user", "model", "deployment", "provider"];

impl Page {
    fn new(filter: &LedgerFilter) -> Self {
        // as in the indexes by key and by time, which have no holds
        let mut page = Self { conditions: "kind <> 'hold'".to_owned(), values: Vec::new() };
        if let Some(kind) = filter.kind {
            let kind_at = page.bind(Value::Text(kind.name().to_owned()));
            let without_holds = if kind == EntryKind::Hold { "" } else { "kind <> 'hold' AND " };
            page.conditions = format!("{without_holds}kind = {kind_at}");
        }
        let compared = [&filter.team, &filter.end_user, &filter.model, &filter.deployment, &filter.provider];
        for (column, wanted) in COMPARED.iter().zip(compared) {
            page.compare(&format!("{column} ="), wanted.clone().map(Value::Text));
        }
        page.compare("source =", filter.source.map(|source| Value::Text(source.name().to_owned())));
        page.compare("at_ms >=", filter.from_ms.map(Value::Number));
        page.compare("at_ms <", filter.until_ms.map(Value::Number));
        page.compare("seq <", filter.before.map(Value::Number));
        if let Some(key) = &filter.key {
            let at = page.bind(Value::Text(key.clone()));
            let _ = write!(page.conditions, " AND (key_id = {at} OR key_alias = {at})");
        }
        if let Some(tag) = &filter.tag {
            // a line of its own: `LIKE` would not mind the case on SQLite
            let at = page.bind(Value::Text(format!("\n{tag}\n")));
            let lines = "'\n' || tags || '\n'";
            let _ = write!(page.conditions, " AND REPLACE({lines}, {at}, '') <> {lines}");
        }
        page
    }

    fn compare(&mut self, condition: &str, value: Option<Value>) {
        if let Some(value) = value {
            let at = self.bind(value);
            let _ = write!(self.conditions, " AND {condition} {at}");
        }
    }

    /// Takes a value, and says how the text names it.
    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }
}
