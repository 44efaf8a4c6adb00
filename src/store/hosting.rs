//! Rows of the hosting clock: which deployments stand and are billed by the hour, and what was charged for which period.
//!
//! A period's row comes before its entry in the ledger, and keeps it from being charged twice; who finds a row without
//! an entry looks for it in the ledger before it is written again.

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;
use crate::domain::hosting::{Billing, Charge, LONGEST_PERIOD_MS, Rate};
use crate::domain::ledger::Seq;
use crate::domain::money::Usd;

/// Who says that a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Azure's resource manager.
    Arm,
    /// The operator, in the configuration.
    Configuration,
}

impl Source {
    /// The name in rows and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arm => "arm",
            Self::Configuration => "configuration",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Arm, Self::Configuration].into_iter().find(|source| source.name() == name)
    }
}

/// A deployment from when it stands to when it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostedRow {
    /// What it is booked on: its name in the catalog, or else its provider's name and its own.
    pub deployment: String,
    /// Since when it stands, ms since 1970 UTC.
    pub since_ms: i64,
    /// Whose it is.
    pub provider: String,
    /// The provider's name of it.
    pub upstream: String,
    /// The provider's name of the model behind it; empty where nobody said.
    pub model: String,
    /// The provider's name of its kind; empty where nobody said.
    pub sku: String,
    /// Who says that it stands.
    pub source: Source,
    /// When it was last known to stand, ms since 1970 UTC.
    pub seen_ms: i64,
    /// When it was gone, ms since 1970 UTC.
    pub until_ms: Option<i64>,
}

/// A period that was charged, or is being charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRow {
    /// What it is booked on.
    pub deployment: String,
    /// The period. Its cost is with all corrections.
    pub charge: Charge,
    /// The version of the price.
    pub price: String,
    /// Whose deployment it is.
    pub provider: String,
    /// Who pays; empty for nobody.
    pub team: String,
    /// The last entry of the ledger that is about it; 0 where none is known.
    pub seq: Seq,
}

/// How long it was watched whether a deployment is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// From when on nobody has used it, as far as it was watched, ms since 1970 UTC.
    pub idle_from_ms: i64,
    /// When somebody last looked, ms since 1970 UTC.
    pub at_ms: i64,
}

/// An entry of the ledger, as far as it tells what became of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Booked {
    /// Its number.
    pub seq: Seq,
    /// What it spends.
    pub cost: Usd,
}

/// The tables of the hosting clock.
#[derive(Debug, Clone)]
pub struct HostingRows {
    pool: Pool,
}

/// Rows that are deleted in one go: others write between them.
const BATCH: i64 = 1_000;

// words of ours alone; values are bound
const HOSTED: &str =
    "SELECT deployment, since_ms, provider, upstream, model, sku, source, seen_ms, until_ms FROM hosted";
const CHARGES: &str =
    "SELECT deployment, from_ms, since_ms, until_ms, per_hour_nanos, billing, price, provider, team, net_nanos, seq
     FROM hosting_charges";

