//! `[prices]` and what each deployment says of its price: the price file, whole or not at all, and where a deployment's
//! price comes from.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::domain::catalog::{Deployment, OnUnpriced, Pricing, ProviderKind};
use crate::domain::price::book::{Found, PriceBook};
use crate::domain::price::read::{COMPUTE_KEY, NOT_OURS, Problem, Sheets, alone, sheets};

use super::file;
use super::problem::{Checker, Place};
use super::read;

/// The prices that are built in.
const BUILT_IN: &str = include_str!("../../config/prices.toml");

/// Reads the text of a price file.
///
/// # Errors
///
/// Everything that is wrong in it; then none of it counts.
pub fn parse(text: &str) -> Result<(Sheets, PriceBook), Vec<Problem>> {
    let whole = |message: String| vec![Problem { path: String::new(), message }];
    let sheets = sheets(&read::tree(text).map_err(whole)?)?;
    let book = PriceBook::new(&sheets, &[], 0)?;
    Ok((sheets, book))
}

/// The prices that are built in.
///
/// # Errors
///
/// Never, as long as its test passes.
pub fn built_in() -> Result<(Sheets, PriceBook), Vec<Problem>> {
    parse(BUILT_IN)
}

/// Reads a price file. Its version is its own word for it and a sign of its content: a file that changes without a new
/// word has another version all the same.
///
/// # Errors
///
/// That it can't be read, or everything that is wrong in it.
pub fn from_file(path: &Path) -> Result<(Sheets, PriceBook), Vec<Problem>> {
    let whole = |message: String| vec![Problem { path: String::new(), message }];
    let text = fs::read_to_string(path).map_err(|error| whole(format!("can't be read: {error}")))?;
    let (mut sheets, _) = parse(&text)?;
    sheets.version = format!("{}~{}", sheets.version, fingerprint(&text)).into();
    let book = PriceBook::new(&sheets, &[], 0)?;
    Ok((sheets, book))
}

/// The prices that the configuration brings, and what counts where there is none.
pub(super) struct Known {
    pub(super) sheets: Arc<Sheets>,
    book: PriceBook,
    on_unpriced: OnUnpriced,
}

/// Checks `[prices]` and reads the file that it names, else the built-in prices.
pub(super) fn check(written: &file::Prices, checker: &mut Checker<'_>) -> Known {
    let place = Place::top("prices");
    let read = match &written.file {
        Some(path) => from_file(path),
        None => built_in(),
    };
    match read {
        Ok((sheets, book)) => {
            let cap = written.cap_price.as_deref();
            let on_unpriced =
                on_unpriced(&place, written.on_unpriced, cap, &OnUnpriced::Deny, &book, checker);
            Known { sheets: Arc::new(sheets), book, on_unpriced }
        }
        Err(problems) => {
            let file = written.file.as_deref().unwrap_or(Path::new("the built-in prices")).display();
            for problem in problems {
                checker.wrong(&place.key("file"), format!("{file}: {}", line(&problem)));
            }
            Known { sheets: Arc::default(), book: PriceBook::default(), on_unpriced: OnUnpriced::Allow }
        }
    }
}

impl Known {
    /// What becomes of a deployment's requests without a known price.
    pub(super) fn on_unpriced(
        &self,
        place: &Place,
        written: &file::Deployment,
        checker: &mut Checker<'_>,
    ) -> OnUnpriced {
        let cap = written.cap_price.as_deref();
        on_unpriced(place, written.on_unpriced, cap, &self.on_unpriced, &self.book, checker)
    }

    /// Whether it is known what a deployment costs. Behind a `*` only the asked name tells: it is taken to be.
    pub(super) fn knows(&self, deployment: &Deployment) -> bool {
        let model = &deployment.upstream_model;
        let told_by_the_name = deployment.pricing == Pricing::ByName && model.contains('*');
        told_by_the_name || self.book.price_of(deployment, model, clock::unix_ms()).is_ok()
    }

