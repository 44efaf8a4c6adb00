//! Rows of virtual keys: a hash, never the key.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::domain::key::{KeyHash, Terms, VirtualKey};

use super::engine::{Store, StoreError, or_taken};
use super::pool::Pool;

/// A virtual key and what a presented key is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// What may be seen of it.
    pub key: VirtualKey,
    /// Its hash under the installation's pepper.
    pub hash: KeyHash,
}

/// The table of virtual keys.
#[derive(Debug, Clone)]
pub struct KeyRows {
    pool: Pool,
}

impl KeyRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a new key. [`StoreError::Taken`] when a live key has its alias.
    pub async fn insert(&self, row: &KeyRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO virtual_keys (id, hash, alias, last_four, created_at_ms, revoked_at_ms)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(row.key.id.as_ref())
        .bind(row.hash.to_hex())
        .bind(row.key.alias.as_ref())
        .bind(row.key.last_four.as_str())
        .bind(row.key.created_at_ms)
        .bind(row.key.revoked_at_ms)
        .execute(&self.pool)
        .await
        .map_err(or_taken)?;
        Ok(())
    }

    /// Returns all keys, revoked ones too, in the order they were made.
    pub async fn all(&self) -> Result<Vec<KeyRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, hash, alias, last_four, created_at_ms, revoked_at_ms FROM virtual_keys
             ORDER BY created_at_ms, id",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(key_row).collect()
    }

    /// Notes a live key as revoked, by its id. Whether there was one.
    pub async fn revoke(&self, id: &str, now_ms: i64) -> Result<bool, StoreError> {
        let done =
            sqlx::query("UPDATE virtual_keys SET revoked_at_ms = $2 WHERE id = $1 AND revoked_at_ms IS NULL")
                .bind(id)
                .bind(now_ms)
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected() == 1)
    }
}

fn key_row(row: &AnyRow) -> Result<KeyRow, StoreError> {
    let id: String = row.try_get("id")?;
    let hash: String = row.try_get("hash")?;
    let alias: String = row.try_get("alias")?;
    let hash = KeyHash::from_hex(&hash).ok_or_else(|| StoreError::Damaged(id.clone()))?;
    let key = VirtualKey {
        id: id.into(),
        alias: alias.into(),
        last_four: row.try_get("last_four")?,
        created_at_ms: row.try_get("created_at_ms")?,
        revoked_at_ms: row.try_get("revoked_at_ms")?,
        terms: Terms::default(),
    };
    Ok(KeyRow { key, hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::Secret;
    use crate::store::testing::for_each_database;

    fn row(id: &str, alias: &str, created_at_ms: i64) -> KeyRow {
        let key = VirtualKey {
            id: id.into(),
            alias: alias.into(),
            last_four: "abcd".to_owned(),
            created_at_ms,
            revoked_at_ms: None,
            terms: Terms::default(),
        };
        KeyRow { key, hash: KeyHash::of(id, &Secret::new("pepper")) }
    }

    #[tokio::test]
    async fn an_alias_is_unique_among_live_keys() {
        for_each_database(async |database| {
            let store = database.open().await;
            let rows = KeyRows::new(&store);
            let (first, second) =
                (row("key_1", "app", 1_700_000_000_000), row("key_2", "app", 1_700_000_000_001));
            rows.insert(&first).await.expect("written");
            assert!(matches!(rows.insert(&second).await, Err(StoreError::Taken)));
            assert!(rows.revoke("key_1", 1_700_000_000_005).await.expect("asked"));
            assert!(!rows.revoke("key_1", 1_700_000_000_006).await.expect("asked"), "already revoked");
            assert!(!rows.revoke("key_0", 1).await.expect("asked"), "no such key");
            rows.insert(&second).await.expect("the alias is free again");
            let mut revoked = first;
            revoked.key.revoked_at_ms = Some(1_700_000_000_005);
            assert_eq!(rows.all().await.expect("read"), [revoked, second]);
        })
        .await;
    }
}
