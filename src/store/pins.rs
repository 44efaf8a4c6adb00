//! Rows of pins: which deployment holds a response or a file, and whose it is. The provider made the id and only the
//! provider's same account knows it, so later requests that name it must go there.

use sqlx::Row as _;

use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;

/// Rows deleted in one statement, so that a writer never waits long.
const BATCH: i64 = 1_000;

/// Where a response or a file lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The provider's id, such as `resp_…` or `file-…`.
    pub id: String,
    /// The deployment it lives on.
    pub deployment: String,
    /// The id of the virtual key that made it; nobody else's business.
    pub key_id: String,
    /// When, ms since 1970 UTC.
    pub created_at_ms: i64,
}

/// The table of pins.
#[derive(Debug, Clone)]
pub struct PinRows {
    pool: Pool,
}

impl PinRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a pin. An id that is there already stays as it is: an id never moves.
    pub async fn insert(&self, pin: &Pin) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO pins (id, deployment, key_id, created_at_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(pin.id.as_str())
        .bind(pin.deployment.as_str())
        .bind(pin.key_id.as_str())
        .bind(pin.created_at_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns the pin of an id.
    pub async fn find(&self, id: &str) -> Result<Option<Pin>, StoreError> {
        let row = sqlx::query("SELECT id, deployment, key_id, created_at_ms FROM pins WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Pin {
            id: row.try_get("id")?,
            deployment: row.try_get("deployment")?,
            key_id: row.try_get("key_id")?,
            created_at_ms: row.try_get("created_at_ms")?,
        }))
    }

    /// Deletes the pin of an id, when its response or file was deleted.
    pub async fn delete(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM pins WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    /// Deletes the pins made before a time, a batch at a time. Returns how many.
    pub async fn delete_before(&self, created_at_ms: i64) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let batch = sqlx::query(
                "DELETE FROM pins WHERE id IN
                 (SELECT id FROM pins WHERE created_at_ms < $1 ORDER BY created_at_ms LIMIT $2)",
            )
            .bind(created_at_ms)
            .bind(BATCH)
            .execute(&self.pool)
            .await?
            .rows_affected();
            deleted += batch;
            if batch < BATCH.unsigned_abs() {
                return Ok(deleted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::for_each_database;

    fn pin(id: &str, deployment: &str, created_at_ms: i64) -> Pin {
        Pin {
            id: id.to_owned(),
            deployment: deployment.to_owned(),
            key_id: "key_1".to_owned(),
            created_at_ms,
        }
    }

    #[tokio::test]
    async fn a_pin_stays_until_it_is_old() {
        for_each_database(async |database| {
            let store = database.open().await;
            let rows = PinRows::new(&store);
            let (old, young) = (pin("resp_1", "a", 10), pin("file-2", "b", 20));
            for pin in [&old, &young, &pin("resp_1", "elsewhere", 30)] {
                rows.insert(pin).await.expect("written");
            }
            assert_eq!(rows.find("resp_1").await.expect("asked"), Some(old));
            assert_eq!(rows.find("resp_9").await.expect("asked"), None);
            assert_eq!(rows.delete_before(20).await.expect("swept"), 1);
            assert_eq!(rows.find("resp_1").await.expect("asked"), None);
            assert_eq!(rows.find("file-2").await.expect("asked"), Some(young));
            rows.delete("file-2").await.expect("deleted");
            assert_eq!(rows.find("file-2").await.expect("asked"), None);
        })
        .await;
    }

    #[tokio::test]
    async fn many_old_pins_go_in_batches() {
        for_each_database(async |database| {
        let store = database.open().await;
        let rows = PinRows::new(&store);
        // One statement: 2,001 rows by a sequence of numbers.
        sqlx::query(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2001)
             INSERT INTO pins (id, deployment, key_id, created_at_ms) SELECT 'resp_' || i, 'd', 'key_1', i FROM n",
        )
        .execute(store.pool())
        .await
        .expect("written");
        assert_eq!(rows.delete_before(2_001).await.expect("swept"), 2_000);
        assert!(rows.find("resp_2001").await.expect("asked").is_some());
        })
        .await;
    }
}