    /// Says what an operator should know of a deployment's price as it is now. Behind a `*` only the asked name tells.
    pub(super) fn look_at(&self, place: &Place, deployment: &Deployment, checker: &mut Checker<'_>) {
        let now_ms = clock::unix_ms();
        let (kind, model) = (deployment.provider.dialect.kind(), &deployment.upstream_model);
        let by_name = || self.book.find(kind, model, deployment.base_model.as_deref(), now_ms);
        if let Pricing::Explicit { price, .. } = &deployment.pricing {
            if price.terms.compute_hour.is_some() && kind != ProviderKind::Candle {
                checker.wrong(&place.key("price").key(COMPUTE_KEY), NOT_OURS);
            }
            if let Some(far) = by_name().ok().and_then(|known| price.far_from(&known.price)) {
                checker.wrong(&place.key("price"), far);
            }
            return;
        }
        if deployment.pricing == Pricing::ByName && model.contains('*') {
            return;
        }
        match self.book.price_of(deployment, model, now_ms) {
            Err(unpriced) => checker.notice(place, format!("its requests are refused: {unpriced}")),
            Ok(Found { warning: Some(warning), .. }) => {
                checker.notice(place, format!("its price: {warning}"));
            }
            Ok(_) => {}
        }
    }
}

/// A problem on one line.
pub fn line(problem: &Problem) -> String {
    match problem.path.as_str() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    }
}

/// What a deployment says of its price.
pub(super) fn of_deployment(
    place: &Place,
    name: &str,
    written: &file::Deployment,
    checker: &mut Checker<'_>,
) -> Pricing {
    match (&written.price, &written.price_model) {
        (None, None) => Pricing::ByName,
        (None, Some(row)) => Pricing::Row(row.trim().into()),
        (Some(_), Some(_)) => {
            checker.wrong(&place.key("price_model"), "contradicts `price`: keep one");
            Pricing::ByName
        }
        (Some(price), None) => match alone(price) {
            Ok(read) => {
                let version = format!("config:{name}~{}", fingerprint(&price.to_string()));
                let (price, version) = (Arc::new(read), version.into());
                match written.is_presumed {
                    true => Pricing::Presumed { price, version },
                    false => Pricing::Explicit { price, version },
                }
            }
            Err(problems) => {
                for problem in problems {
                    let below = problem.path.split('.').filter(|key| !key.is_empty());
                    let place = below.fold(place.key("price"), |place, key| place.key(key));
                    checker.wrong(&place, problem.message);
                }
                Pricing::ByName
            }
        },
    }
}

/// Reads `on_unpriced` and the `cap_price` beside it; without any, what is above counts.
fn on_unpriced(
    place: &Place,
    written: Option<file::OnUnpriced>,
    cap_price: Option<&str>,
    above: &OnUnpriced,
    book: &PriceBook,
    checker: &mut Checker<'_>,
) -> OnUnpriced {
    let Some(written) = written else {
        if cap_price.is_some() {
            checker.wrong(&place.key("cap_price"), "means nothing without on_unpriced = \"cap\"");
        }
        return above.clone();
    };
    match (written, cap_price) {
        (file::OnUnpriced::Cap, Some(row)) => {
            if let Err(unpriced) = book.named(ProviderKind::OpenAi, row, clock::unix_ms()) {
                checker.wrong(&place.key("cap_price"), unpriced);
            }
            OnUnpriced::Cap(row.into())
        }
        (file::OnUnpriced::Cap, None) => {
            checker.wrong(
                &place.key("cap_price"),
                "missing: on_unpriced = \"cap\" needs a row of the prices, such as \"gpt-4\"",
            );
            OnUnpriced::Deny
        }
        (_, Some(_)) => {
            checker.wrong(&place.key("cap_price"), "means nothing without on_unpriced = \"cap\"");
            OnUnpriced::Deny
        }
        (file::OnUnpriced::Deny, None) => OnUnpriced::Deny,
        (file::OnUnpriced::Allow, None) => OnUnpriced::Allow,
    }
}