impl HostingRows {
    /// The tables in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a deployment that stands, or what is known of it now.
    pub async fn put(&self, row: &HostedRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO hosted (deployment, since_ms, provider, upstream, model, sku, source, seen_ms, until_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (deployment, since_ms) DO UPDATE SET provider = $3, upstream = $4, model = $5, sku = $6,
                 source = $7, seen_ms = $8, until_ms = $9",
        )
        .bind(row.deployment.as_str())
        .bind(row.since_ms)
        .bind(row.provider.as_str())
        .bind(row.upstream.as_str())
        .bind(row.model.as_str())
        .bind(row.sku.as_str())
        .bind(row.source.name())
        .bind(row.seen_ms)
        .bind(row.until_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// How long a deployment was watched that stands since a moment; none where nobody has watched it yet.
    pub async fn watched(&self, deployment: &str, since_ms: i64) -> Result<Option<Watch>, StoreError> {
        let row = sqlx::query(
            "SELECT idle_from_ms, watched_ms FROM hosted
             WHERE deployment = $1 AND since_ms = $2 AND idle_from_ms IS NOT NULL AND watched_ms IS NOT NULL",
        )
        .bind(deployment)
        .bind(since_ms)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok(Watch { idle_from_ms: row.try_get(0)?, at_ms: row.try_get(1)? })).transpose()
    }

    /// Writes down how long a deployment was watched.
    pub async fn watch(&self, deployment: &str, since_ms: i64, watch: Watch) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE hosted SET idle_from_ms = $3, watched_ms = $4 WHERE deployment = $1 AND since_ms = $2",
        )
        .bind(deployment)
        .bind(since_ms)
        .bind(watch.idle_from_ms)
        .bind(watch.at_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Writes that a deployment stood at `row.seen_ms`. One that was gone then or later stays gone: somebody knew better
    /// while the list was on its way.
    pub async fn see(&self, row: &HostedRow) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE hosted SET model = $3, sku = $4, seen_ms = $5
             WHERE deployment = $1 AND since_ms = $2 AND until_ms IS NULL AND seen_ms <= $5",
        )
        .bind(row.deployment.as_str())
        .bind(row.since_ms)
        .bind(row.model.as_str())
        .bind(row.sku.as_str())
        .bind(row.seen_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Writes down a deployment that stands, where nobody has written it before.
    pub async fn begin(&self, row: &HostedRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO hosted (deployment, since_ms, provider, upstream, model, sku, source, seen_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (deployment, since_ms) DO NOTHING",
        )
        .bind(row.deployment.as_str())
        .bind(row.since_ms)
        .bind(row.provider.as_str())
        .bind(row.upstream.as_str())
        .bind(row.model.as_str())
        .bind(row.sku.as_str())
        .bind(row.source.name())
        .bind(row.seen_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Writes that a deployment was gone at a moment, if it stands and nobody has seen it since.
    pub async fn close(&self, row: &HostedRow, gone_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE hosted SET until_ms = $3
             WHERE deployment = $1 AND since_ms = $2 AND until_ms IS NULL AND seen_ms <= $3",
        )
        .bind(row.deployment.as_str())
        .bind(row.since_ms)
        .bind(gone_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Deletes the periods of deployments that were gone before a moment, a batch at a time; returns how many. The last
    /// one of each stays: it says up to where was charged.
    pub async fn delete_before(&self, gone_before_ms: i64) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let batch = sqlx::query(
                "DELETE FROM hosting_charges WHERE (deployment, since_ms, from_ms) IN
                 (SELECT c.deployment, c.since_ms, c.from_ms FROM hosting_charges c
                  JOIN hosted h ON h.deployment = c.deployment AND h.since_ms = c.since_ms
                  WHERE h.until_ms < $1 AND c.seq <> 0 AND EXISTS (SELECT 1 FROM hosting_charges l
                      WHERE l.deployment = c.deployment AND l.since_ms = c.since_ms AND l.from_ms > c.from_ms)
                  LIMIT $2)",
            )
            .bind(gone_before_ms)
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

    /// The deployments that stand, or were gone at or after a moment, in order.
    pub async fn standing(&self, gone_since_ms: i64) -> Result<Vec<HostedRow>, StoreError> {
        let text = format!("{HOSTED} WHERE until_ms IS NULL OR until_ms >= $1 ORDER BY deployment, since_ms");
        let rows = sqlx::query(AssertSqlSafe(text)).bind(gone_since_ms).fetch_all(&self.pool).await?;
        rows.iter().map(hosted).collect()
    }

    /// The deployments that stand, were gone at or after a moment, or are not charged to their end, in order.
    pub async fn unsettled(&self, gone_since_ms: i64) -> Result<Vec<HostedRow>, StoreError> {
        let text = format!(
            "{HOSTED} WHERE until_ms IS NULL OR until_ms >= $1
             OR (until_ms > since_ms AND NOT EXISTS (SELECT 1 FROM hosting_charges c
                 WHERE c.deployment = hosted.deployment AND c.since_ms = hosted.since_ms
                 AND c.from_ms >= hosted.until_ms - $2 AND c.until_ms >= hosted.until_ms))
             ORDER BY deployment, since_ms"
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(gone_since_ms)
            .bind(LONGEST_PERIOD_MS)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(hosted).collect()
    }

    /// Until when a deployment was charged that stands since a moment; none where it never was.
    pub async fn charged_until(&self, deployment: &str, since_ms: i64) -> Result<Option<i64>, StoreError> {
        let until: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(until_ms) FROM hosting_charges WHERE deployment = $1 AND since_ms = $2",
        )
        .bind(deployment)
        .bind(since_ms)
        .fetch_one(&self.pool)
        .await?;
        Ok(until)
    }

    /// Writes down that a period is to be charged; false where that stands there already.
    pub async fn intend(&self, row: &ChargeRow) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO hosting_charges (deployment, from_ms, since_ms, until_ms, per_hour_nanos, billing, price, provider,
                 team, net_nanos, seq)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)
             ON CONFLICT (deployment, since_ms, from_ms) DO NOTHING",
        )
        .bind(row.deployment.as_str())
        .bind(row.charge.from_ms)
        .bind(row.charge.since_ms)
        .bind(row.charge.until_ms)
        .bind(row.charge.rate.per_hour.nanos())
        .bind(row.charge.rate.billing.name())
        .bind(row.price.as_str())
        .bind(row.provider.as_str())
        .bind(row.team.as_str())
        .bind(row.charge.cost.nanos())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Writes down which entry of the ledger is about a period now, and what the period costs with it.
    pub async fn booked(&self, row: &ChargeRow, entry: Seq, net: Usd) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE hosting_charges SET seq = $3, net_nanos = $4
             WHERE deployment = $1 AND from_ms = $2 AND seq = $5 AND since_ms = $6",
        )
        .bind(row.deployment.as_str())
        .bind(row.charge.from_ms)
        .bind(entry)
        .bind(net.nanos())
        .bind(row.seq)
        .bind(row.charge.since_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The periods that are to be charged and have no entry that we know of, in order.
    pub async fn unbooked(&self) -> Result<Vec<ChargeRow>, StoreError> {
        let text = format!("{CHARGES} WHERE seq = 0 ORDER BY deployment, from_ms");
        let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&self.pool).await?;
        rows.iter().map(charge).collect()
    }

    /// The periods of a deployment that reach beyond a moment, in order.
    pub async fn charged_beyond(
        &self,
        deployment: &str,
        since_ms: i64,
        at_ms: i64,
    ) -> Result<Vec<ChargeRow>, StoreError> {
        let text = format!(
            "{CHARGES} WHERE deployment = $1 AND since_ms = $2 AND until_ms > $3 AND seq > 0 ORDER BY from_ms"
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(deployment)
            .bind(since_ms)
            .bind(at_ms)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(charge).collect()
    }

    /// What was charged for a deployment that stands since a moment, from another moment on, with its corrections.
    pub async fn charged_since(
        &self,
        deployment: &str,
        since_ms: i64,
        from_ms: i64,
    ) -> Result<Usd, StoreError> {
        let nanos: i64 = sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(net_nanos), 0) AS BIGINT) FROM hosting_charges
             WHERE deployment = $1 AND since_ms = $2 AND from_ms >= $3 AND seq > 0",
        )
        .bind(deployment)
        .bind(since_ms)
        .bind(from_ms)
        .fetch_one(&self.pool)
        .await?;
        Ok(Usd::from_nanos(nanos))
    }

    /// The hosting entry of the ledger that has this id.
    pub async fn entry_of(&self, request_id: &str) -> Result<Option<Booked>, StoreError> {
        let row = sqlx::query(
            "SELECT seq, cost_nanos FROM ledger WHERE request_id = $1 AND ends_seq IS NULL AND kind = 'hosting'
             ORDER BY seq LIMIT 1",
        )
        .bind(request_id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(booked).transpose()
    }

    /// The entry of the ledger that corrects another one.
    pub async fn correction_of(&self, seq: Seq) -> Result<Option<Booked>, StoreError> {
        let row =
            sqlx::query("SELECT seq, cost_nanos FROM ledger WHERE corrects_seq = $1 ORDER BY seq LIMIT 1")
                .bind(seq)
                .fetch_optional(&self.pool)
                .await?;
        row.as_ref().map(booked).transpose()
    }

    /// Whose a registered model is, as its row has it; none where nobody has registered it.
    pub async fn owner_of(&self, model: &str) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar("SELECT owner FROM registered_models WHERE name = $1").bind(model);
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// What a deployment is called that the registry has made, by its provider's name; none where it has not.
    pub async fn deployed_as(&self, provider: &str, upstream: &str) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar(
            "SELECT name FROM model_deployments WHERE provider = $1 AND LOWER(name) = LOWER($2)",
        );
        Ok(query.bind(provider).bind(upstream).fetch_optional(&self.pool).await?)
    }

    /// What a team that was made by the admin API is called.
    pub async fn team_alias(&self, id: &str) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar("SELECT alias FROM teams WHERE id = $1").bind(id);
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// When a deployment was last used, ms since 1970 UTC: the beginning of that quarter of an hour; none where that was
    /// not after a moment.
    pub async fn last_used(&self, deployment: &str, after_ms: i64) -> Result<Option<i64>, StoreError> {
        let slot: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(slot_ms) FROM spend_slots
             WHERE slot_ms > $2 AND deployment = $1 AND purpose = 'inference' AND requests > 0",
        )
        .bind(deployment)
        .bind(after_ms)
        .fetch_one(&self.pool)
        .await?;
        Ok(slot)
    }
}

