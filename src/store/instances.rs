//! Rows of the processes that write the ledger. A process lives while its beat changes: observers watch it by their own
//! steady clocks, so no two machines' clocks are ever compared.

use futures_util::FutureExt as _;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::connection::Connection;
use super::engine::StoreError;
use super::open::Store;
use crate::domain::ledger::Seq;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its id: random, made at its start.
    pub id: String,
    /// When it was first seen, ms since 1970 UTC; for people.
    pub started_at_ms: i64,
    /// Changes while it lives.
    pub beat: i64,
    /// No hold of its own before this number is open.
    pub open_from: Seq,
    /// Whether it has said good-bye, or was found dead and its holds are settled.
    pub ended: bool,
}

/// The table of processes, through a connection of its own.
#[derive(Debug)]
pub struct InstanceRows {
    connection: Connection,
}

impl InstanceRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { connection: store.dedicated() }
    }

    /// Says that a process lives; its first beat puts it down. One that was taken for dead, because it stood still for a
    /// while, lives again.
    pub async fn beat(&mut self, id: &str, beat: i64, open_from: Seq, now_ms: i64) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO instances (id, started_at_ms, beat, open_from_seq, ended) VALUES ($1, $2, $3, $4, 0)
             ON CONFLICT (id) DO UPDATE SET beat = $3, open_from_seq = $4, ended = 0",
        );
        let query = query.bind(id.to_owned()).bind(now_ms).bind(beat).bind(open_from);
        self.connection.run(|connection| query.execute(connection).boxed()).await?;
        Ok(())
    }

    /// Notes a process as ended.
    pub async fn end(&mut self, id: &str) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE instances SET ended = 1 WHERE id = $1").bind(id.to_owned());
        self.connection.run(|connection| query.execute(connection).boxed()).await?;
        Ok(())
    }

    /// Closes its connection.
    pub async fn close(&mut self) {
        self.connection.close().await;
    }

    /// All processes that have not ended, in the order of their first beats.
    pub async fn living(&mut self) -> Result<Vec<InstanceRow>, StoreError> {
        self.read(
            "SELECT id, started_at_ms, beat, open_from_seq, ended FROM instances WHERE ended = 0
             ORDER BY started_at_ms, id",
        )
        .await
    }

    async fn read(&mut self, sql: &'static str) -> Result<Vec<InstanceRow>, StoreError> {
        let rows = self.connection.run(|connection| sqlx::query(sql).fetch_all(connection).boxed()).await?;
        rows.iter().map(instance_row).collect()
    }
}

fn instance_row(row: &AnyRow) -> Result<InstanceRow, StoreError> {
    Ok(InstanceRow {
        id: row.try_get("id")?,
        started_at_ms: row.try_get("started_at_ms")?,
        beat: row.try_get("beat")?,
        open_from: row.try_get("open_from_seq")?,
        ended: row.try_get::<i64, _>("ended")? != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::for_each_database;

    #[tokio::test]
    async fn a_process_beats_until_it_ends() {
        for_each_database(async |database| {
            let store = database.open().await;
            let mut rows = InstanceRows::new(&store);
            rows.beat("a", 1, 1, 10).await.expect("written");
            rows.beat("b", 1, 5, 20).await.expect("written");
            rows.beat("a", 2, 7, 30).await.expect("written");
            let row = |id: &str, started_at_ms, beat, open_from, ended| InstanceRow {
                id: id.to_owned(),
                started_at_ms,
                beat,
                open_from,
                ended,
            };
            assert_eq!(
                rows.living().await.expect("read"),
                [row("a", 10, 2, 7, false), row("b", 20, 1, 5, false)]
            );
            rows.end("a").await.expect("written");
            assert_eq!(rows.living().await.expect("read"), [row("b", 20, 1, 5, false)]);
            rows.beat("a", 3, 8, 40).await.expect("written");
            assert_eq!(rows.living().await.expect("read")[0], row("a", 10, 3, 8, false), "it lives again");
        })
        .await;
    }
}
