//! What a fine-tuned model costs beside what it replaces: training once, hosting by the hour, tokens by the traffic; and
//! from which traffic on one of two is the cheaper one.
//!
//! A month is 30 days. Whatever is not known stays unknown: it is never taken for nothing.

use serde::Serialize;

use super::money::Usd;
use super::price::Price;
use super::service_tier::ServiceTier;
use super::usage::TokenCounts;

/// Days of a month.
pub const MONTH_DAYS: u64 = 30;
/// Seconds of a month.
const MONTH_SECONDS: u64 = MONTH_DAYS * 86_400;
/// Training by the hour is expected to take so many tokens a second, where nobody has measured it.
///
/// Source: Microsoft's comparison of June 2024: 45,000 tokens, three epochs, 1.5 hours; a job's hold counts on ten times
/// that speed for large files.
const EXPECTED_TOKENS_PER_SECOND: u64 = 250;
/// The least time that training by the hour is expected to take, seconds.
const LEAST_TRAINING_SECONDS: u64 = 3_600;
/// OpenAI's prompt cache takes prefixes of so many tokens or more. Source: its guide to prompt caching, 2026-11.
const LEAST_CACHED_PROMPT: u64 = 1_024;

/// What is trained: billed tokens of one pass over the data, and how often it is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lesson {
    /// Tokens of all rows, each up to the model's limit.
    pub billed_tokens: u64,
    /// Passes.
    pub epochs: u64,
}

impl Lesson {
    /// Tokens that are billed in all.
    pub const fn trained_tokens(&self) -> u64 {
        self.billed_tokens.saturating_mul(self.epochs)
    }
}

/// How training is sold at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct School<'a> {
    /// Whose price counts.
    pub price: &'a Price,
    /// Where it is trained, in the provider's words.
    pub kind: Option<&'a str>,
    /// Tokens a second, where that is measured.
    pub tokens_per_second: Option<u64>,
    /// How long it takes, where somebody says so, seconds.
    pub seconds: Option<u64>,
    /// What the provider's account has trained before on this UTC day.
    pub used_today: u64,
}

/// How long training takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Time {
    /// Seconds.
    pub seconds: u64,
    /// How that is known.
    pub known: Known,
}

/// How a time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// Somebody said so.
    Given,
    /// From measured tokens a second.
    Measured,
    /// Nobody has measured: a guess.
    Expected,
}

/// What training costs, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tuition {
    /// In all.
    #[serde(rename = "cost_usd")]
    pub cost: Usd,
    /// Tokens of it that are free, of what the account has left of its day.
    pub free_tokens: u64,
    /// How long it takes, where that is what is paid, or where it is measured.
    pub time: Option<Time>,
    /// Whether time is paid, and not tokens.
    pub by_the_hour: bool,
}

/// The traffic of a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Requests that reached a provider.
    pub requests: u64,
    /// Their tokens.
    #[serde(flatten)]
    pub tokens: TokenCounts,
}

/// What a month of serving costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Month {
    /// For tokens.
    #[serde(rename = "tokens_usd")]
    pub tokens: Usd,
    /// For hours of a deployment, used or not.
    #[serde(rename = "hosting_usd")]
    pub hosting: Usd,
    /// The month's share of what training cost.
    #[serde(rename = "training_share_usd")]
    pub training_share: Usd,
}

/// From which traffic on one of two is cheaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakEven {
    /// Up to so many tokens a month the first, beyond them the second.
    FirstUpTo(u64),
    /// Up to so many tokens a month the second, beyond them the first.
    SecondUpTo(u64),
    /// The first, whatever the traffic.
    First,
    /// The second, whatever the traffic.
    Second,
    /// Both cost the same.
    Same,
}

/// What training costs at a target at a moment, ms since 1970 UTC; none where its price is not known.
pub fn tuition(lesson: Lesson, school: &School<'_>, at_ms: i64) -> Option<Tuition> {
    let tokens = lesson.trained_tokens();
    let measured = time(tokens, school);
    let terms = &school.price.terms;
    if let Some(price) = terms.training_of(school.kind) {
        let mut by_kind = school.price.clone();
        by_kind.terms.training = Some(price);
        let cost = by_kind.training_cost(tokens, at_ms, school.used_today)?;
        let free = by_kind.free_training_tokens(at_ms).saturating_sub(school.used_today).min(tokens);
        let time = measured.filter(|time| time.known != Known::Expected);
        return Some(Tuition { cost, free_tokens: free, time, by_the_hour: false });
    }
    let hour = terms.training_hour()?;
    if hour.per_hour == Usd::ZERO {
        let time = measured.filter(|time| time.known != Known::Expected);
        return Some(Tuition { cost: Usd::ZERO, free_tokens: 0, time, by_the_hour: true });
    }
    let cost = school.price.training_time_cost(measured?.seconds)?;
    Some(Tuition { cost, free_tokens: 0, time: measured, by_the_hour: true })
}

