//! What training costs: the row of the price book, or the price of a local deployment, that a target leads to. Nothing is
//! free by default; who has no price is told how to set one.

use std::sync::Arc;

use crate::domain::catalog::{Catalog, Deployment, ProviderKind};
use crate::domain::fine_tuned_name::FineTunedName;
use crate::domain::price::book::{Found, PriceBook, Warning};
use crate::domain::price::rates::Class;
use crate::domain::tuning::bill::TrainingPrice;
use crate::domain::tuning::target::Target;

/// When nobody can create jobs at OpenAI any more: 2027-01-06 (deprecations page, November 2026).
const OPENAI_ENDS_MS: i64 = 1_799_193_600_000;
/// OpenAI itself; other servers of its dialect have no such day.
const OPENAI_HOST: &str = "api.openai.com";

/// Why nothing can be trained for money there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrainable {
    /// Nobody knows what it costs.
    #[error("{0}")]
    Unpriced(String),
    /// It is not trained any more.
    #[error("{0}")]
    Retired(String),
}

/// What training costs at a target, at a moment (ms since 1970 UTC).
///
/// # Errors
///
/// When no price is known, or the target trains no more; in words that say what to do.
pub fn training_price(
    book: &PriceBook,
    catalog: &Catalog,
    target: &Target,
    at_ms: i64,
) -> Result<TrainingPrice, Untrainable> {
    let provider = &target.provider;
    if provider.authority.starts_with(OPENAI_HOST) && at_ms >= OPENAI_ENDS_MS {
        return Err(Untrainable::Retired(format!(
            "OpenAI creates no fine-tuning jobs since 2027-01-06, so {} can't be trained there: ask for it as \
             `azure/RESOURCE/{}` where you have Azure, or for a local model",
            target.model, target.model
        )));
    }
    let kind = provider.dialect.kind();
    let row = row_of(kind, &target.model);
    let unknown = || {
        Untrainable::Unpriced(format!(
            "nobody knows what training {target} costs, and nothing is trained here that can't be charged: set it \
             with `tunegate prices set {}/{row} --training-per-1m USD` (0 where it costs nothing)",
            kind.name()
        ))
    };
    let found = match book.find(kind, &row, None, at_ms) {
        Ok(found) => found,
        Err(_) if kind == ProviderKind::Candle => {
            return local(book, catalog, target, at_ms).ok_or_else(unknown);
        }
        Err(_) => return Err(unknown()),
    };
    if let Some(Warning::LastKnown { .. }) = found.warning
        && found.price.terms.shutdown_ms.is_some_and(|shutdown_ms| at_ms >= shutdown_ms)
    {
        return Err(Untrainable::Retired(format!(
            "{target} was turned off by its provider and can't be trained any more: `tunegate quote` lists the \
             targets that can"
        )));
    }
    TrainingPrice::of(&found.price, &found.row, &found.version).ok_or_else(unknown)
}

/// The name that the price of training stands under.
fn row_of(kind: ProviderKind, model: &str) -> String {
    match (kind, FineTunedName::parse(model)) {
        (ProviderKind::Candle, _) | (_, Some(_)) => model.to_owned(),
        (ProviderKind::OpenAi, None) => format!("ft:{model}"),
        (ProviderKind::Azure, None) => format!("{model}.ft-0"),
    }
}

/// A machine of one's own: what its deployment says. One that answers for nothing trains for nothing, too.
fn local(book: &PriceBook, catalog: &Catalog, target: &Target, at_ms: i64) -> Option<TrainingPrice> {
    let is_it = |deployment: &&Arc<Deployment>| {
        deployment.provider.name == target.provider.name
            && (deployment.upstream_model == target.model || deployment.upstream_model.contains('*'))
    };
    let deployment = catalog.deployments.values().find(is_it)?;
    let Found { price, version, row, .. } = book.price_of(deployment, &target.model, at_ms).ok()?;
    TrainingPrice::of(&price, &row, &version).or_else(|| {
        let rates = price.tokens.standard();
        let is_free = rates.of(Class::Input).picos() == 0 && rates.of(Class::Output).picos() == 0;
        is_free.then(|| TrainingPrice { version, ..TrainingPrice::nothing(&row) })
    })
}
