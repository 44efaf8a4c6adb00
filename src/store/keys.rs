//! Rows of virtual keys: hashes, never the key.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditRow, audited};
use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;
use super::values::{limits, optional, text_list, texts};
use crate::domain::allowed::{AllowedModels, AllowedPrompts};
use crate::domain::cache::KeyUse;
use crate::domain::key::{KeyHash, Rights, Terms, Tuning, VirtualKey};
use crate::domain::money::Usd;

/// A virtual key and what a presented key is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// What may be seen of it.
    pub key: VirtualKey,
    /// Its hash under the installation's pepper.
    pub hash: KeyHash,
    /// Secrets that were rotated away, the last to end first.
    pub retired: Vec<Retired>,
}

/// A secret that was rotated away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// Its hash under the installation's pepper.
    pub hash: KeyHash,
    /// Until when it is good, ms since 1970 UTC.
    pub until_ms: i64,
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
    pub async fn insert(&self, key: &VirtualKey, hash: KeyHash, audit: &AuditRow) -> Result<(), StoreError> {
        let change = sqlx::query(
            "INSERT INTO virtual_keys (id, alias, team_id, expires_at_ms, models, tuning, unbounded_cost_nanos, tags,
             requests_per_minute, tokens_per_minute, concurrent, hash, last_four, created_at_ms, prompts, variables, cache)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        )
        .bind(key.id.to_string())
        .bind(key.alias.to_string())
        .bind(key.terms.team.as_deref().map(str::to_owned))
        .bind(key.terms.expires_at_ms)
        .bind(models(&key.terms.models))
        .bind(key.terms.rights.tuning.name())
        .bind(key.terms.rights.unbounded_cost.map(Usd::nanos))
        .bind(text_list(&key.terms.tags))
        .bind(optional(key.terms.limits.requests_per_minute))
        .bind(optional(key.terms.limits.tokens_per_minute))
        .bind(optional(key.terms.limits.concurrent))
        .bind(hash.to_hex())
        .bind(key.last_four.clone())
        .bind(key.created_at_ms)
        .bind(prompts(&key.terms.prompts))
        .bind(serde_json::json!(key.terms.variables).to_string())
        .bind(key.terms.cache.name());
        audited(&self.pool, change, Vec::new(), audit).await.map(drop)
    }

    /// Returns all keys, revoked ones too, in the order they were made.
    pub async fn all(&self) -> Result<Vec<KeyRow>, StoreError> {
        // first: a secret that is rotated between the two is found twice rather than never
        let retired = sqlx::query(
            "SELECT hash, key_id, valid_until_ms FROM retired_key_hashes ORDER BY valid_until_ms DESC, hash",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut retired_of: HashMap<String, Vec<Retired>> = HashMap::new();
        for row in &retired {
            let id: String = row.try_get("key_id")?;
            let secret = Retired { hash: hash(row, &id)?, until_ms: row.try_get("valid_until_ms")? };
            retired_of.entry(id).or_default().push(secret);
        }
        let rows = sqlx::query(
            "SELECT id, alias, team_id, expires_at_ms, models, tuning, unbounded_cost_nanos, tags,
             requests_per_minute, tokens_per_minute, concurrent, hash, last_four, created_at_ms, revoked_at_ms,
             prompts, variables, cache
             FROM virtual_keys ORDER BY created_at_ms, id",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| key_row(row, &mut retired_of)).collect()
    }

    /// Writes what may change of a live key. Whether there is one. [`StoreError::Taken`] when another live key has its
    /// alias.
    pub async fn update(&self, key: &VirtualKey, audit: &AuditRow) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "UPDATE virtual_keys SET alias = $2, team_id = $3, expires_at_ms = $4, models = $5, tuning = $6,
             unbounded_cost_nanos = $7, tags = $8, requests_per_minute = $9, tokens_per_minute = $10, concurrent = $11,
             prompts = $12, variables = $13, cache = $14
             WHERE id = $1 AND revoked_at_ms IS NULL",
        )
        .bind(key.id.to_string())
        .bind(key.alias.to_string())
        .bind(key.terms.team.as_deref().map(str::to_owned))
        .bind(key.terms.expires_at_ms)
        .bind(models(&key.terms.models))
        .bind(key.terms.rights.tuning.name())
        .bind(key.terms.rights.unbounded_cost.map(Usd::nanos))
        .bind(text_list(&key.terms.tags))
        .bind(optional(key.terms.limits.requests_per_minute))
        .bind(optional(key.terms.limits.tokens_per_minute))
        .bind(optional(key.terms.limits.concurrent))
        .bind(prompts(&key.terms.prompts))
        .bind(serde_json::json!(key.terms.variables).to_string())
        .bind(key.terms.cache.name());
        audited(&self.pool, change, Vec::new(), audit).await
    }

    /// Gives a live key another secret; the old one, and those before it, are good until a moment. Whether it did: not
    /// when another process has just done so.
    pub async fn rotate(&self, to: &Rotation<'_>, audit: &AuditRow) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "UPDATE virtual_keys SET hash = $3, last_four = $4
             WHERE id = $1 AND hash = $2 AND revoked_at_ms IS NULL",
        )
        .bind(to.id.to_owned())
        .bind(to.old.to_hex())
        .bind(to.new.to_hex())
        .bind(to.last_four.to_owned());
        let shortened = sqlx::query(
            "UPDATE retired_key_hashes SET valid_until_ms = $2 WHERE key_id = $1 AND valid_until_ms > $2",
        )
        .bind(to.id.to_owned())
        .bind(to.old_until_ms);
        let swept = sqlx::query("DELETE FROM retired_key_hashes WHERE key_id = $1 AND valid_until_ms <= $2")
            .bind(to.id.to_owned())
            .bind(to.now_ms);
        let mut then = vec![shortened, swept];
        if to.old_until_ms > to.now_ms {
            let retired = sqlx::query(
                "INSERT INTO retired_key_hashes (hash, key_id, valid_until_ms) VALUES ($1, $2, $3)",
            );
            then.push(retired.bind(to.old.to_hex()).bind(to.id.to_owned()).bind(to.old_until_ms));
        }
        audited(&self.pool, change, then, audit).await
    }

    /// Notes a live key as revoked, by its id. Whether there was one.
    pub async fn revoke(&self, id: &str, now_ms: i64, audit: &AuditRow) -> Result<bool, StoreError> {
        let change =
            sqlx::query("UPDATE virtual_keys SET revoked_at_ms = $2 WHERE id = $1 AND revoked_at_ms IS NULL")
                .bind(id.to_owned())
                .bind(now_ms);
        let swept = sqlx::query("DELETE FROM retired_key_hashes WHERE key_id = $1").bind(id.to_owned());
        audited(&self.pool, change, vec![swept], audit).await
    }
}