/// Eight hex digits that stand for a text.
fn fingerprint(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(4).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::Usd;
    use crate::domain::price::Price;
    use crate::domain::price::rates::Class;
    use crate::domain::price::read::moment;
    use crate::domain::service_tier::ServiceTier;
    use crate::domain::usage::TokenCounts;

    fn book() -> PriceBook {
        built_in().unwrap_or_else(|problems| panic!("{problems:?}")).1
    }

    fn find(book: &PriceBook, kind: ProviderKind, model: &str, at: &str) -> Arc<Price> {
        let at_ms = moment(at).expect(at);
        book.find(kind, model, None, at_ms).unwrap_or_else(|error| panic!("{model} {at}: {error}")).price
    }

    fn per_thousand(price: &Price, class: Class) -> String {
        price.tokens.standard().of(class).per_thousand()
    }

    fn usd(text: &str) -> Usd {
        Usd::parse(text).expect(text)
    }

    #[test]
    fn the_built_in_prices_are_whole() {
        let (sheets, book) = built_in().unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!((sheets.rows.len(), &**book.version()), (77, "2026-11-21"));
        let price = find(&book, ProviderKind::OpenAi, "gpt-5.4-2026-03-05", "2026-11-22");
        let long = price.tokens.long_context.expect("a tier above 272000");
        assert_eq!(long.above_tokens, 272_000);
        assert_eq!(long.tiers.of(ServiceTier::Default).of(Class::Output).per_million(), "22.50");
        assert_eq!(price.tokens.tiers.of(ServiceTier::Priority).of(Class::Input).per_million(), "5.00");
    }

    /// Every price row of 2023 and 2024 of fine-tuned models, USD per 1,000 tokens: training, input, output.
    #[test]
    fn the_rows_of_2023_and_2024() {
        let book = book();
        for (model, at, training, input, output) in [
            ("ft:gpt-3.5-turbo-0613:acme::x", "2023-08-22", "0.008", "0.012", "0.016"),
            ("ft:gpt-3.5-turbo-0613:acme::x", "2023-11-05", "0.008", "0.012", "0.016"),
            ("ft:gpt-3.5-turbo-1106:acme::x", "2023-11-06", "0.008", "0.003", "0.006"),
            ("ft:gpt-3.5-turbo-0125:acme::x", "2024-12-31", "0.008", "0.003", "0.006"),
            ("ft:babbage-002:acme::x", "2023-08-22", "0.0004", "0.0016", "0.0016"),
            ("ft:davinci-002:acme::x", "2023-08-22", "0.006", "0.012", "0.012"),
            ("ft:gpt-4-0613:acme::x", "2023-11-06", "0.09", "0.045", "0.09"),
            ("ft:gpt-4o-2024-08-06:acme::x", "2024-08-20", "0.025", "0.00375", "0.015"),
            ("ft:gpt-4o-mini-2024-07-18:acme::x", "2024-07-23", "0.003", "0.0003", "0.0012"),
            ("ada:ft-acme-2022-01-01", "2023-01-01", "0.0004", "0.0016", "0.0016"),
            ("babbage:ft-acme-2022-01-01", "2023-01-01", "0.0006", "0.0024", "0.0024"),
            ("curie:ft-acme-2022-01-01", "2023-01-01", "0.003", "0.012", "0.012"),
            ("davinci:ft-acme-2022-01-01", "2023-01-01", "0.03", "0.12", "0.12"),
        ] {
            let price = find(&book, ProviderKind::OpenAi, model, at);
            let found = [
                price.terms.training.expect("training").per_thousand(),
                per_thousand(&price, Class::Input),
                per_thousand(&price, Class::Output),
            ];
            let same = |text: &str| usd(text).to_string();
            assert_eq!(found, [same(training), same(input), same(output)], "{model} {at}");
        }
        for (model, input, output) in [
            ("babbage-002", "0.0004", "0.0004"),
            ("davinci-002", "0.002", "0.002"),
            ("gpt-4", "0.03", "0.06"),
        ] {
            let price = find(&book, ProviderKind::OpenAi, model, "2023-10-16");
            let found = [per_thousand(&price, Class::Input), per_thousand(&price, Class::Output)];
            assert_eq!(found.map(|text| usd(&text)), [usd(input), usd(output)], "{model}");
        }
        let mini = find(&book, ProviderKind::OpenAi, "ft:gpt-4o-mini-2024-07-18:acme::x", "2024-11-01");
        let rates = mini.tokens.standard();
        let per_million =
            [mini.terms.training.expect("training"), rates.of(Class::Input), rates.of(Class::Output)];
        assert_eq!(per_million.map(|price| price.per_million()), ["3.00", "0.30", "1.20"]);
    }

    /// Azure in October 2023: an hour of training and of hosting, and USD per 1,000 tokens.
    #[test]
    fn the_rows_of_azure_in_october_2023() {
        let book = book();
        for (model, training, hosting, input, output) in [
            ("babbage-002.ft-0a1b", "34", "1.70", "0.0004", "0.0004"),
            ("davinci-002.ft-0a1b", "68", "3.00", "0.0020", "0.0020"),
            ("gpt-35-turbo-0613.ft-0a1b", "102", "7.00", "0.0015", "0.0020"),
            ("gpt-35-turbo.ft-0a1b", "102", "7.00", "0.0015", "0.0020"),
        ] {
            let price = find(&book, ProviderKind::Azure, model, "2023-10-16");
            assert_eq!(price.training_time_cost(3_600), Some(usd(training)), "{model}");
            assert_eq!(price.hosting_cost(3_600, None), Some(usd(hosting)), "{model}");
            let found = [per_thousand(&price, Class::Input), per_thousand(&price, Class::Output)];
            assert_eq!(found.map(|text| usd(&text)), [usd(input), usd(output)], "{model}");
        }
        let now = find(&book, ProviderKind::Azure, "gpt-4.1-mini-2025-04-14.ft-0a1b", "2026-11-22");
        assert_eq!(now.tokens.standard().of(Class::Input).per_million(), "0.40", "like its base");
        assert_eq!(now.hosting_cost(720 * 3_600, Some("Standard")), Some(usd("1224")));
    }

    #[test]
    fn a_training_of_a_hundred_thousand_tokens_and_three_epochs() {
        let price = find(&book(), ProviderKind::OpenAi, "ft:gpt-3.5-turbo", "2023-09-01");
        assert_eq!(price.training_cost(100_000 * 3, 0, 0), Some(usd("2.40")));
        let mini = find(&book(), ProviderKind::OpenAi, "ft:gpt-4o-mini-2024-07-18", "2024-09-01");
        let at_ms = moment("2024-09-01").expect("a day");
        assert_eq!(mini.training_cost(3_000_000, at_ms, 0), Some(usd("3")), "2M tokens a day were free");
    }

    #[test]
    fn pain_16_an_azure_fine_tune_costs_by_the_hour_and_by_the_token() {
        let price = find(&book(), ProviderKind::Azure, "gpt-4.1-2025-04-14.ft-0a1b", "2026-11-22");
        let counts = TokenCounts { prompt: 1_000_000, completion: 1_000_000, ..TokenCounts::default() };
        assert_eq!(price.cost(&counts, ServiceTier::Default), usd("10"));
        assert_eq!(price.cost(&TokenCounts::default(), ServiceTier::Default), Usd::ZERO);
        assert_eq!(price.hosting_cost(24 * 3_600, None), Some(usd("40.80")), "idle or not");
    }
}
