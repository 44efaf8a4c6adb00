//! What stored prompts cost, by the day: folded in with the slots from the entries that say it, and kept when those are
//! cleaned up.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::SpendRows;
use crate::domain::ledger::Entry;
use crate::domain::money::Usd;
use crate::domain::spend::recent::day_of;
use crate::store::engine::StoreError;

/// The columns, in the order in which they are bound and read.
macro_rules! columns {
    () => {
        "prompt, day, version, deployment, provider, model, requests, tokens, cost_nanos"
    };
}

const ADD_TO_DAY: &str = concat!(
    "INSERT INTO prompt_days (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     ON CONFLICT (prompt, day, version, deployment, provider, model)
     DO UPDATE SET requests = prompt_days.requests + excluded.requests,
                   tokens = prompt_days.tokens + excluded.tokens,
                   cost_nanos = prompt_days.cost_nanos + excluded.cost_nanos"
);

/// Which version of a prompt, on which day, where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromptPlace {
    /// The prompt's name.
    pub prompt: String,
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// The version's number.
    pub version: i64,
    /// Where it was sent.
    pub deployment: String,
    /// Whose that is.
    pub provider: String,
    /// The catalog's model that was asked for.
    pub model: String,
}

/// What a version cost in one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptSums {
    /// Requests it was put into.
    pub requests: i64,
    /// Its tokens in all of them.
    pub tokens: i64,
    /// What those cost.
    pub cost: Usd,
}

/// Sums of entries by what the days are kept by.
#[derive(Debug, Default)]
pub(in crate::store) struct PromptDays(BTreeMap<PromptPlace, PromptSums>);

impl PromptDays {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut days = Self::default();
        entries.iter().for_each(|entry| days.count(entry));
        days
    }

    /// Adds one entry.
    pub(in crate::store) fn count(&mut self, entry: &Entry) {
        let Some(injected) = &entry.injected else { return };
        let (prompt, version) = injected.prompt.rsplit_once('@').unwrap_or((&injected.prompt, ""));
        let on = &entry.attribution;
        let place = PromptPlace {
            prompt: prompt.to_owned(),
            day: day_of(entry.at_ms),
            version: version.parse().unwrap_or(0),
            deployment: on.deployment.to_string(),
            provider: on.provider.to_string(),
            model: on.model.to_string(),
        };
        let sums = self.0.entry(place).or_default();
        sums.requests = sums.requests.saturating_add(1);
        sums.tokens = sums.tokens.saturating_add_unsigned(injected.tokens);
        sums.cost += injected.cost;
    }

    pub(super) async fn add(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        for (place, sums) in self.0 {
            let query = sqlx::query(ADD_TO_DAY)
                .bind(place.prompt)
                .bind(place.day)
                .bind(place.version)
                .bind(place.deployment)
                .bind(place.provider)
                .bind(place.model);
            query
                .bind(sums.requests)
                .bind(sums.tokens)
                .bind(sums.cost.nanos())
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    /// What does not agree with the days as they are stored, a line each. Of entries that were cleaned up only the days
    /// know: where some were, the days may say more.
    pub(in crate::store) async fn differences(
        &self,
        any_closed: bool,
        connection: &mut AnyConnection,
    ) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(concat!("SELECT ", columns!(), " FROM prompt_days"));
        let rows = rows.fetch_all(connection).await?;
        let stored: BTreeMap<_, _> = rows.iter().map(read).collect::<Result<_, _>>()?;
        let mut places: Vec<&PromptPlace> = self.0.keys().chain(stored.keys()).collect();
        places.sort_unstable();
        places.dedup();
        let differs = places.into_iter().filter_map(|place| {
            let entries = self.0.get(place).copied().unwrap_or_default();
            let days = stored.get(place).copied().unwrap_or_default();
            let agree = days == entries || (any_closed && entries.is_within(&days));
            (!agree).then(|| {
                format!(
                    "day {} since 1970, prompt {}@{} {} {} {}: the entries say {}, the sums by day {}",
                    place.day,
                    place.prompt,
                    place.version,
                    place.model,
                    place.deployment,
                    place.provider,
                    entries.told(),
                    days.told()
                )
            })
        });
        Ok(differs.collect())
    }
}

impl PromptSums {
    fn is_within(&self, other: &Self) -> bool {
        self.requests <= other.requests && self.tokens <= other.tokens && self.cost <= other.cost
    }

    fn told(&self) -> String {
        format!("{} USD for {} tokens in {} requests", self.cost, self.tokens, self.requests)
    }
}

impl SpendRows {
    /// What the versions of a prompt cost on the days from one to another, both included.
    pub async fn prompt_days(
        &self,
        prompt: &str,
        from_day: i64,
        to_day: i64,
    ) -> Result<Vec<(PromptPlace, PromptSums)>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            columns!(),
            " FROM prompt_days WHERE prompt = $1 AND day >= $2 AND day <= $3
              ORDER BY day, version, deployment, provider, model"
        ));
        let rows = rows.bind(prompt.to_owned()).bind(from_day).bind(to_day).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(read(row)?)).collect()
    }
}

fn read(row: &AnyRow) -> Result<(PromptPlace, PromptSums), sqlx::Error> {
    let place = PromptPlace {
        prompt: row.try_get(0)?,
        day: row.try_get(1)?,
        version: row.try_get(2)?,
        deployment: row.try_get(3)?,
        provider: row.try_get(4)?,
        model: row.try_get(5)?,
    };
    let sums = PromptSums {
        requests: row.try_get(6)?,
        tokens: row.try_get(7)?,
        cost: Usd::from_nanos(row.try_get(8)?),
    };
    Ok((place, sums))
}
