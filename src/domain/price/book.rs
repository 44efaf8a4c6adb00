//! All prices that are known, and the way from a model's name to one of them.
//!
//! A fine-tuned model never gets its base's price, except where the provider says so: Azure bills its tokens like the
//! base's. What is not found is not priced, and the caller must decide; nothing is free by default.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::rates::TokenPrices;
use super::read::{Draft, Problem, RowDraft, Sheets};
use super::{Price, Terms};
use crate::domain::catalog::{Deployment, OnUnpriced, Pricing, ProviderKind};
use crate::domain::fine_tuned_name::{FineTunedName, Form};

/// Stands behind a base's name in the rows of fine-tuned models on Azure.
const AZURE_TUNED: &str = ".ft-*";
/// The row for every fine-tuned model on Azure that has none of its own.
const ANY_AZURE_TUNED: &str = "*.ft-*";
/// Stands behind a base's name in the rows of OpenAI's first fine-tuning API.
const LEGACY_TUNED: &str = ":ft-*";
/// The version that stands in the ledger where no price was known and the operator allows that.
const UNPRICED_VERSION: &str = "unpriced";

/// Who declared a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The price file: read-only for the admin API.
    File,
    /// The admin API; it stands above the file's row of the same name, if there is one.
    Override,
    /// Derived: a fine-tuned model on Azure, from its base and the row for all of them.
    Derived,
}

/// One model's prices over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose price it is.
    pub provider: ProviderKind,
    /// The model's name, or a fine-tuned family's: `ft:gpt-4.1-2025-04-14`, `gpt-4.1.ft-*`.
    pub model: Arc<str>,
    /// The model it was trained from.
    pub base: Option<Arc<str>>,
    /// What else should be known.
    pub note: Option<Arc<str>>,
    /// Who declared it.
    pub origin: Origin,
    /// In order of time; they do not overlap.
    pub periods: Vec<Arc<Price>>,
}

/// A price, and how far it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it costs.
    pub price: Arc<Price>,
    /// What the ledger names it by.
    pub version: Arc<str>,
    /// The row it stands in; the deployment's name where the operator wrote the price out.
    pub row: Arc<str>,
    /// What an operator should look at.
    pub warning: Option<Warning>,
}

/// Why a price may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Warning {
    /// The model was turned off, or its last period is over.
    #[error("its last period ended at a model's shutdown or expiry; the last known price is used")]
    LastKnown {
        /// When it ended, ms since 1970 UTC.
        ended_ms: i64,
    },
    /// No price is known; the operator's cap price stands in.
    #[error("no price is known; the cap price is used")]
    Cap,
    /// No price is known and the operator allows it.
    #[error("no price is known; on_unpriced = \"allow\" books nothing")]
    Unpriced,
}

/// Why there is no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpriced {
    /// No row.
    #[error(
        "no price is known for {model:?} at {}: set one with `tunegate prices set`, or `price` or `price_model` in its \
         deployment",
        provider.name()
    )]
    Unknown {
        /// Whose model.
        provider: ProviderKind,
        /// Its name.
        model: Arc<str>,
    },
    /// The row begins later.
    #[error("the price of {model:?} is known only for later times")]
    NotYet {
        /// Its name.
        model: Arc<str>,
        /// When its first period begins, ms since 1970 UTC.
        from_ms: i64,
    },
}

/// One immutable set of prices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceBook {
    version: Arc<str>,
    rows: BTreeMap<ProviderKind, HashMap<Arc<str>, Arc<Row>>>,
    /// Names that are priced like another one.
    aliases: BTreeMap<ProviderKind, HashMap<Arc<str>, Arc<str>>>,
}

impl PriceBook {
    /// Puts a file's rows and the overrides above them together. `changes` counts the changes of the overrides, those
    /// that were taken back included; it is part of the version.
    ///
    /// # Errors
    ///
    /// A row without token prices whose base has none either; an alias that leads nowhere.
    pub fn new(sheets: &Sheets, overrides: &[RowDraft], changes: i64) -> Result<Self, Vec<Problem>> {
        let version = match changes {
            0 => Arc::clone(&sheets.version),
            some => format!("{}+{some}", sheets.version).into(),
        };
        let mut book = Self { version, rows: BTreeMap::new(), aliases: BTreeMap::new() };
        for (provider, name, row) in &sheets.aliases {
            book.aliases.entry(*provider).or_default().insert(Arc::clone(name), Arc::clone(row));
        }
        let merged = merged(&sheets.rows, overrides);
        let (whole, leaning): (Vec<_>, Vec<_>) =
            merged.into_iter().partition(|(row, _)| row.periods.iter().all(|period| period.tokens.is_some()));
        let mut problems = Vec::new();
        for (row, origin) in whole {
            let periods = row.periods.iter().filter_map(Draft::price).collect();
            book.insert(&row, origin, periods);
        }
        let (any, leaning): (Vec<_>, Vec<_>) =
            leaning.into_iter().partition(|(row, _)| &*row.model == ANY_AZURE_TUNED);
        for (row, origin) in leaning {
            match book.leaning(&row) {
                Some(periods) => book.insert(&row, origin, periods),
                None => problems.push(Problem::new(
                    &format!("{}/{}", row.provider.name(), row.model),
                    "has no input and output price, and its base has none at that time either: write them, or a \
                     `base` that is in the file",
                )),
            }
        }
        for (row, _) in any {
            book.derive(&row);
        }
        problems.extend(book.dangling());
        if problems.is_empty() { Ok(book) } else { Err(problems) }
    }

