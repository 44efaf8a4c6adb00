//! Rows of teams that were made by the admin API; declared ones are in the configuration.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditRow, audited};
use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;
use super::values::{limits, optional, text_list, texts};
use crate::domain::team::{Origin, Team};

/// The table of teams.
#[derive(Debug, Clone)]
pub struct TeamRows {
    pool: Pool,
}

impl TeamRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a new team. [`StoreError::Taken`] when one that is not archived has its alias.
    pub async fn insert(&self, team: &Team, audit: &AuditRow) -> Result<(), StoreError> {
        let change = sqlx::query(
            "INSERT INTO teams (id, alias, tags, requests_per_minute, tokens_per_minute, concurrent, created_at_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(team.id.to_string())
        .bind(team.alias.to_string())
        .bind(text_list(&team.tags))
        .bind(optional(team.limits.requests_per_minute))
        .bind(optional(team.limits.tokens_per_minute))
        .bind(optional(team.limits.concurrent))
        .bind(team.created_at_ms);
        audited(&self.pool, change, Vec::new(), audit).await.map(drop)
    }

    /// Returns all teams, archived ones too, in the order they were made.
    pub async fn all(&self) -> Result<Vec<Team>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, alias, tags, requests_per_minute, tokens_per_minute, concurrent, created_at_ms, archived_at_ms
             FROM teams ORDER BY created_at_ms, id",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(team).collect()
    }

    /// Writes what may change of a team that is not archived. Whether there is one. [`StoreError::Taken`] as above.
    pub async fn update(&self, team: &Team, audit: &AuditRow) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "UPDATE teams SET alias = $2, tags = $3, requests_per_minute = $4, tokens_per_minute = $5, concurrent = $6
             WHERE id = $1 AND archived_at_ms IS NULL",
        )
        .bind(team.id.to_string())
        .bind(team.alias.to_string())
        .bind(text_list(&team.tags))
        .bind(optional(team.limits.requests_per_minute))
        .bind(optional(team.limits.tokens_per_minute))
        .bind(optional(team.limits.concurrent));
        audited(&self.pool, change, Vec::new(), audit).await
    }

    /// Archives a team that owns no key which is not revoked. Whether it did.
    pub async fn archive(&self, id: &str, now_ms: i64, audit: &AuditRow) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "UPDATE teams SET archived_at_ms = $2 WHERE id = $1 AND archived_at_ms IS NULL AND NOT EXISTS
             (SELECT 1 FROM virtual_keys WHERE team_id = $1 AND revoked_at_ms IS NULL)",
        )
        .bind(id.to_owned())
        .bind(now_ms);
        audited(&self.pool, change, Vec::new(), audit).await
    }
}

fn team(row: &AnyRow) -> Result<Team, StoreError> {
    let id: String = row.try_get("id")?;
    let alias: String = row.try_get("alias")?;
    Ok(Team {
        tags: texts(row, "tags", &id)?.into_iter().map(Into::into).collect(),
        id: id.into(),
        alias: alias.into(),
        limits: limits(row)?,
        created_at_ms: row.try_get("created_at_ms")?,
        archived_at_ms: row.try_get("archived_at_ms")?,
        origin: Origin::Stored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limit::RateLimits;
    use crate::store::audit::AuditRows;
    use crate::store::audit::tests::change;
    use crate::store::testing::for_each_database;

    fn made(id: &str, alias: &str) -> Team {
        let limits = RateLimits { tokens_per_minute: Some(7), ..RateLimits::default() };
        let tags = vec!["a".into(), "b=c".into()];
        let id = id.into();
        Team { id, created_at_ms: 5, origin: Origin::Stored, ..Team::declared(alias, limits, tags) }
    }

    #[tokio::test]
    async fn a_team_from_insert_to_archive() {
        for_each_database(async |database| {
            let store = database.open().await;
            let (rows, log) = (TeamRows::new(&store), AuditRows::new(&store));
            let mut team = made("team_1", "a");
            rows.insert(&team, &change("1")).await.expect("written");
            let twin = made("team_2", "a");
            assert!(matches!(rows.insert(&twin, &change("2")).await, Err(StoreError::Taken)));
            team.alias = "b".into();
            team.limits = RateLimits::default();
            assert!(rows.update(&team, &change("3")).await.expect("written"));
            assert!(!rows.update(&twin, &change("4")).await.expect("asked"), "there is no such row");
            assert_eq!(rows.all().await.expect("read"), [team.clone()]);
            assert!(rows.archive("team_1", 9, &change("5")).await.expect("written"));
            assert!(!rows.archive("team_1", 10, &change("6")).await.expect("asked"), "already");
            team.archived_at_ms = Some(9);
            assert_eq!(rows.all().await.expect("read"), [team]);
            let told = log.page(None, 9).await.expect("read");
            assert_eq!(told, [change("5"), change("3"), change("1")], "only what was done is in the log");
        })
        .await;
    }
}
