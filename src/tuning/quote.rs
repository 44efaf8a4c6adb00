//! The quote: one data set priced on every target that could train it, what a month of serving would cost there, and what
//! it is worth beside the base model with a longer prompt.
//!
//! Nothing is looked up here: figures, prices and traffic are handed in, so that the command line quotes like the gateway.

mod answer;
mod ask;
mod compare;
mod offer;
mod study;
mod terms;
#[cfg(test)]
mod tests;
mod traffic;
mod training;
mod ways;

pub use self::answer::{Bill, Figure, Meeting, Quote, Served, TargetQuote, Training, Way};
pub use self::ask::{Ask, Data, targets};
pub use self::offer::{Offer, Standing};
pub use self::study::{Book, Studied};
pub use self::terms::{FEW_SHOT, MONTHS, Prompts, RETRIEVED, SKU, Terms};
pub use self::traffic::{Source, Traffic};
pub use self::training::Trained;
use self::ways::{Lined, Lines, Loads};
use crate::domain::catalog::{Catalog, ProviderKind};
use crate::domain::economics::{MONTH_DAYS, share};
use crate::domain::price::book::PriceBook;
use crate::domain::price::read::moment_text;
use crate::domain::tuning::target::Target;
use crate::tuning::paces::Paces;

/// Counts a data set as a target does; the words are for people.
pub type Study<'a> = &'a mut dyn FnMut(&Target) -> Result<Studied, String>;

/// What is quoted with.
#[derive(Debug, Clone, Copy)]
pub struct Market<'a> {
    /// Which deployments there are.
    pub catalog: &'a Catalog,
    /// What they cost.
    pub book: &'a PriceBook,
    /// For which moment, ms since 1970 UTC.
    pub at_ms: i64,
    /// What was trained on that day; none where nobody can be asked.
    pub trained: Option<&'a Trained>,
    /// How fast our own machines train; none where nobody can be asked.
    pub paces: Option<&'a Paces>,
}

/// A quote of some targets, with what is needed to compare it with others.
struct Drawn {
    quote: TargetQuote,
    tuned: Option<Lined>,
}

/// Prices a data set on targets.
pub fn quote(
    targets: &[Target],
    market: &Market<'_>,
    traffic: Traffic,
    terms: Terms,
    study: Study<'_>,
) -> Quote {
    let mut drawn: Vec<Drawn> =
        targets.iter().map(|target| drawn(target, market, &traffic, &terms, study)).collect();
    drawn.sort_by_key(|drawn| {
        let total = drawn.quote.bill(Way::FineTune).map(|bill| bill.total_usd);
        let training = drawn.quote.training.known().map(|training| training.tuition.cost);
        // known before unknown; then by the month, where there is traffic, then by the training
        (drawn.quote.standing == Standing::Closed, total.is_none(), total, training.is_none(), training)
    });
    let meetings = compare::beside_the_first(&drawn);
    let targets: Vec<TargetQuote> = drawn.into_iter().map(|drawn| drawn.quote).collect();
    Quote {
        object: "tuning.quote",
        at: moment_text(market.at_ms),
        price_version: market.book.version().to_string(),
        month_days: MONTH_DAYS,
        answer: compare::answer(&targets, &traffic),
        traffic,
        terms,
        targets,
        break_even: meetings,
    }
}

fn drawn(target: &Target, market: &Market<'_>, traffic: &Traffic, terms: &Terms, study: Study<'_>) -> Drawn {
    let offer = Offer::of(target, market.catalog, market.book, market.at_ms);
    let (standing, mut notes) = offer.standing(target, market.at_ms);
    let dataset = study(target);
    let training = training::training(target, &offer, dataset.as_ref(), terms, market);
    let azure = target.provider.dialect.kind() == ProviderKind::Azure;
    let sku = azure.then_some(terms.sku.as_str());
    let hosting = training::hosting(target, &offer, sku);
    notes.extend(training::notes_of(target, &offer, sku, market.trained));
    let share = training.known().map(|training| share(training.tuition.cost, terms.months));
    let loads = dataset.as_ref().ok().map(|studied| Loads::of(traffic, studied, terms));
    let lines = Lines::of(&offer, share, hosting.known().copied(), loads.as_ref());
    let ways = ways::ways(&lines, &offer, &training, &hosting, dataset.as_ref().err(), traffic);
    let cheapest = ways::cheapest(&ways);
    let meetings = lines.meetings();
    let quote = TargetQuote {
        target: target.to_string(),
        provider: target.provider.name.to_string(),
        base: target.model.to_string(),
        standing,
        notes,
        dataset: dataset.map_or_else(Figure::missing, Figure::Known),
        training,
        hosting_month_usd: hosting,
        ways,
        break_even: meetings,
        cheapest,
    };
    Drawn { quote, tuned: lines.tuned.map(|(lined, _)| lined) }
}