    /// Its version: the file's, and `+N` after the N-th change of the overrides.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// All rows that were declared, by provider and name.
    pub fn rows(&self) -> Vec<&Arc<Row>> {
        let rows = self.rows.values().flat_map(HashMap::values);
        let mut rows: Vec<_> = rows.filter(|row| row.origin != Origin::Derived).collect();
        rows.sort_by(|a, b| (a.provider, &a.model).cmp(&(b.provider, &b.model)));
        rows
    }

    /// The row of exactly this name.
    pub fn row(&self, provider: ProviderKind, model: &str) -> Option<&Arc<Row>> {
        self.rows.get(&provider)?.get(model)
    }

    /// The price of a model at a moment (ms since 1970 UTC). `base_model` is what it was trained from or, on Azure,
    /// what stands behind a deployment's name.
    pub fn find(
        &self,
        provider: ProviderKind,
        model: &str,
        base_model: Option<&str>,
        at_ms: i64,
    ) -> Result<Found, Unpriced> {
        let row = self
            .row_of(provider, model, base_model)
            .ok_or_else(|| Unpriced::Unknown { provider, model: base_model.unwrap_or(model).into() })?;
        let (price, warning) = row.at(at_ms)?;
        Ok(Found { price, version: Arc::clone(&self.version), row: Arc::clone(&row.model), warning })
    }

    /// The price of a deployment when it is asked for one of the provider's models; `Err` only where the operator wants
    /// such a request refused.
    pub fn price_of(
        &self,
        deployment: &Deployment,
        upstream_model: &str,
        at_ms: i64,
    ) -> Result<Found, Unpriced> {
        let provider = deployment.provider.dialect.kind();
        let written = |price: &Arc<Price>, version: &Arc<str>| Found {
            price: Arc::clone(price),
            version: Arc::clone(version),
            row: Arc::clone(&deployment.name),
            warning: None,
        };
        let found = match &deployment.pricing {
            Pricing::Explicit { price, version } => Ok(written(price, version)),
            Pricing::Presumed { price, version } => {
                let base = FineTunedName::parse(upstream_model).map(|name| name.base);
                let mut names = std::iter::once(upstream_model).chain(base);
                let set = names.find_map(|name| self.find(provider, name, None, at_ms).ok());
                Ok(set.unwrap_or_else(|| written(price, version)))
            }
            Pricing::Row(row) => self.named(provider, row, at_ms),
            Pricing::ByName => self.find(provider, upstream_model, deployment.base_model.as_deref(), at_ms),
        };
        match (found, &deployment.on_unpriced) {
            (Err(_), OnUnpriced::Cap(row)) => {
                let cap = self.named(provider, row, at_ms)?;
                Ok(Found { warning: Some(Warning::Cap), ..cap })
            }
            (Err(_), OnUnpriced::Allow) => Ok(Found {
                price: Arc::new(Price::free("on_unpriced = \"allow\"")),
                version: UNPRICED_VERSION.into(),
                row: upstream_model.into(),
                warning: Some(Warning::Unpriced),
            }),
            (found, _) => found,
        }
    }

    /// The price in a row that an operator names: `gpt-4o` of the same provider or else of OpenAI, or with the provider
    /// in front, as in `azure/gpt-4.1.ft-*`.
    pub fn named(&self, provider: ProviderKind, name: &str, at_ms: i64) -> Result<Found, Unpriced> {
        let said = name.split_once('/').and_then(|(said, rest)| Some((ProviderKind::from_name(said)?, rest)));
        if let Some((said, rest)) = said {
            return self.find(said, rest, None, at_ms);
        }
        match self.find(provider, name, None, at_ms) {
            Err(Unpriced::Unknown { .. }) if provider != ProviderKind::OpenAi => {
                self.find(ProviderKind::OpenAi, name, None, at_ms)
            }
            found => found,
        }
    }

