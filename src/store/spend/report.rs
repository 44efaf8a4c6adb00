//! What was spent, by whatever an operator asks for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{SpendRows, summed_columns, sums};
use crate::domain::spend::{Sums, slot_of};
use crate::store::engine::StoreError;

/// Groups of one report, at most.
const GROUPS: i64 = 10_000;
const DAY_MS: i64 = 86_400_000;

/// What a report has a line for each of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// The key's alias.
    Key,
    /// The key's id.
    KeyId,
    /// The team.
    Team,
    /// The end user.
    EndUser,
    /// A tag. What has two tags is counted under each of them.
    Tag,
    /// The catalog's model.
    Model,
    /// The deployment.
    Deployment,
    /// The provider.
    Provider,
    /// Inference, training, hosting.
    Purpose,
    /// The day, UTC.
    Day,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Key,
        Self::KeyId,
        Self::Team,
        Self::EndUser,
        Self::Tag,
        Self::Model,
        Self::Deployment,
        Self::Provider,
        Self::Purpose,
        Self::Day,
    ];

    /// The name in questions and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::KeyId => "key_id",
            Self::Team => "team",
            Self::EndUser => "end_user",
            Self::Tag => "tag",
            Self::Model => "model",
            Self::Deployment => "deployment",
            Self::Provider => "provider",
            Self::Purpose => "purpose",
            Self::Day => "day",
        }
    }

    /// Reads back what [`Dimension::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.name() == name)
    }

    /// What is grouped by, as text.
    const fn column(self) -> &'static str {
        match self {
            Self::Key => "key_alias",
            Self::Tag => "tags",
            Self::Day => "CAST(slot_ms / 86400000 AS TEXT)",
            same => same.name(),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpendQuery {
    /// A line for each of these together; without any, one line for all.
    pub by: Vec<Dimension>,
    /// From this time's quarter of an hour on, ms since 1970 UTC.
    pub from_ms: Option<i64>,
    /// To before this time's quarter of an hour, ms since 1970 UTC.
    pub until_ms: Option<i64>,
}

/// A line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendRow {
    /// The values of what was asked by, in that order; empty where there is none.
    pub names: Vec<String>,
    /// Their sums.
    pub sums: Sums,
}

impl SpendRows {
    /// What was spent; the most expensive first, then by name. At most 10,000 groups are read.
    pub async fn report(&self, query: &SpendQuery) -> Result<Vec<SpendRow>, StoreError> {
        let columns: Vec<&str> = query.by.iter().map(|dimension| dimension.column()).collect();
        let columns = columns.join(", ");
        let comma = if columns.is_empty() { "" } else { ", " };
        let group = if columns.is_empty() { "" } else { "GROUP BY " };
        // names of columns of ours; every value is bound
        let text = format!(
            "SELECT {}{comma}{columns} FROM spend_slots WHERE slot_ms >= $1 AND slot_ms < $2 {group}{columns}
             ORDER BY CAST(SUM(cost_nanos) AS BIGINT) DESC LIMIT $3",
            summed_columns!()
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .persistent(false)
            .bind(query.from_ms.map_or(i64::MIN, slot_of))
            .bind(query.until_ms.map_or(i64::MAX, slot_of))
            .bind(GROUPS)
            .fetch_all(&self.pool)
            .await?;
        let mut lines = BTreeMap::<Vec<String>, Sums>::new();
        for row in &rows {
            // without a group there is a row, but no sum, where there is no slot
            if row.try_get::<Option<i64>, _>(0)?.is_none() {
                continue;
            }
            let sums = sums(row, 0)?;
            for names in names(row, &query.by)? {
                lines.entry(names).or_default().add(&sums);
            }
        }
        let mut lines: Vec<_> = lines.into_iter().map(|(names, sums)| SpendRow { names, sums }).collect();
        // stable: the names' order stays among equals
        lines.sort_by_key(|line| -line.sums.cost);
        Ok(lines)
    }
}

/// The lines that a row belongs to: one, or one for each tag.
fn names(row: &AnyRow, by: &[Dimension]) -> Result<Vec<Vec<String>>, StoreError> {
    const SUMS: usize = 17;
    let mut lines = vec![Vec::new()];
    for (index, dimension) in by.iter().enumerate() {
        let text: &str = row.try_get(SUMS + index)?;
        let values: Vec<String> = match dimension {
            Dimension::Tag => text.split('\n').map(str::to_owned).collect(),
            Dimension::Day => vec![day(text)],
            _ => vec![text.to_owned()],
        };
        let with_each = |line: Vec<String>| {
            values
                .iter()
                .map(move |value| line.iter().cloned().chain([value.clone()]).collect())
                .collect::<Vec<_>>()
        };
        lines = lines.into_iter().flat_map(with_each).collect();
    }
    Ok(lines)
}

/// A day's number since 1970-01-01 as a date.
fn day(number: &str) -> String {
    let ms = number.parse::<i64>().unwrap_or(0).saturating_mul(DAY_MS);
    let date = Timestamp::from_millisecond(ms).map(|at| at.strftime("%Y-%m-%d").to_string());
    date.unwrap_or_else(|_| number.to_owned())
}