/// How long training takes: as somebody says, as measured, else as expected.
fn time(tokens: u64, school: &School<'_>) -> Option<Time> {
    if let Some(seconds) = school.seconds {
        return Some(Time { seconds, known: Known::Given });
    }
    match school.tokens_per_second {
        Some(0) => None,
        Some(pace) => Some(Time { seconds: tokens.div_ceil(pace), known: Known::Measured }),
        None => {
            let seconds = (tokens / EXPECTED_TOKENS_PER_SECOND).max(LEAST_TRAINING_SECONDS);
            Some(Time { seconds, known: Known::Expected })
        }
    }
}

impl Load {
    /// All tokens, in and out.
    pub const fn total(&self) -> u64 {
        self.tokens.prompt.saturating_add(self.tokens.completion)
    }

    /// The same requests with a prompt so many tokens longer, none of which comes from the provider's cache.
    #[must_use]
    pub fn longer(mut self, by: u64) -> Self {
        let before = self.total();
        self.tokens.prompt = self.tokens.prompt.saturating_add(self.requests.saturating_mul(by));
        self.computed_like(before)
    }

    /// Our own machine computes for as long as there are tokens: so many there were when its time was taken.
    fn computed_like(mut self, before: u64) -> Self {
        let us = u128::from(self.tokens.compute_us) * u128::from(self.total());
        let us = us.checked_div(u128::from(before)).unwrap_or_default();
        self.tokens.compute_us = u64::try_from(us).unwrap_or(u64::MAX);
        self
    }

    /// Whether a price goes by our own machine's time, and nobody knows how much of it this traffic takes.
    pub fn is_untimed(&self, price: &Price) -> bool {
        price.terms.compute_hour.is_some_and(Usd::is_some) && self.total() > 0 && self.tokens.compute_us == 0
    }

    /// The same where what is longer is equal in all requests and comes from the provider's cache, if it is long enough
    /// for that.
    #[must_use]
    pub fn longer_cached(self, by: u64) -> Self {
        let mut load = self.longer(by);
        if by >= LEAST_CACHED_PROMPT {
            load.tokens.cached = load.tokens.cached.saturating_add(self.requests.saturating_mul(by));
        }
        load
    }

    /// The same requests with a prompt so many tokens shorter, as far as it goes.
    #[must_use]
    pub fn shorter(mut self, by: u64) -> Self {
        let before = self.total();
        let less = self.requests.saturating_mul(by);
        self.tokens.prompt = self.tokens.prompt.saturating_sub(less);
        self.tokens.cached = self.tokens.cached.min(self.tokens.prompt);
        self.tokens.cache_write = self.tokens.cache_write.min(self.tokens.prompt - self.tokens.cached);
        self.tokens.audio_prompt = self.tokens.audio_prompt.min(self.tokens.prompt);
        self.computed_like(before)
    }

    /// What its tokens cost.
    pub fn cost(&self, price: &Price) -> Usd {
        price.cost_of_many(&self.tokens, self.requests, ServiceTier::Default)
    }

    /// So many times the same traffic.
    fn times(&self, factor: u64) -> Self {
        let times = |count: u64| count.saturating_mul(factor);
        let TokenCounts {
            prompt,
            cached,
            cache_write,
            audio_prompt,
            completion,
            reasoning,
            audio_completion,
            compute_us,
        } = self.tokens;
        Self {
            requests: times(self.requests),
            tokens: TokenCounts {
                prompt: times(prompt),
                cached: times(cached),
                cache_write: times(cache_write),
                audio_prompt: times(audio_prompt),
                completion: times(completion),
                reasoning: times(reasoning),
                audio_completion: times(audio_completion),
                compute_us: times(compute_us),
            },
        }
    }
}

impl Month {
    /// In all.
    pub fn total(&self) -> Usd {
        self.tokens + self.fixed()
    }

    /// What it costs without any traffic.
    pub fn fixed(&self) -> Usd {
        self.hosting + self.training_share
    }
}

