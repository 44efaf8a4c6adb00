//! Rows of leases: who does what only one process may do at a time. A lease is alive while its beat changes; who wants it
//! watches that by a steady clock of its own, so no two machines' clocks are compared.

use sqlx::Row as _;

use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The process that has it.
    pub holder: String,
    /// Changes while that lives.
    pub beat: i64,
}

/// The table of leases.
#[derive(Debug, Clone)]
pub struct LeaseRows {
    pool: Pool,
}

impl LeaseRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// A lease; none where nobody has it.
    pub async fn find(&self, name: &str) -> Result<Option<LeaseRow>, StoreError> {
        let row = sqlx::query("SELECT holder, beat FROM leases WHERE name = $1")
            .bind(name.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(LeaseRow { holder: row.try_get(0)?, beat: row.try_get(1)? }))
    }

    /// Takes a lease that nobody has, or that still stands as it was found. Whether it is ours now.
    pub async fn take(&self, name: &str, holder: &str, found: Option<&LeaseRow>) -> Result<bool, StoreError> {
        let query = match found {
            None => sqlx::query(
                "INSERT INTO leases (name, holder, beat) VALUES ($1, $2, 1) ON CONFLICT (name) DO NOTHING",
            )
            .bind(name.to_owned())
            .bind(holder.to_owned()),
            Some(found) => sqlx::query(
                "UPDATE leases SET holder = $2, beat = beat + 1 WHERE name = $1 AND holder = $3 AND beat = $4",
            )
            .bind(name.to_owned())
            .bind(holder.to_owned())
            .bind(found.holder.clone())
            .bind(found.beat),
        };
        Ok(query.execute(&self.pool).await?.rows_affected() == 1)
    }

    /// Says that its holder lives. Whether it still is the holder.
    pub async fn beat(&self, name: &str, holder: &str) -> Result<bool, StoreError> {
        let query = sqlx::query("UPDATE leases SET beat = beat + 1 WHERE name = $1 AND holder = $2");
        let done = query.bind(name.to_owned()).bind(holder.to_owned()).execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives it back, so that nobody has to wait for its end.
    pub async fn free(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM leases WHERE name = $1 AND holder = $2");
        query.bind(name.to_owned()).bind(holder.to_owned()).execute(&self.pool).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::for_each_database;

    #[tokio::test]
    async fn a_lease_is_one_process_s_until_it_stands_still() {
        for_each_database(async |database| {
            let rows = LeaseRows::new(&database.open().await);
            assert_eq!(rows.find("x").await.expect("read"), None);
            assert!(rows.take("x", "a", None).await.expect("asked"));
            assert!(!rows.take("x", "b", None).await.expect("asked"), "somebody has it");
            let found = rows.find("x").await.expect("read").expect("there");
            assert_eq!(found, LeaseRow { holder: "a".to_owned(), beat: 1 });
            assert!(rows.beat("x", "a").await.expect("asked"));
            assert!(!rows.take("x", "b", Some(&found)).await.expect("asked"), "it lives");
            let found = rows.find("x").await.expect("read").expect("there");
            assert!(rows.take("x", "b", Some(&found)).await.expect("asked"));
            assert!(!rows.take("x", "c", Some(&found)).await.expect("asked"), "one of two is first");
            assert!(!rows.beat("x", "a").await.expect("asked"), "it has lost it");
            rows.free("x", "a").await.expect("asked");
            assert!(rows.beat("x", "b").await.expect("asked"));
            rows.free("x", "b").await.expect("asked");
            assert_eq!(rows.find("x").await.expect("read"), None);
        })
        .await;
    }
}
