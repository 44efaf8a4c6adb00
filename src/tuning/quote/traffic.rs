//! The traffic of a route: what the ledger has of its last 30 days.

use serde::Serialize;

use crate::control::reports::{Reports, Served};
use crate::domain::economics::{Load, MONTH_DAYS};
use crate::domain::price::read::moment_text;
use crate::store::StoreError;

const DAY_MS: i64 = 86_400_000;

/// Where the traffic comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What a route had in the last 30 days.
    Ledger,
    /// Somebody says so.
    Given,
    /// Nobody knows: the rows of the data set stand for it, and a month's figures are left open.
    Dataset,
}

/// The traffic that is quoted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Where it comes from.
    pub source: Source,
    /// The route, where one was asked for.
    pub route: Option<String>,
    /// A month of it; none where only the data set tells what requests are like.
    #[serde(flatten)]
    pub load: Option<Load>,
    /// What should be known of it.
    pub note: String,
}

impl Traffic {
    /// What whoever asks says.
    pub fn given(load: Load) -> Self {
        let note = "a month's traffic, as it was given".to_owned();
        Self { source: Source::Given, route: None, load: Some(load), note }
    }

    /// Nobody knows of any.
    pub fn unknown(note: &str) -> Self {
        let note = format!("{note}; what a request is like is taken from the data set's rows");
        Self { source: Source::Dataset, route: None, load: None, note }
    }

    /// What a route has used in the 30 days up to a moment, ms since 1970 UTC.
    fn of_month(route: &str, month: &Served, until_ms: i64) -> Self {
        let Served { requests, days, estimated_days, tokens } = *month;
        if requests == 0 {
            let note = format!("{route} had no traffic in the last {MONTH_DAYS} days");
            return Self { route: Some(route.to_owned()), ..Self::unknown(&note) };
        }
        let (from, until) = (moment_text(from_ms(until_ms)), moment_text(until_ms));
        let mut note = format!(
            "{route} from {from} to {until}: on {days} of {MONTH_DAYS} days; answers from our cache are not in it"
        );
        if estimated_days > 0 {
            note = format!(
                "{note}, but of {estimated_days} day(s) the ledger could not tell them apart: there each is taken to be as \
                 long as the day's mean"
            );
        }
        let load = Some(Load { requests, tokens });
        Self { source: Source::Ledger, route: Some(route.to_owned()), load, note }
    }

    /// What the ledger has of a route's last 30 days.
    ///
    /// # Errors
    ///
    /// When the database can't be asked.
    pub async fn of_route(reports: &Reports, route: &str, now_ms: i64) -> Result<Self, StoreError> {
        let month = reports.served(route, from_ms(now_ms), now_ms.saturating_add(1)).await?;
        Ok(Self::of_month(route, &month, now_ms))
    }
}

/// The beginning of the month that ends at a moment, ms since 1970 UTC.
const fn from_ms(until_ms: i64) -> i64 {
    until_ms.saturating_sub(MONTH_DAYS.cast_signed().saturating_mul(DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::usage::TokenCounts;

    #[test]
    fn a_month_without_traffic_is_none() {
        let tokens = TokenCounts { prompt: 400, completion: 16, ..TokenCounts::default() };
        let served = Served { requests: 7, days: 2, estimated_days: 0, tokens };
        let found = Traffic::of_month("bot", &served, 1_795_305_600_000);
        assert_eq!((found.source, found.load), (Source::Ledger, Some(Load { requests: 7, tokens })));
        assert!(found.note.contains("on 2 of 30 days"), "{}", found.note);
        assert!(!found.note.contains("mean"), "{}", found.note);
        let about = Traffic::of_month("bot", &Served { estimated_days: 1, ..served }, 1_795_305_600_000);
        assert!(about.note.contains("of 1 day(s)") && about.note.contains("mean"), "{}", about.note);
        let none = Traffic::of_month("bot", &Served::default(), 0);
        assert_eq!((none.source, none.load, none.route.as_deref()), (Source::Dataset, None, Some("bot")));
        assert!(none.note.contains("no traffic in the last 30 days"), "{}", none.note);
    }
}