/// What a deployment of a kind costs a month, used or not; none where nobody knows. `sku` is its kind where deployments
/// are billed by the hour; elsewhere a price without hours costs nothing.
pub fn hosting_month(price: &Price, sku: Option<&str>) -> Option<Usd> {
    match price.terms.hosting {
        None if sku.is_none() => Some(Usd::ZERO),
        _ => price.hosting_cost(MONTH_SECONDS, sku),
    }
}

/// The share of an amount that a month carries when it is spread over so many; rounded up.
pub fn share(amount: Usd, months: u64) -> Usd {
    let months = i64::try_from(months.max(1)).unwrap_or(i64::MAX);
    let nanos = amount.nanos();
    Usd::from_nanos(nanos.div_euclid(months) + i64::from(nanos.rem_euclid(months) > 0))
}

/// Somebody who serves: what it costs without traffic, and with which load at which price.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// A month without traffic.
    pub fixed: Usd,
    /// What tokens cost.
    pub price: &'a Price,
    /// The traffic as it comes to this one.
    pub load: Load,
}

/// Compares two of them whose loads are the same requests, with other prompts perhaps. Tokens are counted as in `measure`,
/// the load without any longer prompt.
pub fn break_even(first: &Server<'_>, second: &Server<'_>, measure: &Load) -> BreakEven {
    // enough of it that rounding to nano-dollars does not show
    let factor = (1_000_000_000 / measure.total().max(1)).max(1);
    let slope = |server: &Server<'_>| i128::from(server.load.times(factor).cost(server.price).nanos());
    let (a, b) = (i128::from(first.fixed.nanos()), i128::from(second.fixed.nanos()));
    let (rise_a, rise_b) = (slope(first), slope(second));
    match ((a - b).signum(), (rise_a - rise_b).signum()) {
        (0, 0) => BreakEven::Same,
        (-1 | 0, -1 | 0) => BreakEven::First,
        (0 | 1, 0 | 1) => BreakEven::Second,
        (_, steeper) => {
            let tokens = i128::from(measure.times(factor).total());
            let apart = ((a - b) * tokens) / (rise_b - rise_a);
            let apart = u64::try_from(apart).unwrap_or(u64::MAX);
            if steeper > 0 { BreakEven::FirstUpTo(apart) } else { BreakEven::SecondUpTo(apart) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::money::PerToken;
    use crate::domain::price::rates::{Class, Rates, Tiers, TokenPrices};
    use crate::domain::price::{FreeTraining, Hosting, Hourly};

    fn usd(text: &str) -> Usd {
        Usd::parse(text).expect(text)
    }

    fn per_million(text: &str) -> PerToken {
        PerToken::parse_per_million(text).expect(text)
    }

    /// Input, cached input and output, USD per 1M tokens.
    fn price(input: &str, cached: &str, output: &str) -> Price {
        let mut listed = [None; Class::ALL.len()];
        listed[Class::Input as usize] = Some(per_million(input));
        listed[Class::CachedInput as usize] = Some(per_million(cached));
        listed[Class::Output as usize] = Some(per_million(output));
        let rates = Rates::standard(&listed).expect("input and output");
        let tokens = TokenPrices { tiers: Tiers::new(rates), long_context: None };
        Price { tokens, ..Price::free("test") }
    }

    fn by_token(training: &str) -> Price {
        let mut price = price("3", "3", "6");
        price.terms.training = Some(per_million(training));
        price
    }

    fn by_hour(training: &str, increment_seconds: u64) -> Price {
        let mut price = price("1.5", "1.5", "2");
        price.terms.training_hour = Some(Hourly { per_hour: usd(training), increment_seconds });
        price
    }

    fn school(price: &Price) -> School<'_> {
        School { price, kind: None, tokens_per_second: None, seconds: None, used_today: 0 }
    }

    fn lesson(billed_tokens: u64, epochs: u64) -> Lesson {
        Lesson { billed_tokens, epochs }
    }

    fn load(requests: u64, prompt: u64, completion: u64) -> Load {
        Load { requests, tokens: TokenCounts { prompt, completion, ..TokenCounts::default() } }
    }

    #[test]
    fn training_by_the_token() {
        let turbo = by_token("8");
        let found = tuition(lesson(100_000, 3), &school(&turbo), 0).expect("priced");
        assert_eq!((found.cost, found.by_the_hour, found.time), (usd("2.40"), false, None));
        // 2M tokens a UTC day, up to and including 23 September 2024
        let mut mini = by_token("3");
        let until_ms = 1_727_136_000_000;
        mini.terms.free_training = Some(FreeTraining { tokens_per_day: 2_000_000, until_ms });
        for (tokens, at_ms, used_today, cost, free) in [
            (1_000_000, until_ms - 1, 0, "0", 1_000_000),
            (3_000_000, until_ms - 1, 0, "3", 2_000_000),
            (3_000_000, until_ms - 1, 1_500_000, "7.5", 500_000),
            (3_000_000, until_ms, 0, "9", 0),
        ] {
            let school = School { used_today, ..school(&mini) };
            let found = tuition(lesson(tokens, 1), &school, at_ms).expect("priced");
            assert_eq!((found.cost, found.free_tokens), (usd(cost), free), "{tokens} {at_ms} {used_today}");
        }
    }

    #[test]
    fn training_where_it_is_cheaper() {
        let mut price = by_token("2.5");
        price.terms.training_by_type = BTreeMap::from([
            (Arc::from("globalstandard"), per_million("2")),
            (Arc::from("developerTier"), per_million("1")),
        ]);
        for (kind, cost) in [
            (None, Some("2.5")),
            (Some("standard"), None),
            (Some("GlobalStandard"), Some("2")),
            (Some("developerTier"), Some("1")),
        ] {
            let school = School { kind, ..school(&price) };
            let found = tuition(lesson(1_000_000, 1), &school, 0);
            assert_eq!(found.map(|found| found.cost), cost.map(usd), "{kind:?}");
        }
    }

    #[test]
    fn training_by_the_hour() {
        // Azure in 2023, gpt-35-turbo: 1 h 20 min in steps of a quarter
        let turbo = by_hour("102", 900);
        let given = School { seconds: Some(4_800), ..school(&turbo) };
        let found = tuition(lesson(45_000, 3), &given, 0).expect("priced");
        let time = Time { seconds: 4_800, known: Known::Given };
        assert_eq!((found.cost, found.by_the_hour, found.time), (usd("153"), true, Some(time)));
        // nobody knows how long: an hour at least
        let found = tuition(lesson(45_000, 3), &school(&turbo), 0).expect("priced");
        let time = Time { seconds: 3_600, known: Known::Expected };
        assert_eq!((found.cost, found.time), (usd("102"), Some(time)));
        // a machine of one's own: 1,000,000 tokens at 400 a second are 2,500 s
        let own = by_hour("0.72", 1);
        let measured = School { tokens_per_second: Some(400), ..school(&own) };
        let found = tuition(lesson(500_000, 2), &measured, 0).expect("priced");
        let time = Time { seconds: 2_500, known: Known::Measured };
        assert_eq!((found.cost, found.time), (usd("0.5"), Some(time)));
        let nothing = by_hour("0", 1);
        let found = tuition(lesson(500_000, 2), &school(&nothing), 0).expect("priced");
        assert_eq!((found.cost, found.time), (Usd::ZERO, None));
        assert_eq!(tuition(lesson(1, 1), &school(&price("1", "1", "1")), 0), None, "not for nothing");
    }

    #[test]
    fn a_month_of_traffic() {
        let tuned = price("0.8", "0.2", "3.2");
        let traffic = load(10_000, 5_000_000, 1_000_000);
        assert_eq!(traffic.cost(&tuned), usd("7.2"));
        assert_eq!(traffic.longer(2_000).cost(&tuned), usd("23.2"));
        assert_eq!(traffic.longer_cached(2_000).cost(&tuned), usd("11.2"));
        assert_eq!(traffic.longer_cached(1_000).cost(&tuned), usd("15.2"), "too short for a cache");
        assert_eq!(traffic.shorter(400).cost(&tuned), usd("4"));
        assert_eq!(traffic.shorter(9_000).cost(&tuned), usd("3.2"), "no more than there is");
        let mut hosted = tuned;
        hosted.terms.hosting = Some(Hosting {
            any: None,
            by_sku: BTreeMap::from([(Arc::from("Standard"), usd("1.70"))]),
            billing: None,
        });
        assert_eq!(hosting_month(&hosted, Some("Standard")), Some(usd("1224")));
        assert_eq!(hosting_month(&hosted, Some("ProvisionedManaged")), None, "not for nothing");
        assert_eq!(hosting_month(&by_token("1"), None), Some(Usd::ZERO));
        assert_eq!(hosting_month(&by_token("1"), Some("Standard")), None, "not for nothing");
        assert_eq!(share(usd("1"), 3), Usd::from_nanos(333_333_334));
        assert_eq!(share(usd("1"), 0), usd("1"));
    }

    #[test]
    fn traffic_on_a_machine_of_ones_own_costs_its_time() {
        let mut own = price("0", "0", "0");
        own.terms.compute_hour = Some(usd("0.36"));
        let mut traffic = load(1_000, 750_000, 250_000);
        assert!(traffic.is_untimed(&own) && !traffic.is_untimed(&price("1", "1", "1")));
        // two hours of it
        traffic.tokens.compute_us = 7_200_000_000;
        assert!(!traffic.is_untimed(&own));
        assert_eq!(traffic.cost(&own), usd("0.72"));
        assert_eq!(traffic.longer(1_000).cost(&own), usd("1.44"), "twice the tokens");
        assert_eq!(traffic.shorter(500).cost(&own), usd("0.36"));
        assert_eq!(traffic.cost(&price("0", "0", "0")), Usd::ZERO, "elsewhere it is no cost");
    }

    #[test]
    fn the_traffic_from_which_on_another_is_cheaper() {
        let traffic = load(1_000, 750_000, 250_000);
        let (own, base, tuned) =
            (price("0", "0", "0"), price("0.4", "0.1", "1.6"), price("0.8", "0.2", "3.2"));
        let server = |fixed: &str, price, load| Server { fixed: usd(fixed), price, load };
        // 0.75 × 0.4 + 0.25 × 1.6 = 0.7 USD a million; hosting 1224 USD a month against 1.4 USD a million
        for (first, second, want) in [
            (
                server("0", &tuned, traffic),
                server("1224", &base, traffic),
                BreakEven::FirstUpTo(1_748_571_428),
            ),
            (
                server("1224", &base, traffic),
                server("0", &tuned, traffic),
                BreakEven::SecondUpTo(1_748_571_428),
            ),
            (server("0", &base, traffic), server("0", &tuned, traffic), BreakEven::First),
            (server("5", &tuned, traffic), server("5", &base, traffic), BreakEven::Second),
            (server("5", &tuned, traffic), server("0", &base, traffic), BreakEven::Second),
            (server("5", &base, traffic), server("5", &base, traffic), BreakEven::Same),
            (server("72", &own, traffic), server("0", &base, traffic), BreakEven::SecondUpTo(102_857_142)),
            // the base model with 2,000 tokens more: 2.7 USD where the fine-tuned one's million costs 1.4
            (
                server("0", &base, traffic.longer(5_000)),
                server("13", &tuned, traffic),
                BreakEven::FirstUpTo(10_000_000),
            ),
        ] {
            assert_eq!(break_even(&first, &second, &traffic), want, "{first:?} {second:?}");
        }
        let none = Load::default();
        let found = break_even(&server("0", &tuned, none), &server("9", &base, none), &none);
        assert_eq!(found, BreakEven::First, "without traffic only hours count");
    }

    proptest! {
        /// Below the break-even one is cheaper, above it the other, give or take a thousandth.
        #[test]
        fn both_cost_the_same_there(
            hosting in 1_i64..5_000, low in 1_u32..50, more in 1_u32..50, requests in 1_u64..1_000,
            prompt in 1_u64..5_000, completion in 1_u64..2_000,
        ) {
            let traffic = load(requests, requests * prompt, requests * completion);
            let cheap = price(&low.to_string(), &low.to_string(), &low.to_string());
            let dear = price(&(low + more).to_string(), "1", &(low + more).to_string());
            let hosted = Server { fixed: Usd::dollars(hosting), price: &cheap, load: traffic };
            let served = Server { fixed: Usd::ZERO, price: &dear, load: traffic };
            let BreakEven::SecondUpTo(tokens) = break_even(&hosted, &served, &traffic) else {
                return Err(TestCaseError::fail("the hosted one is cheaper from some traffic on"));
            };
            let month = |server: &Server<'_>, tokens: u64| {
                let load = load(1, 0, tokens);
                server.fixed + load.cost(server.price)
            };
            // multiplied first: of 20,408 a thousandth, cut off, is 20 and a thousand of these are less
            let (below, above) = (tokens * 999 / 1_000, tokens * 1_001 / 1_000);
            prop_assert!(month(&served, below) <= month(&hosted, below));
            prop_assert!(month(&served, above) >= month(&hosted, above));
        }
    }
}
