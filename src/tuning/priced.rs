//! What training costs: the row of the price book, or the price of a local deployment, that a target leads to. Nothing is
//! free by default; who has no price is told how to set one.

use std::sync::Arc;

use crate::domain::catalog::{Catalog, Deployment, ProviderKind, TrainingType};
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

/// What training costs at a target, at a moment (ms since 1970 UTC). `kind` is where Azure trains, as the client says it;
/// else the provider's configuration does.
///
/// # Errors
///
/// When no price is known, or the target trains no more; in words that say what to do.
pub fn training_price(
    book: &PriceBook,
    catalog: &Catalog,
    target: &Target,
    kind: Option<&str>,
    at_ms: i64,
) -> Result<TrainingPrice, Untrainable> {
    let provider = &target.provider;
    let configured = provider.training.as_ref().and_then(|training| training.training_type);
    let trained = kind.or(configured.map(TrainingType::name));
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
        let how = trained.map(|trained| format!(" as `{trained}`")).unwrap_or_default();
        let (family, hosting) = match (kind, FineTunedName::parse(&target.model)) {
            (ProviderKind::Azure, None) => (format!("{}.ft-*", target.model), " --hosting-per-hour USD"),
            (ProviderKind::Azure, Some(_)) => (row.clone(), " --hosting-per-hour USD"),
            (ProviderKind::OpenAi | ProviderKind::Candle, _) => (row.clone(), ""),
        };
        if kind == ProviderKind::Candle {
            return Untrainable::Unpriced(format!(
                "nobody knows what training {target} costs, and nothing is trained here that can't be charged: set it \
                 with `tunegate prices set {row} --provider candle --compute-per-hour USD`, the price of an hour that the \
                 machine computes (0 where it costs nothing)"
            ));
        }
        Untrainable::Unpriced(format!(
            "nobody knows what training {target}{how} costs, and nothing is trained here that can't be charged: set it \
             with `tunegate prices set {family} --provider {} --training USD{hosting} --input USD --output USD` (0 \
             where it costs nothing)",
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
            "{target} was turned off by its provider and can't be trained any more: ask for another base, at Azure as \
             `azure/RESOURCE/MODEL`, or for a local model; `tunegate quote` lists those that can"
        )));
    }
    TrainingPrice::of(&found.price, trained, &found.row, &found.version).ok_or_else(unknown)
}

/// The name that the price of training stands under.
fn row_of(kind: ProviderKind, model: &str) -> String {
    match (kind, FineTunedName::parse(model)) {
        (ProviderKind::Candle, _) | (_, Some(_)) => model.to_owned(),
        (ProviderKind::OpenAi, None) => format!("ft:{model}"),
        (ProviderKind::Azure, None) => format!("{model}.ft-0"),
    }
}

/// Whose deployment serves a machine's model: its own, else one of a pattern.
pub(super) fn serving<'c>(catalog: &'c Catalog, target: &Target) -> Option<&'c Arc<Deployment>> {
    let there = || {
        let own = |deployment: &&Arc<Deployment>| deployment.provider.name == target.provider.name;
        catalog.deployments.values().filter(own)
    };
    let exact = there().find(|deployment| deployment.upstream_model == target.model);
    exact.or_else(|| there().find(|deployment| deployment.upstream_model.contains('*')))
}