    fn row_of(&self, provider: ProviderKind, model: &str, base_model: Option<&str>) -> Option<&Arc<Row>> {
        if let Some(row) = self.row(provider, model) {
            return Some(row);
        }
        match provider {
            ProviderKind::Candle => None,
            ProviderKind::Azure => self.azure(base_model.unwrap_or(model)),
            // whoever names the base says that the model was trained from it: it is not priced like the base
            ProviderKind::OpenAi => self.openai(model).or_else(|| match base_model? {
                tuned if FineTunedName::parse(tuned).is_some() => self.openai(tuned),
                base => self.aliased(ProviderKind::OpenAi, &format!("ft:{base}")),
            }),
        }
    }

    fn openai(&self, model: &str) -> Option<&Arc<Row>> {
        match FineTunedName::parse(model) {
            None => self.known_as(ProviderKind::OpenAi, model),
            // without a date it may be another model: only a row or an alias of just this base will do
            Some(FineTunedName { form: Form::OpenAi, base, .. }) => {
                self.aliased(ProviderKind::OpenAi, &format!("ft:{base}"))
            }
            Some(FineTunedName { form: Form::Legacy, base, .. }) => {
                self.row(ProviderKind::OpenAi, &format!("{base}{LEGACY_TUNED}"))
            }
            Some(FineTunedName { form: Form::Azure, .. }) => self.azure(model),
        }
    }

    fn azure(&self, model: &str) -> Option<&Arc<Row>> {
        let base = match FineTunedName::parse(model) {
            Some(FineTunedName { form: Form::Azure, base, .. }) => {
                let tuned = |base: &str| self.aliased(ProviderKind::Azure, &format!("{base}{AZURE_TUNED}"));
                return tuned(base).or_else(|| tuned(without_date(base)?));
            }
            Some(FineTunedName { base, .. }) => base,
            None => model,
        };
        self.known_as(ProviderKind::Azure, base).or_else(|| {
            let known = self.aliases.get(&ProviderKind::Azure).and_then(|aliases| aliases.get(base));
            self.known_as(ProviderKind::OpenAi, known.map_or(base, |name| name))
        })
    }

    /// The row of a name, or of what it is an alias of, with its date or without.
    fn known_as(&self, provider: ProviderKind, name: &str) -> Option<&Arc<Row>> {
        self.aliased(provider, name).or_else(|| self.aliased(provider, without_date(name)?))
    }

    fn aliased(&self, provider: ProviderKind, name: &str) -> Option<&Arc<Row>> {
        self.row(provider, name).or_else(|| self.row(provider, self.aliases.get(&provider)?.get(name)?))
    }

    fn insert(&mut self, row: &RowDraft, origin: Origin, periods: Vec<Price>) {
        let row = Row {
            provider: row.provider,
            model: Arc::clone(&row.model),
            base: row.base.clone(),
            note: row.note.clone(),
            origin,
            periods: periods.into_iter().map(Arc::new).collect(),
        };
        self.rows.entry(row.provider).or_default().insert(Arc::clone(&row.model), Arc::new(row));
    }

    /// The periods of a row that has no token prices in some of them: there its base's count.
    fn leaning(&self, row: &RowDraft) -> Option<Vec<Price>> {
        let base = match &row.base {
            Some(base) => self.azure(base),
            None => self.azure(row.model.strip_suffix(AZURE_TUNED)?),
        };
        let mut periods = Vec::new();
        for period in &row.periods {
            match period.tokens {
                Some(tokens) => periods.push(period.with(tokens)),
                None => {
                    let before = periods.len();
                    periods.extend(on_base(&period.terms, base?));
                    if periods.len() == before {
                        return None;
                    }
                }
            }
        }
        Some(periods)
    }

    /// Makes a row for each base model whose fine-tuned models have none on Azure.
    fn derive(&mut self, any: &RowDraft) {
        let is_base = |row: &&Arc<Row>| FineTunedName::parse(&row.model).is_none();
        let bases = self.rows.values().flat_map(HashMap::values).filter(is_base);
        let bases: Vec<Arc<Row>> =
            bases.filter(|row| row.provider != ProviderKind::Candle).cloned().collect();
        for base in bases {
            let model: Arc<str> = format!("{}{AZURE_TUNED}", base.model).into();
            if self.row(ProviderKind::Azure, &model).is_some() {
                continue;
            }
            let periods: Vec<Price> =
                any.periods.iter().flat_map(|period| on_base(&period.terms, &base)).collect();
            let row = RowDraft { model, base: Some(Arc::clone(&base.model)), ..any.clone() };
            if !periods.is_empty() {
                self.insert(&row, Origin::Derived, periods);
            }
        }
    }

