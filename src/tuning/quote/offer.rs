//! What a target asks for: the prices of training there, of the fine-tuned model and of its base, and until when it trains.

use std::sync::Arc;

use serde::Serialize;

use crate::domain::catalog::{Catalog, Pricing, ProviderKind};
use crate::domain::fine_tuned_name::FineTunedName;
use crate::domain::money::PerToken;
use crate::domain::price::Price;
use crate::domain::price::book::{Found, PriceBook, Unpriced, Warning};
use crate::domain::price::read::moment_text;
use crate::domain::retirement::training_ends;
use crate::domain::tuning::target::Target;
use crate::tuning::priced::serving;

/// A target whose end is nearer than this is closing.
const CLOSING_MS: i64 = 180 * 86_400_000;

/// The prices of a target; what is not known says how it is set.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Of the fine-tuned model: its training, hours and tokens.
    pub tuned: Result<Found, String>,
    /// Of the base model.
    pub base: Result<Found, String>,
}

/// Whether one can still train there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// One can.
    Open,
    /// One can, for less than half a year.
    Closing,
    /// One can't any more.
    Closed,
}

impl Offer {
    /// The prices of a target at a moment, ms since 1970 UTC.
    pub fn of(target: &Target, catalog: &Catalog, book: &PriceBook, at_ms: i64) -> Self {
        let kind = target.provider.dialect.kind();
        if kind == ProviderKind::Candle {
            let own = own_machine(target, catalog, book, at_ms);
            return Self { tuned: own.clone(), base: own };
        }
        let find = |model: &str| {
            book.find(kind, model, None, at_ms).map_err(|why| match why {
                Unpriced::Unknown { .. } => set_it(target, "has no price"),
                Unpriced::NotYet { from_ms, .. } => {
                    let from = moment_text(from_ms);
                    set_it(target, &format!("has a price from {from} on only"))
                }
            })
        };
        Self { tuned: find(&family(target)), base: find(&target.model) }
    }

    /// Whether one can train there at a moment, and why not, or until when.
    pub fn standing(&self, target: &Target, at_ms: i64) -> (Standing, Vec<String>) {
        let found = self.tuned.as_ref().ok();
        let shut = found.and_then(|found| found.price.terms.shutdown_ms).map(|end| (end, "is turned off on"));
        let over = found.and_then(|found| match found.warning {
            Some(Warning::LastKnown { ended_ms }) => Some((ended_ms, "has no price beyond")),
            _ => None,
        });
        // a shutdown is the reason that there is no price beyond it
        let over = over.filter(|(end, _)| Some(*end) != shut.map(|(end, _)| end));
        let closes = training_ends(&target.provider).map(|end| (end, "trains nothing more from"));
        let ends = [shut, over, closes].into_iter().flatten();
        let mut standing = Standing::Open;
        let mut notes = Vec::new();
        for (end_ms, what) in ends {
            let (is, words) = match end_ms {
                past if past <= at_ms => (Standing::Closed, "nobody can train there any more"),
                near if near.saturating_sub(at_ms) < CLOSING_MS => {
                    (Standing::Closing, "train there only what you can do without")
                }
                _ => continue,
            };
            standing = standing.max(is);
            notes.push(format!("{target} {what} {}: {words}", moment_text(end_ms)));
        }
        (standing, notes)
    }
}

/// The name of the family whose row has the price of what is trained.
fn family(target: &Target) -> String {
    let model = &*target.model;
    match target.provider.dialect.kind() {
        _ if FineTunedName::parse(model).is_some() => model.to_owned(),
        ProviderKind::Azure => format!("{model}.ft-0"),
        ProviderKind::OpenAi | ProviderKind::Candle => format!("ft:{model}"),
    }
}

/// A machine of one's own: what its deployment costs, else a row.
fn own_machine(target: &Target, catalog: &Catalog, book: &PriceBook, at_ms: i64) -> Result<Found, String> {
    let unknown = || set_it(target, "has no price");
    match serving(catalog, target) {
        Some(deployment) => {
            let found = book.price_of(deployment, &target.model, at_ms).map_err(|_| unknown())?;
            let written_out =
                matches!(deployment.pricing, Pricing::Explicit { .. } | Pricing::Presumed { .. });
            Ok(if written_out { for_nothing(found) } else { found })
        }
        None => book.find(ProviderKind::Candle, &target.model, None, at_ms).map_err(|_| unknown()),
    }
}

/// Where an operator says that all that a machine serves is for nothing, so is what it trains.
fn for_nothing(found: Found) -> Found {
    let price = &*found.price;
    let nothing = Price::free("");
    let says_nothing = price.tokens == nothing.tokens && price.terms.training.is_none();
    if !says_nothing || price.terms.training_hour().is_some() {
        return found;
    }
    let mut price = price.clone();
    price.terms.training = Some(PerToken::FREE);
    Found { price: Arc::new(price), ..found }
}

/// What is missing, and which command sets it.
pub(super) fn set_it(target: &Target, what: &str) -> String {
    let model = &target.model;
    let command = match target.provider.dialect.kind() {
        ProviderKind::OpenAi => {
            format!("tunegate prices set {} --training USD --input USD --output USD", family(target))
        }
        ProviderKind::Azure => {
            let row = FineTunedName::parse(model).map_or(&**model, |name| name.base);
            format!(
                "tunegate prices set {row}.ft-* --provider azure --training USD --hosting-per-hour USD --input USD \
                 --output USD"
            )
        }
        ProviderKind::Candle => {
            return format!(
                "{target} {what}: set it with `price = {{ compute_per_hour_usd = \"…\" }}` in its deployment, or in [worker] \
                 (\"0\" where it costs nothing)"
            );
        }
    };
    format!("training at {target} {what}: set it with `{command}`")
}