/// A key's change from one secret to another.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// The key's id.
    pub id: &'a str,
    /// The secret that it has.
    pub old: KeyHash,
    /// The secret that it gets.
    pub new: KeyHash,
    /// The last four characters of the new one.
    pub last_four: &'a str,
    /// Until when the old one is good, ms since 1970 UTC.
    pub old_until_ms: i64,
    /// Now, ms since 1970 UTC.
    pub now_ms: i64,
}

fn models(models: &AllowedModels) -> String {
    let models: Vec<Arc<str>> = models.iter().map(Into::into).collect();
    text_list(&models)
}

fn prompts(prompts: &AllowedPrompts) -> String {
    let prompts: Vec<Arc<str>> = prompts.iter().map(Into::into).collect();
    text_list(&prompts)
}

fn hash(row: &AnyRow, id: &str) -> Result<KeyHash, StoreError> {
    let hash: String = row.try_get("hash")?;
    KeyHash::from_hex(&hash).ok_or_else(|| StoreError::Damaged(id.to_owned()))
}

fn key_row(row: &AnyRow, retired: &mut HashMap<String, Vec<Retired>>) -> Result<KeyRow, StoreError> {
    let id: String = row.try_get("id")?;
    let damaged = || StoreError::Damaged(id.clone());
    let alias: String = row.try_get("alias")?;
    let team: Option<String> = row.try_get("team_id")?;
    let tuning: String = row.try_get("tuning")?;
    let unbounded_cost: Option<i64> = row.try_get("unbounded_cost_nanos")?;
    let models = texts(row, "models", &id)?;
    let models = models.iter().map(|model| AllowedModels::pattern(model).map_err(|_| damaged()));
    let prompts = texts(row, "prompts", &id)?;
    let prompts = prompts.iter().map(|prompt| AllowedPrompts::pattern(prompt).ok_or_else(damaged));
    let (variables, cache): (String, String) = (row.try_get("variables")?, row.try_get("cache")?);
    let terms = Terms {
        team: team.map(Into::into),
        expires_at_ms: row.try_get("expires_at_ms")?,
        models: AllowedModels::new(models.collect::<Result<_, _>>()?),
        rights: Rights {
            tuning: Tuning::from_name(&tuning).ok_or_else(damaged)?,
            unbounded_cost: unbounded_cost.map(Usd::from_nanos),
        },
        tags: texts(row, "tags", &id)?.into_iter().map(Into::into).collect(),
        limits: limits(row)?,
        prompts: AllowedPrompts::new(prompts.collect::<Result<_, _>>()?),
        variables: serde_json::from_str(&variables).map(Arc::new).map_err(|_| damaged())?,
        cache: KeyUse::from_name(&cache).ok_or_else(damaged)?,
    };
    let hash = hash(row, &id)?;
    let retired = retired.remove(&id).unwrap_or_default();
    let key = VirtualKey {
        id: id.into(),
        alias: alias.into(),
        last_four: row.try_get("last_four")?,
        created_at_ms: row.try_get("created_at_ms")?,
        revoked_at_ms: row.try_get("revoked_at_ms")?,
        terms,
    };
    Ok(KeyRow { key, hash, retired })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limit::RateLimits;
    use crate::domain::secret::Secret;
    use crate::store::audit::tests::change;
    use crate::store::testing::for_each_database;

    fn hash_of(text: &str) -> KeyHash {
        KeyHash::of(text, &Secret::new("pepper"))
    }

    fn row(id: &str, alias: &str, created_at_ms: i64) -> KeyRow {
        let key = VirtualKey {
            id: id.into(),
            alias: alias.into(),
            last_four: "abcd".to_owned(),
            created_at_ms,
            revoked_at_ms: None,
            terms: Terms::default(),
        };
        KeyRow { key, hash: hash_of(id), retired: Vec::new() }
    }

    #[tokio::test]
    async fn an_alias_is_unique_among_live_keys() {
        for_each_database(async |database| {
            let rows = KeyRows::new(&database.open().await);
            let (first, second) =
                (row("key_1", "app", 1_700_000_000_000), row("key_2", "app", 1_700_000_000_001));
            rows.insert(&first.key, first.hash, &change("1")).await.expect("written");
            let twice = rows.insert(&second.key, second.hash, &change("2")).await;
            assert!(matches!(twice, Err(StoreError::Taken)));
            assert!(rows.revoke("key_1", 1_700_000_000_005, &change("3")).await.expect("asked"));
            assert!(!rows.revoke("key_1", 1_700_000_000_006, &change("4")).await.expect("asked"), "already");
            assert!(!rows.revoke("key_0", 1, &change("5")).await.expect("asked"), "no such key");
            rows.insert(&second.key, second.hash, &change("6")).await.expect("the alias is free again");
            let mut revoked = first;
            revoked.key.revoked_at_ms = Some(1_700_000_000_005);
            assert_eq!(rows.all().await.expect("read"), [revoked, second]);
        })
        .await;
    }

    #[tokio::test]
    async fn all_terms_survive() {
        for_each_database(async |database| {
            let rows = KeyRows::new(&database.open().await);
            let mut made = row("key_1", "app", 1);
            rows.insert(&made.key, made.hash, &change("1")).await.expect("written");
            let pattern = |text: &str| AllowedModels::pattern(text).expect("a pattern");
            made.key.alias = "other".into();
            made.key.terms = Terms {
                team: Some("team_1".into()),
                expires_at_ms: Some(1_900_000_000_000),
                models: AllowedModels::new(vec![pattern("openai/*"), pattern("a\"b")]),
                rights: Rights { tuning: Tuning::DeleteModels, unbounded_cost: Some(Usd::dollars(2)) },
                tags: vec!["env=prod".into()],
                limits: RateLimits {
                    requests_per_minute: Some(1),
                    tokens_per_minute: Some(2),
                    concurrent: Some(3),
                },
                prompts: AllowedPrompts::new(vec!["support-*".into(), "a".into()]),
                variables: Arc::new([("tone".into(), serde_json::json!(["a", "b\""]))].into()),
                cache: KeyUse::ReadOnly,
            };
            assert!(rows.update(&made.key, &change("2")).await.expect("written"));
            assert_eq!(rows.all().await.expect("read"), [made.clone()]);
            rows.revoke("key_1", 5, &change("3")).await.expect("written");
            assert!(
                !rows.update(&made.key, &change("4")).await.expect("asked"),
                "a revoked key stays as it is"
            );
        })
        .await;
    }

    #[tokio::test]
    async fn a_rotated_secret_stays_until_its_moment_and_no_older_one_longer() {
        for_each_database(async |database| {
            let rows = KeyRows::new(&database.open().await);
            let mut made = row("key_1", "app", 1);
            rows.insert(&made.key, made.hash, &change("0")).await.expect("written");
            let rotation = |old: &str, new: &str, old_until_ms, now_ms| Rotation {
                id: "key_1",
                old: hash_of(old),
                new: hash_of(new),
                last_four: "wxyz",
                old_until_ms,
                now_ms,
            };
            let retired = |name: &str, until_ms| Retired { hash: hash_of(name), until_ms };
            for (number, (rotation, done, then)) in [
                (rotation("key_1", "second", 100, 10), true, vec![retired("key_1", 100)]),
                (rotation("key_1", "third", 200, 11), false, vec![retired("key_1", 100)]),
                (
                    rotation("second", "third", 50, 12),
                    true,
                    vec![retired("key_1", 50), retired("second", 50)],
                ),
                (rotation("third", "fourth", 60, 13), true, {
                    vec![retired("third", 60), retired("key_1", 50), retired("second", 50)]
                }),
                (rotation("fourth", "fifth", 14, 14), true, vec![]),
            ]
            .into_iter()
            .enumerate()
            {
                let audit = change(&format!("r{number}"));
                assert_eq!(rows.rotate(&rotation, &audit).await.expect("written"), done, "{number}");
                let mut found = rows.all().await.expect("read").remove(0).retired;
                found.sort_by_key(|secret| (-secret.until_ms, secret.hash.to_hex()));
                let mut then = then;
                then.sort_by_key(|secret| (-secret.until_ms, secret.hash.to_hex()));
                assert_eq!(found, then, "{number}");
            }
            made.hash = hash_of("fifth");
            made.key.last_four = "wxyz".to_owned();
            assert_eq!(rows.all().await.expect("read"), [made]);
        })
        .await;
    }
}