    fn dangling(&self) -> Vec<Problem> {
        let all =
            self.aliases.iter().flat_map(|(provider, names)| names.iter().map(move |pair| (*provider, pair)));
        let lost = all.filter(|(provider, (_, row))| {
            let of_openai = *provider == ProviderKind::Azure && self.row(ProviderKind::OpenAi, row).is_some();
            self.row(*provider, row).is_none() && !of_openai
        });
        let problem = |(provider, (name, row)): (ProviderKind, (&Arc<str>, &Arc<str>))| {
            Problem::new(
                &format!("aliases.{}.{name:?}", provider.name()),
                &format!("there is no row {row:?}: correct it or take the alias out"),
            )
        };
        lost.map(problem).collect()
    }
}

impl Row {
    /// The price at a moment; the last one of a model whose time is over, with a warning.
    pub fn at(&self, at_ms: i64) -> Result<(Arc<Price>, Option<Warning>), Unpriced> {
        let begun = self.periods.iter().rev().find(|price| price.terms.from_ms <= at_ms);
        let Some(price) = begun else {
            let from_ms = self.periods.first().map_or(i64::MAX, |price| price.terms.from_ms);
            return Err(Unpriced::NotYet { model: Arc::clone(&self.model), from_ms });
        };
        let ended_ms = price.terms.shutdown_ms.unwrap_or(i64::MAX).min(price.terms.until_ms);
        let warning = (at_ms >= ended_ms).then_some(Warning::LastKnown { ended_ms });
        Ok((Arc::clone(price), warning))
    }
}

/// The stretches of a period in which its base has a price.
fn on_base(terms: &Terms, base: &Row) -> Vec<Price> {
    let name: Arc<str> = format!("{}/{}", base.provider.name(), base.model).into();
    let last = base.periods.len().saturating_sub(1);
    let stretches = base.periods.iter().enumerate().filter_map(|(index, price)| {
        // the last price of a base goes on as the last known
        let until_ms = if index == last { i64::MAX } else { price.terms.until_ms };
        let (from_ms, until_ms) = (terms.from_ms.max(price.terms.from_ms), terms.until_ms.min(until_ms));
        let shutdown_ms = terms.shutdown_ms.or(price.terms.shutdown_ms);
        let terms =
            Terms { from_ms, until_ms, shutdown_ms, tokens_of: Some(Arc::clone(&name)), ..terms.clone() };
        (from_ms < until_ms).then_some(Price { tokens: price.tokens, terms })
    });
    stretches.collect()
}

/// The rows of the file with the overrides over them: a period of an override hides what it covers.
fn merged(file: &[RowDraft], overrides: &[RowDraft]) -> Vec<(RowDraft, Origin)> {
    let mut rows: BTreeMap<(ProviderKind, Arc<str>), (RowDraft, Origin)> = BTreeMap::new();
    for row in file {
        rows.insert((row.provider, Arc::clone(&row.model)), (row.clone(), Origin::File));
    }
    for over in overrides {
        let key = (over.provider, Arc::clone(&over.model));
        let mut row = over.clone();
        if let Some((below, _)) = rows.get(&key) {
            row.base = row.base.or_else(|| below.base.clone());
            row.periods.extend(below.periods.iter().flat_map(|period| uncovered(period, &over.periods)));
            row.periods.sort_by_key(|period| period.terms.from_ms);
        }
        rows.insert(key, (row, Origin::Override));
    }
    rows.into_values().collect()
}

/// What of a period is left beside others.
fn uncovered(period: &Draft, covers: &[Draft]) -> Vec<Draft> {
    let mut left = vec![period.clone()];
    for cover in covers {
        left = left.iter().flat_map(|part| cut(part, cover.terms.from_ms, cover.terms.until_ms)).collect();
    }
    left
}

fn cut(part: &Draft, from_ms: i64, until_ms: i64) -> Vec<Draft> {
    let within = |from_ms: i64, until_ms: i64| {
        let terms = Terms { from_ms, until_ms, ..part.terms.clone() };
        (from_ms < until_ms).then_some(Draft { tokens: part.tokens, terms })
    };
    let before = within(part.terms.from_ms, part.terms.until_ms.min(from_ms));
    let after = within(part.terms.from_ms.max(until_ms), part.terms.until_ms);
    before.into_iter().chain(after).collect()
}

/// A name without the date at its end, `-2025-04-14`; none where there is none.
fn without_date(name: &str) -> Option<&str> {
    let (rest, date) = name.split_at_checked(name.len().checked_sub("-2025-04-14".len())?)?;
    let shape = |(index, byte): (usize, u8)| match index {
        0 | 5 | 8 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    (!rest.is_empty() && date.bytes().enumerate().all(shape)).then_some(rest)
}

impl Draft {
    /// The price, where the period says by itself what tokens cost.
    pub fn price(&self) -> Option<Price> {
        self.tokens.map(|tokens| self.with(tokens))
    }

    fn with(&self, tokens: TokenPrices) -> Price {
        Price { tokens, terms: self.terms.clone() }
    }
}
