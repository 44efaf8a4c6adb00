//! The traffic of a route: what the ledger has of its last 30 days.

use super::{Source, Traffic};
use crate::control::reports::Reports;
use crate::domain::economics::{Load, MONTH_DAYS};
use crate::domain::ledger::Purpose;
use crate::domain::price::read::moment_text;
use crate::domain::spend::Sums;
use crate::domain::usage::TokenCounts;
use crate::store::StoreError;
use crate::store::spend::{Dimension, SpendQuery};

const DAY_MS: i64 = 86_400_000;

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

    /// The days of a route, each with its sums, of the last 30 days up to a moment, ms since 1970 UTC.
    pub fn of_days(route: &str, days: &[Sums], until_ms: i64) -> Self {
        let mut all = Sums::default();
        let mut with_traffic = 0;
        for day in days {
            all.add(&without_hits(day));
            with_traffic += u64::from(day.requests > day.cache_hits);
        }
        let requests = u64::try_from(all.requests).unwrap_or_default();
        if requests == 0 {
            let note = format!("{route} had no traffic in the last {MONTH_DAYS} days");
            return Self { route: Some(route.to_owned()), ..Self::unknown(&note) };
        }
        let (from, until) = (moment_text(from_ms(until_ms)), moment_text(until_ms));
        let note = format!(
            "{route} from {from} to {until}: on {with_traffic} of {MONTH_DAYS} days; answers from our cache are \
             not in it, each taken to be as long as its day's mean"
        );
        let load = Some(Load { requests, tokens: all.tokens });
        Self { source: Source::Ledger, route: Some(route.to_owned()), load, note }
    }

    /// What the ledger has of a route's last 30 days.
    ///
    /// # Errors
    ///
    /// When the database can't be asked.
    pub async fn of_route(reports: &Reports, route: &str, now_ms: i64) -> Result<Self, StoreError> {
        let by = vec![Dimension::Model, Dimension::Purpose, Dimension::Day];
        let query = SpendQuery { by, from_ms: Some(from_ms(now_ms)), until_ms: None };
        let rows = reports.spend(&query).await?;
        let is_it = |names: &[String]| matches!(names, [model, purpose, ..] if model == route && purpose == Purpose::Inference.name());
        let days: Vec<Sums> = rows.into_iter().filter(|row| is_it(&row.names)).map(|row| row.sums).collect();
        Ok(Self::of_days(route, &days, now_ms))
    }
}

/// A day without the answers from our cache. The ledger's sums hold their tokens, too, and not apart: each is taken to have
/// as many as the day's mean.
fn without_hits(day: &Sums) -> Sums {
    let paid = day.requests.saturating_sub(day.cache_hits).max(0);
    let part = |count: u64| {
        let share = u128::from(count) * u128::from(paid.unsigned_abs());
        let share = share.checked_div(u128::from(day.requests.unsigned_abs())).unwrap_or_default();
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    let TokenCounts { prompt, cached, cache_write, audio_prompt, completion, reasoning, audio_completion } =
        day.tokens;
    let tokens = TokenCounts {
        prompt: part(prompt),
        cached: part(cached),
        cache_write: part(cache_write),
        audio_prompt: part(audio_prompt),
        completion: part(completion),
        reasoning: part(reasoning),
        audio_completion: part(audio_completion),
    };
    Sums { requests: paid, cache_hits: 0, tokens, ..*day }
}

/// The beginning of the month that ends at a moment, ms since 1970 UTC.
pub const fn from_ms(until_ms: i64) -> i64 {
    until_ms.saturating_sub(MONTH_DAYS.cast_signed().saturating_mul(DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_the_cache_are_no_traffic() {
        let day = |requests: i64, cache_hits: i64, prompt: u64| Sums {
            requests,
            cache_hits,
            tokens: TokenCounts { prompt, completion: 10, ..TokenCounts::default() },
            ..Sums::default()
        };
        let found = Traffic::of_days("bot", &[day(5, 2, 500), day(4, 0, 100)], 1_795_305_600_000);
        let tokens = TokenCounts { prompt: 400, completion: 16, ..TokenCounts::default() };
        assert_eq!((found.source, found.load), (Source::Ledger, Some(Load { requests: 7, tokens })));
        assert!(found.note.contains("on 2 of 30 days"), "{}", found.note);
        let none = Traffic::of_days("bot", &[day(3, 3, 900)], 0);
        assert_eq!((none.source, none.load, none.route.as_deref()), (Source::Dataset, None, Some("bot")));
        assert!(none.note.contains("no traffic in the last 30 days"), "{}", none.note);
    }
}
