//! What there is one of in an installation: names and values.

use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;

/// Tells one pepper from another.
const PEPPER_CHECK: &str = "pepper_check";

/// The table of names and values.
#[derive(Debug, Clone)]
pub struct InstallationRows {
    pool: Pool,
}

impl InstallationRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// The check value of the pepper that the keys are hashed with; `value` where none was noted yet.
    pub async fn pepper_check_or(&self, value: &str) -> Result<String, StoreError> {
        sqlx::query("INSERT INTO installation (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(PEPPER_CHECK)
            .bind(value)
            .execute(&self.pool)
            .await?;
        let noted = sqlx::query_scalar("SELECT value FROM installation WHERE name = $1")
            .bind(PEPPER_CHECK)
            .fetch_one(&self.pool)
            .await?;
        Ok(noted)
    }

    /// Notes another pepper's check value.
    pub async fn set_pepper_check(&self, value: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE installation SET value = $2 WHERE name = $1")
            .bind(PEPPER_CHECK)
            .bind(value)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::for_each_database;

    #[tokio::test]
    async fn the_first_pepper_is_noted() {
        for_each_database(async |database| {
            let rows = InstallationRows::new(&database.open().await);
            for (asked, noted) in [("a", "a"), ("b", "a")] {
                assert_eq!(rows.pepper_check_or(asked).await.expect("read"), noted);
            }
            rows.set_pepper_check("b").await.expect("written");
            assert_eq!(rows.pepper_check_or("a").await.expect("read"), "b");
        })
        .await;
    }
}
