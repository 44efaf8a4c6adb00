//! What training and hosting cost at a target, and what should be known of their prices.

use std::collections::BTreeMap;

use super::offer::{Offer, set_it};
use super::{Figure, Market, Studied, Terms, Training};
use crate::domain::economics::{School, hosting_month, tuition};
use crate::domain::money::Usd;
use crate::domain::price::Price;
use crate::domain::price::book::Found;
use crate::domain::tuning::target::Target;

/// Tokens that jobs were billed for on one UTC day, by provider and row of the price book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trained(pub BTreeMap<(String, String), u64>);

impl Trained {
    /// By a target at a row.
    fn at(&self, target: &Target, row: &str) -> u64 {
        let of = (target.provider.name.to_string(), row.to_owned());
        self.0.get(&of).copied().unwrap_or_default()
    }
}

pub(super) fn training(
    target: &Target,
    offer: &Offer,
    dataset: Result<&Studied, &String>,
    terms: &Terms,
    market: &Market<'_>,
) -> Figure<Training> {
    let (studied, found) = match (dataset, &offer.tuned) {
        (Err(why), _) => return Figure::missing(why),
        (_, Err(why)) => return Figure::missing(why),
        (Ok(studied), Ok(found)) => (studied, found),
    };
    let trainer = target.provider.training.as_ref();
    let school = School {
        price: &found.price,
        kind: trainer.and_then(|training| training.training_type).map(|kind| kind.name()),
        tokens_per_second: match market.paces {
            Some(paces) => paces.at(target),
            None => trainer.and_then(|training| training.tokens_per_second),
        },
        seconds: terms.training_seconds,
        used_today: market.trained.map_or(0, |trained| trained.at(target, &found.row)),
    };
    match tuition(studied.lesson, &school, market.at_ms) {
        None => Figure::missing(set_it(
            target,
            &match school.kind {
                Some(kind) => format!("as `{kind}` has no price"),
                None => "has no price".to_owned(),
            },
        )),
        Some(tuition) => Figure::Known(Training {
            by: rate_words(&found.price, school.kind),
            row: found.row.to_string(),
            verified: found.price.terms.verified,
            tuition,
        }),
    }
}

/// What training goes by.
fn rate_words(price: &Price, kind: Option<&str>) -> String {
    let terms = &price.terms;
    match (terms.training_of(kind), terms.training_hour()) {
        (Some(price), _) => format!("{} USD per 1M trained tokens", price.per_million()),
        (None, Some(hour)) => {
            format!("{} USD an hour, in steps of {} s", hour.per_hour, hour.increment_seconds)
        }
        (None, None) => String::new(),
    }
}

pub(super) fn hosting(target: &Target, offer: &Offer, sku: Option<&str>) -> Figure<Usd> {
    match &offer.tuned {
        Err(why) => Figure::missing(why),
        Ok(found) => hosting_month(&found.price, sku).map_or_else(
            || Figure::missing(set_it(target, "has no price by the hour for this kind of deployment")),
            Figure::Known,
        ),
    }
}

/// What should be known of the prices.
pub(super) fn notes_of(
    target: &Target,
    offer: &Offer,
    sku: Option<&str>,
    trained: Option<&Trained>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if let Ok(found) = &offer.tuned {
        if !found.price.terms.verified {
            notes.push(format!(
                "the price of {} is from memory ({}): check it before you bill by it",
                found.row, found.price.terms.source
            ));
        }
        notes.extend(free_words(target, found, trained));
    }
    if sku.is_some_and(|sku| sku.eq_ignore_ascii_case("DeveloperTier")) {
        notes.push(
            "a DeveloperTier deployment ends after 24 hours: it is for trying, not for serving".to_owned(),
        );
    }
    notes
}

/// What a day's free tokens were counted with, where there are some.
fn free_words(target: &Target, found: &Found, trained: Option<&Trained>) -> Option<String> {
    found.price.terms.free_training?;
    Some(match trained.map(|trained| trained.at(target, &found.row)) {
        None => "free training tokens are counted as if nothing else was trained that day".to_owned(),
        Some(0) => {
            "no other job was billed on that day (UTC): its free training tokens are all there".to_owned()
        }
        Some(used) => {
            format!("jobs of that day (UTC) have trained {used} tokens: its free ones are fewer by them")
        }
    })
}