/// A machine of one's own: what its deployment says. One that answers for nothing trains for nothing, too.
fn local(book: &PriceBook, catalog: &Catalog, target: &Target, at_ms: i64) -> Option<TrainingPrice> {
    let deployment = serving(catalog, target)?;
    let Found { price, version, row, .. } = book.price_of(deployment, &target.model, at_ms).ok()?;
    TrainingPrice::of(&price, None, &row, &version).or_else(|| {
        let rates = price.tokens.standard();
        let is_free = rates.of(Class::Input).picos() == 0 && rates.of(Class::Output).picos() == 0;
        is_free.then(|| TrainingPrice { version, ..TrainingPrice::nothing(&row) })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::catalog::{AzureV1, Dialect, OpenAi, Pricing, Provider, Training};
    use crate::domain::money::Usd;
    use crate::domain::price::read::{moment, sheets};
    use crate::domain::price::{Hourly, Price};

    /// The price file that is shipped.
    fn book() -> PriceBook {
        let text = include_str!("../../config/prices.toml");
        let tree =
            config::Config::builder().add_source(config::File::from_str(text, config::FileFormat::Toml));
        let tree = tree.build().and_then(config::Config::try_deserialize).expect("TOML");
        PriceBook::new(&sheets(&tree).expect("sound"), &[], 0).expect("sound")
    }

    fn target(dialect: Dialect, authority: &str, model: &str) -> Target {
        let plain = (*deployment("d", "m").provider).clone();
        let training = Some(Training::default());
        let provider = Provider { dialect, authority: authority.to_owned(), training, ..plain };
        Target { provider: Arc::new(provider), model: model.into() }
    }

    fn catalog(pricing: Pricing) -> Catalog {
        let one = Deployment { pricing, ..(*deployment("d", "small")).clone() };
        let deployments = BTreeMap::from([(Arc::from("d"), Arc::new(one))]);
        Catalog::new(BTreeMap::new(), deployments, Vec::new())
    }

    #[test]
    fn a_target_has_a_price_or_says_what_to_do() {
        let (book, none) = (book(), Catalog::new(BTreeMap::new(), BTreeMap::new(), Vec::new()));
        let at = |text: &str| moment(text).expect("a moment");
        let price = |target: &Target, when: &str| {
            let found = training_price(&book, &none, target, None, at(when));
            found.map(|price| price.of_tokens_at_most(1_000_000).to_string())
        };
        let openai = |model| target(Dialect::OpenAi(OpenAi::default()), "api.openai.com", model);
        let azure = |model| target(Dialect::AzureV1(AzureV1::default()), "x.openai.azure.com", model);
        for (target, when, want) in [
            (openai("gpt-3.5-turbo"), "2023-09-01", "8.00"),
            (openai("gpt-4.1-mini"), "2026-11-01", "5.00"),
            (openai("gpt-4.1-mini-2025-04-14"), "2026-11-01", "5.00"),
            (openai("ft:gpt-4.1-mini-2025-04-14:acme:x:1"), "2026-11-01", "5.00"),
        ] {
            assert_eq!(price(&target, when), Ok(want.to_owned()), "{target} on {when}");
        }
        // Azure billed hours at first
        let of_2023 = training_price(&book, &none, &azure("gpt-35-turbo-0613"), None, at("2023-11-01"));
        assert_eq!(of_2023.map(|price| price.of_seconds(4_800).to_string()), Ok("153.00".to_owned()));
        let words = |target: &Target, when: &str| price(target, when).expect_err("no price").to_string();
        let unknown = words(&openai("gpt-9"), "2026-11-01");
        assert!(
            unknown.contains("tunegate prices set ft:gpt-9 --provider openai --training USD"),
            "{unknown}"
        );
        let ended = words(&openai("gpt-4.1-mini"), "2027-01-06");
        assert!(ended.contains("azure/RESOURCE/gpt-4.1-mini"), "{ended}");
        let off = words(&openai("gpt-3.5-turbo"), "2026-12-01");
        assert!(off.contains("was turned off"), "{off}");
        // another server of OpenAI's dialect goes on
        let other = target(Dialect::OpenAi(OpenAi::default()), "127.0.0.1:1", "gpt-4.1-mini");
        assert!(price(&other, "2027-01-06").is_ok());
    }

    #[test]
    fn a_machine_of_ones_own_trains_for_what_its_deployment_says() {
        let local = target(Dialect::Candle, "127.0.0.1:1", "small");
        let free = Pricing::Explicit { price: Arc::new(Price::free("test")), version: "v".into() };
        let price = training_price(&book(), &catalog(free), &local, None, 0).expect("for nothing");
        assert!(price.is_nothing());
        let unknown = training_price(&book(), &catalog(Pricing::ByName), &local, None, 0);
        assert!(
            matches!(unknown, Err(Untrainable::Unpriced(words)) if words.contains("set small --provider candle"))
        );
    }

    #[test]
    fn its_own_deployment_goes_before_one_of_a_pattern() {
        let local = target(Dialect::Candle, "127.0.0.1:1", "small");
        let plain = (*deployment("d", "small")).clone();
        let priced = |price: Price| Pricing::Explicit { price: Arc::new(price), version: "v".into() };
        let mut by_hour = Price::free("test");
        by_hour.terms.training_hour = Some(Hourly { per_hour: Usd::dollars(2), increment_seconds: 1 });
        let any =
            Deployment { upstream_model: "*".into(), pricing: priced(Price::free("test")), ..plain.clone() };
        let own = Deployment { pricing: priced(by_hour), ..plain };
        // by its name the pattern's comes first
        let deployments = BTreeMap::from([(Arc::from("a"), Arc::new(any)), (Arc::from("b"), Arc::new(own))]);
        let catalog = Catalog::new(BTreeMap::new(), deployments, Vec::new());
        let price = training_price(&book(), &catalog, &local, None, 0).expect("by the hour");
        assert_eq!(price.of_seconds(3_600), Usd::dollars(2));
    }
}