fn hosted(row: &AnyRow) -> Result<HostedRow, StoreError> {
    let source: String = row.try_get("source")?;
    Ok(HostedRow {
        deployment: row.try_get("deployment")?,
        since_ms: row.try_get("since_ms")?,
        provider: row.try_get("provider")?,
        upstream: row.try_get("upstream")?,
        model: row.try_get("model")?,
        sku: row.try_get("sku")?,
        source: Source::from_name(&source).unwrap_or(Source::Configuration),
        seen_ms: row.try_get("seen_ms")?,
        until_ms: row.try_get("until_ms")?,
    })
}

fn charge(row: &AnyRow) -> Result<ChargeRow, StoreError> {
    let billing: String = row.try_get("billing")?;
    let rate = Rate {
        per_hour: Usd::from_nanos(row.try_get("per_hour_nanos")?),
        billing: Billing::from_name(&billing).unwrap_or_default(),
    };
    Ok(ChargeRow {
        deployment: row.try_get("deployment")?,
        charge: Charge {
            since_ms: row.try_get("since_ms")?,
            from_ms: row.try_get("from_ms")?,
            until_ms: row.try_get("until_ms")?,
            rate,
            cost: Usd::from_nanos(row.try_get("net_nanos")?),
        },
        price: row.try_get("price")?,
        provider: row.try_get("provider")?,
        team: row.try_get("team")?,
        seq: row.try_get("seq")?,
    })
}

