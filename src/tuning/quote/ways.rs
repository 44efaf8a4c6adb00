//! The ways to answer a month's traffic at one target, and what each costs there.

use super::compare::meeting;
use super::{Bill, Figure, Meeting, Offer, Prompts, Served, Studied, Terms, Traffic, Training, Way};
use crate::domain::economics::{Load, Month, Server};
use crate::domain::money::Usd;
use crate::domain::price::Price;
use crate::domain::price::book::Found;

/// Why nobody knows what serving costs on a machine that is paid for by its time.
const UNTIMED: &str = "it is paid for by its machine's time, and this traffic was never served by a machine of ours: send \
     some of it there, and its seconds are measured";

/// What a month costs without traffic and at which price, where both are known.
#[derive(Clone)]
pub(super) struct Lined {
    fixed: Usd,
    price: Price,
    load: Load,
    /// By what tokens a month are counted.
    pub(super) measure: Load,
}

impl Lined {
    pub(super) fn server(&self) -> Server<'_> {
        Server { fixed: self.fixed, price: &self.price, load: self.load }
    }
}

/// The traffic as each way has it.
pub(super) struct Loads {
    /// Without a longer prompt: tokens a month are counted in it.
    tuned: Load,
    prompted: Load,
    /// The same where the provider's cache has what is longer.
    cached: Load,
    retrieved: Load,
}

impl Loads {
    pub(super) fn of(traffic: &Traffic, studied: &Studied, terms: &Terms) -> Self {
        let rows = studied.examples.max(1);
        // a system prompt is there anyway: examples are what a row has beside it
        let row = (studied.tokens / rows).saturating_sub(studied.system_prompt_tokens);
        let longer = terms.prompt_tokens.unwrap_or_else(|| row.saturating_mul(terms.few_shot));
        let load = traffic.load.unwrap_or_else(|| like_the_rows(studied));
        let tuned = match terms.traffic_prompts {
            Prompts::Short => load,
            Prompts::Long => load.shorter(longer),
        };
        let (prompted, cached) = match terms.traffic_prompts {
            Prompts::Short => (load.longer(longer), load.longer_cached(longer)),
            Prompts::Long => (load, load),
        };
        Self { tuned, prompted, cached, retrieved: tuned.longer(terms.retrieval_tokens) }
    }
}

/// Requests like the rows of the data set.
fn like_the_rows(studied: &Studied) -> Load {
    let mut load = Load { requests: studied.examples, ..Load::default() };
    load.tokens.completion = studied.assistant_tokens.min(studied.tokens);
    load.tokens.prompt = studied.tokens - load.tokens.completion;
    load
}

/// The lines of cost over traffic, of each way whose figures are known.
pub(super) struct Lines {
    pub(super) tuned: Option<(Lined, Month)>,
    prompted: Option<Lined>,
    cached: Option<Lined>,
    retrieved: Option<Lined>,
}

impl Lines {
    pub(super) fn of(offer: &Offer, share: Option<Usd>, hosting: Option<Usd>, loads: Option<&Loads>) -> Self {
        let lined = |found: &Result<Found, String>, fixed: Usd, load: Load, loads: &Loads| {
            let price = Price::clone(&found.as_ref().ok()?.price);
            if load.is_untimed(&price) {
                return None;
            }
            Some(Lined { fixed, price, load, measure: loads.tuned })
        };
        let base = |load: fn(&Loads) -> Load| {
            let loads = loads?;
            lined(&offer.base, Usd::ZERO, load(loads), loads)
        };
        let tuned = || {
            let (loads, training_share, hosting) = (loads?, share?, hosting?);
            let month = Month { tokens: Usd::ZERO, hosting, training_share };
            Some((lined(&offer.tuned, month.fixed(), loads.tuned, loads)?, month))
        };
        Self {
            tuned: tuned(),
            prompted: base(|loads| loads.prompted),
            cached: base(|loads| loads.cached),
            retrieved: base(|loads| loads.retrieved),
        }
    }

    /// The fine-tuned model beside the two other ways.
    pub(super) fn meetings(&self) -> Vec<Meeting> {
        let Some((tuned, _)) = &self.tuned else { return Vec::new() };
        let others = [(&self.prompted, Way::Prompt), (&self.retrieved, Way::Retrieval)];
        let meet = |(other, way): (&Option<Lined>, Way)| {
            Some(meeting(Way::FineTune.words(), tuned, way.words(), other.as_ref()?))
        };
        others.into_iter().filter_map(meet).collect()
    }
}

pub(super) fn ways(
    lines: &Lines,
    offer: &Offer,
    training: &Figure<Training>,
    hosting: &Figure<Usd>,
    unread: Option<&String>,
    traffic: &Traffic,
) -> Vec<Served> {
    let why_not = |way: Way| {
        let why_tuned = match (training, hosting) {
            (Figure::Unknown { unknown }, _) | (_, Figure::Unknown { unknown }) => Some(unknown),
            _ => None,
        };
        let why = unread.or(match way {
            Way::FineTune => why_tuned.or(offer.tuned.as_ref().err()),
            Way::Prompt | Way::Retrieval => offer.base.as_ref().err(),
        });
        let untimed = |load: &Load| offer.tuned.as_ref().is_ok_and(|found| load.is_untimed(&found.price));
        let why = why.cloned().or_else(|| traffic.load.filter(untimed).map(|_| UNTIMED.to_owned()));
        why.unwrap_or_else(|| "no traffic is known: name a route with traffic, or say it".to_owned())
    };
    let served = |way: Way| {
        let (lined, month) = match way {
            Way::FineTune => {
                (lines.tuned.as_ref().map(|(lined, _)| lined), lines.tuned.as_ref().map(|(_, month)| *month))
            }
            Way::Prompt => (lines.prompted.as_ref(), Some(Month::default())),
            Way::Retrieval => (lines.retrieved.as_ref(), Some(Month::default())),
        };
        let bill = traffic.load.and(lined).zip(month).map(|(lined, month)| {
            let month = Month { tokens: lined.load.cost(&lined.price), ..month };
            Bill { month, total_usd: month.total() }
        });
        let cached = || lines.cached.as_ref().map(|lined| lined.load.cost(&lined.price));
        Served {
            way,
            cached_usd: (way == Way::Prompt && bill.is_some()).then(cached).flatten(),
            month: bill.map_or_else(|| Figure::missing(why_not(way)), Figure::Known),
        }
    };
    Way::ALL.map(served).into()
}

/// The cheapest way, where a longer prompt costs the least that it can; none unless all are known.
pub(super) fn cheapest(ways: &[Served]) -> Option<Way> {
    let cost = |served: &Served| {
        let total = served.month.known()?.total_usd;
        Some(served.cached_usd.map_or(total, |cached| total.min(cached)))
    };
    let all: Option<Vec<(Usd, Way)>> = ways.iter().map(|served| Some((cost(served)?, served.way))).collect();
    all?.into_iter().min_by_key(|(cost, _)| *cost).map(|(_, way)| way)
}