fn booked(row: &AnyRow) -> Result<Booked, StoreError> {
    Ok(Booked { seq: row.try_get(0)?, cost: Usd::from_nanos(row.try_get(1)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::for_each_database;

    fn stand(deployment: &str, since_ms: i64, until_ms: Option<i64>) -> HostedRow {
        HostedRow {
            deployment: deployment.to_owned(),
            since_ms,
            provider: "azure".to_owned(),
            upstream: deployment.to_owned(),
            model: "gpt-4.1.ft-0a1b".to_owned(),
            sku: "Standard".to_owned(),
            source: Source::Arm,
            seen_ms: since_ms,
            until_ms,
        }
    }

    fn period(deployment: &str, from_ms: i64, until_ms: i64) -> ChargeRow {
        let rate = Rate { per_hour: Usd::dollars(7), billing: Billing::ClockHours };
        ChargeRow {
            deployment: deployment.to_owned(),
            charge: Charge { since_ms: 1, from_ms, until_ms, rate, cost: Usd::dollars(7) },
            price: "v1".to_owned(),
            provider: "azure".to_owned(),
            team: "a".to_owned(),
            seq: 0,
        }
    }

    #[tokio::test]
    async fn a_deployment_stands_until_it_is_gone() {
        for_each_database(async |database| {
            let rows = HostingRows::new(&database.open().await);
            rows.put(&stand("b", 5, None)).await.expect("written");
            rows.put(&stand("a", 1, Some(4))).await.expect("written");
            assert_eq!(rows.watched("b", 5).await.expect("read"), None);
            let watch = Watch { idle_from_ms: 6, at_ms: 8 };
            rows.watch("b", 5, watch).await.expect("written");
            let seen = HostedRow { seen_ms: 9, ..stand("b", 5, None) };
            rows.put(&seen).await.expect("written");
            assert_eq!(rows.watched("b", 5).await.expect("read"), Some(watch), "it was put down anew");
            assert_eq!(rows.watched("a", 1).await.expect("read"), None);
            assert_eq!(rows.standing(5).await.expect("read"), std::slice::from_ref(&seen));
            assert_eq!(rows.standing(4).await.expect("read"), [stand("a", 1, Some(4)), seen]);
            rows.put(&stand("never", 8, Some(8))).await.expect("written");
            let unsettled = async || rows.unsettled(90).await.expect("read").len();
            assert_eq!(unsettled().await, 2, "a is not charged yet, and b stands");
            for (row, left) in [(period("a", 1, 3), 2), (period("a", 3, 5), 1)] {
                assert!(rows.intend(&row).await.expect("written"));
                assert_eq!(unsettled().await, left, "until {}", row.charge.until_ms);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_gone_is_not_seen_again_by_a_list_on_its_way() {
        for_each_database(async |database| {
            let rows = HostingRows::new(&database.open().await);
            let began = stand("a", 5, None);
            rows.begin(&began).await.expect("written");
            rows.begin(&HostedRow { seen_ms: 99, ..began.clone() }).await.expect("asked");
            let seen = HostedRow { seen_ms: 9, sku: "GlobalStandard".to_owned(), ..began.clone() };
            rows.see(&seen).await.expect("written");
            rows.see(&HostedRow { seen_ms: 8, ..began }).await.expect("asked");
            rows.close(&seen, 8).await.expect("asked");
            assert_eq!(rows.standing(0).await.expect("read"), std::slice::from_ref(&seen), "seen since");
            rows.close(&seen, 12).await.expect("written");
            rows.see(&HostedRow { seen_ms: 11, ..seen.clone() }).await.expect("asked");
            rows.close(&seen, 20).await.expect("asked");
            assert_eq!(rows.standing(0).await.expect("read"), [HostedRow { until_ms: Some(12), ..seen }]);
        })
        .await;
    }

    #[tokio::test]
    async fn periods_of_what_is_long_gone_are_deleted_but_for_the_last() {
        for_each_database(async |database| {
            let rows = HostingRows::new(&database.open().await);
            for (name, until) in
                [("gone", Some(30)), ("open", None), ("late", Some(60)), ("untold", Some(30))]
            {
                rows.put(&stand(name, 1, until)).await.expect("written");
                for row in [period(name, 1, 10), period(name, 10, 20), period(name, 20, 30)] {
                    assert!(rows.intend(&row).await.expect("asked"));
                    if name != "untold" {
                        rows.booked(&row, 7, row.charge.cost).await.expect("written");
                    }
                }
            }
            assert_eq!(rows.delete_before(30).await.expect("swept"), 0, "not before it");
            assert_eq!(rows.delete_before(31).await.expect("swept"), 2);
            assert_eq!(rows.delete_before(31).await.expect("swept"), 0);
            assert_eq!(rows.charged_until("gone", 1).await.expect("read"), Some(30));
            assert_eq!(rows.charged_beyond("gone", 1, 0).await.expect("read").len(), 1);
            assert_eq!(rows.charged_beyond("open", 1, 0).await.expect("read").len(), 3);
            assert_eq!(rows.charged_beyond("late", 1, 0).await.expect("read").len(), 3);
            assert_eq!(rows.unbooked().await.expect("read").len(), 3, "what is not booked yet stays");
        })
        .await;
    }

    #[tokio::test]
    async fn a_period_is_intended_once_and_then_booked() {
        for_each_database(async |database| {
            let rows = HostingRows::new(&database.open().await);
            let (first, second) = (period("a", 1, 10), period("a", 10, 20));
            for row in [&first, &second] {
                assert!(rows.intend(row).await.expect("asked"));
                assert!(!rows.intend(row).await.expect("asked"), "twice");
            }
            assert_eq!(rows.charged_until("a", 1).await.expect("read"), Some(20));
            assert_eq!(rows.charged_until("a", 2).await.expect("read"), None);
            assert_eq!(rows.unbooked().await.expect("read"), [first.clone(), second.clone()]);
            assert_eq!(rows.charged_since("a", 1, 0).await.expect("read"), Usd::ZERO, "not booked yet");
            rows.booked(&first, 71, first.charge.cost).await.expect("written");
            rows.booked(&first, 99, Usd::ZERO).await.expect("asked");
            assert_eq!(rows.unbooked().await.expect("read"), [second]);
            assert_eq!(
                rows.charged_since("a", 1, 0).await.expect("read"),
                Usd::dollars(7),
                "by whoever was first"
            );
            let charged = ChargeRow { seq: 71, ..first };
            let beyond = rows.charged_beyond("a", 1, 9).await.expect("read");
            assert_eq!(beyond, std::slice::from_ref(&charged));
            rows.booked(&charged, 72, Usd::ZERO).await.expect("written");
            assert_eq!(rows.charged_since("a", 1, 0).await.expect("read"), Usd::ZERO, "corrected");
            assert_eq!(rows.entry_of("hosting:a:1").await.expect("read"), None);
            assert_eq!(rows.correction_of(71).await.expect("read"), None);
            assert_eq!(rows.last_used("a", 0).await.expect("read"), None);
            assert_eq!(rows.deployed_as("azure", "a").await.expect("read"), None);
        })
        .await;
    }
}
